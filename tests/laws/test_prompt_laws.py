"""Properties of the built-in prompt pools and of the prompts composed from them: good English, nothing dropped."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from clearfuse.synth.files.resources import resource_names
from clearfuse.synth.operators import OPERATORS
from clearfuse.synth.prompts.compose import compose, language_of
from clearfuse.synth.prompts.pools import KINDS, Kind, Language, load_pool, load_tasks, pool_names
from clearfuse.synth.prompts.wording import Rules, chinese_faults, english_faults, misplaced
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
        seen.update(compose("vif", steps, np.random.default_rng(seed), dataset="msrs").templates)
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


CONTENT = re.compile(
    r"\b(?:streets?|roads?|cars?|vehicles?|windscreen|traffic|pedestrians?|people|persons?|faces?|plates?|sky|clouds?"
    r"|buildings?|windows?|hills?|trees?|branch(?:es)?|signs?|lettering|print|lamps?|sun|night|day)\b",
    re.IGNORECASE,
)
"""What a picture may show or not."""
DO_FOR_ALL = {"a clear day", "print quality"}
"""Where such a word says nothing of the picture."""


@pytest.mark.parametrize("language", ["en", "zh"])
def test_what_a_picture_may_not_show_is_for_sets_that_do(language: Language) -> None:
    fuse = [phrase for task in TASKS for phrase in load_tasks(None, language).words[task].fuse]
    for phrase in (*fuse, *(phrase for op in OPS for phrase in load_pool(op, None, language).phrases)):
        text = f"{phrase.text} / {phrase.clause}"
        for harmless in DO_FOR_ALL:
            text = text.replace(harmless, "")
        shown = CONTENT.search(text) if language == "en" else CHINESE_CONTENT.search(text)
        assert bool(shown) == bool(phrase.sets), (phrase.id, shown)
        assert set(phrase.sets) <= set(resource_names("manifests/datasets"))


@pytest.mark.parametrize("language", ["en", "zh"])
def test_no_other_set_gets_such_a_phrase(language: Language) -> None:
    bound = {phrase.id: phrase.sets for op in OPS for phrase in load_pool(op, None, language).phrases if phrase.sets}
    for op, seed in itertools.product(("haze", "snow", "rain", "lens_rain"), range(100)):
        steps = [step(op, "a", 0.5)]
        for dataset in ("", "lytro", "llvip"):
            prompt = compose("vif", steps, np.random.default_rng(seed), dataset=dataset, language=language)
            assert all(dataset in bound.get(name, (dataset,)) for name in prompt.templates), prompt


@pytest.mark.parametrize("language", ["en", "zh"])
def test_near_and_far_are_said_where_they_are_known(language: Language) -> None:
    words = load_tasks(None, language).mff.image
    said = dict.fromkeys(("", "lytro", "mfiwhu", "folder", "realmff", "scenes"), 0)
    for dataset, seed in itertools.product(said, range(60)):
        steps = [step("haze", "a", 0.5), step("gaussian_noise", "b", 0.5)]
        text = compose("mff", steps, np.random.default_rng(seed), dataset=dataset, language=language).text.lower()
        said[dataset] += any(word.lower() in text for word in (*words.a, *words.b))
    assert said == {"": 0, "lytro": 0, "mfiwhu": 0, "folder": 0, "realmff": 60, "scenes": 60}


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("task", TASKS)
def test_a_fault_of_one_image_names_it_where_the_other_has_another(task: Task, language: Language) -> None:
    tasks = load_tasks(None, language)
    for seed in range(150):
        rng = np.random.default_rng(seed)
        ops = rng.choice(OPS, int(rng.integers(2, 4)), replace=False).tolist()
        steps = [step(op, TARGETS[rng.integers(3)], 0.5) for op in ops]
        if len({one.target for one in steps}) < 2:
            continue
        asked = tuple(range(len(steps))) if seed % 2 else (int(rng.integers(len(steps))),)
        prompt = compose(task, steps, rng, asked, dataset="lytro", language=language)
        for target in {steps[i].target for i in asked}:
            words = tasks.words[task].image.of(target, known=False)
            both = (*tasks.words[task].image.pair, tasks.join.many) if target == "both" else ()
            named = [word for word in (*words, *both) if word.lower() in prompt.text.lower()]
            assert named, (target, prompt.text)
    for op in OPS:
        assert all("{image}" in phrase.clause for phrase in load_pool(op, None, language).phrases)


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_a_third_asks_for_the_fusion(task: Task) -> None:
    steps = [step("haze", "a", 0.5), step("gaussian_noise", "b", 0.5), step("jpeg", "both", 0.5)]
    for n in (1, 2, 3):
        prompts = [compose(task, steps[:n], np.random.default_rng([n, seed])) for seed in range(900)]
        share = np.mean([any("-fuse-" in name for name in prompt.templates) for prompt in prompts])
        assert abs(share - 1 / 3) < 0.05  # three standard deviations


@pytest.mark.slow
def test_a_vague_request_takes_the_place_of_the_prompt() -> None:
    steps = [step("haze", "a", 0.5), step("gaussian_noise", "b", 0.5), step("jpeg", "both", 0.5)]
    known = {one.id: one for one in load_tasks().vague}
    for n, wanted in ((1, 0.1), (2, 0.19), (3, 0.271)):
        drawn = [compose("vif", steps[:n], np.random.default_rng([n, s]), vague=0.1) for s in range(1500)]
        vague = [prompt for prompt in drawn if prompt.templates[0] in known]
        assert abs(len(vague) / len(drawn) - wanted) < 0.035
        for prompt in vague:
            assert prompt.text.lower().startswith(known[prompt.templates[0]].text.lower())
            assert prompt.asked == tuple(range(n)) and not [op for op in OPS if load_pool(op).mentions(prompt.text)]
    assert len(known) == 15
    assert not [p for s in range(300) if (p := compose("vif", steps, np.random.default_rng(s))).templates[0] in known]


# Chinese

CHINESE_CONTENT = re.compile(
    "街|路面|道路|车|挡风|交通|行人|人脸|人物|天空|云|建筑|楼|山|树|标志|招牌|文字|路灯|太阳|夜|白天"
)


@pytest.mark.parametrize("op", OPS)
def test_a_chinese_pool_has_a_phrase_for_each_english_one(op: str) -> None:
    pool, english = load_pool(op, None, "zh"), load_pool(op)
    assert [phrase.id for phrase in pool.phrases] == [one.id.replace(f"{op}-", f"{op}-zh-") for one in english.phrases]
    assert [(phrase.kind, phrase.sets) for phrase in pool.phrases] == [(one.kind, one.sets) for one in english.phrases]
    assert len({phrase.text for phrase in pool.phrases}) == len({phrase.clause for phrase in pool.phrases}) == 16
    assert len(pool.strengths) == 3
    others = [load_pool(other, None, "zh") for other in OPS if other != op]
    rules = Rules(pool, others, load_tasks(None, "zh"))
    for phrase in pool.phrases:
        asks = re.search("吗|能否|什么|怎么|如何|可否|是否", phrase.text) is not None
        assert (phrase.kind == "question") == asks, phrase.text
        assert not re.search("[，。？、]|并且|以及", phrase.clause), phrase.clause
        for text in (phrase.text, phrase.clause):
            assert pool.mentions(text) and not rules.names_another(text), text
            assert "{strength}的" not in text, text  # which may be left out


def test_the_chinese_tasks_are_those_of_the_english_page() -> None:
    english, chinese = load_tasks(), load_tasks(None, "zh")
    for task in TASKS:
        assert [one.kind for one in english.words[task].fuse] == [one.kind for one in chinese.words[task].fuse]
        for name in ("neutral_a", "neutral_b"):
            assert bool(getattr(english.words[task].image, name)) == bool(getattr(chinese.words[task].image, name))
    assert len(chinese.frames) == len(english.frames) and len(chinese.vague) == len(english.vague)


@pytest.mark.parametrize("task", TASKS)
def test_chinese_prompts(task: Task) -> None:
    texts: set[str] = set()
    for seed in range(200):
        rng = np.random.default_rng([7, seed])
        ops = rng.choice(OPS, int(rng.integers(1, 4)), replace=False).tolist()
        steps = [step(op, TARGETS[rng.integers(3)], SEVERITIES[rng.integers(6)]) for op in ops]
        prompt = compose(task, steps, rng, dataset="lytro", language="zh")
        assert not list(chinese_faults(prompt.text)), (prompt.text, list(chinese_faults(prompt.text)))
        assert 4 <= len(prompt.text) <= 90
        assert all(load_pool(op, None, "zh").mentions(prompt.text) for op in ops), prompt.text
        assert language_of(prompt.templates) == "zh" and len(prompt.text.encode()) < 400
        assert prompt.strength is None or prompt.strength in prompt.text
        texts.add(prompt.text)
    assert len(texts) > 195


def test_a_mix_is_half_of_each_and_english_stays_what_it_is() -> None:
    steps = [step("haze", "a", 0.5), step("gaussian_noise", "b", 0.5)]
    spoken = {"en": 0, "zh": 0}
    for seed in range(300):
        mixed, english, chinese = (
            compose("vif", steps, np.random.default_rng(seed), language=language) for language in ("mix", "en", "zh")
        )
        of = language_of(mixed.templates)
        assert of is not None and mixed == (english if of == "en" else chinese)
        spoken[of] += 1
    assert abs(spoken["zh"] - 150) < 40
    assert language_of(()) is None and language_of(("mine-01",)) is None
