"""About how long presets take on this machine: the model that ships is timed, others follow by their FLOPs."""

from __future__ import annotations

import time
from dataclasses import dataclass

from clearfuse.synth.console import format_duration, plural

SIDE, RUNS = 512, 3
"""Of the picture that is fused to measure; runs after a first one, of which the fastest counts."""
BACKWARD = 3
"""A training step's FLOPs in forward passes: the backward pass takes two; recomputed blocks one more."""


@dataclass(frozen=True)
class Speed:
    """What this machine does of the shipped model's FLOPs in a second, in fusing, with all that is around a network."""

    device: str
    rate: float

    def line(self) -> str:
        """How it was measured."""
        return (
            f"times: about, on {self.device}, from clearfuse-small measured here ({self.rate / 1e9:.0f} GFLOP/s) and "
            "each network's FLOPs, without tokenizer and frozen encoders; train fit --dry-run measures a run itself"
        )

    def times(self, preset: str) -> str:
        """Of a preset: of fusing a picture, and of a training step."""
        from clearfuse.train.designs.presets import describe
        from clearfuse.train.runs.settings import Settings

        info, settings = describe(preset), Settings.of(preset)
        crop = describe(preset, (settings.crop, settings.crop))
        samples = settings.batch * settings.accumulate
        passes = (BACKWARD + settings.recompute) * samples
        picture, step = (flops / self.rate for flops in (info["flops"] * info["calls"], crop["flops"] * passes))
        return f"{_said(picture)} a picture, {_said(step)} a step of {plural(samples, 'crop')} of {settings.crop}"


def measure_speed(device: str | None) -> Speed:
    """Time the model that ships. Raises UserError where there is no such device."""
    import numpy as np

    from clearfuse.synth import console
    from clearfuse.train.designs.presets import TEXT_TOKENS
    from clearfuse.train.models import find_model
    from clearfuse.train.pipeline.files import load_pipeline
    from clearfuse.train.pipeline.shipped import DEFAULT

    console.note(f"measuring {DEFAULT} on pictures of {SIDE}x{SIDE}")
    pipeline = load_pipeline(DEFAULT, device)
    picture = np.tile(np.arange(SIDE, dtype=np.uint8)[:, None, None], (1, SIDE, 3))
    seconds: list[float] = []
    for _ in range(1 + RUNS):
        begun = time.perf_counter()
        pipeline(picture, picture, task="mff", prompt="")  # the image is read back: work on a GPU has ended
        seconds.append(time.perf_counter() - begun)
    design = pipeline.design
    cells = -(-SIDE // pipeline.assembly.tokenizer.f)
    flops = find_model(design.model).flops(design.config, cells, cells, TEXT_TOKENS)
    return Speed(pipeline.device.type, flops / min(seconds[1:]))


def _said(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds < 90 else format_duration(seconds)
