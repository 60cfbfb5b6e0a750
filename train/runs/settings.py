"""Settings of a run, from a preset and ``--set``."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from clearfuse.synth.types import UserError, unknown
from clearfuse.train.data.buckets import parse_ratios
from clearfuse.train.designs.design import Design, from_fields
from clearfuse.train.designs.presets import Schedule, find_preset

PRECISIONS = ("auto", "bf16", "fp32")


@dataclass(frozen=True)
class Settings(Schedule):
    """All that decides what a run computes, with its data."""

    preset: str = "tiny-reg"
    seed: int = 0
    set: list[str] | None = None  # what is changed in the preset's design, as ``objective.pixel=0.1``
    mix: list[float] | None = None  # weights of the sources of data, in their order; None: by their samples

    def __post_init__(self) -> None:
        parse_ratios(self.ratios)
        for name in ("crop", "batch", "accumulate", "steps"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name} {getattr(self, name)}: must be at least 1")
        if self.repeats < 1 or self.batch % self.repeats:
            raise UserError(f"--set schedule.repeats={self.repeats}: must divide the batch, {self.batch}")
        if self.precision not in PRECISIONS:
            raise UserError(f"--precision {self.precision}: must be {', '.join(PRECISIONS)}")
        if not 0 < self.lr < float("inf"):
            raise UserError(f"--lr {self.lr}: must be above 0")

    @staticmethod
    def of(preset: str, seed: int = 0, sets: Sequence[str] = (), **changed: Any) -> Settings:
        """A preset's schedule with what the user changed; None changes nothing. The warm-up is a tenth at most.

        sets: ``a.b=c`` with TOML values, laid over the design and, where a is ``schedule``, over the schedule.
        """
        schedule = dataclasses.asdict(find_preset(preset).schedule)
        items = [(item, *_split(item)) for item in sets]
        try:
            own = {path[1]: value for _, path, value in items if path[0] == "schedule"}
            schedule |= dataclasses.asdict(from_fields(Schedule, {**schedule, **own}))
        except (ValueError, IndexError) as error:
            raise UserError(f"--set: {error}") from None
        schedule |= {name: value for name, value in changed.items() if value is not None}
        if "warmup" not in changed and "warmup" not in own:
            schedule["warmup"] = min(schedule["warmup"], max(schedule["steps"] // 10, 1))
        kept = [item for item, path, _ in items if path[0] != "schedule"]
        settings = Settings(**schedule, preset=preset, seed=seed, set=kept or None)
        settings.design()
        return settings

    @property
    def adapts(self) -> bool:
        """Whether other parts than the preset's are chosen, to which its network is then fitted."""
        return any(_split(item)[0] in (["tokenizer"], ["text"]) for item in self.set or [])

    def bf16(self, device: torch.device) -> bool:
        """Whether the network computes in bf16 there."""
        return self.precision == "bf16" or (self.precision == "auto" and device.type == "cuda")

    def design(self) -> Design:
        """The preset's design with the changes. Raises UserError naming the change that can't be."""
        design = find_preset(self.preset).design
        for item in self.set or []:
            path, value = _split(item)
            data = place = design.to_json()
            for part in path[:-1]:
                place = place.get(part)
                if not isinstance(place, dict):
                    raise UserError(f"--set {item}: '{part}' has no settings; allowed: config, objective, schedule")
            if path[-1] not in place or path == ["schema"]:
                raise unknown("setting", ".".join(path), [*(".".join([*path[:-1], name]) for name in place)])
            place[path[-1]] = value
            design = Design.from_json(data, f"--set {item}")
        return design


def _split(item: str) -> tuple[list[str], Any]:
    """The path and the value of ``a.b=c``; c is a TOML value, or a bare word."""
    key, equals, text = item.partition("=")
    path = key.strip().split(".")
    if not equals or not all(path):
        raise UserError(f"--set {item}: must be key=value, such as objective.pixel=0.1")
    try:
        return path, tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        return path, text.strip()
