"""torch.compile: prompts of any length make one graph a shape."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

STEPS = """
import sys
sys.path.insert(0, {tests!r})
from dataclasses import replace
import torch
from torch._dynamo.utils import counters
from tiny import small
from clearfuse.train.designs.design import Assembly
from clearfuse.train.objectives.noise import Draws

design = small(flow=True)
design = replace(design, config=replace(design.config, experts=0))
assembly = Assembly(design, torch.Generator().manual_seed(0)).train()
assembly.compile_for(lambda network: network.compile(backend="eager"))
words = "remove the haze from the visible image and suppress the noise in both frames".split()
rng = torch.Generator().manual_seed(1)
for step in range(10):
    prompts = [" ".join(words[: 1 + step]), " ".join(words[: 14 - step])] if step % 3 else ["short", "words"]
    a, b, gt = (assembly.encode(torch.rand(2, 3, 32, 32, generator=rng) * 2 - 1) for _ in range(3))
    predict = assembly.bind((a, b), prompts)
    draws = Draws.of("noise", 0, [2 * step, 2 * step + 1])
    assembly.objective.loss(predict, gt, (a, b), draws, None, assembly.tokenizer.weight).total.backward()
print(counters["stats"]["unique_graphs"])
"""


@pytest.mark.slow
def test_ten_steps_of_mixed_prompts_compile_one_graph() -> None:
    """In a process of its own: the checks of shapes that the tests run under are no code to compile."""
    code = STEPS.format(tests=str(Path(__file__).parents[1]))
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert 1 <= int(ran.stdout) <= 2
