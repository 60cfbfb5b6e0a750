"""``synth inspect``, ``verify``, ``push``, ``export`` and ``extract``: what is done with a build that is there."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from clearfuse.synth import console
from clearfuse.synth.builder.options import Options
from clearfuse.synth.cli.options import JsonOption, PluginOption, option
from clearfuse.synth.types import UserError

if TYPE_CHECKING:
    from clearfuse.synth.review.verify import VerifyReport

PathsArgument = Annotated[list[str], typer.Argument(metavar="SHARDS...", help=console.SHARDS)]


class ShareCommand(TyperCommand):
    """A command whose ``--replay`` may stand alone, for all, or have a number behind it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Click's, with the number that is meant written out."""
        return super().parse_args(ctx, with_share(args))


def with_share(args: list[str]) -> list[str]:
    """``--replay 0.1 DIR`` as ``--replay=0.1 DIR``, ``--replay DIR`` as ``--replay=1 DIR``."""
    written: list[str] = []
    left = list(args)
    while left:
        arg = left.pop(0)
        if arg == "--":
            return [*written, arg, *left]
        if arg == "--replay":
            arg = f"--replay={left.pop(0) if left and _number(left[0]) else 1}"
        written.append(arg)
    return written


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def inspect_command(
    paths: PathsArgument,
    examples: Annotated[int, typer.Option("--examples", help="Samples to show.")] = 3,
    out: Annotated[
        str | None, typer.Option("--out", metavar="FILE", help="Draw a self-contained HTML page there too.")
    ] = None,
    thumbnails: Annotated[int, typer.Option("--thumbnails", help="Samples that the page shows.")] = 8,
    json_: JsonOption = False,
) -> None:
    """Show what a build holds: operators, combinations, severities, sizes, prompts, quality, rejects, samples."""
    from clearfuse.synth.review.inspection import describe, inspect
    from clearfuse.synth.review.page import check_page, write_page

    if out is not None:
        check_page(out, thumbnails)
    with console.progress("inspect", "shards") as progress:
        report = inspect(paths, examples, progress)
    if out is not None:
        write_page(out, paths, report, thumbnails)
        console.note(f"wrote {out}")
    typer.echo(json.dumps(report, ensure_ascii=False) if json_ else describe(report))


def verify_command(
    paths: PathsArgument,
    replay: Annotated[
        float,
        typer.Option(
            "--replay",
            metavar="[SHARE]",
            help="Make degraded images again and compare bit for bit: of all samples, or of a share such as 0.1.",
            show_default=False,
        ),
    ] = 0.0,
    workers: Annotated[int | None, option(Options, "workers")] = None,
    out: Annotated[str | None, typer.Option("--out", metavar="FILE", help="Write the JSON report there too.")] = None,
    json_: JsonOption = False,
    plugin: PluginOption = [],  # noqa: B006  (typer copies it)
) -> None:
    """Check receipts, hashes, members and pixels; exit code 1 where there is a problem."""
    import os

    from clearfuse.synth.review.verify import verify

    if workers is not None and workers < 1:
        raise UserError(f"--workers {workers}: must be at least 1")
    if out is not None:  # before the work, so that it need not be done twice
        _check_report(out)
        _write_report(out, {"ok": False, "samples": 0, "replayed": 0, "problems": ["verify has not ended"]})
    with console.progress("verify", "shards") as progress:
        report = verify(paths, replay=replay, workers=workers or os.cpu_count() or 1, progress=progress)
    if out is not None:
        _write_report(out, report.to_json())
    typer.echo(json.dumps(report.to_json(), ensure_ascii=False) if json_ else _verdict(report))
    raise typer.Exit(0 if report.ok else 1)


def _check_report(out: str) -> None:
    """Refuse to write over what is no report of verify, such as a receipt of the build that is verified."""
    from clearfuse.synth.files import storage

    place = storage.locate(out)
    if not place.exists():
        return
    try:
        held = json.loads(storage.read_bytes(out))
    except (OSError, ValueError, RecursionError):
        held = None
    if not isinstance(held, dict) or "problems" not in held:
        raise UserError(f"--out {out}: is there and is no report of synth verify; choose another file")


