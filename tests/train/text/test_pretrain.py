"""A prompt encoder learns to read before any picture is seen."""

from __future__ import annotations

import pytest
import torch

from clearfuse.synth.samples.recipe import load_recipe
from clearfuse.train.text.byte_level import build
from clearfuse.train.text.pretrain import drawn, pretrain, questions_of


def test_prompts_come_with_what_they_ask_for() -> None:
    """The same numbers give the same; of a part that is asked, the rest is not; a word of it is in the text."""
    recipes = [load_recipe("mff-extended")]
    questions = questions_of(recipes)
    prompts, labels = drawn(recipes, questions, range(200), 1, "en")
    again, same = drawn(recipes, questions, range(100, 200), 1, "en")
    assert prompts[100:] == again and torch.equal(labels[100:], same)
    assert drawn(recipes, questions, range(200), 2, "en")[0] != prompts
    asked = labels.unflatten(1, (-1, 2)).any(2).sum(1)
    assert set(asked.tolist()) == {0, 1, 2, 3}
    jpeg = labels[:, [place for place, (name, _) in enumerate(questions) if name == "jpeg"]].any(1)
    words = torch.tensor(["jpeg" in text or "compress" in text or "block" in text for text in map(str.lower, prompts)])
    assert jpeg.sum() > 5 and (words == jpeg).float().mean() > 0.97


@pytest.mark.slow
def test_reading_is_learned() -> None:
    encoder = build(torch.Generator().manual_seed(0))
    said: list[str] = []
    right = pretrain(encoder, steps=120, batch=32, language="en", note=said.append)
    assert right > 0.3  # 0.97 after 600 steps of 64; none at first
    assert said[-1].startswith("prompts: ")
