"""Categories in training: weights by category, prompts of other words, and batches that say what they are of."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from clearfuse.synth.builder.run import build
from clearfuse.synth.prompts.instructions import is_tagged
from clearfuse.synth.seeds import generator
from clearfuse.synth.shards.sample import read_samples
from clearfuse.synth.types import CATEGORIES, UserError
from clearfuse.train.cli.options import parse_mix
from clearfuse.train.data.batch import Item, collate
from clearfuse.train.data.corpus import Corpus, index
from clearfuse.train.data.samples import Samples, rephrase_prompt
from conftest import save, textured


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Instructed samples of eight made pairs, four versions of each, with all categories but segment."""
    root = tmp_path_factory.mktemp("categories")
    for number in range(8):
        save(root / "near" / f"{number}.png", textured(number, 80, 64))
        save(root / "far" / f"{number}.png", textured(50 + number, 80, 64))
    data = [f"folder={root / 'near'},{root / 'far'}"]
    report = build(task="ditfuse", out=root / "out", executor="serial", data=data, variants=4, split="train,val,test")
    assert report.samples == 32
    return root / "out"


@pytest.fixture(scope="module")
def corpus(shards: Path) -> Corpus:
    return index([str(shards)])


def test_a_mix_by_category_draws_in_its_proportion_and_leaves_out_what_it_does_not_name(corpus: Corpus) -> None:
    mix = parse_mix("m3=2,control=1,fusion=1")
    data = Samples(corpus, side=32, training=True, mix=mix, batch=4)
    items = [data[i] for i in range(200)]
    found = Counter(item.category for item in items if isinstance(item, Item))
    assert {name: count / 200 for name, count in found.items()} == pytest.approx(
        {"m3": 0.5, "control": 0.25, "fusion": 0.25}, abs=0.02
    )
    alone = Samples(corpus, side=32, training=True, mix={"control": 1.0}, batch=4)
    assert {alone[i].category for i in range(8)} == {"control"}  # type: ignore[union-attr]
    batch = collate([alone[i] for i in range(4)])
    assert batch.categories == ["control"] * 4  # type: ignore[union-attr]


def test_instructions_are_not_replaced_by_the_tasks_request_but_said_in_other_words(
    shards: Path, corpus: Corpus
) -> None:
    plain = Samples(corpus, side=32, training=True, mix={"control": 1.0}, plain=1.0)
    asked = Samples(corpus, side=32, training=True, mix={"control": 1.0})
    assert [plain[i].prompt for i in range(8)] == [asked[i].prompt for i in range(8)]  # type: ignore[union-attr]
    for shard in sorted(shards.glob("*-train-*.tar")):
        for sample in read_samples(shard):
            again = [rephrase_prompt(sample, generator(seed)) for seed in range(6)]
            assert (len(set(again)) > 1 and {is_tagged(text) for text in again} == {is_tagged(sample.prompt)}) or (
                sample.meta.category == "fusion"
            )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("m3=1,contrl=1", "unknown category in --mix m3=1,contrl=1 'contrl': did you mean 'control'"),
        ("m3=0", "weights must be at least 0, and one of them above it"),
        ("m3=-1,control=1", "weights must be at least 0"),
        ("segment=1", "no sample of segment to train on: its weight must be 0"),
    ],
)
def test_what_a_mix_cannot_mean_is_one_line(corpus: Corpus, text: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        Samples(corpus, side=32, training=True, mix=parse_mix(text))
    assert message in str(error.value)


@pytest.mark.parametrize("text", ["m3=1,2", "m3=1,m3=2", "m3=", "a,b"])
def test_a_mix_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="must be a weight for each argument, such as 2,1,1, or by category"):
        parse_mix(text)


def test_the_index_knows_what_each_sample_is_of(corpus: Corpus) -> None:
    assert {CATEGORIES[number] for number in corpus.train.category} == {"m3", "control", "fusion"}
