"""Run folders: what a run was asked, what it logged, and how it is found and stopped.

``run.json`` (settings, data), what ``train.logs`` writes, ``checkpoints/``, and the pipeline: the averaged weights with
the lowest validation loss so far.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from synth.resume import alone, difference, remove_temporary
from synth.shards import TEMPORARY, write_json
from synth.types import UserError, WorkIncomplete, unknown
from train import degrading
from train.buckets import parse_ratios
from train.corpus import BEFORE, Corpus, shards_changed
from train.design import Design, from_fields
from train.logs import LOG, PICTURES, SPEED
from train.presets import Schedule, find_preset
from train.trackers import BOARD, IDENTITY

RUN = "run.json"
NONFINITE = "nonfinite.jsonl"
"""The samples of each step that was not finite, a line a step."""
SCHEMA = 1
FREE = ("recompute",)
"""Settings that may change when a run goes on: they decide none of its numbers."""
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
    def suits(self) -> bool:
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


def run_record(settings: Settings, corpus: Corpus, degraders: degrading.Degraders | None = None) -> dict[str, Any]:
    """What ``run.json`` holds; ``degrade`` is what lean shards are degraded by, null where there are none."""
    return {
        "schema": SCHEMA,
        "settings": dataclasses.asdict(settings),
        "degrade": degrading.record(degraders or {}),
        "shards": corpus.fingerprint(),
    }


@contextmanager
def begun(folder: Path, record: Mapping[str, Any], overwrite: bool) -> Iterator[None]:
    """Make a run's folder, or find that it is this very run's; nobody else trains in it meanwhile.

    What a killed run left half written is removed. Raises UserError where the folder is something else's, the run's
    settings or data were others, or another process is at it.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--out {folder}: is a file, must be a folder")
    if not (folder / RUN).exists():
        if folder.exists() and any(not TEMPORARY.match(path.name) for path in folder.iterdir()):
            raise UserError(f"--out {folder}: holds other files and no {RUN}; choose an empty folder")
        folder.mkdir(parents=True, exist_ok=True)
    with alone(folder, "run"):
        if overwrite:
            _clear(folder)
        elif (folder / RUN).exists():
            _same(folder / RUN, record)
        remove_temporary(folder)
        if not (folder / RUN).exists():
            write_json(folder / RUN, record)
        yield


def _same(path: Path, record: Mapping[str, Any]) -> None:
    try:
        held = json.loads(path.read_bytes())
        settings, shards, degrade = {**BEFORE, **held["settings"]}, held["shards"], held.get("degrade")
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path}: is no run's record; --overwrite starts anew") from None
    for name in {**settings, **record["settings"]}:
        before, now = settings.get(name), record["settings"].get(name)
        if before != now and name not in FREE:
            raise UserError(
                f"{path.parent}: a run with {name} {before}, not {now}; go on with {before}, choose another --out, "
                "or start anew with --overwrite"
            )
    if (change := shards_changed(shards, record["shards"])) is not None:
        raise UserError(
            f"{path.parent}: a run on other shards: {change}; choose another --out, or start anew with --overwrite"
        )
    for change in difference(degrade, record["degrade"]):
        raise UserError(
            f"{path.parent}: a run with other degradations: {change}; choose another --out, or start anew with "
            "--overwrite"
        )


def append_line(path: Path, data: Mapping[str, Any]) -> None:
    """One more line of JSON, on the disk. Raises WorkIncomplete where it can't be written."""
    try:
        with path.open("a") as file:
            file.write(json.dumps(data, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise WorkIncomplete(f"{path}: can't be written: {error}") from None


def _clear(folder: Path) -> None:
    """Remove a run's own files and no other."""
    for name in ("checkpoints", BOARD, PICTURES, "wandb"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in (LOG, SPEED, IDENTITY, "pipeline.json", "model.safetensors", NONFINITE, RUN):
        (folder / name).unlink(missing_ok=True)


class Stop(AbstractContextManager["Stop"]):
    """SIGTERM and the first Ctrl-C let the step end; the run saves and leaves. A second Ctrl-C leaves at once."""

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self.asked: int = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        try:
            self._before = {number: signal.signal(number, self._ask) for number in self.SIGNALS}
        except ValueError:  # not the main thread: its signals are not ours
            self._before = {}
        return self

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked == signal.SIGINT == number:
            raise KeyboardInterrupt
        self.asked = number

    def raise_if_interrupted(self) -> None:
        """Ctrl-C is an interruption; SIGTERM, with all saved, is a good end."""
        if self.asked == signal.SIGINT:
            raise KeyboardInterrupt

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def the_only_run(root: Path = Path("runs")) -> Path:
    """The one run below ``runs/``. Raises UserError with the list where there are none or several."""
    found = sorted(path.parent for path in root.glob("*/model.safetensors"))
    if len(found) == 1:
        return found[0]
    listed = ", ".join(map(str, found)) if found else "none"
    raise UserError(f"--model: name a run's folder or a hub id; runs with a model under {root}/: {listed}")
