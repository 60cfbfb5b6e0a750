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
    help="Build a benchmark from its TOML file, score methods on it, submit the scores.",
    epilog="Exit codes: 0 done, 1 done incompletely, 2 refused before work began. --debug shows tracebacks.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="mini, v1, or a benchmark's own TOML file.")]
FolderArgument = Annotated[str, typer.Argument(metavar="DIR", help="The folder that bench build wrote.")]
WorkersOption = Annotated[int | None, typer.Option("--workers", min=1, help="Processes. [default: all cores]")]
PageOption = Annotated[
    str | None,
    typer.Option("--page", metavar="NAME|FILE", help="The benchmark's TOML file. [default: the one that DIR records]"),
]


@app.callback()
def callback() -> None:
    """Build a benchmark from its TOML file, score methods on it, submit the scores."""


@app.command("list")
def list_command(json_: JsonOption = False) -> None:
    """List the benchmarks that ship: their sets, and which of them have hashes."""
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
        bool,
        typer.Option(
            "--write-digests", help="Add the hashes of the given sets and their shards to the benchmark's file."
        ),
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Build the parts whose sets are given, and compare them with the benchmark's hashes; run it again to resume."""
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
    text = (
        f"built {console.plural(done.samples, 'sample')} in {console.plural(done.shards, 'shard')} in {out}{rejected}"
    )
    typer.echo(json.dumps(asdict(done), ensure_ascii=False) if json_ else text)
    if done.problems:
        raise WorkIncomplete(f"{console.plural(len(done.problems), 'problem')}: {done.problems[0]}")
    console.note(f"digests: {done.shards} of {done.shards} shards are those of {page.name}")


@app.command("verify")
def verify_command(folder: FolderArgument, page: PageOption = None, json_: JsonOption = False) -> None:
    """Compare a built benchmark with its hashes, shard by shard; exit code 1 if something is missing or differs."""
    from clearfuse.bench.verify import page_of, unhashed_sets, verify_benchmark

    found = page_of(folder, page)
    problems, notes = verify_benchmark(found, folder), unhashed_sets(found)
    if json_:
        told = {"benchmark": found.name, "ok": not problems, "problems": problems, "notes": notes}
        typer.echo(json.dumps(told, ensure_ascii=False))
    else:
        for line in notes:
            console.note(f"note: {line}")
        ok = f"ok: all {console.plural(len(found.shards), 'shard')} are those of {found.name}"
        typer.echo("\n".join(f"problem: {line}" for line in problems) or ok)
    raise typer.Exit(1 if problems else 0)


@app.command("extract")
def extract_command(
    folder: FolderArgument,
    out: Annotated[str, typer.Option("--out", metavar="DIR", help="The folder to write; it must not exist yet.")],
    page: PageOption = None,
    json_: JsonOption = False,
) -> None:
    """Write the inputs as pictures, TASK/a/NAME.png and TASK/b/NAME.png, with their prompts, for your own method.

    Save its images as RESULTS/TASK/NAME.png; bench run --results NAME=RESULTS scores them.
    """
    from clearfuse.bench.run import extract_benchmark
    from clearfuse.bench.verify import page_of

    with console.progress("extract", "shards") as progress:
        done = extract_benchmark(page_of(folder, page), folder, out, progress)
    text = ", ".join(f"{console.plural(count, 'sample')} of {task}" for task, count in sorted(done.items()))
    typer.echo(json.dumps({"out": out, "samples": done}) if json_ else f"extracted {text} to {out}")


