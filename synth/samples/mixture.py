"""Mixtures: recipes of instructed samples, with the categories' shares and how inputs are made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from clearfuse.synth.files.resources import read_toml, resource_dir, resource_names
from clearfuse.synth.files.schema import Schema, StrictModel, validate
from clearfuse.synth.files.storage import local
from clearfuse.synth.operators.blocks import BLOCK_OPERATORS, BLOCK_WEIGHTS
from clearfuse.synth.samples.recipe import Ratio, Unit, Weight, lay_over, some_weight
from clearfuse.synth.types import BuildTask, Category, UserError, check_name

FOLDER = "manifests/mixtures"


def _block_operators(weights: dict[str, float]) -> dict[str, float]:
    for name in weights:
        try:
            check_name("block operator", name, BLOCK_OPERATORS)
        except UserError as error:
            raise ValueError(str(error)) from None
    return weights


class BlocksEntry(StrictModel):
    """How one picture becomes two inputs, each damaged where the other is not."""

    sizes: Annotated[tuple[Annotated[int, Field(ge=16, le=1024)], ...], Field(min_length=1)] = (32, 64, 128)
    """Sides of the blocks in pixels, each as likely; all of a picture are of one size."""
    both: Unit = 0.0
    """Share of the blocks that are damaged in both inputs; a quarter in the authors' script, where it is asked for."""
    operators: Annotated[dict[str, Weight], AfterValidator(some_weight), AfterValidator(_block_operators)] = (
        BLOCK_WEIGHTS
    )
    """How often each operator is drawn."""


class MixtureFile(StrictModel):
    """A recipe of instructed samples, from clean pairs and single pictures of any task, as TOML has it."""

    schema_: Schema
    task: Literal["any"]
    """any: that of a sample is its pair's."""
    categories: Annotated[dict[Category, Weight], AfterValidator(some_weight)]
    """How often each category is drawn, among those that a pair can be of."""
    ratios: Annotated[dict[Ratio, Weight], AfterValidator(some_weight)] = {"4:3": 1.0}  # noqa: RUF012
    """Shapes of the crop, width:height, by weight."""
    pairs: Unit = 0.5
    """Share of control and segment samples whose inputs are a pair itself, and their target made of its ground truth;
    those of others are made of one picture by blocks."""
    tagged: Unit = 0.5
    """Share of prompts that begin with the tags of DiTFuse's grammar, such as [CONTROL]. <LIGHT+>."""
    blocks: BlocksEntry = BlocksEntry()

    @model_validator(mode="after")
    def _used(self) -> MixtureFile:
        if self.pairs == 1 and not self.categories.get("m3") and "blocks" in self.model_fields_set:
            raise ValueError("blocks have no effect with pairs = 1 and no m3")
        return self


@dataclass(frozen=True)
class Mixture:
    """A mixture, checked. ``source`` is its plain form: what receipts record and the digest covers."""

    name: str
    categories: Mapping[Category, float]
    ratios: Mapping[str, float]
    pairs: float
    tagged: float
    blocks: BlocksEntry
    source: Mapping[str, Any]


def load_mixture(name: str | Path, task: BuildTask, sets: Sequence[str] = ()) -> Mixture:
    """A shipped mixture by name or a TOML file by path, with ``--set`` laid over it, for a build of ``task``.

    Raises UserError naming the file, the key and what is allowed.
    """
    mixture = read_mixture(name, sets)
    if task != "ditfuse" and set(mixture.categories) != {task}:
        drawn = ", ".join(mixture.categories)
        raise UserError(f"recipe '{mixture.name}' draws {drawn}: it is for --task ditfuse, not for {task}")
    return mixture


def read_mixture(name: str | Path, sets: Sequence[str] = ()) -> Mixture:
    """A mixture as ``load_mixture`` finds it, for whatever build."""
    text = str(name)
    if text.endswith(".toml") or "/" in text:
        path = local(text, "--recipe")
        if not path.is_file():
            raise UserError(f"recipe file {text} does not exist")
    else:
        check_name("recipe of samples by instruction", text, resource_names(FOLDER))
        path = resource_dir(FOLDER) / f"{text}.toml"
    data = read_toml(path)
    for item in sets:
        lay_over(data, item)
    read = validate(MixtureFile, data, str(path))
    drawn: dict[Category, float] = {one: weight for one, weight in read.categories.items() if weight > 0}
    return Mixture(path.stem, drawn, read.ratios, read.pairs, read.tagged, read.blocks, dict(data))
