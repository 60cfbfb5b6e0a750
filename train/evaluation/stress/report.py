"""A stress test as text, Markdown, JSON, CSV, and the table of marks that reports read."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from clearfuse.synth.files.folders import check_folder, make_folder
from clearfuse.synth.files.storage import landing
from clearfuse.train.evaluation.stress.disturb import DISTURBANCES
from clearfuse.train.evaluation.stress.ranks import kendall, spearman
from clearfuse.train.evaluation.stress.run import Stress
from clearfuse.train.metrics.marks import MARKED, PLAIN_SIGN, SIGN, Answer

FILES = ("stress.md", "stress.json", "stress.csv", "agreement.csv", "stress.toml")
ABOUT = (
    "Each cell: the trend, Spearman's correlation of strength and goodness (-1: more is always worse, 1: always "
    "better), and the change of the value at the greatest strength."
)


def to_text(found: Stress) -> str:
    """Aligned columns for a terminal: the answers, then how far metrics agree."""
    rows = [("metric", *DISTURBANCES), *_rows(found, PLAIN_SIGN)]
    lines = [*_aligned(rows), "", ABOUT, f"{PLAIN_SIGN}: calls the disturbed image better, by and large.", ""]
    lines += _aligned([("metric", "mean tau", "agrees most", "least"), *_agreement_rows(found)])
    return "\n".join([*lines, "tau: Kendall's rank correlation over all versions of a scene, mean over the scenes."])


def to_markdown(found: Stress) -> str:
    """The page stress.md."""
    pairs = ", ".join(f"{name} {len(keys)}" for name, keys in found.pairs.items())
    strengths = "; ".join(
        f"{one.name} {', '.join(f'{s:g}' for s in one.strengths)} ({one.unit})" for one in DISTURBANCES.values()
    )
    parts = [
        "# Which metric to trust",
        f"Profile {found.profile}; pairs: {pairs}. Strengths: {strengths}.",
        f"{ABOUT} {SIGN}: calls the disturbed image better, by and large.",
        "\n".join(_table([("metric", *DISTURBANCES), *_rows(found, SIGN)])),
        "## Agreement",
        "Kendall's τ over all versions of a scene, mean over the scenes.",
        "\n".join(_table([("metric", "mean τ", "agrees most", "least"), *_agreement_rows(found)])),
    ]
    return "\n\n".join(parts) + "\n"


def to_json(found: Stress) -> dict[str, Any]:
    """The object of stress.json, which ``--json`` prints; null for what is undefined."""
    names = [metric.name for metric in found.metrics]
    return {
        "schema": 1,
        "profile": found.profile,
        "pairs": found.pairs,
        "disturbances": {n: {"unit": one.unit, "strengths": one.strengths} for n, one in DISTURBANCES.items()},
        "metrics": {
            name: {disturbance: _answer(found.answer(i, disturbance)) for disturbance in DISTURBANCES}
            for i, name in enumerate(names)
        },
        "agreement": {
            "metrics": names,
            "kendall": _matrix(found.agreement(kendall)),
            "spearman": _matrix(found.agreement(spearman)),
        },
    }


def write(found: Stress, out: str) -> None:
    """Write ``FILES`` to a folder: all, or none. Raises UserError where it is a file."""
    folder = check_folder(out)
    make_folder(folder)
    with ExitStack() as stack:
        files = {name: stack.enter_context(landing(folder / name)) for name in FILES}
        files["stress.md"].write(to_markdown(found).encode())
        told = json.dumps(to_json(found), ensure_ascii=False, indent=1, allow_nan=False)
        files["stress.json"].write(told.encode() + b"\n")
        files["stress.csv"].write(_csv(_value_rows(found)))
        names = [metric.name for metric in found.metrics]
        matrix = [("metric", *names), *((n, *map(_cell, row)) for n, row in zip(names, found.agreement(), strict=True))]
        files["agreement.csv"].write(_csv(matrix))
        files["stress.toml"].write(to_marks([found]).encode())


def to_marks(found: Sequence[Stress]) -> str:
    """``manifests/stress.toml``: see ``metrics.marks``."""
    lines = [
        "#:schema ../docs/schemas/stress.schema.json",
        "# Made by train metrics stress --out DIR. Of each metric [trend, change, best]: see train/metrics/marks.py.",
        "schema = 1",
        "",
        "[scenes]",
        *(f'"{name}" = {len(keys)}' for name, keys in found[0].pairs.items()),
    ]
    for one in found:
        for name in MARKED:
            lines += ["", f"[profiles.{one.profile}.{name}]"]
            for i, metric in enumerate(one.metrics):
                if answer := one.answer(i, name):
                    numbers = (answer.trend, answer.change, answer.best)
                    told = (f"{v:.3f}".replace("-0.000", "0.000") for v in numbers if v is not None)
                    lines.append(f"{metric.name} = [{', '.join(told)}]")
    return "\n".join(lines) + "\n"


def _rows(found: Stress, sign: str) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for i, metric in enumerate(found.metrics):
        answers = [found.answer(i, name) for name in DISTURBANCES]
        rows.append((metric.name, *(_told(answer, sign) for answer in answers)))
    return rows


def _told(answer: Answer | None, sign: str) -> str:
    if answer is None:
        return "undefined"
    change = "" if answer.change is None else f" ({answer.change:+.0%})"
    return f"{answer.trend:+.2f}{change}{' ' + sign if answer.rewards else ''}"


def _agreement_rows(found: Stress) -> list[tuple[str, ...]]:
    """Of each metric the mean τ to the others, the one that agrees most and the one that agrees least."""
    matrix, names = found.agreement(), [metric.name for metric in found.metrics]
    rows: list[tuple[str, ...]] = []
    for i, name in enumerate(names):
        others = {names[k]: float(matrix[i, k]) for k in range(len(names)) if k != i and not math.isnan(matrix[i, k])}
        if others:
            most, least = max(others, key=others.__getitem__), min(others, key=others.__getitem__)
            mean = sum(others.values()) / len(others)
            rows.append((name, f"{mean:+.2f}", f"{most} {others[most]:+.2f}", f"{least} {others[least]:+.2f}"))
        else:
            rows.append((name, "undefined", "", ""))
    return rows


def _value_rows(found: Stress) -> Iterator[Sequence[Any]]:
    """Lines of stress.csv: the mean value of a metric at a strength, over the scenes where it is finite."""
    yield ("metric", "direction", "disturbance", "unit", "strength", "mean", "scenes", "trend", "change", "best")
    for name, one in DISTURBANCES.items():
        values = found.of(name)
        for i, metric in enumerate(found.metrics):
            answer = _answer(found.answer(i, name)) or {}
            about = [answer.get(key, "") for key in ("trend", "change", "best")]
            for k, strength in enumerate((0.0, *one.strengths)):
                known = values[:, k, i][np.isfinite(values[:, k, i])]
                mean = f"{known.mean():.6g}" if len(known) else ""
                yield (metric.name, metric.direction, name, one.unit, f"{strength:g}", mean, len(known), *about)


def _answer(answer: Answer | None) -> dict[str, Any] | None:
    if answer is None:
        return None
    numbers = {"trend": answer.trend, "change": answer.change, "best": answer.best}
    rounded = {name: None if value is None else round(value, 6) for name, value in numbers.items()}
    return {**rounded, "rewards": answer.rewards}


def _matrix(values: np.ndarray) -> list[list[float | None]]:
    return [[None if math.isnan(v) else round(v, 6) for v in row] for row in values.tolist()]


def _cell(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.4f}"


def _csv(rows: Any) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return [lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
