"""``train downstream``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from pydantic import Field

from clearfuse.synth import console
from clearfuse.synth.builder.options import Match, Text, Texts
from clearfuse.synth.cli.options import JsonOption, takes
from clearfuse.synth.files.schema import check_options
from clearfuse.synth.types import UserError
from clearfuse.train.cli.options import Count, DeviceOptions, LocalOut, Repeated, Seed

if TYPE_CHECKING:
    from clearfuse.train.downstream.sources import Kind, Source

app = typer.Typer(
    help="Train detectors and segmenters on fused images, and score them on any method's.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Side = Annotated[int, Field(ge=32, le=4096)]


class SourceOptions(DeviceOptions):
    """Which pairs are fused, and how they are degraded before."""

    data: Annotated[Text, typer.Option(metavar="NAME=DIR")] = None
    """A data set with boxes or label maps: m3fd, llvip, msrs, fmb, ivoe, my.toml; the built-in scenes."""
    match: Match = None
    """Names of --data folder=A,B, where they differ: '{key}-A' '{key}-B'."""
    task: Annotated[Literal["vif", "mef", "mff"], typer.Option(metavar="vif|mef|mff")] = "vif"
    """What the pairs are."""
    keys: Annotated[Text, typer.Option(metavar="FILE")] = None
    """These pairs alone: a text file with a key a line, such as TarDAL's meta/train.txt, in place of a drawn split."""
    limit: Count = None
    """Use this many pairs at most."""
    recipe: Annotated[Text, typer.Option(metavar="NAME|FILE")] = None
    """Degrade the pairs before they are fused, by this recipe, such as vif; nothing."""
    n: Annotated[Text, typer.Option(metavar="N|LOW-HIGH")] = None
    """Degradations a pair: 3, or 1-3; the recipe's."""
    seed: Seed = 0
    """Seed of degradations, weights and crops."""
    results: Repeated = ()
    """A folder of anybody's fused images, by key or pair name; repeatable."""
    workers: Count = None
    """Processes that fuse; all cores."""

    def source(self, kind: Kind, split: str) -> Source:
        """The pairs. Raises UserError where there are none."""
        from clearfuse.train.downstream.sources import find_source

        data = () if self.data is None else (self.data,)
        named = {"keys": read_keys(self.keys)} if self.keys is not None else {}
        found = find_source(
            kind, self.recipe, self.n,
            task=self.task, data=data, match=self.match, split=split, limit=self.limit, seed=self.seed, **named,
        )  # fmt: skip
        for line in found.notes:
            console.note(line)
        return found


class DownstreamFitOptions(SourceOptions):
    """``train downstream fit``."""

    kind: Annotated[Literal["detection", "segmentation"], typer.Option(metavar="detection|segmentation")]
    """What is learned: boxes, or the class of each pixel."""
    out: Annotated[str, typer.Option(metavar="DIR"), LocalOut]
    """Folder of the network, and of the fused images below pictures/."""
    model: Annotated[str | None, typer.Option(metavar="NAME|ID|DIR")] = None
    """What is fine-tuned: rt-detr, rt-detr-r50, segformer-b0, segformer-b2, a hub id or folder, or tiny, made here;
    tiny without CUDA."""
    method: Annotated[Texts, typer.Option(metavar="NAME|DIR|ID")] = ()
    """Whose fused images: pyramid, classical, swinfusion, defuse, gt, a or b alone, or a model; repeatable; pyramid."""
    split: str = "train"
    """train, val or test."""
    steps: Annotated[int, Field(ge=1, le=10**7)] = 1000
    """Steps of the optimizer."""
    batch: Annotated[int, Field(ge=1, le=1024)] = 8
    """Images a step."""
    lr: Annotated[float | None, Field(gt=0)] = None
    """Peak learning rate; 1e-4, of tiny 3e-3."""
    size: Annotated[tuple[Side, Side] | None, typer.Option(metavar="WIDTH HEIGHT")] = None
    """Size to which images are brought for the network; its own."""
    overwrite: bool = False
    """Replace the network in --out."""


