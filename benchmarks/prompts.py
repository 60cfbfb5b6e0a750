"""Whether a model does what the prompt names: on pairs with two degradations of which it is asked to remove one.

    python benchmarks/prompts.py SHARDS ... [--model small] [--limit 100] [--seed 0]

SHARDS: ``synth build --n 2``; samples with another number of steps are left out. For each of a sample's two steps the
prompt asks for that one. The truth with step i removed is the pyramid fuser's image of the clean pair under the other
step. The prompt is followed where the mean squared error to the truth without the named step is below that to the truth
without the other one: a model that ignores prompts follows half of them. Then the mean absolute change of the image, in
grey levels, between two wordings of one request, and between the requests for the one and for the other step.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator
from itertools import islice
from statistics import fmean, median

import numpy as np

from clearfuse.synth.console import note
from clearfuse.synth.fusers import PyramidFuser
from clearfuse.synth.prompts.compose import compose
from clearfuse.synth.samples.render import degrade_pair
from clearfuse.synth.seeds import generator, seed_of
from clearfuse.synth.shards.sample import Sample, read_samples
from clearfuse.train.data.find import find_local_shards
from clearfuse.train.pipeline.fusion import FusionPipeline

MIN_TRUTHS = 1.0
"""Mean squared difference, in grey levels, below which the two truths are one image and say nothing."""


def samples(shards: list[str]) -> Iterator[Sample]:
    """The samples with two steps whose seeds are known, of all shards in turn."""
    sources = [iter(read_samples(path)) for path in find_local_shards(shards)]
    while sources:
        for source in list(sources):
            sample = next(source, None)
            if sample is None:
                sources.remove(source)
            elif len(sample.meta.steps) == 2 and all(step.seed is not None for step in sample.meta.steps):
                yield sample


def request(sample: Sample, step: int, wording: int) -> str:
    """A prompt that asks to remove one step. wording: which one of all is drawn."""
    meta = sample.meta
    rng = generator(seed_of("prompts", meta.dataset, meta.pair, meta.variant, step, wording))
    return compose(meta.task, meta.steps, rng, (step,), dataset=meta.dataset).text


def wordings(sample: Sample, step: int, seed: int) -> tuple[str, str]:
    """Two prompts for one step that are not the same."""
    first = request(sample, step, seed)
    others = (request(sample, step, seed + number) for number in range(1, 50))
    return first, next(other for other in others if other != first)


def truths(sample: Sample) -> list[np.ndarray]:
    """The fused clean pair without each of the two steps, under the other one."""
    clean = sample.images["clean_a"], sample.images["clean_b"]
    task, steps = sample.meta.task, sample.meta.steps
    kept = [degrade_pair(task, *clean, [other], sample.metres()) for other in reversed(steps)]
    return [PyramidFuser()(*pair, task).astype(np.float64) for pair in kept]


def main() -> None:
    """Print the shares by degradation, and the changes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", nargs="+")
    parser.add_argument("--model", default="clearfuse-small")
    parser.add_argument("--limit", type=int, default=100, help="samples")
    parser.add_argument("--seed", type=int, default=0, help="of the wordings")
    options = parser.parse_args()
    pipeline = FusionPipeline.from_pretrained(options.model)
    followed, changed = defaultdict[str, list[bool]](list), defaultdict[str, list[float]](list)
    for number, sample in enumerate(islice(samples(options.shards), options.limit), 1):
        images, task, (without_0, without_1) = sample.images, sample.meta.task, truths(sample)
        if ((without_0 - without_1) ** 2).mean() < MIN_TRUTHS:
            continue
        texts = [wordings(sample, step, options.seed) for step in (0, 1)]
        fused = [[pipeline(images["a"], images["b"], task=task, prompt=p).astype(float) for p in two] for two in texts]
        for step, (own, other) in enumerate(((without_0, without_1), (without_1, without_0))):
            image = fused[step][0]
            hit = bool(((image - own) ** 2).mean() < ((image - other) ** 2).mean())
            for name in ("all", task, sample.meta.steps[step].op):
                followed[name].append(hit)
            changed["another wording"].append(float(np.abs(fused[step][0] - fused[step][1]).mean()))
        changed["another degradation"].append(float(np.abs(fused[0][0] - fused[1][0]).mean()))
        if number % 10 == 0:
            note(f"{number} samples: {np.mean(followed['all']):.0%} followed")
    print("followed: the image is nearer to the truth without the named step (wanted: 80 %)")
    for name, hits in followed.items():
        print(f"{name:<20}{np.mean(hits):>6.0%} of {len(hits)}")
    print("\nmean absolute change, grey levels")
    for name, values in changed.items():
        print(f"{name:<20} mean {fmean(values):.3f}, median {median(values):.3f}")
    ratio = fmean(changed["another wording"]) / fmean(changed["another degradation"])
    print(f"another wording changes {ratio:.2f} of what another degradation's name does (wanted: below 0.2)")


if __name__ == "__main__":
    main()
