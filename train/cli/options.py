"""The options of the commands of ``train``, as models: those of a schedule and a run are declared there."""

from __future__ import annotations

import json
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from pydantic import AfterValidator, Field

from clearfuse.synth import console
from clearfuse.synth.builder.options import Match, Share, Texts
from clearfuse.synth.files.schema import StrictModel
from clearfuse.synth.files.storage import local_text
from clearfuse.synth.types import Scale, UserError
from clearfuse.train.designs.schedule import HoldOut, Schedule
from clearfuse.train.runs.options import RunOptions

if TYPE_CHECKING:
    from clearfuse.train.data.corpus import Mix
    from clearfuse.train.designs.design import Parts

Count = Annotated[int | None, Field(ge=1)]
Often = Annotated[int | None, Field(ge=1), typer.Option(metavar="STEPS")]
Seed = Annotated[int, Field(ge=0, lt=2**53)]
Shards = Annotated[Texts, typer.Argument(metavar="SHARDS..."), Field(min_length=1, description=console.SHARDS)]
Repeated = Annotated[Texts, typer.Option(metavar="NAME=DIR")]

USUAL = "PSNR,SSIM,VIF,Qabf"
"""What ``train eval`` measures where no metric and no other profile is named."""


LocalOut = AfterValidator(lambda text: None if text is None else local_text(text, "--out"))
"""An ``--out`` that is written on this machine: a URL would be taken for a folder of that name."""


def preset_s(name: str) -> Any:
    """A field of ``Schedule`` that is the preset's where nothing is said."""
    field = copy(Schedule.model_fields[name])
    field.default = None
    return field


def parse_mix(text: str) -> Mix:
    """``2,1,1`` as numbers, ``m3=3,control=1`` as numbers by category. Raises UserError where it is neither."""
    parts = text.split(",")
    try:
        if "=" in text:
            named = dict(part.split("=") for part in parts)
            if len(named) < len(parts):
                raise ValueError("a category is named twice")
            return {name.strip(): float(weight) for name, weight in named.items()}
        return [float(part) for part in parts]
    except ValueError:
        raise UserError(
            f"--mix {text}: must be a weight for each argument, such as 2,1,1, or by category, such as m3=3,fusion=1"
        ) from None


class DeviceOptions(StrictModel):
    """Where it is done."""

    device: str | None = None
    """cpu or cuda; CUDA where there is one."""


class PartOptions(StrictModel):
    """Other parts than a model's or a preset's own."""

    tokenizer: Annotated[str | None, typer.Option(metavar="NAME|ID|DIR")] = None
    """Images to latents and back; the preset's, the model's own."""
    text: Annotated[str | None, typer.Option(metavar="NAME|ID|DIR")] = None
    """What reads the prompts; the preset's, the model's own."""
    semantics: Annotated[str | None, typer.Option(metavar="NAME|ID|DIR")] = None
    """What says ahead what is in the degraded pictures; the preset's, the model's own."""
    base: Annotated[str | None, typer.Option(metavar="NAME|ID|DIR")] = None
    """The network that ditfuse changes: OmniGen's; of a folder with transformer/, its vae/ and tokenizer/ too."""

    @property
    def references(self) -> dict[str, str]:
        """The references by part; of the parts of a whole base those that are not named by themselves."""
        chosen = {"tokenizer": self.tokenizer, "text": self.text, "semantics": self.semantics, "base": self.base}
        if self.base is not None and (Path(self.base) / "transformer").is_dir():
            chosen["base"] = f"{self.base}/transformer"
            for name, folder in (("tokenizer", "vae"), ("text", "tokenizer")):
                chosen[name] = chosen[name] or f"omnigen={Path(self.base) / folder}"
        return {name: value for name, value in chosen.items() if value is not None}

    @property
    def changes(self) -> list[str]:
        """References in place of a preset's, as changes of its design."""
        return [f"{name}={json.dumps(value)}" for name, value in self.references.items()]


class DesignOptions(PartOptions):
    """A preset with changes."""

    sets: Annotated[Texts, typer.Option("--set", metavar="A.B=C")] = ()
    """Change one value of the preset, such as objective.pixel=0.1 or schedule.ema=0.999; repeatable."""
    question: Annotated[Texts, typer.Option(metavar="TEXT")] = ()
    """Ask a language model this about the degraded pictures; repeatable: the answers are averaged."""

    @property
    def changes(self) -> list[str]:
        """References and questions in place of a preset's, as changes of its design."""
        asked = [f"questions={json.dumps(self.question)}"] if self.question else []
        return [*super().changes, *asked]


