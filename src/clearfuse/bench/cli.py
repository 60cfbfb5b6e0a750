"""The command line ``clearfuse bench``. Heavy imports happen inside the commands."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import Annotated, Any

import typer

from clearfuse.synth import console
from clearfuse.synth.cli.options import JsonOption
from clearfuse.synth.types import WorkIncomplete

app = typer.Typer(
    name="clearfuse bench",
    help="Build a benchmark from its page of TOML, score methods on it, hand scores in.",
    epilog="Exit codes: 0 done, 1 done incompletely, 2 refused before work began. --debug shows tracebacks.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="mini, v1, or a benchmark's own TOML file.")]
FolderArgument = Annotated[str, typer.Argument(metavar="DIR", help="Where bench build put it.")]
WorkersOption = Annotated[int | None, typer.Option("--workers", min=1, help="Processes. [default: all cores]")]
PageOption = Annotated[
    str | None,
    typer.Option("--page", metavar="NAME|FILE", help="The benchmark's page. [default: the one that DIR names]"),
]


@app.callback()
def callback() -> None:
    """Build a benchmark from its page of TOML, score methods on it, hand scores in."""


@app.command("list")
def list_command(json_: JsonOption = False) -> None:
    """List the benchmarks that ship: their sets, and which of these have hashes."""
    from clearfuse.bench.page import FOLDER, load_page
    from clearfuse.synth.files.resources import resource_names

    found: dict[str, Any] = {}
    for name in resource_names(FOLDER):
        page = load_page(name)
        hashed = {entry.key: len(page.keys(entry)) for entry in page.sets}
        found[name] = {"title": page.title, "about": page.about, "shards": len(page.shards), "pairs": hashed}
    lines: list[str] = []
    for name, one in found.items():
        there = [f"{key} {count}" for key, count in one["pairs"].items() if count]
        absent = [key for key, count in one["pairs"].items() if not count]
        lines.append(f"{name}  {one['title']}: {console.plural(one['shards'], 'shard')}; pairs: {', '.join(there)}")
        lines += [f"{' ' * len(name)}  without hashes yet: {', '.join(absent)}"] if absent else []
    typer.echo(json.dumps(found, ensure_ascii=False) if json_ else "\n".join(lines))


@app.command("build")
def build_command(
    name: NameArgument,
    out: Annotated[str, typer.Option("--out", metavar="DIR", help="Folder of the benchmark.")],
    data: Annotated[
        list[str], typer.Option("--data", metavar="NAME=DIR", help="A set of the benchmark and its folder; repeatable.")
    ] = [],  # noqa: B006  (typer copies it)
    workers: WorkersOption = None,
    write: Annotated[
        bool, typer.Option("--write-digests", help="Write the hashes of given sets and their shards to the page.")
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Build the parts whose sets are given, and compare them with the page. The same command goes on after a stop."""
    from clearfuse.bench.build import build_benchmark
    from clearfuse.bench.page import load_page
    from clearfuse.synth.files.storage import local

    page = load_page(name)
    folder = str(local(out, "--out"))
    with console.progress("bench", "parts") as progress:
        done = build_benchmark(
            *(page, tuple(data), folder),
            workers=workers or os.cpu_count() or 1, write=write, progress=progress, say=console.note,
        )  # fmt: skip
    for line in done.problems:
        console.note(f"problem: {line}")
    rejected = f", {done.rejected} rejected" if done.rejected else ""
    text = f"built {console.plural(done.samples, 'sample')} in {console.plural(done.shards, 'shard')} in {out}{rejected}"
    typer.echo(json.dumps(asdict(done), ensure_ascii=False) if json_ else text)
    if done.problems:
        raise WorkIncomplete(f"{console.plural(len(done.problems), 'problem')}: {done.problems[0]}")
    console.note(f"digests: {done.shards} of {done.shards} shards are those of {page.name}")


@app.command("verify")
def verify_command(folder: FolderArgument, page: PageOption = None, json_: JsonOption = False) -> None:
    """Compare a built benchmark with its page, shard by shard; exit code 1 where something is missing or differs."""
    from clearfuse.bench.verify import page_of, verify_benchmark

    found = page_of(folder, page)
    problems = verify_benchmark(found, folder)
    if json_:
        typer.echo(json.dumps({"benchmark": found.name, "ok": not problems, "problems": problems}, ensure_ascii=False))
    else:
        ok = f"ok: all {console.plural(len(found.shards), 'shard')} are those of {found.name}"
        typer.echo("\n".join(f"problem: {line}" for line in problems) or ok)
    raise typer.Exit(1 if problems else 0)


def main() -> None:
    """``clearfuse bench``."""
    console.run_app(app, "clearfuse bench")


