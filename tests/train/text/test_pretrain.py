"""A prompt encoder learns to read before any picture is seen."""

from __future__ import annotations

import pytest
import torch

from clearfuse.synth.prompts.instructions import load_instructions
from clearfuse.synth.samples.recipe import load_recipe
from clearfuse.synth.types import TAGS
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


def test_instructions_come_with_the_tone_or_the_class_that_they_ask_for() -> None:
    """Two thirds of the prompts of a model that is instructed; the rest ask for what they do anywhere."""
    recipes = [load_recipe("vif-extended")]
    plain, questions = questions_of(recipes), questions_of(recipes, instructed=True)
    assert questions[: len(plain)] == plain
    prompts, labels = drawn(recipes, questions, range(900), 1, "en")
    tones, removed = labels[:, len(plain) :], labels[:, : len(plain)].any(1)
    assert not (tones.any(1) & removed).any() and 0.6 < tones.any(1).float().mean() < 0.73
    for tag in TAGS:
        asked = tones[:, [place for place, (name, _) in enumerate(questions[len(plain) :]) if name == tag]]
        assert asked.any(1).equal(asked.all(1)) and asked.any(), "of both images"
        tagged = torch.tensor([f"<{tag}>" in text for text in prompts])
        assert 0.2 < (tagged & asked.any(1)).sum() / asked.any(1).sum() < 0.8 and not (tagged & ~asked.any(1)).any()
    person = tones[:, questions.index(("person", "a")) - len(plain)].bool()
    marks = [text for text, is_person in zip(prompts, person, strict=True) if is_person]
    words = load_instructions().classes["person"]
    assert len(marks) > 1 and all(any(word in text.lower() for word in words) for text in marks)


@pytest.mark.slow
def test_reading_is_learned() -> None:
    encoder = build(torch.Generator().manual_seed(0))
    said: list[str] = []
    right = pretrain(encoder, steps=120, batch=32, language="en", note=said.append)
    assert right > 0.3  # 0.97 after 600 steps of 64; none at first
    assert said[-1].startswith("prompts: ")
