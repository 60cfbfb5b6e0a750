"""How well ``synth estimate`` names single degradations and their strength, on shards whose parameters are recorded.

    python benchmarks/estimation.py SHARDS...

Of each sample with one step the image that it targets is looked at, the visible one of both. Top 1: the likeliest of
all operators that are looked for in the modality is the one that is there. Rank correlation (Spearman): of the strength
that is estimated with the recorded parameter, of all samples of an operator, named or not. The clean image of the same
sample is looked at too: how often nothing is found in it.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Sequence

import cv2
import numpy as np
from scipy.stats import spearmanr

from clearfuse.synth.datasets.read import as_grey
from clearfuse.synth.estimation.estimate import SURE, Estimate, estimate
from clearfuse.synth.estimation.targets import NAMES, main_range
from clearfuse.synth.samples.recipe import load_recipe
from clearfuse.synth.shards.sample import read_samples
from clearfuse.synth.types import MODALITIES
from clearfuse.train.data.find import find_local_shards

PAPER = frozenset(name for task in ("vif", "mef", "mff") for name in load_recipe(task).operators)
"""The operators of the paper's recipes, twelve."""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", nargs="+")
    parser.add_argument("--json", help="write every answer there")
    options = parser.parse_args()
    cv2.setNumThreads(0)
    rows: dict[str, list[tuple[Estimate, float]]] = defaultdict(list)
    clean: list[Estimate] = []
    answers: list[dict[str, object]] = []
    for path in find_local_shards(options.shards):
        for sample in read_samples(path):
            (step,) = sample.meta.steps
            if step.op not in NAMES:
                continue
            image = "b" if step.target == "b" else "a"
            kind = MODALITIES[sample.meta.task][image]
            looked = [sample.images[name] for name in (image, f"clean_{image}")]
            degraded, before = (estimate(as_grey(x) if kind == "infrared" else x, kind) for x in looked)
            key, _ = main_range(step.op)
            rows[step.op].append((degraded, float(step.params[key])))
            clean.append(before)
            first = degraded.findings[0]
            said = {"said": first.op, "sure": first.certainty, "estimated": degraded[step.op].value}
            known = {"set": sample.meta.dataset, "pair": sample.meta.pair, "op": step.op, "value": step.params[key]}
            answers.append(known | said)
    table(rows, clean)
    if options.json:
        with open(options.json, "w") as file:
            json.dump(answers, file, indent=1)


def table(rows: dict[str, list[tuple[Estimate, float]]], clean: Sequence[Estimate]) -> None:
    """The figures by operator, in physical order, and of all."""
    print("| operator | samples | top 1 | sure of it (≥ 50 %) | rank correlation | in its 80 % span | taken for |")
    print("|---|---|---|---|---|---|---|")
    for name in (name for name in NAMES if name in rows):
        found = rows[name]
        right = [one.findings[0].op == name for one, _ in found]
        named = [one[name].certainty >= SURE for one, _ in found]
        said, there = [one[name].value for one, _ in found], [value for _, value in found]
        rank = spearmanr(said, there)[0] if len(set(there)) > 2 else float("nan")
        inside = [one[name].low <= value <= one[name].high for one, value in found]
        wrong = sorted({one.findings[0].op for one, _ in found} - {name})
        cells = (f"`{name}`", len(found), share(right), share(named), f"{rank:.2f}", share(inside), ", ".join(wrong))
        print(f"| {' | '.join(map(str, cells))} |")
    for what, names in (("the paper's twelve", PAPER), ("all", frozenset(NAMES))):
        chosen = [(name, one) for name in rows if name in names for one, _ in rows[name]]
        right = [one.findings[0].op == name for name, one in chosen]
        among = [next(x.op for x in one.findings if x.op in names) == name for name, one in chosen]
        named = [one[name].certainty >= SURE for name, one in chosen]
        figures = f"top 1 {share(right)}, among these alone {share(among)}, sure of it {share(named)}"
        print(f"{what}: {len(chosen)} samples, {figures}")
    print(f"clean images: {len(clean)}, nothing found in {share([not one.found() for one in clean])}")
    certainty = np.array([one.findings[0].certainty for found in rows.values() for one, _ in found])
    right = np.array([one.findings[0].op == name for name, found in rows.items() for one, _ in found])
    for low, high in ((0, 0.5), (0.5, 0.8), (0.8, 0.95), (0.95, 1.01)):
        inside = (certainty >= low) & (certainty < high)
        if inside.any():
            print(
                f"{low:.0%} to {min(high, 1):.0%} sure: {inside.sum()} samples, {share(right[inside].tolist())} right"
            )


def share(right: Sequence[bool]) -> str:
    """A share in percent."""
    return f"{100 * float(np.mean(right)):.0f} %" if len(right) else "none"


if __name__ == "__main__":
    main()
