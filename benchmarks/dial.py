"""Whether ``train fuse --strength`` is calibrated: what is left of a degradation's parameters at each strength.

    python benchmarks/dial.py [--model small] [--scenes 4] [--severity 0.6] [--operators NAME...]

Built-in scenes that no model has seen, with one degradation each. What is left in a fused image is read off pyramids:
of the candidates, which are the pyramid's fusions of the pair with 0, 5, ..., 100 % of the degradation (``weakened``),
the one of the least mean squared error. Calibrated, strength s leaves 1 − s. Of what a model cannot remove, more stays.
"""

from __future__ import annotations

import argparse
from statistics import fmean

import cv2
import numpy as np

from clearfuse.synth.fusers import PyramidFuser
from clearfuse.synth.operators import OPERATORS
from clearfuse.synth.prompts.compose import compose
from clearfuse.synth.samples.render import degrade_pair, weakened
from clearfuse.synth.seeds import generator, seed_of
from clearfuse.train.demo.pair import Pair, degrade, scene_of
from clearfuse.train.pipeline.fusion import FusionPipeline

FIRST = 1_000_000
"""Number of the first scene: those below are trained on."""
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
SHARES = np.linspace(0, 1, 21)
USUAL = (
    "haze", "rain", "snow", "gaussian_blur", "motion_blur", "low_exposure", "low_contrast", "gaussian_noise",
    "sensor_noise", "downsample", "jpeg",
)  # fmt: skip


def left_of(pipeline: FusionPipeline, pair: Pair, name: str, severity: float) -> dict[float, float] | None:
    """The share of the degradation that is left, by strength; None where it cannot act on the pair."""
    degraded = degrade(pair, {name: severity})
    if not degraded.steps:
        return None
    fuser, task = PyramidFuser(), pair.task
    candidates = [
        fuser(*degrade_pair(task, pair.a, pair.b, [weakened(s, share) for s in degraded.steps], pair.depth), task)
        for share in SHARES.tolist()
    ]
    prompt = compose(task, degraded.steps, generator(seed_of("dial", name))).text
    left: dict[float, float] = {}
    for strength in STRENGTHS:
        fused = pipeline(degraded.a, degraded.b, task=task, prompt=prompt, strength=strength).astype(np.float64)
        left[strength] = float(SHARES[np.argmin([np.mean((fused - one) ** 2) for one in candidates])])
    return left


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="clearfuse-small")
    parser.add_argument("--scenes", type=int, default=4)
    parser.add_argument("--severity", type=float, default=0.6)
    parser.add_argument("--operators", nargs="+", choices=list(OPERATORS), default=list(USUAL))
    options = parser.parse_args()
    cv2.setNumThreads(1)
    pipeline = FusionPipeline.from_pretrained(options.model)
    pairs = [scene_of("vif", FIRST + number) for number in range(options.scenes)]
    print(f"| left of | {' | '.join(f'strength {strength:g}' for strength in STRENGTHS)} |")
    print(f"|{'---|' * (len(STRENGTHS) + 1)}")
    for name in options.operators:
        found = [left for pair in pairs if (left := left_of(pipeline, pair, name, options.severity)) is not None]
        if found:
            means = (fmean(one[strength] for one in found) for strength in STRENGTHS)
            print(f"| {name} | {' | '.join(f'{mean:.2f}' for mean in means)} |", flush=True)
    print(f"| calibrated | {' | '.join(f'{1 - strength:.2f}' for strength in STRENGTHS)} |")


if __name__ == "__main__":
    main()
