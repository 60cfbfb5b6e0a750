"""Settings of a run, from a preset and ``--set``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from clearfuse.synth.files.schema import check_options, parse_setting, validate
from clearfuse.synth.types import UserError, unknown
from clearfuse.train.designs.design import Design
from clearfuse.train.designs.file import read_design
from clearfuse.train.designs.presets import find_preset
from clearfuse.train.runs.record import RunSettings


class Settings(RunSettings):
    """A run's settings, and what they come to."""

    @staticmethod
    def of(preset: str, seed: int = 0, sets: Sequence[str] = (), **changed: Any) -> Settings:
        """A preset's schedule with what the user changed; None changes nothing. The warm-up is a tenth at most.

        sets: ``a.b=c`` with TOML values, laid over the design and, where a is ``schedule``, over the schedule.
        """
        schedule = find_preset(preset).schedule.model_dump()
        own: dict[str, Any] = {}
        kept: list[str] = []
        for item in sets:
            path, value = _split(item)
            if path[0] != "schedule":
                kept.append(item)
            elif len(path) == 2 and path[1] in schedule:
                own[path[1]] = value
            else:
                raise unknown("setting", ".".join(path), [f"schedule.{name}" for name in schedule])
        given = {name: value for name, value in changed.items() if value is not None}
        values = {**schedule, **given, "preset": preset, "seed": seed, "set": kept or None}
        check_options(Settings, values)  # a wrong option is told by its own name
        settings = validate(Settings, {**values, **own, **given}, "--set schedule")
        if "warmup" not in {**own, **given}:
            settings = settings.model_copy(update={"warmup": min(settings.warmup, max(settings.steps // 10, 1))})
        settings.design()
        return settings

    @property
    def adapts(self) -> bool:
        """Whether other parts than the preset's are chosen, to which its network is then fitted."""
        return any(_split(item)[0] in (["tokenizer"], ["text"], ["semantics"]) for item in self.set or [])

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
            design = read_design(data, f"--set {item}").design()
        return design


def _split(item: str) -> tuple[list[str], Any]:
    return parse_setting(item, "objective.pixel=0.1")
