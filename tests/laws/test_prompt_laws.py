"""Properties of the built-in prompt pools and of the prompts composed from them: good English, nothing dropped."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from clearfuse.synth.operators import OPERATORS
from clearfuse.synth.prompts.compose import compose
from clearfuse.synth.prompts.pools import KINDS, Kind, load_pool, load_tasks, pool_names
from clearfuse.synth.prompts.wording import Rules, english_faults, misplaced
from clearfuse.synth.types import TASKS, Prompt, Step, Target, Task

OPS = sorted(OPERATORS)
TARGETS: tuple[Target, ...] = ("a", "b", "both")
SEVERITIES = (None, 0.0, 0.2, 0.5, 0.9, 1.0)
STOPS = {"imperative": ".", "question": "?", "terse": ""}
KIND_OF: dict[str, Kind] = {phrase.id: phrase.kind for op in OPS for phrase in load_pool(op).phrases}
KIND_OF |= {frame.id: frame.kind for frame in load_tasks().frames}
KIND_OF |= {phrase.id: phrase.kind for task in TASKS for phrase in load_tasks().words[task].fuse}


def faults(text: str) -> Iterator[str]:
    """Errors in an English prompt, as far as rules can tell: as a phrase, and as a whole prompt."""
    yield from english_faults(text)
    if re.search(r"[{}\[\]]", text):
        yield "brace or bracket"
    if re.search(r"\s[;:]|[;:]{2}|[,.?!][;:]", text):
        yield "punctuation"
    for word in re.findall(r"\b(?:both|the two) (\w+)", text):
        if not (word.endswith("s") or word in ("in", "stand", "keep", "readable", "preserved")):
            yield f"singular '{word}' after both"
    if not (text[0].isupper() or text[0].isdigit()):
        yield "small first letter"
    # 45 words stay within a text encoder's 64 tokens.
    if not 3 <= len(text.split()) <= 45:
        yield f"{len(text.split())} words"


def ending_kind(prompt: Prompt) -> Kind:
    """The kind that determines the end mark: the frame's where there is one, else the phrase's."""
    frames = [name for name in prompt.templates if name.startswith("frame-")]
    return KIND_OF[(frames or list(prompt.templates))[0]]


def check(prompt: Prompt, steps: Sequence[Step]) -> None:
    assert not list(faults(prompt.text)), (prompt.text, list(faults(prompt.text)))
    stop = STOPS[ending_kind(prompt)]
    assert prompt.text.endswith(stop) if stop else prompt.text[-1].isalnum(), prompt.text
    for i in prompt.asked:
        assert load_pool(steps[i].op).mentions(prompt.text), (steps[i].op, prompt.text)
        assert any(name.startswith(f"{steps[i].op}-") for name in prompt.templates), prompt
    if prompt.strength is not None:
        assert prompt.strength in prompt.text.lower(), prompt


@pytest.mark.parametrize(
    "text",
    [
        "{image} is full of haze",
        "[{image}] hazy",
        "clear the haze in {image}, which is a street",
        "clear the haze[ in {image}] that looks thick",
        "clear the haze from the {image}",
        "clear {image}'s haze",
        "clear a {strength} haze",
    ],
)
def test_a_placeholder_that_not_every_wording_fits_is_found(text: str) -> None:
    assert misplaced(text) and not misplaced("clear the {strength} haze in {image}, which I took at noon")


def step(op: str, target: Target, severity: float | None) -> Step:
    return Step(op, target, {}, 1, severity)


def test_every_operator_has_a_pool() -> None:
    assert pool_names() == OPS


@pytest.mark.parametrize("op", OPS)
def test_pool(op: str) -> None:
    pool = load_pool(op)
    assert 10 <= len(pool.phrases) <= 20
    assert len(pool.strengths) == 3
    assert {phrase.kind for phrase in pool.phrases} == set(KINDS)
    assert [phrase.id for phrase in pool.phrases] == [f"{op}-{k:02d}" for k in range(1, len(pool.phrases) + 1)]
    assert len({phrase.text for phrase in pool.phrases}) == len(pool.phrases)
    assert len({phrase.clause for phrase in pool.phrases}) == len(pool.phrases)
    assert sum("{strength}" in phrase.text for phrase in pool.phrases) >= 4
    assert sum("{image}" in phrase.text for phrase in pool.phrases) >= 0.7 * len(pool.phrases)


@pytest.mark.parametrize("op", OPS)
def test_images_are_objects_and_clauses_join(op: str) -> None:
    for phrase in load_pool(op).phrases:
        for text in (phrase.text, phrase.clause):
            assert not misplaced(text), text
        assert not re.search(r"[,.;:?!]|\band\b", phrase.clause), phrase.clause
        assert phrase.clause[0].islower(), phrase.clause


@pytest.mark.parametrize("op", OPS)
def test_phrases_name_their_own_fault_only(op: str) -> None:
    rules = Rules(load_pool(op), [load_pool(other) for other in OPS if other != op], load_tasks())
    for phrase in rules.own.phrases:
        for text in (phrase.text, phrase.clause):
            assert rules.own.mentions(text), text
            assert not rules.names_another(text), text


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("op", OPS)
def test_one_step(op: str, task: Task) -> None:
    texts: set[str] = set()
    for target, severity, seed in itertools.product(TARGETS, SEVERITIES, range(20)):
        steps = [step(op, target, severity)]
        prompt = compose(task, steps, np.random.default_rng(seed))
        check(prompt, steps)
        assert prompt.asked == (0,)
        if severity is None:
            assert prompt.strength is None
        elif prompt.strength is not None:
            assert prompt.strength == load_pool(op).strengths[min(int(3 * severity), 2)]
        texts.add(prompt.text)
    assert len(texts) > 60


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("n", [2, 3])
def test_every_combination(task: Task, n: int) -> None:
    for k, ops in enumerate(itertools.combinations(OPS, n)):
        for seed in range(3 if n == 2 else 1):
            rng = np.random.default_rng([k, seed])
            steps = [step(op, TARGETS[rng.integers(3)], SEVERITIES[rng.integers(6)]) for op in ops]
            prompt = compose(task, steps, rng)
            check(prompt, steps)
            assert prompt.asked == tuple(range(n))
            asked = tuple(i for i in range(n) if rng.random() < 0.5)
            part = compose(task, steps, rng, asked)
            check(part, steps)
            assert part.asked == asked


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_mixes_of_more_than_the_papers_three(task: Task) -> None:
    for seed in range(100):
        rng = np.random.default_rng(seed)
        ops = rng.choice(OPS, 4, replace=False).tolist()
        steps = [step(op, TARGETS[rng.integers(3)], 0.5) for op in ops]
        prompt = compose(task, steps, rng)
        assert [fault for fault in faults(prompt.text) if not fault.endswith("words")] == [], prompt.text
        assert all(load_pool(op).mentions(prompt.text) for op in ops)


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_neutral_prompts_ask_for_no_removal(task: Task) -> None:
    steps = [step("haze", "a", 0.5)]
    seen: set[str] = set()
    for seed in range(300):
        prompt = compose(task, steps, np.random.default_rng(seed), asked=())
        check(prompt, steps)
        assert (prompt.asked, prompt.strength, len(prompt.templates)) == ((), None, 1)
        assert not [op for op in OPS if load_pool(op).mentions(prompt.text)], prompt.text
        seen.add(prompt.templates[0])
    assert seen == {phrase.id for phrase in load_tasks().words[task].fuse}


@pytest.mark.slow
def test_every_phrase_and_frame_is_reached() -> None:
    seen: set[str] = set()
    for op, seed in itertools.product(OPS, range(150)):
        steps = [step(op, "a", 0.5), step("rain" if op != "rain" else "snow", "both", 0.5)]
        seen.update(compose("vif", steps, np.random.default_rng(seed)).templates)
    assert {phrase.id for op in OPS for phrase in load_pool(op).phrases} <= seen
    assert {frame.id for frame in load_tasks().frames} <= seen


def test_the_image_that_was_named_is_not_named_again() -> None:
    for seed in range(300):
        steps = [step(op, "both", 0.5) for op in ("low_exposure", "gaussian_noise", "downsample")]
        prompt = compose("vif", steps, np.random.default_rng(seed))
        assert len(re.findall(r"(both|the two) (images|frames|inputs)", prompt.text)) <= 1 or "efore" in prompt.text


def test_targets_that_differ_are_told_apart() -> None:
    steps = [step("haze", "a", 0.5), step("ir_stripes", "b", 0.5)]
    texts = [compose("vif", steps, np.random.default_rng(seed)).text for seed in range(200)]
    words = load_tasks().vif.image
    told = [t for t in texts if any(w in t for w in words.a) and any(w in t for w in words.b)]
    assert len(told) > 100
