"""What the degradations of a recipe leave of real pairs: PSNR, gradient correlation, and whether the draws are uniform.

    python benchmarks/composition.py [--data DIR] [--samples 500] [--task vif,mef,mff] [--sheet DIR]

DIR contains folders by task as the manifests name them (``vif/MSRS``, ``mef/MEFB``, ``mff/Lytro`` …); without it, the
built-in scenes are used. Samples are those of ``synth build --n 1-3`` on the same pairs. PSNR is that of both frames
together against the clean pair. χ²: of n and of the aspect ratios against the recipe's weights, and of the operators
against how often the recipe itself draws them; p is the probability of a larger deviation by chance.
"""

from __future__ import annotations

import argparse
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import cv2
import numpy as np
from scipy.stats import chi2

from clearfuse.synth.datasets.find import find_all
from clearfuse.synth.datasets.manifest import load_manifest
from clearfuse.synth.depth import DEPTHS
from clearfuse.synth.execute.tasks import limit_threads
from clearfuse.synth.samples.draw import draw_operators, largest_box
from clearfuse.synth.samples.prepare import Prepared, Spec, prepare
from clearfuse.synth.samples.recipe import Recipe, load_recipe
from clearfuse.synth.samples.render import render
from clearfuse.synth.samples.structure import gradient_correlation
from clearfuse.synth.seeds import generator
from clearfuse.synth.shards.sample import Sample
from clearfuse.synth.types import TASKS, PairRef, Task

SETS: Mapping[Task, Mapping[str, str]] = {
    "vif": {"msrs": "MSRS", "roadscene": "RoadScene", "llvip": "LLVIP", "vifb": "VIFB"},
    "mef": {"mefb": "MEFB", "sice-flat": "SICE_over_under"},
    "mff": {"lytro": "Lytro", "nyud": "NYU-D-100", "mfifb": "MFIFB"},
}
PAIRS = 60
"""Pairs per task, evenly spaced over those of its data sets, so that few have to be fused."""
LARGEST = 1_400_000
"""Pixels; larger pairs are left out, since they take most of the time."""
BARS = (10.0, 15.0)
"""PSNR in dB under which the shares of samples are counted."""
EDGES = (0, 6, 8, 10, 12, 15, 18, 21, 25, 30, 40, 100)
"""Bins of the histogram of PSNR, in dB."""
DRAWS = 20000
"""Plans drawn for the operators' expected frequencies."""
LOST = 0.2
"""Gradient correlation under which, in both frames, the structure counts as lost."""


def refs_of(task: Task, data: Path | None) -> list[PairRef]:
    """The pairs of a task, evenly thinned."""
    if data is None:
        found = list(find_all(load_manifest("scenes"), "", task).pairs)
    else:
        found = []
        for name, folder in SETS[task].items():
            some = list(find_all(load_manifest(name), str(data / task / folder), task).pairs)
            share = max(1, round(PAIRS / len(SETS[task])))
            found += [some[i] for i in np.unique(np.linspace(0, len(some) - 1, share).round().astype(int))]
    return found


def spec_of(task: Task, refs: list[PairRef], recipe: Recipe) -> Spec:
    """The settings of a build with the fusers and depth sources that need no network."""
    names = {ref.dataset for ref in refs}
    source = DEPTHS["scene" if names == {"scenes"} else "prior"].open(None)
    return Spec(task, 0, recipe, fusers=dict.fromkeys(names, "pyramid"), depths=dict.fromkeys(names, source), keep=True)


def prepared_pairs(spec: Spec, refs: list[PairRef]) -> Iterator[Prepared]:
    """The prepared pairs whose size allows a crop of every ratio."""
    for ref in refs:
        one = prepare(spec, ref)
        h, w = one.pair.a.shape[:2]
        fits = all(min(largest_box(w, h, ratio)) >= 64 for ratio in spec.recipe.ratios)
        if fits and h * w <= LARGEST and one.pair.b.shape[:2] == (h, w):
            yield one


def psnr(sample: Sample) -> float:
    """Of both frames together against the clean ones, in dB."""
    errors = [
        float(np.mean((sample.images[name].astype(np.float32) - sample.images[f"clean_{name}"]) ** 2))
        for name in ("a", "b")
    ]
    return min(100.0, -10 * float(np.log10(np.mean(errors) / 255**2 + 1e-12)))


def correlation(sample: Sample) -> float:
    """The larger gradient correlation of the two frames."""
    return max(gradient_correlation(sample.images[f"clean_{name}"], sample.images[name]) for name in ("a", "b"))


def chi_square(counts: Mapping[object, int], expected: Mapping[object, float]) -> tuple[float, float]:
    """χ² of counts against expected shares, which sum to 1, and its p."""
    total = sum(counts.values())
    value = sum((counts.get(key, 0) - total * share) ** 2 / (total * share) for key, share in expected.items())
    return value, float(chi2.sf(value, len(expected) - 1))


