"""The command line ``synth``. Heavy imports happen inside the commands: ``--help`` answers at once."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clearfuse.synth import console
from clearfuse.synth.builder.options import Options
from clearfuse.synth.cli import builds, cache, datasets, estimate, weights
from clearfuse.synth.cli.options import JsonOption, PluginOption, option, takes
from clearfuse.synth.files.schema import check_options
from clearfuse.synth.types import UserError, WorkIncomplete, unknown

if TYPE_CHECKING:
    from clearfuse.synth.builder.build import Build

app = typer.Typer(
    name="synth",
    help="Make degraded image-fusion data: clean pairs in, WebDataset shards out.",
    epilog="Exit codes: 0 done, 1 done incompletely, 2 refused before work began. --debug shows tracebacks.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def callback(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Make degraded image-fusion data: clean pairs in, WebDataset shards out."""
    if version:
        from clearfuse.synth.version import __version__

        typer.echo(__version__)
        raise typer.Exit


SeedOption = Annotated[int, option(Options, "seed")]


@app.command("build")
@takes(Options)
def build_command(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Resolve, count and estimate; write nothing.")] = False,
    json_: JsonOption = False,
    **options: Any,
) -> None:
    """Build shards of degraded / clean / ground-truth / prompt samples. The same command resumes a build."""
    _build(check_options(Options, options), dry_run, json_)


def _build(options: Options, dry_run: bool, json_: bool) -> None:
    """Plan, say what was found, build, and say what became of it."""
    from clearfuse.synth.builder.run import at_work, check_report, plan_build, prepare_pairs, run_build

    build, found = plan_build(options)
    for line in found.notes:
        console.note(line)
    counts = {"samples": build.sample_count, "shards": build.shard_count, "out": str(build.out), "digest": build.digest}
    if dry_run:
        _dry_run(build, options, counts, json_)
        return
    with at_work(build, options) as options:
        with console.progress("prepare", "pairs") as progress:
            made = prepare_pairs(build, options, progress)
        with console.progress("build", "samples") as progress:
            report = run_build(build, options, progress)
    counts = {**counts, "samples": report.samples, "shards": report.shards, "resumed": report.resumed}
    counts |= {"made": {"truths": made.truths, "depths": made.depths}}
    if json_:
        _result({**counts, "rejected": report.rejected, "rejects": report.rejects, "failed": report.failed}, True, "")
    check_report(report, build, options)
    rejected = f", {report.rejected} rejected" if report.rejected else ""
    kept = f" ({report.resumed} were there)" if report.resumed else ""
    if not json_:
        _result({}, False, f"built {_counted(counts)}{kept}{rejected}")


def _dry_run(build: Build, options: Options, counts: dict[str, Any], json_: bool) -> None:
    from clearfuse.synth.builder.estimate import estimate

    found = estimate(build, options.workers)
    if isinstance(found, str):
        data, line = None, f"no estimate: no pair that was tried makes a sample: {found}"
    else:
        data, workers = found.to_json(), console.plural(found.workers, "worker")
        line = (
            f"estimate from {console.plural(found.measured, 'sample')} made here: {console.format_bytes(found.bytes)}, "
            f"{console.format_duration(found.seconds)} with {workers}"
        )
    data = {**counts, "estimate": data, "settings": dict(build.settings)}
    _result(data, json_, f"would build {_counted(counts)}; nothing written\n{line}")


def _counted(counts: dict[str, Any]) -> str:
    samples, shards = console.plural(counts["samples"], "sample"), console.plural(counts["shards"], "shard")
    return f"{samples} in {shards} in {counts['out']}"


def _result(data: dict[str, Any], as_json: bool, text: str) -> None:
    typer.echo(json.dumps(data, ensure_ascii=False) if as_json else text)


@app.command("preview")
@takes(
    Options,
    "task",
    "data",
    "out",
    "n",
    "recipe",
    "prompts",
    "language",
    "sets",
    "seed",
    "split",
    "pairs",
    "scale",
    "fuser",
    "depth",
)
def preview_command(
    shards: Annotated[
        list[str] | None, typer.Argument(metavar="[SHARDS...]", help=f"Draw samples of these instead. {console.SHARDS}")
    ] = None,
    task: Annotated[str | None, typer.Option("--task", help="As for synth build; not with shards.")] = None,
    out: Annotated[
        str | None, typer.Option("--out", help="The sheet; a page lies beside it. [default: preview-TASK.png]")
    ] = None,
    samples: Annotated[int, typer.Option("--samples", help="Rows of the sheet.")] = 6,
    op: Annotated[
        str | None, typer.Option("--op", help="These operators at five severities instead, or 'all'.")
    ] = None,
    json_: JsonOption = False,
    **options: Any,
) -> None:
    """Draw a contact sheet, PNG and self-contained HTML: samples with prompts, or operators at five severities."""
    from clearfuse.synth.review.preview import preview, preview_shards

    if shards:
        picture, page = preview_shards(shards, out or "preview.png", samples, options["recipe"], options["language"])
        _result({"png": str(picture), "html": str(page)}, json_, f"wrote {picture} and {page}")
        return
    if task is None:
        raise UserError("preview needs --task, such as vif, or folders of shards")
    chosen = check_options(Options, {"task": task, **options})
    picture, page = preview(chosen, out or f"preview-{task}.png", samples, op)
    _result({"png": str(picture), "html": str(page)}, json_, f"wrote {picture} and {page}")