class ModelOptions(DeviceOptions, PartOptions):
    """How a model is used."""

    steps: Count = None
    """Steps of a flow model's sampler."""
    sampler: str | None = None
    """A flow model's sampler, instead of its own."""
    guidance: Annotated[float | None, Field(ge=0)] = None
    """How strongly a flow model follows the prompt; 1: as it learned to."""
    guidance_images: Annotated[float | None, Field(ge=0)] = None
    """How strongly one that learned without images, such as ditfuse-small, follows them; 1: as it learned to."""
    strength: Annotated[float | None, Field(ge=0, le=1)] = None
    """How much of what is asked for is removed, of a model with a dial, such as small: 0.5 leaves half the noise, half
    the density of the haze; all."""

    @property
    def parts(self) -> Parts:
        """Where the model's parts are."""
        from clearfuse.train.designs.design import Parts

        return Parts(**self.references)


class FuseOptions(ModelOptions):
    """``train fuse``."""

    inputs: Annotated[Texts, typer.Argument(metavar="A B|STACK...|SHARDS")] = ()
    """Two images or folders (visible and infrared, under- and over-exposed, near and far focus), three or more of a
    stack, a folder of frames or of stacks, or shards."""
    out: Annotated[str, typer.Option("--out", "-o", metavar="FILE|DIR"), LocalOut]
    """The fused image, or a folder of them."""
    data: Repeated = ()
    """A data set in place of files, repeatable; of one that comes degraded, its degraded pictures."""
    match: Match = None
    """Names in two folders, where they differ: '{key}-A' '{key}-B'."""
    split: str | None = None
    """This split of --data alone: train, val or test; all."""
    limit: Count = None
    """Fuse this many pairs at most."""
    task: Annotated[str, typer.Option(metavar="auto|vif|mef|mff|other")] = "auto"
    """What the pair is; auto: told by the pictures; other: medical, near infrared, remote sensing and so on."""
    prompt: str | None = None
    """What to do; without it, or auto: to remove what synth estimate finds in the pair; fuse: to remove nothing."""
    mask: bool = False
    """Also write what the prompt had marked, such as 'segment the car', as NAME-mask.png."""
    registered: Annotated[bool, typer.Option("--register")] = False
    """Lay the second picture over the first, where they are of unequal size or not registered."""
    compare: bool = False
    """Also write inputs and result side by side, labelled, as NAME-compare.png."""
    stacks: bool = False
    """Of --data of sequences: all frames of each, not the darkest and the brightest alone."""
    frames: bool = False
    """The folders hold frames of a video, in the order of their names; --register finds one warp for all."""
    steady: bool = False
    """Frames: against flicker, where nothing moves."""
    model: Annotated[str | None, typer.Option(metavar="DIR|HUB_ID")] = None
    """A run's folder, a model on the hub or a shipped one; the only run in runs/, else the shipped clearfuse-small."""
    scale: Scale | None = None
    """Count of white in visible pictures of 16 bits; the metadata's, or 65535."""
    seed: Seed = 0
    """Seed of a flow model's noise."""
    tile: Annotated[int | None, Field(ge=256)] = None
    """Side of the tiles of larger images, pixels; less takes less memory; 2048, of small 1024."""
    attention: Annotated[str, typer.Option(metavar="auto|xformers|sdpa")] = "auto"
    """Kernel of attention on CUDA; auto: torch's, or xformers' for masks."""
    compiled: Annotated[bool, typer.Option("--compile")] = False
    """Compile the network; its first call takes longer."""


class DemoOptions(DeviceOptions):
    """``train demo``."""

    model: Annotated[Texts, typer.Option(metavar="DIR|HUB_ID")] = ()
    """A model to offer, repeatable, the first by default; the only run in runs/, else the shipped clearfuse-small."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 for other machines too."""
    port: Annotated[int, Field(ge=1, le=65535)] = 7860
    """Port to listen on."""
    share: bool = False
    """Open a public link through gradio's servers."""


class ExportOptions(PartOptions):
    """``train export``."""

    model: Annotated[str, typer.Argument(metavar="MODEL")]
    """A run's folder, a model on the hub or a shipped one."""
    out: Annotated[str, typer.Option("--out", "-o", metavar="FILE.onnx|DIR"), LocalOut]
    """The graph, or the folder of --merge."""
    merge: bool = False
    """Add the adapters of ditfuse to its base, and write the model so, which refers to no other base."""

    @property
    def parts(self) -> Parts:
        """Where the model's parts are."""
        from clearfuse.train.designs.design import Parts

        return Parts(**self.references)


