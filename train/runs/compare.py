"""Several runs side by side, from what they logged: a table, and the curves of ``train.compare_page``."""

from __future__ import annotations

import hashlib
import json
import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median
from typing import Any

from clearfuse.synth.console import PLAIN, UNITS, Unit, format_bytes, plural
from clearfuse.synth.types import UserError
from clearfuse.train.runs.logs import LOG, SPEED, read_lines
from clearfuse.train.runs.record import RUN, read_record

LOSSES = ("loss", "error")
"""Values of the log, of samples of a kind too (``error/haze``), that are in the unit of the objective's losses."""
LAST = 50
"""Steps whose mean is the last loss."""


@dataclass
class Curve:
    """Values by step."""

    steps: array[int] = field(default_factory=lambda: array("q"))
    values: array[float] = field(default_factory=lambda: array("d"))

    def add(self, step: int, value: float) -> None:
        """One more."""
        self.steps.append(step)
        self.values.append(value)


@dataclass(frozen=True)
class Run:
    """A run's folder read. curves: by ``train/loss``, ``validation/PSNR``, ``speed/data_wait`` and the like.

    steps: what it was asked; step: how far it has come. unit: of its losses, in which the curves of losses are.
    """

    name: str
    folder: Path
    settings: Mapping[str, Any]
    curves: Mapping[str, Curve]
    unit: Unit = PLAIN

    @property
    def steps(self) -> int | None:
        """All that it was asked for."""
        steps = self.settings.get("steps")
        return steps if isinstance(steps, int) else None

    @property
    def step(self) -> int:
        """The last that it logged."""
        return max((curve.steps[-1] for curve in self.curves.values()), default=0)

    def last(self, name: str, count: int = 1) -> float | None:
        """The mean of a curve's last values."""
        curve = self.curves.get(name)
        return fmean(curve.values[-count:]) if curve else None

    def best(self) -> tuple[int, float] | None:
        """Step and value of the lowest validation loss."""
        curve = self.curves.get("validation/loss")
        pairs = [] if curve is None else list(zip(curve.steps, curve.values, strict=True))
        return min((pair for pair in pairs if not math.isnan(pair[1])), key=lambda pair: pair[1], default=None)

    def at(self, step: int, name: str) -> float | None:
        """A curve's value at a step."""
        curve = self.curves.get(name)
        return dict(zip(curve.steps, curve.values, strict=True)).get(step) if curve else None

    def speed(self) -> float | None:
        """Samples a second, the median over the steps."""
        curve = self.curves.get("speed/samples_per_second")
        return median(curve.values) if curve else None


def read_runs(paths: Sequence[str]) -> list[Run]:
    """The runs in folders, or in the folders of a folder, each once. Raises UserError where one is not readable."""
    folders: dict[Path, Path] = {}
    for path in map(Path, paths):
        if not path.is_dir():
            raise UserError(f"{path}: no such folder")
        found = [path] if (path / RUN).is_file() else sorted(one.parent for one in path.glob(f"*/{RUN}"))
        if not found:
            raise UserError(f"{path}: neither a run's folder, which has a {RUN}, nor a folder of such")
        folders |= {folder.resolve(): folder for folder in found}
    names = [folder.name for folder in folders]
    return [
        read_run(folder, real.name if names.count(real.name) == 1 else str(folder)) for real, folder in folders.items()
    ]


def read_run(folder: Path, name: str) -> Run:
    """One run. Raises UserError where its record or its log is damaged."""
    record = read_record(folder)
    settings = {**record.given(), "degrade": record.degrade, "shards": record.to_json()["shards"]}
    unit = UNITS[record.loss_unit]
    curves: dict[str, Curve] = {}
    for file in (LOG, SPEED):
        for line in read_lines(folder / file):
            for key, value in line.values.items():
                shown = value * unit.factor if key.partition("/")[0] in LOSSES else value
                curves.setdefault(f"{line.kind}/{key}", Curve()).add(line.step, shown)
    return Run(name, folder, settings, curves, unit)


def differing(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """The settings that are not the same in all runs, a value a run; null where a run has no such setting."""
    names = dict.fromkeys(name for run in runs for name in run.settings)
    table = {name: [run.settings.get(name) for run in runs] for name in names}
    return {
        name: [_shards(one) for one in values] if name == "shards" else values
        for name, values in table.items()
        if any(value != values[0] for value in values)
    }


def _shards(rows: Any) -> str:
    """What shards are, in a few words, others for others."""
    total = sum(row[2] for row in rows)
    digest = hashlib.blake2b(json.dumps(rows).encode(), digest_size=3).hexdigest()
    return f"{digest}: {plural(len(rows), 'shard')}, {format_bytes(total)}"


def to_json(runs: Sequence[Run]) -> dict[str, Any]:
    """All that the table says; null where a run has no such number, or one that is not finite."""
    return {"runs": [_row(run) for run in runs], "differ": differing(runs)}


def _row(run: Run) -> dict[str, Any]:
    best = run.best()
    return {
        "name": run.name,
        "folder": str(run.folder),
        "step": run.step,
        "steps": run.steps,
        "loss": _finite(run.last("train/loss", LAST)),
        "validation": None if best is None else _finite(best[1]),
        "validation_step": None if best is None else best[0],
        "unit": run.unit.name,
        "PSNR": None if best is None else _finite(run.at(best[0], "validation/PSNR")),
        "SSIM": None if best is None else _finite(run.at(best[0], "validation/SSIM")),
        "samples_per_second": _finite(run.speed()),
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


HEADS = ("run", "steps", "last loss", "best validation", "PSNR", "SSIM", "samples/s")


def cells(run: Run) -> tuple[str, ...]:
    """A run's row of the table, a cell a head."""
    row = _row(run)
    best, unit = row["validation"], f" {row['unit']}".rstrip()
    return (
        run.name,
        f"{run.step} of {run.steps}" if run.steps else str(run.step),
        "-" if row["loss"] is None else f"{row['loss']:.4g}{unit}",
        "-" if best is None else f"{best:.4g}{unit} at {row['validation_step']}",
        _said(row["PSNR"], ".2f"),
        _said(row["SSIM"], ".3f"),
        _said(row["samples_per_second"], ".3g"),
    )


def _said(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def to_text(runs: Sequence[Run]) -> str:
    """The table, and below it the settings that differ."""
    parts = [_aligned([HEADS, *map(cells, runs)])]
    differ = differing(runs)
    if differ:
        rows = [(name, *map(shown, values)) for name, values in differ.items()]
        parts.append(_aligned([("setting", *(run.name for run in runs)), *rows]))
    return "\n\n".join(parts)


def shown(value: Any) -> str:
    """A setting's value, short enough for a table."""
    text = value if isinstance(value, str) else "-" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 48 else f"{text[:45]}..."


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ([cell.rjust(w) for cell, w in zip(row, widths, strict=True)] for row in rows)
    firsts = (row[0].ljust(widths[0]) for row in rows)
    return "\n".join("  ".join([first, *line[1:]]) for first, line in zip(firsts, lines, strict=True))