@app.command("run")
def run_command(
    folder: FolderArgument,
    out: Annotated[
        str, typer.Option("--out", metavar="DIR", help="Folder of the reports, one for each task.")
    ] = "scores",
    model: Annotated[
        list[str],
        typer.Option(
            "--model",
            metavar="DIR|HUB_ID|none",
            help="A model to score, repeatable, as for train eval; none: only --results and the baselines.",
        ),
    ] = [],  # noqa: B006
    results: Annotated[
        list[str],
        typer.Option("--results", metavar="NAME=DIR", help="Fused images, TASK/NAME.png as bench extract names them."),
    ] = [],  # noqa: B006
    task: Annotated[
        list[str],
        typer.Option("--task", help="Score only this task, or real for the real pairs; repeatable. [default: all]"),
    ] = [],  # noqa: B006
    unprompted: Annotated[bool, typer.Option("--unprompted", help="Score each model without prompts too.")] = False,
    device: Annotated[str | None, typer.Option("--device", help="cpu or cuda; CUDA where there is one.")] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Samples of each task at most, for a quick check.")
    ] = None,
    examples: Annotated[int, typer.Option("--examples", min=0, help="Samples to show as pictures.")] = 3,
    workers: WorkersOption = None,
    page: PageOption = None,
    json_: JsonOption = False,
) -> None:
    """Score models and results beside the baselines: the degraded pair fused, and restored classically then fused.

    Run it again to resume. Each OUT/TASK holds a report, OUT/bench.json a record of what was scored.
    """
    from pathlib import Path

    from clearfuse.bench.run import Chosen, run_benchmark
    from clearfuse.bench.verify import page_of
    from clearfuse.synth.files.storage import local_text
    from clearfuse.train.evaluation.writers.markdown import to_text

    out, found = local_text(out, "--out"), page_of(folder, page)
    with console.progress("bench", "samples") as progress:
        done = run_benchmark(
            *(found, folder, out, Chosen(tuple(model) or None, tuple(results), device, unprompted)),
            only=task, limit=limit, workers=workers, examples=examples, progress=progress, say=console.note,
        )  # fmt: skip
    if json_:
        reports = {name: json.loads((Path(out) / name / "report.json").read_bytes()) for name in done}
        typer.echo(json.dumps(reports, ensure_ascii=False))
    else:
        typer.echo("\n".join(f"{name}\n{to_text(one)}" for name, one in done.items() if one is not None))
    console.note(f"wrote {', '.join(f'{out}/{name}' for name in done)} and {out}/bench.json, for bench submit")


@app.command("submit")
def submit_command(
    scores: Annotated[str, typer.Argument(metavar="SCORES", help="The folder of bench run.")],
    out: Annotated[str, typer.Option("--out", metavar="FILE", help="The JSON file to write.")],
    method: Annotated[
        str | None,
        typer.Option("--method", help="The method's name in the reports. [default: the only model or results]"),
    ] = None,
    name: Annotated[str, typer.Option("--name", help="Its name on the leaderboard. [default: the same name]")] = "",
    about: Annotated[str, typer.Option("--about", help="What it is, in a sentence.")] = "",
    url: Annotated[str, typer.Option("--url", help="Its web page, https://….")] = "",
    trained_on: Annotated[
        str, typer.Option("--trained-on", metavar="NAME,...", help="Sets of the benchmark that it was trained on.")
    ] = "",
    json_: JsonOption = False,
) -> None:
    """Write a method's scores, with hashes and versions, as one JSON file, and check it."""
    from clearfuse.bench.submission import check_submission, submit
    from clearfuse.synth.files.storage import local_text

    sets = tuple(part.strip() for part in trained_on.split(",") if part.strip())
    done = submit(scores, method, local_text(out, "--out"), name=name, about=about, url=url, trained_on=sets)
    console.note(f"wrote {out}")
    _report({out: check_submission(done)}, json_)


@app.command("check")
def check_command(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="Files of bench submit.")],
    json_: JsonOption = False,
) -> None:
    """Check submissions: format, the shards' hashes, counts, and whether means add up; exit code 1 on any problem."""
    from pathlib import Path

    from clearfuse.bench.submission import check_submission, read_submission

    _report({file: check_submission(read_submission(Path(file))) for file in files}, json_)


def _report(found: dict[str, tuple[list[str], list[str]]], json_: bool) -> None:
    """Print problems and notes by file, and exit with 1 if there is a problem."""
    wrong = any(problems for problems, _ in found.values())
    if json_:
        told = {
            file: {"ok": not problems, "problems": problems, "notes": notes}
            for file, (problems, notes) in found.items()
        }
        typer.echo(json.dumps(told, ensure_ascii=False))
    else:
        for file, (problems, notes) in found.items():
            lines = [f"problem: {line}" for line in problems] + [f"note: {line}" for line in notes]
            typer.echo("\n".join([*lines, f"{file}: {console.plural(len(problems), 'problem') if problems else 'ok'}"]))
    raise typer.Exit(1 if wrong else 0)


@app.command("leaderboard")
def leaderboard_command(
    places: Annotated[list[str], typer.Argument(metavar="FILE|DIR...", help="Submissions, or folders of them.")],
    out: Annotated[str, typer.Option("--out", metavar="FILE", help="The HTML page.")] = "leaderboard.html",
) -> None:
    """Draw the leaderboard of submissions as one HTML page; those with problems are named and left out."""
    from clearfuse.bench.leaderboard import summary, write_leaderboard

    entries = write_leaderboard(places, out)
    typer.echo(summary(entries))
    console.note(f"wrote {out}")
    wrong = [entry for entry in entries if entry.problems]
    if wrong:
        raise WorkIncomplete(f"{console.plural(len(wrong), 'submission')} left out")


def main() -> None:
    """``clearfuse bench``."""
    console.run_app(app, "clearfuse bench")
