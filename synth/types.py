"""The values that flow through a build, and the two kinds of errors a user meets.

Arrays are ``(h, w, c)`` with c = 1 or 3, RGB. Stored images are uint8; operators work on float32 in [0, 1].
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Task = Literal["vif", "mef", "mff"]
Modality = Literal["visible", "infrared"]
Target = Literal["a", "b", "both"]
ImageName = Literal["a", "b"]

TASKS: tuple[Task, ...] = ("vif", "mef", "mff")
DEGRADED = ("degraded_a", "degraded_b")
"""The images of a pair that comes degraded, as a manifest and a sample's sources name them."""
NO_TRUTH = "none"
"""What stands for a fuser where a real pair has no ground truth."""
CACHED = "cached"
"""The field of a sample's json that says that it holds latents, written by ``train cache``."""
HELD = "held"
"""The member of a sample of latents that holds pictures, since none is trained on it; others are numbered."""
SCHEMA = 1
"""Schema of a sample, a receipt and every TOML. Readers refuse a higher one."""

MODALITIES: dict[Task, dict[ImageName, Modality]] = {
    "vif": {"a": "visible", "b": "infrared"},
    "mef": {"a": "visible", "b": "visible"},
    "mff": {"a": "visible", "b": "visible"},
}
ROLES: dict[Task, dict[ImageName, str]] = {
    "vif": {"a": "visible", "b": "infrared"},
    "mef": {"a": "under-exposed", "b": "over-exposed"},
    "mff": {"a": "near focus", "b": "far focus"},
}


class UserError(Exception):
    """A user's mistake, found before work began: one line, exit code 2."""


class WorkIncomplete(Exception):
    """Work that began and could not be finished whole: one line that names what is missing, exit code 1."""


class BadPair(Exception):
    """A pair that can't be used; the message is the reason that the receipt records."""


def unknown(what: str, name: str, choices: Iterable[str]) -> UserError:
    """The error for a name that no table has: the nearest one first, then all that are allowed."""
    allowed = sorted(choices)
    cased = {choice.lower(): choice for choice in allowed}
    near = difflib.get_close_matches(name.lower(), cased, n=1, cutoff=0.5)
    hint = f" did you mean '{cased[near[0]]}'?" if near else ""
    return UserError(f"unknown {what} '{name}':{hint} allowed: {', '.join(allowed)}")


def check_schema(found: Any, where: str) -> None:
    """Refuse a file of a schema that this version does not know."""
    if not isinstance(found, int) or isinstance(found, bool):
        raise UserError(f"{where}: schema must be a whole number, not {found!r}")
    if found > SCHEMA:
        raise UserError(f"{where}: schema {found} is newer than this version reads ({SCHEMA}); upgrade clearfuse")


@dataclass(frozen=True)
class Step:
    """One degradation as data: enough, with the clean image and the depth, to make the same pixels again.

    seed: None where others degraded the image: then the name and the target are all that is known, and nothing replays.
    """

    op: str
    target: Target
    params: Mapping[str, Any]
    seed: int | None
    severity: float | None = None

    def to_json(self) -> dict[str, Any]:
        """The step as the sample's ``json`` member holds it."""
        return asdict(self) | {"params": dict(self.params)}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Step:
        """The step that ``to_json`` wrote."""
        return Step(data["op"], data["target"], dict(data["params"]), data["seed"], data.get("severity"))


@dataclass(frozen=True)
class Prompt:
    """A sample's instruction, with the templates it was made of and the steps it asks to remove."""

    text: str
    templates: tuple[str, ...]
    strength: str | None
    asked: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """The ``prompt`` field of the sample's ``json``; the text itself is the ``txt`` member."""
        return {"templates": list(self.templates), "strength": self.strength, "asked": list(self.asked)}


@dataclass(frozen=True, slots=True)
class PairRef:
    """Where one clean pair comes from. ``sources`` maps a, b (and gt) to paths, or is empty for a built-in scene.

    A set that comes degraded has ``degraded_a``, ``degraded_b`` or both there too. degradation: what is known of them,
    (operator, target) in physical order. real: a and b are themselves degraded, and there is no clean side.
    """

    task: Task
    dataset: str
    key: str
    scene: str
    split: str
    sources: Mapping[str, str] = field(default_factory=dict[str, str])
    degradation: tuple[tuple[str, Target], ...] = ()
    real: bool = False

    @property
    def given(self) -> bool:
        """Whether the pair comes degraded, beside a clean one or without, so that no operator is drawn for it."""
        return self.real or any(image in self.sources for image in DEGRADED)

    @property
    def name(self) -> str:
        """``dataset/key``, as messages and receipts name the pair."""
        return f"{self.dataset}/{self.key}"
