"""The prompt of a pair that nobody described: what is wrong with it, as estimated."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8

from clearfuse.synth.estimation.prompt import estimate_pair, write_prompt
from clearfuse.synth.types import BadPair, Task

AUTO = "auto"
"""In place of a prompt: what the pictures themselves tell."""


def find_prompt(task: Task, a: UInt8[np.ndarray, "h w _"], b: UInt8[np.ndarray, "h w _"]) -> tuple[str | None, str]:
    """The prompt that asks to remove what is wrong with a pair, None where nothing is found; and a line that says it.

    Raises BadPair where a picture is too small to tell.
    """
    try:
        found = estimate_pair(task, a, b)
    except ValueError as error:
        raise BadPair(str(error)) from None
    prompt = write_prompt(task, found)
    if prompt is None:
        return None, "nothing found"
    told = ", ".join(
        f"{one.finding.op} in {one.target}, {one.finding.strength()}, {100 * one.finding.certainty:.0f} % sure"
        for one in found
    )
    return prompt.text, f"{told}; prompt: {prompt.text}"