class EvalOptions(ModelOptions):
    """``train eval``."""

    shards: Annotated[Texts, typer.Argument(metavar="SHARDS...")] = Field((), description=console.SHARDS)
    pairs: Annotated[str | None, typer.Option(metavar="A,B[,GT]")] = None
    """Folders of pairs in place of shards, with or without ground truth; files pair by name."""
    match: Match = None
    """Names in the folders of --pairs, where they differ: '{key}-A' '{key}-B'."""
    task: Annotated[str, typer.Option(metavar="auto|vif|mef|mff")] = "auto"
    """What --pairs are; auto: told by the pictures."""
    out: Annotated[str, LocalOut] = "report"
    """Folder of the report."""
    metrics: Annotated[str | None, typer.Option(metavar="NAME,...|all")] = Field(
        None, description=f"What to measure; {USUAL}, or the profile's."
    )
    profile: Annotated[str, typer.Option(metavar="NAME")] = "strict"
    """What the names mean: strict, or a toolbox as it is: see docs."""
    model: Annotated[Texts, typer.Option(metavar="DIR|HUB_ID|none")] = ()
    """A model to score, repeatable; the only run in runs/, else the shipped clearfuse-small. none: the fusers alone."""
    unprompted: bool = False
    """Score each model without the samples' prompts too."""
    without_prior: bool = False
    """Score each model with zeros in place of its semantic prior too, as mdaif has it."""
    results: Repeated = ()
    """Anybody's fused images, by key or pair name; repeatable."""
    scale: Scale | None = None
    """Count of white in results and --pairs of 16 bits; the metadata's, or 65535."""
    restorer: Annotated[Texts, typer.Option(metavar="OP,...=FILE")] = ()
    """A restoration network of these degradations, which spandrel loads; repeatable."""
    fuser: Annotated[Texts, typer.Option(metavar="swinfusion|defuse|none")] = ()
    """Learned fusers beside pyramid; all with weights here."""
    papers: bool = False
    """Set the papers' tables beside ours; measures what they need."""
    limit: Count = None
    """Use this many samples at most, of all shards."""
    examples: Annotated[int, Field(ge=0)] = 6
    """Samples to show as pictures."""
    workers: Count = None
    """Processes; all cores."""
    device: str | None = None
    """cpu or cuda; CUDA where there is one. A GPU that is named computes the metrics too."""

    @property
    def metrics_device(self) -> str | None:
        """Where metrics are computed: on the GPU that was named; None: on arrays. Raises UserError if there is none."""
        if self.device is None:
            return None
        from clearfuse.train.device import find_device

        device = find_device(self.device)
        return None if device.type == "cpu" else str(device)

    def check_inputs(self) -> None:
        """Raise UserError unless there are shards, or pairs with what belongs to them."""
        if self.pairs is not None and self.shards:
            raise UserError(f"--pairs {self.pairs}: takes no shards beside it, and {self.shards[0]} is one")
        if self.pairs is None and not self.shards:
            raise UserError("nothing to score: name shards, or folders of pairs by --pairs A,B[,GT]")
        if self.pairs is None and (self.match is not None or self.task != "auto"):
            raise UserError(f"--{'match' if self.match else 'task'}: goes with --pairs; shards have their own")
        if self.pairs is not None and (self.papers or self.unprompted):
            raise UserError(f"--{'papers' if self.papers else 'unprompted'}: needs shards, whose samples have prompts")


class InfoOptions(DesignOptions):
    """``train info``."""

    preset: Annotated[str, typer.Argument(metavar="PRESET")]
    """The preset's name."""
    size: Annotated[str, typer.Option(metavar="WxH")] = "1024x1024"
    """Image size of the costs of fusing."""
    batch: int | None = preset_s("batch")
    crop: int | None = preset_s("crop")
    precision: str | None = preset_s("precision")
    device: Annotated[Literal["cpu", "cuda"], typer.Option(metavar="cpu|cuda")] = "cuda"
    """What the memory of training is counted for."""
    attention: Annotated[str, typer.Option(metavar="auto|xformers|sdpa")] = "auto"
    """Kernel of attention on CUDA, as train fit takes it."""


class TokenizerOptions(DeviceOptions):
    """``train tokenizers``."""

    names: Annotated[Texts, typer.Argument(metavar="[NAME|ID|DIR...]")] = ()
    """Tokenizers, NAME=DIR too; dct."""
    data: Repeated = ()
    """A data set, repeatable; all its splits."""
    match: Match = None
    """Names of --data folder=A,B, where they differ: '{key}-A' '{key}-B'."""
    shards: Annotated[Texts, typer.Option(metavar="SHARDS")] = Field(
        (), description=f"The clean pairs of these, repeatable. {console.SHARDS}"
    )
    limit: Count = None
    """Use this many pairs at most, of all."""
    crop: Annotated[int | None, Field(ge=16)] = None
    """Take the middle of this side, pixels."""


