"""The contact sheet of a shipped model, ``docs/models/NAME.jpg``: built-in test scenes, which it was never trained on.

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


def row(sample: Sample, pipeline: FusionPipeline) -> np.ndarray:
    """The five pictures of a sample, in colour, cut to 4:3, and what it is above them."""
    a, b, task = sample.images["a"], sample.images["b"], sample.meta.task
    fused = [PyramidFuser()(a, b, task), pipeline(a, b, task=task, prompt=sample.prompt), sample.images["gt"]]
    cells = np.concatenate([cell(image) for image in (a, b, *fused)], 1)
    heading = Image.new("RGB", (cells.shape[1], HEADING), "white")
    steps = ", ".join(f"{step.op} ({step.target})" for step in sample.meta.steps)
    ImageDraw.Draw(heading).text((2, 2), f"{task}: {steps}", fill="black")
    return np.concatenate([np.asarray(heading), cells])


def cell(image: np.ndarray) -> np.ndarray:
    """A picture's middle at 4:3, as the sheet shows it."""
    height, width = image.shape[:2]
    w, h = min(width, height * 4 // 3), min(height, width * 3 // 4)
    top, left = (height - h) // 2, (width - w) // 2
    part = np.broadcast_to(image[top : top + h, left : left + w], (h, w, 3))
    return cv2.resize(np.ascontiguousarray(part), (WIDTH, WIDTH * 3 // 4), interpolation=cv2.INTER_AREA)


def sheet(found: list[Sample], pipeline: FusionPipeline) -> np.ndarray:
    """All rows, in columns, each under the titles."""
    rows = [row(sample, pipeline) for sample in found]
    titles = Image.new("RGB", (WIDTH * len(TITLES), HEADING), "white")
    for number, title in enumerate(TITLES):
        ImageDraw.Draw(titles).text((WIDTH * number + 2, 2), title, fill="black")
    size = -(-len(rows) // COLUMNS)
    columns = [np.concatenate([np.asarray(titles), *rows[i : i + size]]) for i in range(0, len(rows), size)]
    gap = np.full((columns[0].shape[0], 12, 3), 255, np.uint8)
    return np.concatenate([columns[0], *(part for column in columns[1:] for part in (gap, column))], 1)


def main() -> None:
    """Write the sheet of a model."""
    name = sys.argv[1] if len(sys.argv) > 1 else "clearfuse-small"
    path = DOCS / "models" / f"{name}.jpg"
    path.parent.mkdir(exist_ok=True)
    made = sheet(samples(), FusionPipeline.from_pretrained(name))
    Image.fromarray(made).save(path, quality=75, optimize=True)
    print(f"wrote docs/models/{name}.jpg")


if __name__ == "__main__":
    main()
