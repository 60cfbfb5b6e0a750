"""The contact sheet of a shipped model, ``docs/models/NAME.jpg``: built-in test scenes, which it was never trained on.

Of the model that is taken where none is named also the README's picture, three rows of the sheet.

    python docs/sheet.py [clearfuse-small]

Eight scenes a task with one to three degradations, side by side in two columns: both degraded pictures, the pyramid
fuser's image of them, the model's with the prompt, and the ground truth.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw

from clearfuse import FusionPipeline, build
from clearfuse.synth.fusers import PyramidFuser
from clearfuse.synth.shards.sample import Sample, read_samples
from clearfuse.synth.types import TASKS

DOCS = Path(__file__).resolve().parent
PER_TASK, COLUMNS, WIDTH, HEADING = 8, 2, 152, 16
README, README_ROWS, README_WIDTH = "clearfuse-small", (1, 8, 19), 240
"""Whose picture it is, which samples are its rows, and the width of a picture in it."""
TITLES = ("first", "second", "pyramid", "model", "ground truth")


def samples() -> list[Sample]:
    """The degraded test scenes of all tasks."""
    found: list[Sample] = []
    with tempfile.TemporaryDirectory() as folder:
        for task in TASKS:
            out = f"{folder}/{task}"
            build(task, out=out, n="1-3", split="test", limit=PER_TASK, executor="serial", workers=1)
            found += [sample for path in sorted(Path(out).glob("*.tar")) for sample in read_samples(path)]
    return found


def row(sample: Sample, pipeline: FusionPipeline, width: int = WIDTH) -> np.ndarray:
    """The five pictures of a sample, in colour, cut to 4:3, and what it is above them."""
    a, b, task = sample.images["a"], sample.images["b"], sample.meta.task
    fused = [PyramidFuser()(a, b, task), pipeline(a, b, task=task, prompt=sample.prompt), sample.images["gt"]]
    cells = np.concatenate([cell(image, width) for image in (a, b, *fused)], 1)
    heading = Image.new("RGB", (cells.shape[1], HEADING), "white")
    steps = ", ".join(f"{step.op} ({step.target})" for step in sample.meta.steps)
    ImageDraw.Draw(heading).text((2, 2), f"{task}: {steps}", fill="black")
    return np.concatenate([np.asarray(heading), cells])


def cell(image: np.ndarray, width: int = WIDTH) -> np.ndarray:
    """A picture's middle at 4:3, as the sheet shows it."""
    whole_h, whole_w = image.shape[:2]
    w, h = min(whole_w, whole_h * 4 // 3), min(whole_h, whole_w * 3 // 4)
    top, left = (whole_h - h) // 2, (whole_w - w) // 2
    part = np.broadcast_to(image[top : top + h, left : left + w], (h, w, 3))
    return cv2.resize(np.ascontiguousarray(part), (width, width * 3 // 4), interpolation=cv2.INTER_AREA)


def headings(width: int) -> np.ndarray:
    """The titles of a row's pictures."""
    titles = Image.new("RGB", (width * len(TITLES), HEADING), "white")
    for number, title in enumerate(TITLES):
        ImageDraw.Draw(titles).text((width * number + 2, 2), title, fill="black")
    return np.asarray(titles)


def sheet(found: list[Sample], pipeline: FusionPipeline) -> np.ndarray:
    """All rows, in columns, each under the titles."""
    rows = [row(sample, pipeline) for sample in found]
    titles = headings(WIDTH)
    size = -(-len(rows) // COLUMNS)
    columns = [np.concatenate([titles, *rows[i : i + size]]) for i in range(0, len(rows), size)]
    gap = np.full((columns[0].shape[0], 12, 3), 255, np.uint8)
    return np.concatenate([columns[0], *(part for column in columns[1:] for part in (gap, column))], 1)


def main() -> None:
    """Write the sheet of a model, and the README's picture."""
    name = sys.argv[1] if len(sys.argv) > 1 else "clearfuse-small"
    path = DOCS / "models" / f"{name}.jpg"
    path.parent.mkdir(exist_ok=True)
    found, pipeline = samples(), FusionPipeline.from_pretrained(name)
    Image.fromarray(sheet(found, pipeline)).save(path, quality=75, optimize=True)
    print(f"wrote docs/models/{name}.jpg")
    if name == README:
        rows = [row(found[number], pipeline, README_WIDTH) for number in README_ROWS]
        shown = np.concatenate([headings(README_WIDTH), *rows])
        Image.fromarray(shown).save(DOCS / "result.jpg", quality=85, optimize=True)
        print("wrote docs/result.jpg")


if __name__ == "__main__":
    main()
