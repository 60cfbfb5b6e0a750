"""A benchmark's page: what it may say, which parts it makes, and that the shipped ones stay what they are."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from clearfuse.bench.digests import write_digests
from clearfuse.bench.leaderboard import load_entries
from clearfuse.bench.page import ShardDigest, load_page, sample_name
from clearfuse.bench.submission import submit
from clearfuse.synth.files.resources import resource_names
from clearfuse.synth.types import Step, UserError
from conftest import ROOT, sample_meta

PAGE = """schema = 1
title = "Test"
seed = 3
severities = [0.2, 0.8]
mixes = [2]
depth = "prior"
metrics = ["PSNR"]
[tasks.mff]
recipe = "mff-bench-v1"
[[sets]]
name = "lytro"
task = "mff"
truth = "pyramid"
pairs = 3
single = 2
mix = 2
"""
FILES = '[files."mff/lytro"]\n' + "".join(f'"0{i}" = {{ a = "{i:064x}", b = "{i + 9:064x}" }}\n' for i in range(3))


def page(folder: Path, text: str, name: str = "own.toml") -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


FROZEN = {
    "mini": "730b0a103ecb625d11d5b0dad7892cb2efc74ede46b722e9c51c09c3a0fa144e",
    "v1": "1f4b28dfba7313550c70454c3ba82918d4a66ddc7b68e73944d42ac01becce22",
}


@pytest.mark.parametrize("name", resource_names("manifests/benchmarks"))
def test_a_published_benchmark_stays_what_it_is(name: str) -> None:
    """Another definition is another benchmark: a page and recipes of their own, not a change of these."""
    assert load_page(name).definition == FROZEN[name]


def test_parts_are_one_an_operator_and_one_a_mix_and_take_pairs_in_turn(tmp_path: Path) -> None:
    found = load_page(page(tmp_path, PAGE + FILES))
    parts = found.parts(found.sets[0])
    assert [part.what for part in parts] == [*found.recipe("mff").operators, "n2"]
    assert [part.keys for part in parts[:3]] == [("00", "01"), ("00", "02"), ("01", "02")]
    assert parts[0].shards == ["mff/lytro-haze/mff-test-000000.tar", "mff/lytro-haze/mff-test-000001.tar"]
    single, mix = parts[0].options("/data"), parts[-1].options("/data")
    assert (single["n"], single["variants"]) == ("1", 2) and "severity={schedule=[0.2, 0.8]}" in single["sets"]
    assert (mix["n"], mix["variants"]) == ("2", 1) and "sets" not in mix
    assert load_page(page(tmp_path, PAGE)).parts(found.sets[0]) == []


def test_the_definition_follows_what_is_built_and_not_its_hashes_or_words(tmp_path: Path) -> None:
    first = load_page(page(tmp_path, PAGE)).definition
    assert load_page(page(tmp_path, PAGE.replace('"Test"', '"Other"') + FILES)).definition == first
    assert load_page(page(tmp_path, PAGE.replace("0.8", "0.9"))).definition != first
    assert load_page(page(tmp_path, PAGE.replace("mff-bench-v1", "mff-severe"))).definition != first


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('name = "lytro"', 'name = "lytor"', "sets: mff/lytor: unknown data set 'lytor': did you mean 'lytro'?"),
        ('task = "mff"', 'task = "vif"', "sets: vif/lytro: unknown task of the page 'vif': allowed: mff"),
        ('truth = "pyramid"\n', "", "sets: mff/lytro: truth is missing"),
        ("single = 2\nmix = 2\n", "", "sets: mff/lytro: single and mix are missing"),
        ("[0.2, 0.8]", "[0.2, 1.8]", "severities.1 = 1.8: must be at most 1"),
        ("pairs = 3", "pairs = 65", "sets.0.pairs = 65: must be in [1, 64]"),
        ("mff-bench-v1", "vif-bench-v1", "recipe 'vif-bench-v1' is for vif, not for mff"),
    ],
)
def test_a_wrong_page_is_one_line(tmp_path: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(UserError) as error:
        load_page(page(tmp_path, PAGE.replace(old, new)))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_hashes_are_written_below_what_was_there(tmp_path: Path) -> None:
    found = load_page(page(tmp_path, "# mine\n" + PAGE))
    files = {"mff/lytro": {'a "b"': {"a": "0" * 64, "b": "1" * 64}}}
    name = "mff/lytro-haze/mff-test-000000.tar"
    shards = {name: ShardDigest(sha256="2" * 64, samples=1), "gone.tar": ShardDigest(sha256="3" * 64, samples=1)}
    written = write_digests(found, {"numpy": "2.4"}, files, shards)
    assert (written.files, list(written.shards), written.versions) == (files, [name], {"numpy": "2.4"})
    assert (tmp_path / "own.toml").read_text().startswith("# mine\n" + PAGE)
    other = {"mff/lytro-rain/mff-test-000000.tar": ShardDigest(sha256="4" * 64, samples=1)}
    with pytest.raises(UserError, match=r"1 of its shards, such as .*numpy was \"2.4\", is \"2.5\""):
        write_digests(written, {"numpy": "2.5"}, {}, other)
    again = write_digests(written, {"numpy": "2.4"}, {}, other)
    assert sorted(again.shards) == sorted([name, *other]) and again.files == files


def test_a_sample_s_name_is_unique_among_the_builds_of_its_task() -> None:
    step = Step("haze", "a", {}, 1, 0.5)
    assert sample_name(sample_meta(n=1, steps=(step,)), "000000064") == "msrs-haze-000000064"
    assert sample_name(sample_meta(n=2, steps=(step, step)), "000000000") == "msrs-n2-000000000"
    assert sample_name(sample_meta(n=1, steps=(step,), given=True), "000000000") == "msrs-given-000000000"
    assert sample_name(sample_meta(n=0, real=True), "000000000") == "msrs-real-000000000"


def test_the_recipes_of_v1_draw_twelve_degradations() -> None:
    for task in ("vif", "mef", "mff"):
        assert len(load_page("v1").recipe(task).operators) == 12  # type: ignore[arg-type]
    assert load_page("mini").tasks == load_page("v1").tasks
    assert (ROOT / "manifests/benchmarks/v1.toml").read_text().startswith("#:schema ")


@pytest.mark.parametrize(
    "report",
    [
        "[" * 100_000,
        "[]",
        "{}",
        '{"methods": 5, "groups": {}, "samples": 1}',
        '{"methods": [{"name": "m"}], "groups": 5, "samples": 1}',
        '{"methods": [{"name": "m"}], "groups": {"overall": {"all": {"samples": 1, "methods": {"m": {"PSNR": {}}}}}}, '
        '"samples": 1}',
        '{"methods": [{"na',
    ],
)
def test_a_damaged_report_is_named_by_its_file(tmp_path: Path, report: str) -> None:
    """What ``bench submit`` reads; and it does not write over that."""
    (tmp_path / "vif").mkdir()
    (tmp_path / "vif/report.json").write_text(report)
    run = {
        "schema": 1, "benchmark": "mini", "definition": "0" * 64, "shards": {}, "versions": {},
        "methods": [{"name": "m", "weights": "0" * 64}], "tracks": {"vif": "0" * 64}, "of": {"vif": 1},
    }  # fmt: skip
    (tmp_path / "bench.json").write_text(json.dumps(run))
    with pytest.raises(UserError, match=r"vif/report\.json: "):
        submit(str(tmp_path), None, str(tmp_path / "out.json"))
    for read in ("bench.json", "vif/report.json"):
        with pytest.raises(UserError, match="is what the scores are read from"):
            submit(str(tmp_path), None, str(tmp_path / read))
    assert not (tmp_path / "out.json").exists()


def test_a_folder_of_submissions_has_other_files_too(tmp_path: Path) -> None:
    (tmp_path / "._x.json").write_bytes(b"\0\5\26\7")
    os.mkfifo(tmp_path / "x.json")
    assert load_entries([str(tmp_path)]) == []
