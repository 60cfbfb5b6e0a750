"""Train the network of ``synth estimate``: ``make estimation-model``.

Samples of the training splits and their statistics, in parts, so that it goes on where it was stopped; ridge regression
on Gaussian units about them, in closed form; its penalties and its calibration by leaving out fold after fold of the
clean pictures, and a report of what is said of the pictures left out.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from scipy.optimize import minimize
from scipy.stats import spearmanr

from clearfuse.synth.datasets.select import folders
from clearfuse.synth.estimation.network import WEIGHTS, kernel, projected
from clearfuse.synth.estimation.targets import NAMES, told_of, trained_for
from clearfuse.synth.seeds import seed_of
from samples import Clean, clean_pictures, make_sample, write_samples

PART = 100
"""Samples in a part."""
AXES = 256
"""Principal axes of the statistics that are kept."""
FOLDS = 5
PENALTY = 0.03
"""Of the presence's regression, relative to the kernel's diagonal of one."""
TELLING = 300
"""Faint samples from which presence is learned; from the others strength alone. With all of them too much is taken for
haze and light: of 200 clean images 26 % had a fault, and 20 % with these.
"""
PENALTIES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Those of which each operator's severity takes the best."""


@dataclass(frozen=True)
class Table:
    """Samples as arrays: statistics, severities (NaN: absent), which are infrared, the clean picture's fold, and from
    which it is learned whether an operator is there.
    """

    values: np.ndarray
    severity: np.ndarray
    infrared: np.ndarray
    fold: np.ndarray
    telling: np.ndarray

    @property
    def asked(self) -> np.ndarray:
        """(n, operators): whether an operator is looked for in a picture of that modality."""
        told = [np.isin(NAMES, told_of(modality)) for modality in ("visible", "infrared")]
        return np.stack(told)[self.infrared.astype(int)]


def make_part(path: Path, first: int, seed: int, pictures: list[Clean], *, faint: bool) -> None:
    """The samples from a number on, where they are not there yet."""
    if not path.is_file():
        began = time.process_time()
        write_samples(path, [make_sample(seed, first + i, pictures, faint=faint) for i in range(PART)])
        print(f"{path.name}: {time.process_time() - began:.0f} s", flush=True)


