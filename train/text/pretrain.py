"""Teaches a prompt encoder that learns what prompts ask for, before any picture is seen.

Of a picture's error little says that a word was misread: a model that cannot read yet learns to do half of what both
readings ask for. What a composed prompt asks for is known exactly, so that reading is learned in minutes, alone.
Shapes: b prompts, m tokens, e width, k questions: one for each operator and image, and where a model is instructed for
each tone and each class that may be marked, twice, since instructions are about both images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from clearfuse.synth.prompts.compose import compose
from clearfuse.synth.prompts.instructions import instruct, load_instructions
from clearfuse.synth.samples.draw import draw_steps
from clearfuse.synth.samples.recipe import Recipe, load_recipe
from clearfuse.synth.samples.render import draw_asked
from clearfuse.synth.seeds import generator, seed_of
from clearfuse.synth.types import TAGS, TASKS
from clearfuse.train.text.base import TextEncoder

PARTIAL = 0.5
"""Share of prompts that ask for a part of a sample's degradations."""
TAGGED = 0.5
"""Share of instructions that begin with the grammar's tags."""
INSTRUCTED = 2 / 3
"""Share of instructions among the prompts of a model that is instructed."""
TONES = 0.5
"""Share of the tones among instructions; of the classes there are many more."""
CHECKED = 1024
"""Prompts on which what was learned is checked; their seeds are others than those that are learned from."""


class Asked(nn.Module):
    """Whether a prompt asks to remove an operator's degradation from an image: logits from its tokens' mean."""

    def __init__(self, encoder: TextEncoder, questions: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.width, questions)

    def forward(self, prompts: Sequence[str]) -> Float[Tensor, "b k"]:
        """The logits."""
        tokens, mask = self.encoder(prompts)
        valid = mask[..., None].to(tokens.dtype)
        return self.head((tokens * valid).sum(1) / valid.sum(1).clamp(min=1))


def pretrain(
    encoder: TextEncoder,
    *,
    steps: int,
    batch: int = 64,
    lr: float = 2e-3,
    seed: int = 0,
    language: str = "mix",
    instructed: bool = False,
    note: Callable[[str], None] = lambda line: None,
) -> float:
    """Train the encoder on prompts of the extended recipes of all tasks; see ``check`` for what it returns.

    instructed: two thirds of the prompts are instructions, to change the tone or to mark a class.
    """
    recipes = [load_recipe(f"{task}-extended") for task in TASKS]
    questions = questions_of(recipes, instructed=instructed)
    torch.manual_seed(seed_of("prompts", seed) % 2**63)
    model = Asked(encoder, len(questions)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.1)
    for step in range(steps):
        prompts, labels = drawn(recipes, questions, range(step * batch, (step + 1) * batch), seed, language)
        # Sums over questions, of which a prompt answers few with yes: means would be small whatever they say.
        loss = F.binary_cross_entropy_with_logits(model(prompts), labels, reduction="none").sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if (step + 1) % 200 == 0:
            note(f"prompts: step {step + 1} of {steps}: {loss.item():.3f} nats a prompt")
    right = check(model.eval(), recipes, questions, seed, language)
    note(f"prompts: {100 * right:.1f} % of {CHECKED} unseen ones are read without a mistake")
    return right


@torch.no_grad()
def check(
    model: Asked, recipes: Sequence[Recipe], questions: Sequence[tuple[str, str]], seed: int, language: str
) -> float:
    """The share of unseen prompts of which it is told without a mistake what they ask for.

    From which image is not asked: many prompts do not say.
    """
    right = 0
    for start in range(0, CHECKED, 128):
        prompts, labels = drawn(recipes, questions, range(start, start + 128), seed_of("check", seed), language)
        absent = torch.sigmoid(-model(prompts)).unflatten(1, (-1, 2)).prod(2)
        right += int(((absent < 0.5) == labels.unflatten(1, (-1, 2)).any(2)).all(1).sum())
    return right / CHECKED


def questions_of(recipes: Sequence[Recipe], *, instructed: bool = False) -> list[tuple[str, str]]:
    """Operator and image, a or b, of all that the recipes' prompts may ask for; then tones and classes with each."""
    names = sorted({name for recipe in recipes for name in recipe.operators})
    names += [*TAGS, *load_instructions().classes] if instructed else []
    return [(name, image) for name in names for image in "ab"]


def drawn(
    recipes: Sequence[Recipe], questions: Sequence[tuple[str, str]], numbers: Sequence[int], seed: int, language: str
) -> tuple[list[str], Float[Tensor, "b k"]]:
    """Prompts of these numbers and what they ask for, 1 where the answer is yes.

    Instructions are among them where questions are about tones and classes.
    """
    places = {question: place for place, question in enumerate(questions)}
    classes = [name for name in load_instructions().classes if (name, "a") in places]
    prompts: list[str] = []
    labels = np.zeros((len(numbers), len(questions)), np.float32)
    for row, number in enumerate(numbers):
        recipe = recipes[number % len(recipes)]
        rng = generator(seed_of("prompt", seed, number))
        if classes and rng.random() < INSTRUCTED:
            name, prompt = _instruction(rng, classes, language)
            prompts.append(prompt)
            labels[row, [places[name, image] for image in "ab"]] = 1
            continue
        steps = draw_steps(recipe, rng, lambda i, number=number: seed_of("step", seed, number, i), number)
        asked = draw_asked(len(steps), PARTIAL, rng)
        prompts.append(compose(recipe.task, steps, rng, asked, language=language).text)
        for i in asked:
            target = steps[i].target
            for image in "ab" if target == "both" else target:
                labels[row, places[steps[i].op, image]] = 1
    return prompts, torch.from_numpy(labels)


def _instruction(rng: np.random.Generator, classes: Sequence[str], language: str) -> tuple[str, str]:
    """The tag of a tone, or a class that is to be marked, and a prompt that asks for it."""
    if rng.random() < TONES:
        tag = TAGS[int(rng.integers(len(TAGS)))]
        return tag, instruct("control", rng, tag=tag, tagged=TAGGED, language=language).text
    name = classes[int(rng.integers(len(classes)))]
    return name, instruct("segment", rng, name=name, tagged=TAGGED, language=language).text
