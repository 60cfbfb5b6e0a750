"""Instructions: enough wordings in both languages, none twice, each filled, and the grammar's tags."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from clearfuse.synth.prompts.instructions import instruct, load_instructions, spoken_language, with_tags
from clearfuse.synth.prompts.pools import LANGUAGES, Language
from clearfuse.synth.prompts.wording import chinese_faults, english_faults, plain_words
from clearfuse.synth.seeds import generator
from clearfuse.synth.types import TAGS


@pytest.mark.parametrize("language", LANGUAGES)
def test_there_are_ten_to_twenty_wordings_of_each_and_none_twice(language: Language) -> None:
    page = load_instructions(None, language)
    pools = {"m3": page.m3, "segment": page.segment, **page.control}
    assert set(pools) == {"m3", "segment", *TAGS}
    assert all(10 <= len(pool) <= 20 for pool in pools.values())
    said = Counter(plain_words(one.text) for pool in pools.values() for one in pool)
    assert said.most_common(1)[0][1] == 1
    assert len(page.ids) == sum(map(len, pools.values()))
    assert all({one.kind for one in pool} == {"imperative", "question", "terse"} for pool in pools.values())


def test_both_languages_name_the_same_classes() -> None:
    assert set(load_instructions(None, "en").classes) == set(load_instructions(None, "zh").classes)


@pytest.mark.parametrize("language", LANGUAGES)
def test_prompts_are_sentences_as_far_as_rules_can_tell(language: Language) -> None:
    faults = english_faults if language == "en" else chinese_faults
    names = ("person", "car", "traffic cone")
    for seed in range(150):
        rng, tag = generator(seed), TAGS[seed % len(TAGS)]
        for prompt in (
            instruct("m3", rng, language=language),
            instruct("control", rng, tag=tag, language=language),
            instruct("segment", rng, name=names[seed % 3], language=language),
        ):
            assert not list(faults(prompt.text)), prompt.text
            assert len(prompt.text.split()) <= 30 and "{" not in prompt.text
            assert spoken_language(prompt.templates) == language


def test_tags_are_those_of_the_grammar() -> None:
    said = instruct("control", generator(1), tag="LIGHT+", tagged=1.0).text
    assert said.startswith("[CONTROL]. <LIGHT+>. ")
    assert instruct("m3", generator(1), tagged=1.0).text.startswith("[FUSION]. ")
    assert instruct("segment", generator(1), name="car", tagged=1.0).text.startswith("[SEG]. ")
    assert with_tags("Fuse.", "fusion", task="mef") == "[FUSION]. <MULTI-EXPOSURE>. Fuse."
    assert instruct("control", generator(1), tag="LIGHT+", tagged=0.0).text == said.removeprefix(
        "[CONTROL]. <LIGHT+>. "
    )


def test_a_class_without_wordings_is_called_by_its_name() -> None:
    assert "hair drier" in instruct("segment", generator(3), name="hair drier").text


def test_a_folder_of_prompts_need_not_have_the_page(tmp_path: Path) -> None:
    assert load_instructions(tmp_path) == load_instructions()