def _write_report(out: str, data: dict[str, Any]) -> None:
    from clearfuse.synth.files.folders import writing
    from clearfuse.synth.files.jsonstream import write_json

    with writing(out) as target:
        write_json(target, data)


def _verdict(report: VerifyReport) -> str:
    verdict = "ok" if report.ok else console.plural(len(report.problems), "problem")
    lines = [f"problem: {line}" for line in report.problems]
    lean = f", {report.lean} lean: no degraded images to replay" if report.lean else ""
    given = f", {report.given} given as they are: nothing to replay" if report.given else ""
    given += f", {report.real} real, without a clean side: nothing to replay" if report.real else ""
    given += f", {report.cached} of latents: nothing to replay" if report.cached else ""
    lines.append(f"{verdict}: {console.plural(report.samples, 'sample')}, {report.replayed} replayed{lean}{given}")
    return "\n".join(lines)


def push_command(
    out: Annotated[str, typer.Argument(metavar="DIR", help="A finished build: a folder or a URL.")],
    repo: Annotated[str, typer.Argument(metavar="NAME/BUILD", help="The data-set repository; made where missing.")],
    private: Annotated[
        bool, typer.Option("--private/--public", help="Of a repository that is made here; one that is there stays.")
    ] = True,
    revision: Annotated[
        str | None, typer.Option("--revision", help="A branch, made where missing. [default: main]")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace another build that is there.")] = False,
    json_: JsonOption = False,
) -> None:
    """Push a finished build to the Hugging Face hub; what is there already is not sent again."""
    from clearfuse.synth.review.push import push

    with console.progress("push", "files") as progress:
        done = push(out, repo, private=private, revision=revision, overwrite=overwrite, progress=progress)
    removed = f", {done.removed} of an earlier build removed" if done.removed else ""
    text = f"pushed {console.plural(done.sent, 'file')} ({done.held} were there{removed}) to {done.url}"
    typer.echo(json.dumps(asdict(done)) if json_ else text)


def export_command(
    paths: PathsArgument,
    out: Annotated[str, typer.Option("--out", metavar="DIR", help="A new folder.")],
    layout: Annotated[str, typer.Option("--format", help="mmaif: the tars of the MMAIF authors' training code.")],
    quality: Annotated[int, typer.Option("--quality", help="Of the JPEGs; theirs is 75.")] = 75,
    json_: JsonOption = False,
) -> None:
    """Write shards in the layout of others; synth build --data mmaif=DIR reads them."""
    from clearfuse.synth.review.export import export

    with console.progress("export", "shards") as progress:
        done = export(paths, out, layout, quality=quality, progress=progress)
    text = f"exported {console.plural(done.samples, 'sample')} in {console.plural(done.shards, 'tar')} to {out}"
    typer.echo(json.dumps(asdict(done)) if json_ else text)


def extract_command(
    paths: PathsArgument,
    out: Annotated[str, typer.Option("--out", metavar="DIR", help="A new folder.")],
    images: Annotated[
        str, typer.Option("--images", metavar="NAME,...", help="Which: a, b, gt, clean_a, clean_b.")
    ] = "a,b",
    json_: JsonOption = False,
) -> None:
    """Write pictures of shards as files, TASK/a/KEY.png and so on: inputs for other methods.

    Put what a method makes of them at DIR/TASK/KEY.png; train eval --results NAME=DIR scores it.
    """
    from clearfuse.synth.review.extract import extract

    names = [name.strip() for name in images.split(",")]
    with console.progress("extract", "shards") as progress:
        done = extract(paths, out, names, progress=progress)
    text = ", ".join(f"{console.plural(count, 'sample')} of {task}" for task, count in sorted(done.items()))
    typer.echo(json.dumps({"out": out, "samples": done}) if json_ else f"extracted {text} to {out}")
