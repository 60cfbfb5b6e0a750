"""Reading of prompt files, with the exact text of every error, and composition with small pools."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from clearfuse.synth.files.resources import resource_dir
from clearfuse.synth.prompts.compose import compose
from clearfuse.synth.prompts.pools import Pool, load_pool, load_tasks, pool_names, pools_digest
from clearfuse.synth.shards.records import PromptRecord
from clearfuse.synth.types import Step, UserError

HAZE = """schema = 1
names = ["haze", "fog"]
strengths = ["light", "moderate", "dense"]
[[phrase]]
id = "haze-01"
kind = "imperative"
text = "remove the {strength} haze from {image}"
clause = "clear the haze"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An example pool beside the built-in ones."""
    (tmp_path / "haze.toml").write_text(HAZE)
    shutil.copy(resource_dir("prompts") / "tasks.toml", tmp_path)
    return tmp_path


def haze(severity: float | None = 0.5) -> Step:
    return Step("haze", "a", {}, 1, severity)


def test_the_contracts_example(folder: Path) -> None:
    texts = {compose("vif", [haze()], np.random.default_rng(k), folder=folder).text for k in range(300)}
    assert "Remove the moderate haze from the visible image." in texts
    assert "Remove the haze from the thermal image." not in texts
    assert "Clear the haze, then fuse the two images." in texts
    assert pool_names(folder) == pool_names()  # the other pages are those that ship
    assert load_pool("haze", folder) != load_pool("haze") and load_pool("rain", folder) == load_pool("rain")


def test_same_generator_same_prompt() -> None:
    steps = [haze(), Step("gaussian_noise", "both", {}, 2, None), Step("ir_stripes", "b", {}, 3, 0.9)]
    for seed in range(50):
        first, again = (compose("vif", steps, np.random.default_rng(seed)) for _ in range(2))
        assert first == again


def test_the_generator_moves_alike_for_every_part_asked() -> None:
    steps = [haze(), Step("jpeg", "b", {}, 2, None)]
    after: set[float] = set()
    for asked in (None, (), (0,), (1,), (0, 1)):
        rng = np.random.default_rng(3)
        compose("vif", steps, rng, asked)
        after.add(float(rng.random()))
    assert len(after) == 1


@pytest.mark.parametrize("asked", [(0, 0), (2,), (-1,)])
def test_asked_must_be_indices_of_steps(asked: tuple[int, ...]) -> None:
    expected = re.escape(f"asked = {list(asked)}: must be different indices of 1 steps")
    with pytest.raises(ValueError, match=f"^{expected}$"):
        compose("vif", [haze()], np.random.default_rng(0), asked)


def test_no_steps_is_a_request_to_fuse() -> None:
    prompt = compose("mff", [], np.random.default_rng(0))
    assert prompt.templates[0].startswith("mff-fuse-") and prompt.asked == ()


def test_prompt_json_holds_templates_strength_and_asked() -> None:
    prompt = compose("vif", [haze(1.0)], np.random.default_rng(1))
    record = PromptRecord(templates=prompt.templates, strength=prompt.strength, asked=prompt.asked)
    assert set(record.model_dump()) == {"templates", "strength", "asked"}


def test_pool_mentions_whole_words_only() -> None:
    pool = Pool.model_construct(names=("rain", "rain streaks"))
    assert pool.mentions("Rain, please") and pool.mentions("the rain streaks")
    assert not pool.mentions("the train is drained")


def test_the_strength_follows_the_severity() -> None:
    pool = load_pool("haze")
    at = [0.0, 0.33, 0.34, 0.66, 0.67, 1.0]
    assert [pool.strength(s) for s in at] == ["light", "light", "moderate", "moderate", "dense", "dense"]


def test_digest_is_of_names_and_bytes(folder: Path) -> None:
    first = pools_digest(folder)
    assert first == pools_digest(folder) and re.fullmatch(r"[0-9a-f]{32}", first)
    (folder / "haze.toml").write_text(HAZE + "\n")
    second = pools_digest(folder)
    (folder / "haze.toml").rename(folder / "mist.toml")
    assert len({first, second, pools_digest(folder)}) == 3


PHRASE = HAZE[HAZE.index("[[phrase]]") :]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda t: t.replace("clause =", "claus ="),
            "phrase haze-01: unknown key 'claus': did you mean 'clause'? allowed: clause, id, kind, sets, source, text",
        ),
        (lambda t: t.replace('clause = "clear the haze"\n', ""), "phrase haze-01: clause is missing"),
        (lambda t: t.replace('id = "haze-01"\n', ""), "phrase.0.id is missing"),
        (
            lambda t: t.replace('"imperative"', '"imperativ"'),
            "phrase haze-01: unknown kind 'imperativ': did you mean 'imperative'? allowed: imperative, question, terse",
        ),
        (
            lambda t: t.replace("{image}", "{imag}"),
            "phrase haze-01: text: unknown placeholder 'imag': did you mean 'image'? allowed: image, strength",
        ),
        (
            lambda t: t.replace("clear the haze", "clear {pair}"),
            "phrase haze-01: clause: unknown placeholder 'pair': allowed: image, strength",
        ),
        (
            lambda t: t.replace("{image}", "{image"),
            "phrase haze-01: text: a brace without its partner in 'remove the {strength} haze from {image'",
        ),
        (
            lambda t: t.replace("from {image}", "[from {image}"),
            "phrase haze-01: text: a bracket without its partner in 'remove the {strength} haze [from {image}'",
        ),
        (
            lambda t: t.replace("the {strength} haze", "[the {strength} haze]"),
            "phrase haze-01: text: {strength} in brackets in 'remove [the {strength} haze] from {image}': "
            "it may be left out anyway",
        ),
        (lambda t: t.replace('"clear the haze"', "3"), "phrase haze-01: clause = 3: must be a text"),
        (lambda t: t + PHRASE, "phrase: id haze-01 is used twice"),
        (lambda t: t.replace(PHRASE, "phrase = []\n"), "phrase = []: must be a list of 1 or more"),
        (lambda t: t.replace(PHRASE, ""), "phrase is missing"),
        (
            lambda t: t.replace("names =", "name ="),
            "unknown key 'name': did you mean 'names'? allowed: names, phrase, schema, strengths",
        ),
        (lambda t: t.replace('["haze", "fog"]', "[]"), "names = []: must be a list of 1 or more"),
        (
            lambda t: t.replace('"dense"', '"{dense}"'),
            "strengths: no braces or brackets are allowed in '{dense}'",
        ),
        (
            lambda t: t.replace("schema = 1", "schema = 2"),
            "schema 2 is newer than this version reads (1); upgrade clearfuse",
        ),
    ],
)
def test_errors_in_a_pool(folder: Path, edit: Callable[[str], str], message: str) -> None:
    path = folder / "haze.toml"
    path.write_text(edit(HAZE))
    with pytest.raises(UserError) as error:
        load_pool("haze", folder)
    assert str(error.value) == f"{path}: {message}"


@pytest.mark.parametrize("op", ["hase", "tasks"])
def test_a_pool_that_is_not_there(folder: Path, op: str) -> None:
    with pytest.raises(UserError) as error:
        load_pool(op, folder)
    hint = " did you mean 'haze'?" if op == "hase" else ""
    assert str(error.value) == f"{folder}: unknown prompt pool '{op}':{hint} allowed: {', '.join(pool_names())}"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[vif.image]", "[vif.images]", "vif: unknown key 'images': did you mean 'image'? allowed: fuse, image"),
        (
            'text = "please {request}"',
            'text = "please"',
            "frame frame-02: text: {request} is missing in 'please'",
        ),
        (
            '"{request}, then {fuse}"',
            '"{request}"',
            "join.fuse: {fuse} is missing in '{request}'",
        ),
        (
            'clause = "merge {pair}"',
            'clause = "merge {pairs}"',
            "vif.fuse vif-fuse-02: clause: unknown placeholder 'pairs': did you mean 'pair'? allowed: pair",
        ),
        (
            '"the visible image"',
            '"the {visible} image"',
            "vif.image.a: no braces or brackets are allowed in 'the {visible} image'",
        ),
        ("[mef.image]", "[mef]", "mef: unknown key 'a': allowed: fuse, image"),
        (
            "\n[join]",
            "\n[jion]",
            "unknown key 'jion': did you mean 'join'? allowed: frame, join, mef, mff, schema, stops, vague, vif",
        ),
    ],
)
def test_errors_in_tasks(folder: Path, old: str, new: str, message: str) -> None:
    path = folder / "tasks.toml"
    shipped = path.read_text()
    assert old in shipped
    path.write_text(shipped.replace(old, new, 1))
    with pytest.raises(UserError) as error:
        load_tasks(folder)
    assert str(error.value) == f"{path}: {message}"


def test_a_folder_without_tasks(folder: Path) -> None:
    """It is of those that ship, as every page that a folder lacks."""
    (folder / "tasks.toml").unlink()
    assert load_tasks(folder) == load_tasks()
