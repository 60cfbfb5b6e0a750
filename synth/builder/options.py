"""What a user can say about a build, and the checks that need no data."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer
from pydantic import BeforeValidator, Field, model_validator

from clearfuse.synth.files.schema import StrictModel
from clearfuse.synth.types import INSTRUCTED, BuildTask, Scale, UserError, check_name

TIMEOUT = 1800.0


def _text(value: Any) -> Any:
    """A caller's path or number as the command line has it."""
    return value if value is None or isinstance(value, bool) else str(value)


def _texts(value: Any) -> Any:
    """A caller's one text, list or None as a tuple."""
    if isinstance(value, str):
        return (value,)
    return tuple(value or ()) if value is None or isinstance(value, list | tuple) else value


Text = Annotated[str | None, BeforeValidator(_text)]
Texts = Annotated[tuple[str, ...], BeforeValidator(_texts)]
Match = Annotated[tuple[str, str] | None, typer.Option(metavar="PATTERN_A PATTERN_B")]
"""Patterns of the names in two folders."""
Share = Annotated[float, Field(ge=0, le=1, title="a share")]


class Options(StrictModel):
    """What a user can say about a build. The command line has these options, and ``build`` these keywords."""

    task: BuildTask
    """vif, mef or mff; or m3, control, segment, from clean pairs and pictures of any task; all of these: ditfuse."""
    data: Annotated[Texts, typer.Option(metavar="NAME=DIR|URL")] = ()
    """A data set and its folder; repeat to merge; my.toml=DIR: by your own manifest. Without it: built-in scenes."""
    match: Match = None
    """Names of --data folder=A,B, where they differ: '{key}-A' '{key}-B'."""
    out: Annotated[Text, typer.Option(metavar="DIR|URL")] = None
    """Folder of the shards. [default: shards/TASK]"""
    n: Annotated[Text, typer.Option(metavar="N|LOW-HIGH")] = None
    """Degradations a pair: 3, or 1-3. [default: the recipe's]"""
    recipe: Text = None
    """A recipe's name or TOML file. [default: the task's]"""
    prompts: Text = None
    """A folder of your own prompt pools, over those that ship: a page of the same name stands in its place."""
    language: str = "en"
    """Language of the prompts: en, zh (Chinese) or mix (half of each)."""
    sets: Annotated[Texts, typer.Option("--set", metavar="A.B=C")] = ()
    """Change one value of the recipe; repeatable."""
    seed: Annotated[int, Field(ge=0, lt=2**53)] = 0
    """The build's seed."""
    workers: Annotated[int | None, Field(ge=1)] = None
    """Worker processes. [default: all cores]"""
    split: str = "train"
    """train, val or test; or several: train,val,test."""
    pairs: str = "extreme"
    """Exposures of a sequence that make a pair: extreme, adjacent or all."""
    scale: Scale | None = None
    """Count of white in visible pictures of 16 bits, such as 4095. [default: the set's, the metadata's, or 65535]"""
    licence: Text = None
    """Refuse sets whose terms do not grant this use: research, non-commercial, commercial."""
    limit: Annotated[int | None, Field(ge=1)] = None
    """Use this many pairs at most."""
    keys: Annotated[Texts, typer.Option("--key", metavar="KEY")] = ()
    """This pair alone, by its key; repeatable. A set without splits of its own gives it whatever split it draws."""
    whole: bool = False
    """All pairs are of --split, whatever split they draw; such as a folder that is all for testing."""
    variants: Annotated[int, Field(ge=1)] = 1
    """Degraded versions of each pair."""
    shard_size: Annotated[int, Field(ge=1)] = 256
    """Samples a shard."""
    fuser: str = "auto"
    """What makes the ground truth: see synth list fusers."""
    depth: str = "auto"
    """Where depth comes from: see synth list depths."""
    codec: str = "webp"
    """Lossless codec: webp, png, pnm or jxl."""
    executor: str = "processes"
    """processes, ray or serial."""
    timeout: Annotated[float, Field(ge=0)] = TIMEOUT
    """Seconds a sample may take before its worker is ended; 0: no limit. Serial builds have none."""
    partial: Share = 0.0
    """Share of samples whose prompt asks for a part of the steps only."""
    max_rejects: Share = 0.01
    """Share of rejected samples that is accepted."""
    min_gt: Share = 0.0
    """Reject pairs whose ground truth has a lower Qabf."""
    overwrite: bool = False
    """Replace the build in --out."""
    extend: bool = False
    """Add variants to the finished build in --out."""
    lean: bool = False
    """Clean images, ground truth and depth alone: train fit degrades them."""

    @model_validator(mode="before")
    @classmethod
    def _matched(cls, values: Any) -> Any:
        """The patterns go behind the folders of ``data``, where everything else reads them."""
        from clearfuse.synth.datasets.select import with_match

        match = values.get("match") if isinstance(values, dict) else None
        if not match:
            return values
        return {**values, "data": with_match(_texts(values.get("data")), tuple(match)), "match": None}

    @model_validator(mode="after")
    def _names(self) -> Options:
        """Names of tables that are there without the data."""
        from clearfuse.synth.datasets.select import check_pairing, split_names
        from clearfuse.synth.fusers import fuser_help
        from clearfuse.synth.prompts.pools import languages_of

        languages_of(self.language)
        split_names(self.split)
        check_pairing(self.pairs)
        check_name("fuser", self.fuser, fuser_help())
        return self

    @model_validator(mode="after")
    def _together(self) -> Options:
        """What has no effect, or contradicts another option."""
        if self.executor == "serial" and self.timeout not in (0, TIMEOUT):
            raise UserError(
                f"--timeout {self.timeout:g}: has no effect with --executor serial, where nobody watches: "
                "take processes with --workers 1"
            )
        if self.scale is not None and not self.data:
            raise UserError(f"--scale {self.scale}: has no effect without --data: the built-in scenes have 8 bits")
        if self.out is not None and not self.out.strip():
            raise UserError("--out is empty: name a folder")
        self._check_one_process()
        if self.keys and ("," in self.split or len(self.data) > 1):
            raise UserError(f"--key {self.keys[0]}: goes with one data set and one split")
        if self.whole and ("," in self.split or not self.data):
            raise UserError("--whole: goes with --data and one split, such as --split test")
        if self.overwrite and self.extend:
            raise UserError("--overwrite and --extend exclude each other: replace a build, or add variants to it")
        if self.task in INSTRUCTED:
            self._check_instructed()
        if self.lean:
            self._check_lean()
        return self

    def _check_instructed(self) -> None:
        """Refuse what would have no effect: nothing is degraded as a whole, so there are no steps and no depth."""
        idle = {"--n": self.n, "--partial": self.partial or None, "--lean": "" if self.lean else None}
        idle |= {"--depth": None if self.depth == "auto" else self.depth}
        for name, value in idle.items():
            if value is not None:
                raise UserError(f"{name} {value}".rstrip() + f": has no effect with --task {self.task}")

    def _check_one_process(self) -> None:
        """Refuse a store that lives in one process where the work is in others."""
        from clearfuse.synth.files.cache import cache_folder
        from clearfuse.synth.files.storage import IN_PROCESS

        workers = 1 if self.executor == "serial" else self.workers or os.cpu_count()
        if workers == 1 and self.executor != "ray":
            return
        places = [f"--out {self.out}", f"--depth {self.depth}", f"CLEARFUSE_CACHE {cache_folder()}"]
        for place in (*places, *(f"--data {item}" for item in self.data)):
            if IN_PROCESS in place:
                raise UserError(f"{place}: {IN_PROCESS} is one process's own: add --executor serial")

    def _check_lean(self) -> None:
        """Refuse what would have no effect: a lean build degrades nothing, and has no prompt."""
        idle = {"--n": self.n, "--partial": self.partial or None, "--prompts": self.prompts}
        idle |= {"--language": None if self.language == "en" else self.language}
        idle |= {"--set": self.beyond_ratios}
        for name, value in idle.items():
            if value is not None:
                raise UserError(
                    f"{name} {value}: has no effect with --lean, which degrades nothing; "
                    "give train fit a recipe with --recipe"
                )

    @property
    def beyond_ratios(self) -> str | None:
        """The first change of the recipe that is not to the ratios of the crops."""
        return next((item for item in self.sets if not item.strip().startswith("ratios")), None)
