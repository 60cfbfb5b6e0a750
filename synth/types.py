"""Types shared by all modules: tasks, pairs, steps and prompts, and the errors that users see.

Arrays are ``(h, w, c)`` with c = 1 or 3, RGB. Stored images are uint8; operators work on float32 in [0, 1].
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeVar, get_args

from annotated_types import Interval

Task = Literal["vif", "mef", "mff"]
Modality = Literal["visible", "infrared"]
Target = Literal["a", "b", "both"]
ImageName = Literal["a", "b"]

Category = Literal["fusion", "m3", "control", "segment"]
"""What an instruction asks for: a fusion, that of two pictures damaged by blocks, a change of tone, a class marked."""
BuildTask = Literal["vif", "mef", "mff", "m3", "control", "segment", "ditfuse"]
"""What a build is of: pairs of a task, or samples of a category (of all: ditfuse) from pairs of any task."""
Tag = Literal["LIGHT++", "LIGHT+", "LIGHT-", "LIGHT--", "CONTRAST+", "CONTRAST-", "WARM+", "WARM-"]
"""An instruction about the tone, in DiTFuse's grammar; WARM is ours."""
Scale = Annotated[int, Interval(ge=256, le=65535)]
"""The count of white in visible pictures of 16 bits, where it is less than their container's."""

OTHER = "other"
"""The task, at inference alone, of a pair of some other kind: medical, near infrared, remote sensing."""
TASKS: tuple[Task, ...] = ("vif", "mef", "mff")
CATEGORIES: tuple[Category, ...] = ("fusion", "m3", "control", "segment")
TAGS: tuple[Tag, ...] = get_args(Tag)
INSTRUCTED: tuple[BuildTask, ...] = ("m3", "control", "segment", "ditfuse")
"""The builds whose samples are made from clean pairs and pictures of any task by an instruction."""
LABELS = "labels"
"""Key, in manifests and in a sample's sources, of a pair's label map."""
BOXES = "boxes"
"""Key, in manifests and in a pair's sources, of the file with the boxes of a pair's objects."""
PROMPTS = "prompts"
"""Key, in manifests and in a sample's sources, of the text file with a pair's own prompt, or a prompt a line."""
SIDECARS = (LABELS, BOXES, PROMPTS)
"""What stands beside a pair's pictures: a pair is whole without."""
DEGRADED = ("degraded_a", "degraded_b")
"""Keys, in manifests and in a sample's sources, of the degraded images that a data set itself provides."""
NO_TRUTH = "none"
"""The fuser's name in the record of a real pair that has no ground truth."""
HELD = "held"
"""Name of the member with the latents of a held-out sample; a training sample's are numbered by crop."""
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


Entry = TypeVar("Entry")


class UserError(Exception):
    """A user's mistake, found before work starts: a one-line message, exit code 2."""


class WorkIncomplete(Exception):
    """Work that could not be completed: a one-line message that names what is missing, exit code 1."""


class BadPair(Exception):
    """A pair that can't be used; the message is the reason recorded in the shard's receipt."""


def reason_of(error: BaseException, most: int = 200) -> str:
    """What a library's error says, on one line of at most ``most`` characters; its class where it says nothing."""
    return " ".join(str(error).split())[:most] or type(error).__name__


def shorten(text: str, most: int = 60) -> str:
    """A text for a message: what is longer than ``most`` characters ends in dots."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def unknown(what: str, name: str, choices: Iterable[str]) -> UserError:
    """The error for an unknown name: it suggests the closest allowed name, then lists all of them."""
    name = shorten(name, 200)
    allowed = sorted(choices)
    cased = {choice.lower(): choice for choice in allowed}
    near = difflib.get_close_matches(name.lower(), cased, n=1, cutoff=0.5)
    hint = f" did you mean '{cased[near[0]]}'?" if near else ""
    return UserError(f"unknown {what} '{name}':{hint} allowed: {', '.join(allowed)}")


def check_name(what: str, name: str, choices: Collection[str]) -> None:
    """Raise the error for an unknown name where it is none of the choices."""
    if name not in choices:
        raise unknown(what, name, choices)


def look_up(what: str, name: str, table: Mapping[str, Entry]) -> Entry:
    """The entry of a table by its name. Raises UserError for an unknown one."""
    check_name(what, name, table)
    return table[name]


def check_schema(found: Any, where: str) -> None:
    """Raise UserError where a file's schema is not a whole number or is newer than ``SCHEMA``."""
    if not isinstance(found, int) or isinstance(found, bool):
        raise UserError(f"{where}: schema must be a whole number, not {shorten(repr(found))}")
    if found > SCHEMA:
        raise UserError(
            f"{where}: schema {shorten(str(found))} is newer than this version reads ({SCHEMA}); upgrade clearfuse"
        )


@dataclass(frozen=True)
class Step:
    """One degradation as data: with the clean image and the depth it reproduces the degraded pixels.

    seed: None where the data set itself provides the degraded image: then only ``op`` and ``target`` are known, and
    the step cannot be replayed.
    """

    op: str
    target: Target
    params: Mapping[str, Any]
    seed: Annotated[int, Interval(ge=0, lt=1 << 53)] | None
    severity: Annotated[float, Interval(ge=0, le=1)] | None = None


@dataclass(frozen=True)
class Prompt:
    """A sample's instruction, the templates it was composed of, and the indices of the steps it asks to remove."""

    text: str
    templates: tuple[str, ...]
    strength: str | None
    asked: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PairRef:
    """Where the images of a pair are. ``sources`` maps a, b (and gt, labels) to paths; empty for a built-in scene.

    A data set with degraded images of its own also has ``degraded_a``, ``degraded_b`` or both. degradation: what is
    known of them, (operator, target) in physical order. real: a and b are themselves degraded, without a clean version.
    scale: see ``Scale``; None: as ``pictures.decode`` finds it.
    """

    task: Task
    dataset: str
    key: str
    scene: str
    split: str
    sources: Mapping[str, str] = field(default_factory=dict[str, str])
    degradation: tuple[tuple[str, Target], ...] = ()
    real: bool = False
    scale: int | None = None

    @property
    def single(self) -> bool:
        """Whether it is made of a single picture, its ground truth, which is all that there is of it."""
        return "gt" in self.sources and "a" not in self.sources

    @property
    def predegraded(self) -> bool:
        """Whether the data set provides the degraded images, with or without clean ones: no operator is drawn."""
        return self.real or any(image in self.sources for image in DEGRADED)

    @property
    def name(self) -> str:
        """``dataset/key``: the pair's name in messages and receipts."""
        return f"{self.dataset}/{self.key}"
