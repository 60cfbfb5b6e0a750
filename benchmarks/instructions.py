"""Whether a model by instruction fuses, changes the tone as it is told, and marks what it is told, on unseen pairs.

    python benchmarks/instructions.py MODEL [--data NAME=DIR ...] [--scenes 24] [--limit 12] [--width 256]
        [--guidance 1 2] [--guidance-images 1]

The middle, 4:3 and so many pixels wide, of pairs of the validation and test splits of the data sets and of built-in
scenes, where they are wider than 640 pixels reduced to these. Fusion: PSNR and SSIM of the plain request's image, of
the mean of both inputs and of the pyramid's of that part, against the set's ground truth or the pyramid's of the whole
pair. Tone: the share of pairs whose mean luma ("brighter", "darker") or
whose deviation ("more contrast", "less") goes the way that the instruction says, and by how much, in codes. Marks: the
intersection of a class's masks over their union, of all scenes together. For each scale of
guidance by the prompt a table of tones.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import cv2
import numpy as np

from clearfuse.synth import color
from clearfuse.synth.datasets.labels import Labels
from clearfuse.synth.datasets.manifest import SPLITS
from clearfuse.synth.datasets.read import read_pair
from clearfuse.synth.datasets.select import folders, select
from clearfuse.synth.fusers import PyramidFuser
from clearfuse.synth.prompts.instructions import instruct
from clearfuse.synth.seeds import generator, seed_of
from clearfuse.synth.types import PairRef, Tag, Task
from clearfuse.train.metrics import evaluate
from clearfuse.train.pipeline.fusion import FusionPipeline
from clearfuse.train.pipeline.mask import mask_of

SCORES = ("PSNR", "SSIM")
WIDEST = 640
"""Pixels across, to which wider pairs are reduced: those of training are mostly so wide."""
PSNR_CAP = 60.0
"""Upper limit in dB, since images may be identical."""
TONES: dict[str, tuple[tuple[Tag, ...], Callable[[np.ndarray], np.floating], int]] = {
    "brighter": (("LIGHT+", "LIGHT++"), np.mean, 1),
    "darker": (("LIGHT-", "LIGHT--"), np.mean, -1),
    "more contrast": (("CONTRAST+",), np.std, 1),
    "less contrast": (("CONTRAST-",), np.std, -1),
}
"""By what is asked for: the tags whose wordings ask for it, what of the luma it changes, and which way."""


@dataclass(frozen=True)
class Part:
    """The middle of a clean pair, uint8 (h, w, c), with its ground truth."""

    name: str
    dataset: str
    task: Task
    a: np.ndarray
    b: np.ndarray
    truth: np.ndarray
    labels: Labels | None


def middle(ref: PairRef, width: int) -> Part:
    """A pair read, fused where it has no ground truth, reduced where it is wide, and cut."""
    pair = read_pair(ref)
    truth = PyramidFuser()(pair.a, pair.b, ref.task) if pair.gt is None else pair.gt
    scale = min(1.0, WIDEST / pair.a.shape[1])
    size = (round(pair.a.shape[1] * scale), round(pair.a.shape[0] * scale))
    height = width * 3 // 4
    top, left = max(0, size[1] - height) // 2, max(0, size[0] - width) // 2
    at = np.s_[top : top + height, left : left + width]

    def cut(image: np.ndarray, how: int = cv2.INTER_AREA) -> np.ndarray:
        return np.ascontiguousarray(cv2.resize(image, size, interpolation=how)[at])

    a, b, gt = (color.as_hwc(cut(image)) for image in (pair.a, pair.b, truth))
    labels = pair.labels and replace(pair.labels, ids=cut(pair.labels.ids, cv2.INTER_NEAREST))
    return Part(ref.name, ref.dataset, ref.task, a, b, gt, labels)


def pairs(sets: dict[str, str], limit: int, width: int) -> Iterator[Part]:
    """At most so many pairs of each set, of splits that are not trained on."""
    for name, folder in sets.items():
        _, found, _ = select(None, {name: folder}, split="train", pairs="extreme", limit=1)
        every = found[name].pairs
        held = np.flatnonzero(every.splits != list(SPLITS).index("train"))
        chosen = every.take(held[np.linspace(0, len(held) - 1, min(limit, len(held))).astype(int)])
        yield from (middle(ref, width) for ref in chosen)


def fusion(ask: Callable[..., np.ndarray], known: Sequence[Part]) -> None:
    """The table of fusion, by data set."""
    rows: dict[str, list[list[float]]] = defaultdict(list)
    for one in known:
        three = [np.repeat(x, 3, 2) if x.shape[2] == 1 else x for x in (one.a, one.b)]
        mean = np.round(np.mean(three, axis=0, dtype=np.float64)).astype(np.uint8)
        pyramid = PyramidFuser()(one.a, one.b, one.task)
        scores: list[float] = []
        for image in (ask(one, ""), mean, pyramid):
            got = evaluate(image, one.a, one.b, one.truth, list(SCORES))
            scores += [min(got["PSNR"], PSNR_CAP), got["SSIM"]]
        rows[one.dataset].append(scores)
    print("| set | pairs | model | mean of both | pyramid |\n|---|---|---|---|---|")
    rows["all"] = [row for each in list(rows.values()) for row in each]
    for name, each in rows.items():
        values = np.mean(each, axis=0)
        cells = (f"{values[i]:.2f} / {values[i + 1]:.3f}" for i in (0, 2, 4))
        print(f"| {name} | {len(each)} | {' | '.join(cells)} |", flush=True)


def tones(ask: Callable[..., np.ndarray], known: Sequence[Part], guidance: float | None) -> None:
    """The shares of tones that go the right way under a scale of guidance by the prompt."""
    print("guidance of the design:" if guidance is None else f"guidance {guidance:g}:")
    for name, (tags, measure, way) in TONES.items():
        moved: list[float] = []
        for one in known:
            plain = measure(color.luma(ask(one, "", guidance=guidance).astype(np.float32)))
            for tag in tags:
                words = instruct("control", generator(seed_of("instructions", one.name, tag)), tag=tag).text
                answer = ask(one, words, guidance=guidance)
                moved.append(float(measure(color.luma(answer.astype(np.float32))) - plain))
        right = fmean(way * each > 0 for each in moved)
        print(f"  {name:<14} {right:6.1%} of {len(moved)}, by {fmean(moved):+6.2f} codes", flush=True)


def marks(ask: Callable[..., np.ndarray], known: Sequence[Part]) -> None:
    """Intersection over union by class."""
    both: dict[str, int] = defaultdict(int)
    either: dict[str, int] = defaultdict(int)
    for one in known:
        assert one.labels is not None
        plain = ask(one, "")
        for name in one.labels.shown():
            words = instruct("segment", generator(seed_of("instructions", one.name, name)), name=name).text
            said, true = mask_of(ask(one, words), plain), one.labels.mask(name)
            both[name] += int((said & true).sum())
            either[name] += int((said | true).sum())
    print("IoU: " + ", ".join(f"{name} {both[name] / max(either[name], 1):.2f}" for name in sorted(either)))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", action="append", default=[], metavar="NAME=DIR")
    parser.add_argument("--scenes", type=int, default=24)
    parser.add_argument("--limit", type=int, default=12, help="pairs of each data set")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--guidance", type=float, nargs="+", default=[], help="of tones; the design's")
    parser.add_argument("--guidance-images", type=float)
    options = parser.parse_args()
    pipeline = FusionPipeline.from_pretrained(options.model)

    def ask(one: Part, prompt: str, guidance: float | None = None) -> np.ndarray:
        scales = {"guidance": guidance, "guidance_images": options.guidance_images}
        return pipeline(one.a, one.b, task=one.task, prompt=prompt, **scales)

    scenes, _, _ = select("vif", {}, split="test", pairs="extreme", limit=options.scenes)
    shown = [middle(ref, options.width) for ref in scenes]
    real = list(pairs(folders(options.data), options.limit, options.width))
    fusion(ask, [*real, *shown])
    for guidance in options.guidance or [None]:
        tones(ask, real or shown, guidance)
    marks(ask, shown)


if __name__ == "__main__":
    main()
