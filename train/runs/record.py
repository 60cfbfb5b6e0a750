"""``run.json``: what a run was asked, as data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from clearfuse.synth.console import UNITS
from clearfuse.synth.files.schema import OneOf, Schema, StrictModel, validate
from clearfuse.synth.files.storage import read_small
from clearfuse.synth.plugins import PluginRecord
from clearfuse.train.data.corpus import Mix
from clearfuse.train.data.find import ShardRow
from clearfuse.train.designs.schedule import HoldOut, Schedule

RUN = "run.json"


class RunSettings(Schedule):
    """All that decides what a run computes, with its data."""

    preset: str = "tiny-reg"
    """What is fitted."""
    seed: int = 0
    """Seed of weights, order, crops and noise."""
    set: list[str] | None = None
    """What is changed in the preset's design, as ``objective.pixel=0.1``."""
    hold_out: HoldOut = None
    """Pairs held out, as a share or a number; null: 5 %, or the validation shards."""
    mix: Mix | None = None
    """Weights of the sources of data, in their order, or of categories, by name; null: by their samples."""
    init: str | None = None
    """The model whose weights it starts from, and their digest; null: drawn ones."""
    lora: Annotated[int | None, Field(ge=1, le=1024)] = None
    """Rank of the change that is learned of each linear layer of the network, all else being frozen; null: no LoRA."""
    freeze: list[str] = []  # noqa: RUF012
    """Patterns of the names of weights that stay as they are, such as text.* or *.naf.*."""


class RunRecord(StrictModel):
    """What ``run.json`` holds."""

    schema_: Schema
    settings: RunSettings
    loss_unit: Annotated[str, OneOf(UNITS)] = ""
    """What the losses of the log are said in: dB for natural logarithms, times 4.343."""
    plugins: tuple[PluginRecord, ...] = ()
    """What adds its preset, its design's parts or what degrades its data to this package."""
    degrade: dict[str, Any] | None = None
    """What lean shards are degraded by; null where there are none."""
    shards: list[ShardRow | tuple[int, str, int]]
    """Source, name, size in bytes, a hash of parts and the receipt's sha256 of each shard, in order; earlier records
    have no hashes.
    """

    def to_json(self) -> dict[str, Any]:
        """The object that is written; ``plugins`` where there are any."""
        return self.model_dump(mode="json", by_alias=True, exclude=None if self.plugins else {"plugins"})

    def given(self) -> dict[str, Any]:
        """The settings that the file has: an earlier version's lacks some."""
        return self.settings.model_dump(exclude_unset=True)


def read_record(folder: Path) -> RunRecord:
    """The record of a run's folder. Raises UserError where it is damaged."""
    return validate(RunRecord, read_small(folder / RUN), str(folder / RUN))