def drawn_shares(recipe: Recipe) -> dict[str, float]:
    """How often the recipe draws each operator, as a share of all steps."""
    counts = Counter(name for i in range(DRAWS) for name in draw_operators(recipe, generator(i)))
    return {name: count / counts.total() for name, count in counts.items()}


def write_sheet(path: Path, samples: list[tuple[float, Sample]]) -> None:
    """The worst samples by PSNR: clean a, clean b, a, b in a row, with what was done to them."""
    rows: list[np.ndarray] = []
    for value, sample in samples:
        cells = [cv2.resize(sample.images[name], (256, 192)) for name in ("clean_a", "clean_b", "a", "b")]
        cells = [cell if cell.ndim == 3 else np.repeat(cell[..., None], 3, 2) for cell in cells]
        row = np.concatenate(cells, 1)
        meta = sample.meta
        said = f"{value:.1f} dB {correlation(sample):.2f} {meta.dataset} {meta.pair}: " + " ".join(
            f"{step.op}/{step.target}/{step.severity:.2f}" for step in meta.steps
        )
        band = np.full((18, row.shape[1], 3), 255, np.uint8)
        cv2.putText(band, said, (3, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
        rows += [band, row]
    half = len(rows) // 4 * 2
    sheet = np.concatenate([np.concatenate(rows[:half], 0), np.concatenate(rows[half : 2 * half], 0)], 1)
    cv2.imwrite(str(path), sheet[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])


def measure(task: Task, data: Path | None, count: int, recipe_name: str | None, sheet: Path | None) -> None:
    """Print the figures of one task."""
    recipe = load_recipe(recipe_name or task, task=task, n="1-3")
    refs = refs_of(task, data)
    spec = spec_of(task, refs, recipe)
    ready = list(prepared_pairs(spec, refs))
    began, samples = time.perf_counter(), list[tuple[float, Sample]]()
    values, kept = list[float](), list[float]()
    sizes, ratios, operators = Counter[int](), Counter[str](), Counter[str]()
    single, present = dict[str, list[float]](), dict[str, list[float]]()
    redrawn = 0
    for number in range(count):
        sample = render(spec, ready[number % len(ready)], number // len(ready), f"{number:09d}")
        values.append(psnr(sample))
        kept.append(correlation(sample))
        meta = sample.meta
        sizes[meta.n] += 1
        ratios[meta.ratio] += 1
        operators.update(step.op for step in meta.steps)
        redrawn += bool(getattr(meta, "redrawn", 0))
        for step in meta.steps:
            present.setdefault(step.op, []).append(values[-1])
        if meta.n == 1:
            single.setdefault(meta.steps[0].op, []).append(values[-1])
        samples.append((values[-1], sample))
        samples = sorted(samples, key=lambda one: one[0])[:24]
    spent = time.perf_counter() - began
    found = np.array(values)
    under = ", ".join(f"{(found < bar).mean():.1%} under {bar:g} dB" for bar in BARS)
    print(f"{recipe.name}: {count} samples of {len(ready)} pairs, {1000 * spent / count:.0f} ms each; {under}")
    histogram = np.histogram(found, EDGES)[0]
    print("  PSNR " + ", ".join(f"{a}-{b}: {n}" for a, b, n in zip(EDGES, EDGES[1:], histogram, strict=False)))
    quantiles = ", ".join(f"{q:.2f}" for q in np.quantile(kept, [0.01, 0.05, 0.25, 0.5]))
    lost = np.mean(np.array(kept) < LOST)
    print(f"  gradient correlation {quantiles} (1, 5, 25, 50 %), {lost:.1%} under {LOST}; {redrawn} drawn again")
    weights = {n: w / sum(recipe.n.values()) for n, w in recipe.n.items()}
    shapes = {r: w / sum(recipe.ratios.values()) for r, w in recipe.ratios.items()}
    for what, counts, expected in (
        ("n", sizes, weights),
        ("ratios", ratios, shapes),
        ("operators", operators, drawn_shares(recipe)),
    ):
        value, p = chi_square(counts, expected)  # pyright: ignore[reportArgumentType]
        print(f"  {what}: {dict(sorted(counts.items(), key=str))}, chi2 {value:.1f}, p {p:.2f}")
    alone = {op: f"{np.median(v):.1f} ({min(v):.1f} to {max(v):.1f})" for op, v in sorted(single.items())}
    print(f"  alone, median dB (range): {alone}")
    low = {op: f"{np.mean(np.array(v) < BARS[-1]):.0%}" for op, v in sorted(present.items())}
    print(f"  under {BARS[-1]:g} dB where it is one of the steps: {low}", flush=True)
    if sheet is not None:
        sheet.mkdir(parents=True, exist_ok=True)
        write_sheet(sheet / f"{recipe.name}.jpg", samples)


def main() -> None:
    """Print the figures of each task."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=None)
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--task", default=",".join(TASKS))
    parser.add_argument("--recipe", default=None)
    parser.add_argument("--sheet", type=Path, default=None)
    given = parser.parse_args()
    limit_threads()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for task in given.task.split(","):
        measure(task, given.data, given.samples, given.recipe, given.sheet)


if __name__ == "__main__":
    main()
