"""The command line ``synth``. Heavy imports happen inside the commands: ``--help`` answers at once."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clearfuse.synth import console
from clearfuse.synth.cli import builds, cache, datasets, weights
from clearfuse.synth.types import UserError, WorkIncomplete

if TYPE_CHECKING:
    from clearfuse.synth.builder.build import Build
    from clearfuse.synth.builder.options import Options

app = typer.Typer(
    name="synth",
    help="Make degraded image-fusion data: clean pairs in, WebDataset shards out.",
    epilog="Exit codes: 0 done, 1 done incompletely, 2 refused before work began. --debug shows tracebacks.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

TaskOption = Annotated[str, typer.Option("--task", help="vif, mef or mff.")]
DataOption = Annotated[
    list[str],
    typer.Option(
        "--data",
        metavar="NAME=DIR|URL",
        help="A data set and its folder; repeat to merge. Without it: built-in scenes.",
    ),
]
NOption = Annotated[
    str | None,
    typer.Option("--n", metavar="N|LOW-HIGH", help="Degradations a pair: 3, or 1-3. [default: the recipe's]"),
]
RecipeOption = Annotated[
    str | None, typer.Option("--recipe", help="A recipe's name or TOML file. [default: the task's]")
]
PromptsOption = Annotated[
    str | None, typer.Option("--prompts", help="A folder of your own prompt pools. [default: those that ship]")
]
SetOption = Annotated[
    list[str], typer.Option("--set", metavar="A.B=C", help="Change one value of the recipe; repeatable.")
]
SeedOption = Annotated[int, typer.Option("--seed", help="The build's seed.")]
SplitOption = Annotated[str, typer.Option("--split", help="train, val or test; or several: train,val,test.")]
PairsOption = Annotated[
    str, typer.Option("--pairs", help="Exposures of a sequence that make a pair: extreme, adjacent or all.")
]
LicenceOption = Annotated[
    str | None,
    typer.Option(
        "--licence", help="Refuse sets whose terms do not grant this use: research, non-commercial, commercial."
    ),
]
LimitOption = Annotated[int | None, typer.Option("--limit", help="Use this many pairs at most.")]
FuserOption = Annotated[str, typer.Option("--fuser", help="What makes the ground truth: see synth list fusers.")]
DepthOption = Annotated[str, typer.Option("--depth", help="Where depth comes from: see synth list depths.")]
WorkersOption = Annotated[int | None, typer.Option("--workers", help="Worker processes. [default: all cores]")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]


PartialOption = Annotated[
    float, typer.Option("--partial", help="Share of samples whose prompt asks for a part of the steps only.")
]
RejectsOption = Annotated[float, typer.Option("--max-rejects", help="Share of rejected samples that is accepted.")]
MinGtOption = Annotated[float, typer.Option("--min-gt", help="Reject pairs whose ground truth has a lower Qabf.")]
LeanOption = Annotated[
    bool, typer.Option("--lean", help="Clean images, ground truth and depth alone: train fit degrades them.")
]


@app.command("build")
def build_command(
    task: TaskOption,
    data: DataOption = [],  # noqa: B006  (typer copies it)
    out: Annotated[
        str | None, typer.Option("--out", metavar="DIR|URL", help="Folder of the shards. [default: shards/TASK]")
    ] = None,
    n: NOption = None,
    recipe: RecipeOption = None,
    prompts: PromptsOption = None,
    set_: SetOption = [],  # noqa: B006
    seed: SeedOption = 0,
    workers: WorkersOption = None,
    split: SplitOption = "train",
    pairs: PairsOption = "extreme",
    licence: LicenceOption = None,
    limit: LimitOption = None,
    variants: Annotated[int, typer.Option("--variants", help="Degraded versions of each pair.")] = 1,
    shard_size: Annotated[int, typer.Option("--shard-size", help="Samples a shard.")] = 256,
    fuser: FuserOption = "auto",
    depth: DepthOption = "auto",
    codec: Annotated[str, typer.Option("--codec", help="Lossless codec: webp, png, pnm or jxl.")] = "webp",
    executor: Annotated[str, typer.Option("--executor", help="processes, ray or serial.")] = "processes",
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout",
            help="Seconds a sample may take before its worker is ended; 0: no limit. Serial builds have none.",
        ),
    ] = 1800.0,
    partial: PartialOption = 0.0,
    max_rejects: RejectsOption = 0.01,
    min_gt: MinGtOption = 0.0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the build in --out.")] = False,
    extend: Annotated[bool, typer.Option("--extend", help="Add variants to the finished build in --out.")] = False,
    lean: LeanOption = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Resolve, count and estimate; write nothing.")] = False,
    json_: JsonOption = False,
) -> None:
    """Build shards of degraded / clean / ground-truth / prompt samples. The same command resumes a build."""
    from clearfuse.synth.builder.options import Options

    options = Options(
        task=task,
        data=tuple(data),
        out=out,
        n=n,
        recipe=recipe,
        prompts=prompts,
        sets=tuple(set_),
        seed=seed,
        workers=workers,
        split=split,
        pairs=pairs,
        licence=licence,
        limit=limit,
        variants=variants,
        shard_size=shard_size,
        fuser=fuser,
        depth=depth,
        codec=codec,
        executor=executor,
        timeout=timeout,
        partial=partial,
        max_rejects=max_rejects,
        min_gt=min_gt,
        overwrite=overwrite,
        extend=extend,
        lean=lean,
    )
    _build(options, dry_run, json_)


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
        data, workers = found.to_json(), console.counted(found.workers, "worker")
        line = (
            f"estimate from {console.counted(found.measured, 'sample')} made here: {console.sized(found.bytes)}, "
            f"{console.lasting(found.seconds)} with {workers}"
        )
    data = {**counts, "estimate": data, "settings": dict(build.settings)}
    _result(data, json_, f"would build {_counted(counts)}; nothing written\n{line}")


def _counted(counts: dict[str, Any]) -> str:
    samples, shards = console.counted(counts["samples"], "sample"), console.counted(counts["shards"], "shard")
    return f"{samples} in {shards} in {counts['out']}"


def _result(data: dict[str, Any], as_json: bool, text: str) -> None:
    typer.echo(json.dumps(data, ensure_ascii=False) if as_json else text)


@app.command("preview")
def preview_command(
    shards: Annotated[
        list[str] | None, typer.Argument(metavar="[DIR|SHARD...]", help="Draw samples of these builds instead.")
    ] = None,
    task: Annotated[str | None, typer.Option("--task", help="vif, mef or mff; not with shards.")] = None,
    data: DataOption = [],  # noqa: B006
    out: Annotated[
        str | None, typer.Option("--out", help="The sheet; a page lies beside it. [default: preview-TASK.png]")
    ] = None,
    n: NOption = None,
    recipe: RecipeOption = None,
    prompts: PromptsOption = None,
    set_: SetOption = [],  # noqa: B006
    seed: SeedOption = 0,
    split: SplitOption = "train",
    pairs: PairsOption = "extreme",
    samples: Annotated[int, typer.Option("--samples", help="Rows of the sheet.")] = 6,
    op: Annotated[
        str | None, typer.Option("--op", help="These operators at five severities instead, or 'all'.")
    ] = None,
    fuser: FuserOption = "auto",
    depth: DepthOption = "auto",
    json_: JsonOption = False,
) -> None:
    """Draw a contact sheet, PNG and self-contained HTML: samples with prompts, or operators at five severities."""
    from clearfuse.synth.builder.options import Options
    from clearfuse.synth.review.preview import preview, preview_shards

    if shards:
        picture, page = preview_shards(shards, out or "preview.png", samples, recipe)
        _result({"png": str(picture), "html": str(page)}, json_, f"wrote {picture} and {page}")
        return
    if task is None:
        raise UserError("preview needs --task vif, mef or mff, or folders of shards")
    options = Options(
        task=task,
        data=tuple(data),
        n=n,
        recipe=recipe,
        prompts=prompts,
        sets=tuple(set_),
        seed=seed,
        split=split,
        pairs=pairs,
        fuser=fuser,
        depth=depth,
    )
    picture, page = preview(options, out or f"preview-{task}.png", samples, op)
    _result({"png": str(picture), "html": str(page)}, json_, f"wrote {picture} and {page}")


@app.command("degrade")
def degrade_command(
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="Image files.")],
    op: Annotated[str, typer.Option("--op", help="Operators, as haze,gaussian_noise; applied in physical order.")],
    out: Annotated[str, typer.Option("--out", help="Folder of the degraded images (PNG).")],
    severity: Annotated[float | None, typer.Option("--severity", help="0 mild to 1 strong. [default: drawn]")] = None,
    seed: SeedOption = 0,
    depth: DepthOption = "auto",
    modality: Annotated[str, typer.Option("--modality", help="visible or infrared.")] = "visible",
    json_: JsonOption = False,
) -> None:
    """Degrade single images."""
    from clearfuse.synth.review.preview import degrade_files

    written = degrade_files(images, op, out, severity=severity, seed=seed, depth=depth, modality=modality)
    _result({"written": written}, json_, "\n".join(f"wrote {path}" for path in written))


app.command("inspect")(builds.inspect_command)
app.command("verify", cls=builds.ShareCommand)(builds.verify_command)
app.command("push")(builds.push_command)
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
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds to wait for the endpoint.")] = 120.0,
    json_: JsonOption = False,
) -> None:
    """Grow prompt pools with a language model; what it writes is checked, and marked as a machine's."""
    from pathlib import Path

    from clearfuse.synth.prompts.expand import expand, find_writer, summary

    names = [name.strip() for part in op for name in part.split(",")]
    with console.progress("expand", "calls") as progress:
        grown = expand(
            *(lambda: find_writer(model, endpoint, timeout), names, count, out),
            seed=seed,
            folder=None if prompts is None else Path(prompts),
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
    data: DataOption = [],  # noqa: B006
    json_: JsonOption = False,
) -> None:
    """List what there is to choose from; of data sets, what the folders of --data hold too."""
    from clearfuse.synth.cli.listing import listing
    from clearfuse.synth.datasets.catalogue import catalogue, summary

    facts = catalogue(datasets.folders(data, "--data ")) if kind == "datasets" else {}
    if data and not facts:
        raise UserError(f"--data {data[0]}: decides nothing in a list of {kind}; synth list datasets takes it")
    entries = {name: summary(one) for name, one in facts.items()} if facts else listing(kind)
    width = max((len(name) for name in entries), default=0)
    _result(facts or entries, json_, "\n".join(f"{name:<{width}}  {text}" for name, text in entries.items()))


def main() -> None:
    """The console script."""
    console.run_app(app, "synth")


if __name__ == "__main__":
    main()