class DownstreamEvalOptions(SourceOptions):
    """``train downstream eval``."""

    network: Annotated[str, typer.Argument(metavar="NETWORK")]
    """The folder of train downstream fit."""
    out: Annotated[str, typer.Option(metavar="DIR"), LocalOut]
    """Folder of the report, and of the fused images below pictures/."""
    method: Annotated[Texts, typer.Option(metavar="NAME|DIR|ID")] = ()
    """Whose fused images, as fit takes them; repeatable; a, b, pyramid, and with --recipe classical and gt."""
    split: str = "test"
    """train, val or test."""
    examples: Annotated[int, Field(ge=0)] = 4
    """Pairs into which is drawn what is found."""


def read_keys(file: str) -> tuple[str, ...]:
    """The keys in a text file, a line each, without the ending of a picture. UserError where it can't be read."""
    from clearfuse.synth.files.pictures import EXTENSIONS
    from clearfuse.synth.files.storage import read_small

    try:
        lines = read_small(file, f"--keys {file}").decode().splitlines()
    except UnicodeDecodeError:
        raise UserError(f"--keys {file}: cannot be read: no text") from None

    names = [line.strip() for line in lines if line.strip()]
    keys = [name[: name.rfind(".")] if name[name.rfind(".") :].lower() in EXTENSIONS else name for name in names]
    if not keys:
        raise UserError(f"--keys {file}: has no line")
    return tuple(dict.fromkeys(keys))


@contextmanager
def _bars() -> Iterator[Callable[[str], Callable[[int, int], None]]]:
    """A progress bar for each piece of work, the one before it ended."""
    units = {"fuse": "pairs", "fit": "steps", "score": "images"}
    with ExitStack() as stack:

        def start(what: str) -> Callable[[int, int], None]:
            stack.close()
            return stack.enter_context(console.progress(what, units[what]))

        yield start


@app.command("fit")
@takes(DownstreamFitOptions)
def fit_command(json_: JsonOption = False, **options: Any) -> None:
    """Train a detector or segmenter on fused images. Fused images that are there are not made again."""
    chosen = check_options(DownstreamFitOptions, options)
    from clearfuse.train.downstream.fit import fit

    source = chosen.source(chosen.kind, chosen.split)
    with _bars() as bars:
        done = fit(
            source, chosen.out,
            methods=chosen.method or (() if chosen.results else ("pyramid",)), results=chosen.results,
            model=chosen.model, steps=chosen.steps, batch=chosen.batch, lr=chosen.lr,
            size=None if chosen.size is None else chosen.size[::-1], seed=chosen.seed, device=chosen.device,
            workers=chosen.workers, overwrite=chosen.overwrite, progress=bars,
        )  # fmt: skip
    record = done.record
    told = (
        f"fitted {record.model} for {record.kind} ({', '.join(record.classes)}), loss {record.loss[-1]:.4g}: {done.out}"
    )
    typer.echo(json.dumps({"out": str(done.out), **record.model_dump(mode="json", by_alias=True)}) if json_ else told)


@app.command("eval")
@takes(DownstreamEvalOptions)
def eval_command(json_: JsonOption = False, **options: Any) -> None:
    """Score a detector or segmenter on fused images: COCO's AP, or IoU: report.md, .tex, .json, .csv, and pictures.

    Of detections also coco/truth.json and coco/METHOD.json, as pycocotools reads them.
    """
    chosen = check_options(DownstreamEvalOptions, options)
    from clearfuse.train.downstream.evaluate import evaluate
    from clearfuse.train.downstream.report import FILES, to_json, to_text

    with _bars() as bars:
        done = evaluate(
            chosen.network, lambda record: chosen.source(record.kind, chosen.split), chosen.out,
            methods=chosen.method, results=chosen.results, device=chosen.device, workers=chosen.workers,
            shown=chosen.examples, progress=bars,
        )  # fmt: skip
    console.note(f"wrote {', '.join(FILES)} in {chosen.out}")
    typer.echo(json.dumps(to_json(done) | {"out": chosen.out}, ensure_ascii=False) if json_ else to_text(done))
