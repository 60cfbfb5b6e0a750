"""The report of an evaluation downstream: report.md, .tex, .json and .csv, and of detections COCO's files."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from clearfuse.synth.console import plural
from clearfuse.synth.files.storage import landing
from clearfuse.train.downstream.coco import results, to_coco
from clearfuse.train.downstream.pictures import file_name
from clearfuse.train.downstream.scores import Scored, order_of
from clearfuse.train.downstream.sources import BACKGROUND
from clearfuse.train.evaluation.writers.data import csv_line, json_text
from clearfuse.train.evaluation.writers.latex import PACKAGES, latex_table
from clearfuse.train.evaluation.writers.markdown import markdown_table, text_table
from clearfuse.train.evaluation.writers.tables import Cell, Table

FILES = ("report.csv", "report.json", "report.tex", "report.md")
COCO = "coco"
"""The folder of truth.json and METHOD.json: objects and detections as pycocotools reads them."""
TITLES = {"detection": "Detection", "segmentation": "Segmentation"}
BY_CLASS = {"detection": "AP", "segmentation": "IoU"}


def tables(done: Scored) -> tuple[Table, Table]:
    """The means, and the values by class, in per cent: a row per method; upper bounds are not ranked."""
    title, what = TITLES[done.record.kind], BY_CLASS[done.record.kind]
    means = _table(done, f"{title}, all classes", {s.method: s.means for s in done.scores})
    return means, _table(done, f"{title}, {what} by class", {s.method: s.classes for s in done.scores})


def _table(done: Scored, title: str, values: dict[str, dict[str, float]]) -> Table:
    columns = list(next(iter(values.values())))
    ranked = [one.method for one in done.scores if not one.upper_bound]
    orders = {
        column: dict(zip(ranked, order_of([values[method][column] for method in ranked]), strict=True))
        for column in columns
    }
    rows = [
        (
            Cell(one.method + (" (upper bound)" if one.upper_bound else "")),
            *(Cell(_percent(values[one.method][c]), orders[c].get(one.method, 0)) for c in columns),
        )
        for one in done.scores
    ]
    return Table(title, ("method", *columns), tuple(rows), 1)


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.2f}"


def notes(done: Scored) -> list[str]:
    """What the numbers are of."""
    record, source = done.record, done.source
    seed, name = source.spec.seed, source.pairs[0].dataset
    degraded = f", degraded by recipe {source.spec.recipe.name}, seed {seed}" if source.degrades else ""
    lines = [
        f"{plural(len(done.pictures.keys), 'pair')} of {name}, split {source.pairs[0].split}{degraded}.",
        f"{done.model}: {record.model}, trained on {plural(record.images, 'pair')} of {_trained_on(record.source)}, "
        f"fused by {', '.join(record.methods)}: {record.steps} steps of {record.batch} images, seed {record.seed}.",
    ]
    if record.kind == "detection":
        lines.append(
            "AP: COCO's average precision in per cent, the mean over IoU from 0.50 to 0.95 and over the classes; APs, "
            "APm, APl: of objects below 32², below 96² and above 96² pixels."
        )
    else:
        rest = "the background among them" if BACKGROUND in record.classes else "without unlabelled pixels"
        lines.append(
            "IoU in per cent, over all pixels of the set together; mIoU: the mean over the classes that are there or "
            f"found, {rest}."
        )
    lines.append(
        "Bold (* as plain text): the best; underlined: the second; upper bounds are not ranked; -: no such object."
    )
    if source.skipped:
        lines.append(f"{plural(source.skipped, 'pair')} without {source.record['kind']} labels are left out.")
    lines += [f"Left out: {key}: {why}." for key, why in list(done.pictures.left_out.items())[:20]]
    return lines


def _trained_on(source: dict[str, Any]) -> str:
    degraded = f", degraded by {source['recipe']['name']}" if source["degraded"] else ""
    return f"{', '.join(source['data'])} ({source['split']}{degraded})"


def to_json(done: Scored) -> dict[str, Any]:
    """The object of report.json, which ``--json`` prints; null for what is undefined."""

    def rounded(values: dict[str, float]) -> dict[str, float | None]:
        return {name: None if math.isnan(value) else round(value, 6) for name, value in values.items()}

    return {
        "schema": 1,
        "kind": done.record.kind,
        "model": {"name": done.model, **done.record.model_dump(mode="json", by_alias=True)},
        "source": json.loads(json.dumps(dict(done.source.record))),
        "pairs": len(done.pictures.keys),
        "without": done.source.skipped,
        "left_out": done.pictures.left_out,
        "methods": {
            one.method: {
                "upper_bound": one.upper_bound, **rounded(one.means), "classes": rounded(one.classes),
            }
            for one in done.scores
        },
        "notes": notes(done),
    }  # fmt: skip


def to_text(done: Scored) -> str:
    """Aligned columns for a terminal."""
    return "\n\n".join(f"{table.title}\n{text_table(table)}" for table in tables(done))


def to_markdown(done: Scored) -> str:
    """The page report.md."""
    parts = ["# Fused images, used", "\n".join(f"- {line}" for line in notes(done))]
    for table in tables(done):
        parts += [f"## {table.title}", markdown_table(table)]
    return "\n\n".join(parts) + "\n"


def to_latex(done: Scored) -> str:
    """A file to ``\\input``: needs booktabs and graphicx."""
    said = [f"% {line}" for line in notes(done)]
    return "\n\n".join([PACKAGES, "\n".join(said), *map(latex_table, tables(done))]) + "\n"


def to_csv(done: Scored) -> Iterator[bytes]:
    """The lines of report.csv: a value each, in [0, 1]; empty where it is undefined."""
    yield csv_line("method", "upper_bound", "class", "measure", "value")
    for one in done.scores:
        rows = [("", measure, value) for measure, value in one.means.items()]
        rows += [(name, BY_CLASS[done.record.kind], value) for name, value in one.classes.items()]
        for name, measure, value in rows:
            told = "" if math.isnan(value) else f"{value:.6f}"
            yield csv_line(one.method, int(one.upper_bound), name, measure, told)


def write_report(done: Scored, folder: Path) -> None:
    """Write ``FILES``, and COCO's files of detections: all of them, or none."""
    contents = {
        "report.csv": b"".join(to_csv(done)),
        "report.json": json_text(to_json(done)),
        "report.tex": to_latex(done).encode(),
        "report.md": to_markdown(done).encode(),
    }
    if done.there:
        (folder / COCO).mkdir(exist_ok=True)
        sizes = [done.pictures.image(done.pictures.methods[0], key).shape[:2] for key in done.pictures.keys]
        pictures = [(f"{key}.png", w, h) for key, (h, w) in zip(done.pictures.keys, sizes, strict=True)]
        files = {"truth": to_coco(done.there, done.record.classes, pictures)}
        files |= {file_name(method): results(found) for method, found in done.found.items()}
        contents = {f"{COCO}/{name}.json": json.dumps(one).encode() for name, one in files.items()} | contents
    with ExitStack() as stack:
        for name, content in contents.items():
            stack.enter_context(landing(folder / name)).write(content)