def collect(work: Path, sets: dict[str, str], count: int, faint: int, scenes: int, seed: int) -> Table:
    """The samples; those that are not there yet are made. The faint ones are of pairs, which show streets."""
    paths = [work / f"train-{number:04d}.npz" for number in range(count // PART)]
    more = [work / f"faint-{number:04d}.npz" for number in range(faint // PART)]
    if not all(path.is_file() for path in (*paths, *more)):
        pictures = clean_pictures(sets, "train", scenes)
        streets = {clean.name for clean in pictures if clean.modality == "infrared" and clean.depth is None}
        chosen = [clean for clean in pictures if clean.name in streets]
        for number, path in enumerate(paths):
            make_part(path, number * PART, seed, pictures, faint=False)
        for number, path in enumerate(more):
            make_part(path, number * PART, seed, chosen, faint=True)
    parts = [np.load(path) for path in (*paths, *more)]
    held = {name: np.concatenate([part[name] for part in parts]) for name in parts[0].files}
    fold = np.array([seed_of("fold", str(name)) % FOLDS for name in held["picture"]])
    telling = np.arange(len(fold)) < count // PART * PART + TELLING
    return Table(held["values"], held["severity"], held["infrared"], fold, telling)


def relevance(x: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Weights of the statistics: the root of the sum of squared correlations with presence, of mean square 1."""
    normal = [(each - each.mean(0)) / np.maximum(each.std(0), 1e-6) for each in (x, there.astype(np.float32))]
    weights = np.sqrt(((normal[0].T @ normal[1] / len(x)) ** 2).sum(1))
    return weights / np.sqrt((weights**2 * x.var(0)).sum() / x.shape[1])


def solve(units: np.ndarray, wanted: np.ndarray, penalty: float) -> tuple[np.ndarray, np.ndarray]:
    """(weights, bias) of ridge regression on a kernel: (K + λ I) w = y − ȳ."""
    bias = wanted.mean(0)
    return np.linalg.solve(units + penalty * np.eye(len(units)), wanted - bias), bias


def left_out(units: np.ndarray, wanted: np.ndarray, fold: np.ndarray, penalty: float) -> np.ndarray:
    """What is said of each sample without its fold."""
    said = np.zeros(wanted.shape)
    for number in range(FOLDS):
        kept = fold != number
        weights, bias = solve(units[np.ix_(kept, kept)], wanted[kept], penalty)
        said[~kept] = units[np.ix_(~kept, kept)] @ weights + bias
    return said


def platt(score: np.ndarray, there: np.ndarray) -> tuple[float, float]:
    """Slope and offset of the logit that make the score a probability, drawn a little to 6 and −3."""

    def entropy(x: np.ndarray) -> float:
        logit = x[0] * score + x[1]
        drawn = 0.02 * (x[0] - 6) ** 2 + 0.02 * (x[1] + 3) ** 2
        return float(np.logaddexp(0, -np.where(there, logit, -logit)).sum() + drawn)

    found = minimize(entropy, np.array([6.0, -3.0]), method="L-BFGS-B", bounds=[(0.5, 30), (-15, 2)])
    return float(found.x[0]), float(found.x[1])


def main() -> None:
    """Make the samples, fit, calibrate, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder of the samples' statistics")
    parser.add_argument("--data", action="append", default=[], metavar="NAME=DIR", help="data sets")
    parser.add_argument("--scenes", type=int, default=200, help="built-in scenes beside them")
    parser.add_argument("--count", type=int, default=1700, help="samples of all operators")
    parser.add_argument("--faint", type=int, default=1300, help="more of those that are hard to tell")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    options = parser.parse_args()
    cv2.setNumThreads(0)
    options.work.mkdir(parents=True, exist_ok=True)
    sets = folders(options.data)
    table = collect(options.work, sets, options.count, options.faint, options.scenes, options.seed)
    tensors = fit(table)
    kept = {
        name: value.astype(np.float16 if name in ("axes", "centres") else np.float32) for name, value in tensors.items()
    }
    write(kept, options.out)


def fit(table: Table) -> dict[str, np.ndarray]:
    """All weights, with a report."""
    mean, scale = table.values.mean(0), np.maximum(table.values.std(0), 1e-3)
    there = ~np.isnan(table.severity)
    tensors = {"mean": mean, "scale": scale, "axes": np.eye(len(mean), dtype=np.float32)}
    x = projected(table.values, tensors)
    tell = table.telling
    weighted = relevance(x[tell], there[tell])
    axes = np.linalg.svd((x - x.mean(0)) * weighted, full_matrices=False)[2][:AXES] * weighted
    tensors["axes"] = axes.astype(np.float16).astype(np.float32)
    centres = projected(table.values, tensors).astype(np.float16).astype(np.float32)
    units = kernel(centres, centres, len(mean)).astype(np.float64)
    count = len(NAMES)
    told, known = units[np.ix_(tell, tell)], there[tell].astype(np.float64)
    weights, score = np.zeros((len(units), count)), np.full((len(units), count), np.nan)
    weights[tell], bias = solve(told, known, PENALTY)
    score[tell] = left_out(told, known, table.fold[tell], PENALTY)
    tensors |= {"centres": centres, "presence": weights, "presence_bias": bias}
    tensors |= {"severity": np.zeros((len(units), count)), "severity_bias": np.zeros(count)}
    tensors |= {name: np.zeros(count) for name in ("slope", "offset", "spread")}
    likely = np.full(score.shape, -1.0)
    said = np.full(score.shape, np.nan)
    for k in range(count):
        asked, rows = table.asked[:, k] & tell, np.flatnonzero(there[:, k])
        slope, offset = platt(score[asked, k], there[asked, k])
        likely[asked, k] = 1 / (1 + np.exp(-(slope * score[asked, k] + offset)))
        own, wanted, fold = units[np.ix_(rows, rows)], table.severity[rows, k].astype(np.float64), table.fold[rows]
        tried = {penalty: left_out(own, wanted, fold, penalty) for penalty in PENALTIES}
        best = min(tried, key=lambda penalty: float(np.abs(tried[penalty] - wanted).mean()))
        said[rows, k] = tried[best]
        tensors["severity"][rows, k], tensors["severity_bias"][k] = solve(own, wanted, best)
        # A normal variate is within 1.2816 standard deviations in 80 % of all cases.
        spread = np.quantile(np.abs(tried[best] - wanted), 0.8) / 1.2816
        tensors["slope"][k], tensors["offset"][k], tensors["spread"][k] = slope, offset, spread
    report(table, likely, said)
    return tensors


def report(table: Table, likely: np.ndarray, said: np.ndarray) -> None:
    """How well it does on pictures left out."""
    there = ~np.isnan(table.severity)
    single, clean = (there.sum(1) == 1) & table.telling, (there.sum(1) == 0) & table.telling
    right = there[np.arange(len(there)), likely.argmax(1)]
    print(f"top 1 of {single.sum()} single degradations: {right[single].mean():.3f}")
    print(f"{clean.sum()} clean: none above one half in {(likely[clean].max(1) < 0.5).mean():.3f}")
    for k, name in enumerate(NAMES):
        alone, every = single & there[:, k], (there.sum(1) == 1) & there[:, k]
        rank = spearmanr(table.severity[every, k], said[every, k])[0]
        false = (likely[~there[:, k] & table.asked[:, k] & table.telling, k] > 0.5).mean()
        named = right[alone].mean()
        print(
            f"{name:16} {alone.sum():4} alone, named {named:.2f}, false {false:.3f}, rank {rank:.2f} of {every.sum()}"
        )


def write(tensors: dict[str, np.ndarray], path: Path) -> None:
    """Write the weights, by rename; with them the ranges that a severity of 0 and 1 stands for."""
    from safetensors.numpy import save

    data = save({name: np.ascontiguousarray(value) for name, value in tensors.items()}, trained_for())
    new = path.with_suffix(".new")
    new.write_bytes(data)
    new.replace(path)


if __name__ == "__main__":
    main()
