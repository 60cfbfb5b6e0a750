"""What the page shows, as a value: what a link says, and what the page's controls hold."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlencode

from clearfuse.synth.operators import OPERATORS, physical_order
from clearfuse.synth.types import MODALITIES, TASKS, UserError, check_name, shorten

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = ("en", "zh")
AUTO = "auto"
"""The task that the pictures themselves tell, for a user's own pair."""
SCENES = 32
"""Built-in scenes of a task: 1 to 32, those of ``synth build`` without ``--data``."""
LONGEST = 1000
"""Characters of an instruction."""
KEYS = ("task", "scene", "degradations", "severities", "prompt", "strength", "model", "language")
"""The query parameters of a link; others, such as the page's own, are not looked at."""


@dataclass(frozen=True)
class State:
    """scene: number of a built-in scene, 1 to ``SCENES``; None: the user's own pictures, which no link holds.

    task: vif, mef, mff, or auto for own pictures. degradations: severity in [0, 1] by operator. prompt: empty to
    remove what is estimated, ``fuse`` for the task's plain fusion. strength: how much of that is removed, in [0, 1].
    Raises UserError for a value that is not allowed.
    """

    task: str = "vif"
    scene: int | None = 1
    degradations: Mapping[str, float] = field(default_factory=dict[str, float])
    prompt: str = ""
    model: str = ""
    language: Language = "en"
    strength: float = 1.0

    def __post_init__(self) -> None:
        check_name("task", self.task, TASKS if self.scene is not None else (AUTO, *TASKS))
        if self.scene is not None and not 1 <= self.scene <= SCENES:
            raise UserError(f"scene {self.scene}: must be 1 to {SCENES}")
        for name, severity in self.degradations.items():
            if self.task == AUTO:
                check_name("degradation", name, OPERATORS)
            else:
                check_name(f"degradation of {self.task}", name, operators_of(self.task))
            if not 0 <= severity <= 1:  # NaN too
                raise UserError(f"severity of {name} = {severity:g}: must be in [0, 1]")
        if not 0 <= self.strength <= 1:
            raise UserError(f"strength = {self.strength:g}: must be in [0, 1]")
        if len(self.prompt) > LONGEST:
            raise UserError(f"the instruction has {len(self.prompt)} characters: at most {LONGEST}")
        check_name("language", self.language, LANGUAGES)

    def to_query(self) -> str:
        """The query of a link to this state, without the question mark; what is as by default is left out."""
        names = physical_order(self.degradations)
        said = {
            "task": self.task,
            "scene": "" if self.scene is None else str(self.scene),
            "degradations": ",".join(names),
            "severities": ",".join(f"{self.degradations[name]:.2g}" for name in names),
            "prompt": self.prompt,
            "strength": "" if self.strength == 1 else f"{self.strength:.2g}",
            "model": self.model,
            "language": self.language,
        }
        return urlencode({key: text for key, text in said.items() if text})


def operators_of(task: str) -> list[str]:
    """The degradations that a task's pictures can have, in physical order."""
    modalities = set(MODALITIES[next(one for one in TASKS if one == task)].values())
    return [name for name, cls in OPERATORS.items() if cls.modalities & modalities]


def from_query(query: Mapping[str, str], models: Collection[str], language: Language = "en") -> State:
    """The state of a link. models: those of this page, the first its default. language: where the link says none.

    Raises UserError, one line, for a value that is not allowed.
    """
    said = {key: query[key] for key in KEYS if query.get(key)}
    model = said.get("model", next(iter(models)))
    check_name("model of this page", model, models)
    names = said["degradations"].split(",") if "degradations" in said else []
    severities = said["severities"].split(",") if "severities" in said else ["0.5"] * len(names)
    if len(severities) != len(names) or len(set(names)) < len(names):
        raise UserError(f"the link has {len(names)} degradations and {len(severities)} severities: one for each")
    scene = said.get("scene")
    if scene is not None and not scene.isdecimal():
        raise UserError(f"scene {shorten(scene)}: must be a number, 1 to {SCENES}")
    tongue = said.get("language", language)
    check_name("language", tongue, LANGUAGES)
    return State(
        said.get("task", "vif"),
        int(scene[:9]) if scene else (None if "task" in said else 1),
        {name: _share(f"severity of {name}", text) for name, text in zip(names, severities, strict=True)},
        said.get("prompt", ""),
        model,
        next(one for one in LANGUAGES if one == tongue),
        _share("strength", said.get("strength", "1")),
    )


def _share(what: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UserError(f"{what} = {shorten(text)}: must be a number in [0, 1]") from None


def language_of(accepted: str) -> Language:
    """The page's language by a browser's ``Accept-Language``: the first of ours that it names."""
    ranked: list[tuple[float, int, Language]] = []
    for place, part in enumerate(accepted.split(",")):
        tag, _, weight = part.strip().partition(";q=")
        for one in LANGUAGES:
            if tag.lower().split("-")[0] == one:
                ranked.append((-_weight(weight), place, one))
    return min(ranked)[2] if ranked else "en"


def _weight(text: str) -> float:
    try:
        value = float(text or 1)
    except ValueError:
        return 0.0
    return value if math.isfinite(value) else 0.0