@app.command("degrade")
def degrade_command(
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="Image files.")],
    op: Annotated[str, typer.Option("--op", help="Operators, as haze,gaussian_noise; applied in physical order.")],
    out: Annotated[str, typer.Option("--out", help="Folder of the degraded images (PNG).")],
    severity: Annotated[float | None, typer.Option("--severity", help="0 mild to 1 strong. [default: drawn]")] = None,
    seed: SeedOption = 0,
    depth: Annotated[str, option(Options, "depth")] = "auto",
    modality: Annotated[str, typer.Option("--modality", help="visible or infrared.")] = "visible",
    scale: Annotated[int | None, option(Options, "scale")] = None,
    json_: JsonOption = False,
    plugin: PluginOption = [],  # noqa: B006
) -> None:
    """Degrade single images."""
    from clearfuse.synth.review.preview import degrade_files

    written = degrade_files(
        *(images, op, out), severity=severity, seed=seed, depth=depth, modality=modality, scale=scale
    )
    _result({"written": written}, json_, "\n".join(f"wrote {path}" for path in written))


app.command("estimate")(estimate.estimate_command)
app.command("inspect")(builds.inspect_command)
app.command("verify", cls=builds.ShareCommand)(builds.verify_command)
app.command("push")(builds.push_command)
app.command("export")(builds.export_command)
app.command("extract")(builds.extract_command)
prompts_app = typer.Typer(help="Prompt pools.", no_args_is_help=True, add_completion=False, rich_markup_mode=None)
app.add_typer(prompts_app, name="prompts")
app.add_typer(datasets.app, name="datasets")
app.add_typer(cache.app, name="cache")
app.add_typer(weights.app, name="weights")


@prompts_app.command("expand")
def expand_command(
    out: Annotated[str, typer.Option("--out", help="New folder for all pools: for synth build --prompts.")],
    model: Annotated[
        str | None,
        typer.Option(
            "--model", help="A text model of transformers, a folder or hub id; or the endpoint's name for one."
        ),
    ] = None,
    endpoint: Annotated[
        str | None,
        typer.Option(
            "--endpoint", metavar="URL", help="An OpenAI-compatible server instead; its key in CLEARFUSE_API_KEY."
        ),
    ] = None,
    op: Annotated[list[str], typer.Option("--op", help="Grow this pool; repeatable. [default: all]")] = [],  # noqa: B006
    count: Annotated[int, typer.Option("--count", help="Phrasings to ask for, a pool.")] = 20,
    prompts: Annotated[
        str | None, typer.Option("--prompts", help="A folder of the pools to grow. [default: those that ship]")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of what the model writes.")] = 0,
    language: Annotated[str, typer.Option("--language", help="Of the pools to grow: en or zh.")] = "en",
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds to wait for the endpoint.")] = 120.0,
    json_: JsonOption = False,
) -> None:
    """Grow prompt pools with a language model; what it writes is checked, and marked as a machine's."""
    from pathlib import Path

    from clearfuse.synth.prompts.expand import expand, find_writer, summary
    from clearfuse.synth.prompts.pools import LANGUAGES

    spoken = next((one for one in LANGUAGES if one == language), None)
    if spoken is None:
        raise unknown("language", language, LANGUAGES)

    names = [name.strip() for part in op for name in part.split(",")]
    with console.progress("expand", "calls") as progress:
        grown = expand(
            *(lambda: find_writer(model, endpoint, timeout), names, count, out),
            seed=seed,
            folder=None if prompts is None else Path(prompts),
            language=spoken,
            progress=progress,
        )
    text, missing = summary(grown, out)
    _result({"out": out, "pools": {name: one.to_json() for name, one in grown.items()}}, json_, text)
    if missing is not None:
        raise WorkIncomplete(missing)


@app.command("list")
def list_command(
    kind: Annotated[
        str, typer.Argument(metavar="KIND", help="operators, datasets, fusers, depths, codecs, prompts or recipes.")
    ],
    data: Annotated[list[str], option(Options, "data")] = [],  # noqa: B006  (typer copies it)
    match: Annotated[tuple[str, str] | None, option(Options, "match")] = None,
    json_: JsonOption = False,
    plugin: PluginOption = [],  # noqa: B006
) -> None:
    """List what there is to choose from; of data sets, what the folders of --data hold too."""
    from clearfuse.synth.cli.listing import listing
    from clearfuse.synth.datasets.catalogue import catalogue, summary
    from clearfuse.synth.datasets.select import folders, with_match

    facts = catalogue(folders(with_match(data, match), "--data ")) if kind == "datasets" else {}
    if data and not facts:
        raise UserError(f"--data {data[0]}: has no effect in a list of {kind}; synth list datasets takes it")
    entries = {name: summary(one) for name, one in facts.items()} if facts else listing(kind)
    width = max((len(name) for name in entries), default=0)
    _result(facts or entries, json_, "\n".join(f"{name:<{width}}  {text}" for name, text in entries.items()))


def main() -> None:
    """The console script."""
    console.run_app(app, "synth")


if __name__ == "__main__":
    main()
