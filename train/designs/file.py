"""``pipeline.json``: a design as a file, checked as it is read."""

from __future__ import annotations

import functools
import json
from typing import Annotated, Any, Literal, Union

from pydantic import BaseModel, Field, RootModel, create_model

from clearfuse.synth.files.schema import OneOf, Schema, StrictModel, validate
from clearfuse.synth.plugins import PluginRecord, warn_changed
from clearfuse.train.data.guesses import GUESSES
from clearfuse.train.designs.design import Design
from clearfuse.train.models import MODELS
from clearfuse.train.models.base import Family
from clearfuse.train.objectives import OBJECTIVES
from clearfuse.train.weights import base as bases

Reference = Annotated[str, Field(min_length=1, max_length=4096)]
"""Of a tokenizer or an encoder: a name, a folder or a hub id, see ``weights.source``."""
Question = Annotated[str, Field(min_length=1, max_length=1000)]


class DesignFields(StrictModel):
    """What ``pipeline.json`` holds: a design, with the config of the family that ``model`` names."""

    schema_: Schema
    model: str
    config: Any
    tokenizer: Reference
    """Images to latents and back."""
    text: Reference
    """What reads the prompts."""
    guess: Annotated[str, OneOf(GUESSES)] = "none"
    """The first guess that the network is given."""
    semantics: Reference = "none"
    """What says ahead what is in the degraded pictures."""
    questions: Annotated[tuple[Question, ...], Field(max_length=64)] = ()
    """What a language model is asked about them; none: the usual one."""
    base: Reference = bases.NONE
    """The network whose weights stay, and that the model's own change."""
    objective: Any
    digests: dict[str, str] = Field(default_factory=dict)
    """Of the parts that only their content names."""
    plugins: Annotated[tuple[PluginRecord, ...], Field(max_length=64)] = ()
    """What adds its network, its objective or a loss to this package."""

    def design(self) -> Design:
        """The values, without the file's."""
        values = self.model, self.config, self.tokenizer, self.text, self.objective, self.guess
        return Design(*values, self.semantics, self.questions, self.base)


def design_file() -> type[BaseModel]:
    """The model of ``pipeline.json``, of the families and objectives that there are now, plugins' among them."""
    return _design_file(tuple(MODELS.items()), tuple(OBJECTIVES.values()))


@functools.lru_cache(maxsize=2)
def _design_file(models: tuple[tuple[str, Family], ...], objectives: tuple[Any, ...]) -> type[BaseModel]:
    objective: Any = Annotated[Union[objectives], Field(discriminator="kind")]  # noqa: UP007
    families = tuple(
        create_model(
            f"{name}_design",
            __base__=DesignFields,
            model=(Literal[name], Field(description="The network's family.")),
            config=(family.config, Field(description="Its sizes and switches.")),
            objective=(objective, Field(description="What its prediction stands for.")),
        )
        for name, family in models
    )

    class DesignFile(RootModel[Annotated[Union[families], Field(discriminator="model")]]):  # noqa: UP007
        """``pipeline.json``: the fields of the family that it names."""

    return DesignFile


def read_design(data: Any, where: str) -> DesignFields:
    """What ``pipeline.json`` holds, an object or JSON text as bytes. Raises UserError, naming ``where``.

    That of a plugin that is not loaded is told as that: its model or objective is no name here. One that has changed is
    said.
    """
    if isinstance(data, bytes) and b'"prior"' in data:
        data = _renamed(data)
    warn_changed(_named_plugins(data), where)
    file: Any = validate(design_file(), data, where)
    return file.root


def _named_plugins(data: Any) -> list[Any]:
    if isinstance(data, bytes):
        if b'"plugins"' not in data:
            return []
        try:
            data = json.loads(data)
        except (ValueError, RecursionError):
            return []  # what is wrong with it is told by who validates it
    named = data.get("plugins") if isinstance(data, dict) else None
    return named if isinstance(named, list) else []


def _renamed(text: bytes) -> Any:
    """An older file's fields as they are called now: ``guess``, of the design and of its config, was ``prior``."""
    try:
        return json.loads(
            text, object_pairs_hook=lambda pairs: {"guess" if key == "prior" else key: value for key, value in pairs}
        )
    except (ValueError, RecursionError):
        return text  # what is wrong with it is told by who validates it