class DataOptions(DeviceOptions, DesignOptions):
    """What a run and a cache of latents have in common."""

    shards: Shards
    crop: int | None = preset_s("crop")
    ratios: str | None = preset_s("ratios")
    recipe: Annotated[Texts, typer.Option(metavar="NAME|FILE")] = ()
    """What degrades lean shards; repeatable by task; the task's own."""
    hold_out: Annotated[HoldOut, typer.Option(metavar="SHARE|PAIRS")] = None
    """Keep these pairs for validation: 0.1, or 32 of them; 0.05."""
    partial: Share = 0.0
    """Lean shards: share of prompts that ask for a part of the steps only."""
    language: str = "en"
    """Lean shards: language of the prompts: en, zh (Chinese) or mix."""
    text_cache: Annotated[str | None, typer.Option(metavar="DIR")] = None
    """Keep the prompts' embeddings in this folder."""

    @property
    def parts(self) -> Parts:
        """Where this machine has the parts."""
        from clearfuse.train.designs.design import Parts

        return Parts(text_cache=None if self.text_cache is None else Path(self.text_cache))


class CacheOptions(DataOptions):
    """``train cache``."""

    out: Annotated[str, typer.Option(metavar="DIR|URL")]
    """The folder of the shards of latents."""
    preset: str | None = None
    """What they are for; tiny-reg without CUDA, else mmaif-reg."""
    epochs: Annotated[int, Field(ge=1)] = 1
    """Drawn crops of each sample, which a run takes in turn."""
    seed: Seed = 0
    """Seed of crops and words: the run's."""
    executor: Annotated[str | None, typer.Option(metavar="processes|ray|serial")] = None
    """Who does it; serial on CUDA, else processes."""
    workers: Count = None
    """Workers; all cores."""
    overwrite: bool = False
    """Start anew where shards of latents are."""


class FitOptions(DataOptions, RunOptions):
    """``train fit``."""

    out: Annotated[str | None, typer.Option(metavar="DIR"), LocalOut] = None
    """The run's folder; runs/PRESET."""
    preset: str | None = None
    """What to fit; what --init is, else tiny-reg without CUDA and mmaif-reg with it."""
    init: Annotated[str | None, typer.Option(metavar="NAME|DIR|HUB_ID")] = None
    """Start from the weights of a model, as far as they fit: small (shipped), a run's folder, a hub id; of MdaIF, those
    of a SegFormer's folder too."""
    lora: Annotated[int | None, Field(ge=1, le=1024), typer.Option(metavar="RANK")] = None
    """Learn a change of this rank of each linear layer of --init's network, and nothing else; merged in the result."""
    freeze: Annotated[Texts, typer.Option(metavar="PATTERN")] = ()
    """Weights that stay as they are, by name, such as 'text.*'; repeatable."""
    steps: int | None = preset_s("steps")
    batch: int | None = preset_s("batch")
    accumulate: int | None = preset_s("accumulate")
    lr: float | None = preset_s("lr")
    precision: str | None = preset_s("precision")
    mix: Annotated[str | None, typer.Option(metavar="W,W...")] = None
    """Weights of the arguments, in their order, or of categories: m3=3,control=1; their samples."""
    dial: Share = 0.0
    """Lean shards: share of samples from which only a drawn share of the degradations' strength is to be removed, for
    train fuse --strength; of presets with a dial, such as small."""
    seed: Seed = 0
    """Seed of weights, order, crops and noise."""
    workers: Annotated[int | None, Field(ge=0)] = None
    """Processes that decode; all cores but one, at most 32."""
    validate_every: Often = None  # pyright: ignore[reportIncompatibleVariableOverride]
    """Validate so often; the preset's."""
    checkpoint_every: Often = None  # pyright: ignore[reportIncompatibleVariableOverride]
    """Save this often; the preset's."""
    overwrite: bool = False
    """Start anew where a run is."""

    @property
    def changed(self) -> dict[str, Any]:
        """What is not the preset's of its schedule, and the weights of the sources."""
        named = {name: getattr(self, name) for name in Schedule.model_fields if hasattr(self, name)}
        mix = None if self.mix is None else parse_mix(self.mix)
        more = {"lora": self.lora, "freeze": list(self.freeze) or None}
        return {**named, "hold_out": self.hold_out, "mix": mix, "init": self.init, **more}
