"""The gallery: states that show what the page is for, each with a small picture of its degraded first input."""

from __future__ import annotations

import functools

import numpy as np

from clearfuse.train.demo.pair import degrade, instructions, scene_of
from clearfuse.train.demo.result import colour
from clearfuse.train.demo.state import Language, State
from clearfuse.train.demo.words import operator_word, say

EXAMPLES: tuple[tuple[str, int, dict[str, float]], ...] = (
    ("vif", 3, {"gaussian_noise": 0.3}),
    ("vif", 1, {"haze": 0.7}),
    ("vif", 6, {"rain": 0.6, "jpeg": 0.4}),
    ("mef", 2, {}),
    ("mef", 5, {"sensor_noise": 0.6}),
    ("mff", 1, {}),
    ("mff", 4, {"snow": 0.5}),
    ("mff", 7, {"haze": 0.4, "gaussian_noise": 0.3}),
)
"""(task, scene, severity by operator)."""
THUMBNAIL = (240, 180)


def example(number: int, model: str, language: Language) -> State:
    """The state of an example, which asks to remove all that was added."""
    task, scene, degradations = EXAMPLES[number]
    state = State(task, scene, degradations, "", model, language)
    prompt = instructions(state)[0] if degradations else ""
    return State(task, scene, degradations, prompt, model, language)


@functools.cache
def thumbnails() -> list[np.ndarray]:
    """The degraded pair of each example side by side, (180, 482, 3) uint8, rendered small."""
    pictures: list[np.ndarray] = []
    for task, scene, degradations in EXAMPLES:
        made = degrade(scene_of(task, scene, THUMBNAIL), degradations)
        a, b = colour(made.a), colour(made.b)
        pictures.append(np.concatenate([a, np.full((a.shape[0], 2, 3), 255, np.uint8), b], 1))
    return pictures


def captions(language: Language) -> list[str]:
    """A line for each example: what the pair is, and what was done to it."""
    lines: list[str] = []
    for task, _, degradations in EXAMPLES:
        names = [operator_word(name, language) for name in degradations]
        lines.append(": ".join([say(task, language), *([", ".join(names)] if names else [])]))
    return lines
