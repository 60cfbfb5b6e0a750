"""What is asked of a pair that nobody described: to remove what is wrong with it, as estimated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, UInt8

from clearfuse.synth import color
from clearfuse.synth.datasets.read import as_grey
from clearfuse.synth.estimation.estimate import SURE
from clearfuse.synth.estimation.prompt import Found, estimates_of_pair, found_of_pair, write_prompt
from clearfuse.synth.estimation.targets import NAMES
from clearfuse.synth.types import TASKS, BadPair

AUTO, FUSE = "auto", "fuse"
"""In place of a prompt: what the pictures themselves tell; the pair's fusion alone."""

TRACES = frozenset({"gaussian_noise", "sensor_noise", "ir_stripes", "ir_dead_pixels", "jpeg", "low_exposure"})
"""What leaves in the pixels what no scene does."""

MISTAKEN = frozenset({"high_contrast", "lens_rain"})
"""What a clean picture is most often taken to have."""

ASKED: Mapping[str, float] = {name: 0.8 if name in TRACES else 0.9 for name in NAMES if name not in MISTAKEN}
"""Certainty from which the removal of a degradation is asked for, others never: higher for haze, blur and flat light,
which a clean scene may have too. A fault that a clean pair is told to have costs 30 dB, one that is missed a few.
Measured in docs/decisions/0056-without-a-prompt.md.
"""


@dataclass(frozen=True)
class Request:
    """What is asked of a pair. prompt: empty for its fusion alone; found: what was found; why: why nobody looked.

    unsure: the surest of what was found where nothing is sure enough to be asked for.
    """

    prompt: str = ""
    found: tuple[Found, ...] = ()
    why: str = ""
    unsure: Found | None = None

    def line(self) -> str:
        """What was found and what is asked for, in words."""
        if self.why:
            return f"{self.why}: fused, nothing removed"
        if self.unsure is not None:
            one, target = self.unsure.finding, self.unsure.target
            surest = f"{one.op} in {target}, {100 * one.certainty:.0f} % sure"
            return f"nothing found surely enough to remove it ({surest}): fused"
        if not self.found:
            return "nothing found to remove: fused"
        told = ", ".join(
            f"{one.finding.op} in {one.target}, {one.finding.strength()}, {100 * one.finding.certainty:.0f} % sure"
            for one in self.found
        )
        return f"{told}; prompt: {self.prompt}"


def asks_for_fusion(prompt: str) -> bool:
    """Whether a prompt asks for the pair's fusion alone: it is empty, or ``fuse``."""
    return prompt.strip().lower() in ("", FUSE)


def find_request(
    task: str,
    a: UInt8[np.ndarray, "h w _"] | Float32[np.ndarray, "h w _"],
    b: UInt8[np.ndarray, "h w _"] | Float32[np.ndarray, "h w _"],
    reads: bool = True,
    language: str = "en",
) -> Request:
    """What to ask of a pair: to remove what is wrong with it, of which the estimate is as sure as ``ASKED`` wants.

    task: nothing is looked for in a pair of another kind. reads: whether the model reads prompts; nothing is looked for
    where it does not. language: of the prompt. Raises BadPair where a picture is too small to tell.
    """
    known = next((one for one in TASKS if one == task), None)
    if not reads or known is None:
        return Request(why="the model reads no prompts" if not reads else "a pair of another kind")
    first, second = (color.as_codes(image) for image in (a, b))
    try:
        estimates = estimates_of_pair(known, first, as_grey(second) if known == "vif" else second)
    except ValueError as error:
        raise BadPair(f"too small to tell what is wrong ({error})") from None
    found = found_of_pair(known, estimates, ASKED)
    prompt = write_prompt(known, found, language=language)
    if prompt is None:
        return Request(unsure=next(iter(found_of_pair(known, estimates, dict.fromkeys(ASKED, SURE))), None))
    return Request(prompt.text, found)
