"""The pages of ``manifests/runs/``: on what a shipped model is trained, and how."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from clearfuse.synth.files.resources import read_toml
from clearfuse.synth.files.schema import Schema, StrictModel, validate
from clearfuse.synth.types import Task


class BuildEntry(StrictModel):
    """One lean build of clean pairs."""

    name: Annotated[str, Field(pattern=r"^[\w-]+$")]
    """Its folder."""
    task: Task
    """vif, mef or mff."""
    data: list[str] = []  # noqa: RUF012
    """Sets and their folders below that of the data, as ``msrs=vif/MSRS``; none: the built-in scenes."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """Its share of the samples, beside the other builds'."""
    options: dict[str, Any] = {}  # noqa: RUF012
    """Other options of ``synth build``."""


class RunManifest(StrictModel):
    """What ``manifests/runs/NAME.toml`` holds."""

    schema_: Schema
    build: Annotated[list[BuildEntry], Field(min_length=1)]
    """The data, degraded as they are read."""
    fit: Annotated[list[dict[str, Any]], Field(min_length=1)]
    """Stages, by names of options of ``train fit``: the first one's, and what each of the others changes of the one
    before, whose weights it starts from. The seed is the stage's number, from 0, where it is not said."""

    def stages(self) -> list[dict[str, Any]]:
        """All options of each stage."""
        stages, options = [], dict[str, Any]()
        for number, stage in enumerate(self.fit):
            options = {**options, "seed": number, **stage}
            stages.append(options)
        return stages


def read_run_manifest(path: Path) -> RunManifest:
    """The page in a file. Raises UserError, naming it, where it is not one."""
    return validate(RunManifest, read_toml(path), str(path))
