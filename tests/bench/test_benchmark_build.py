"""A small benchmark of made pairs from its page to the leaderboard: built, verified, scored, handed in and checked."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from clearfuse.bench.build import BuildResult as Built
from clearfuse.bench.build import Job, build_benchmark, build_parts
from clearfuse.bench.files import wrong_files
from clearfuse.bench.page import BenchmarkFile, load_page
from clearfuse.bench.verify import compare, versions_here
from clearfuse.synth.types import UserError
from conftest import Ran, save, textured

pytestmark = pytest.mark.slow

RECIPE = """schema = 1
task = "mff"
ratios = { "4:3" = 1 }
[operators.gaussian_noise]
target = { both = 1 }
[operators.jpeg]
target = { a = 1, b = 1 }
"""
PAGE = """schema = 1
title = "Own <benchmark>"
seed = 3
severities = [0.2, 0.8]
mixes = [2]
depth = "prior"
metrics = ["PSNR", "Qabf"]
[tasks.mff]
recipe = "RECIPE"
[[sets]]
name = "lytro"
task = "mff"
truth = "pyramid"
pairs = 2
single = 1
mix = 1
[[sets]]
name = "nyud"
task = "mff"
truth = "dataset"
pairs = 2
single = 1
"""


@dataclass(frozen=True)
class Made:
    """A benchmark built in ``out``, by a page at ``path``, of pairs in ``data``."""

    path: Path
    data: Path
    out: Path

    @property
    def page(self) -> BenchmarkFile:
        return load_page(str(self.path))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """One of the page's two sets is at hand, and its hashes are written."""
    folder = tmp_path_factory.mktemp("bench")
    for number in (1, 2):
        for image, seed in (("A", number), ("B", 10 + number)):
            save(folder / "lytro" / f"lytro-0{number}-{image}.png", textured(seed))
    (folder / "two.toml").write_text(RECIPE)
    path = folder / "own.toml"
    path.write_text(PAGE.replace("RECIPE", str(folder / "two.toml")))
    found = Made(path, folder / "lytro", folder / "built")
    done = build_benchmark(found.page, (f"lytro={found.data}",), str(found.out), workers=1, write=True)
    assert (done.samples, done.shards, done.missing, done.problems) == (5, 5, ["mff/nyud"], [])
    return found


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Run ``clearfuse bench`` in this process."""

    def run(*args: str | Path) -> Ran:
        monkeypatch.setattr(sys, "argv", ["clearfuse bench", *map(str, args)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            import_module("clearfuse.bench.cli").main()
        captured = capsys.readouterr()
        return Ran(int(exit_.value.code or 0), captured.out, captured.err)

    return run


def copied(made: Made, folder: Path) -> Path:
    return Path(shutil.copytree(made.out, folder / "copy"))


def test_two_workers_and_an_interrupted_build_come_to_the_page_s_digests(made: Made, tmp_path: Path) -> None:
    """Of the interrupted one a shard is missing, and of another the receipt."""
    folder = copied(made, tmp_path)
    first, second = sorted(folder.glob("*/*/*.tar"))[:2]
    first.unlink()
    second.with_suffix(".json").unlink()
    for out in (folder, tmp_path / "anew"):
        done = build_benchmark(made.page, (f"lytro={made.data}",), str(out), workers=2)
        assert (done.samples, done.problems) == (5, [])
    assert all((tmp_path / "anew" / name).read_bytes() == (made.out / name).read_bytes() for name in made.page.shards)


def test_verify_names_what_is_missing_and_what_was_changed(
    made: Made, bench: Callable[..., Ran], tmp_path: Path
) -> None:
    folder = copied(made, tmp_path)
    names = sorted(made.page.shards)
    damaged = bytearray((folder / names[0]).read_bytes())
    damaged[700] ^= 1
    (folder / names[0]).write_bytes(damaged)
    (folder / names[1]).unlink()
    assert bench("verify", folder).error.endswith("holds 'own', which does not ship: name its page by --page FILE")
    ran = bench("verify", folder, "--page", made.path)
    assert ran.code == 1
    assert ran.out.splitlines() == [
        f"problem: {names[0]}: its bytes are not those of its receipt: remove it and run bench build again",
        f"problem: {names[1]}: is missing: run bench build again",
    ]
    assert "note: mff/nyud: has no hashes in own yet: nothing to compare with" in ran.err
    shutil.rmtree(folder / "mff")
    lacks = "mff/lytro: is missing, all 3 parts: build it with --data lytro=DIR"
    assert bench("verify", folder, "--page", made.path).out.splitlines() == [f"problem: {lacks}"]


def test_another_version_is_named_and_not_called_damage(made: Made, tmp_path: Path) -> None:
    text = made.path.read_text()
    name = next(iter(made.page.shards))
    sha256 = made.page.shards[name].sha256
    older = tmp_path / "own.toml"
    older.write_text(re.sub(r'"numpy" = ".*?"', '"numpy" = "1.0"', text).replace(sha256, "0" * 64))
    page = load_page(str(older))
    here = made.page.versions["numpy"]
    (line,) = compare(page, made.out, page.parts(page.sets[0]))
    assert line == (f'another version: numpy was "1.0", is "{here}": 1 shard came out differently, such as {name}')
    assert versions_here(made.page) == []
    assert versions_here(page) == [f'another version: numpy was "1.0", is "{here}": shards may differ']
    older.write_text(text.replace(sha256, "0" * 64))
    page = load_page(str(older))
    (line,) = compare(page, made.out, page.parts(page.sets[0]))
    assert line.startswith(f"{name}: sha256 {sha256[:12]}…, the benchmark's 000000000000…, with the same versions")


def test_a_wrong_file_a_missing_one_and_a_strange_set_stop_a_build(made: Made, tmp_path: Path) -> None:
    data = Path(shutil.copytree(made.data, tmp_path / "lytro"))
    save(data / "lytro-01-B.png", textured(5))
    for path in data.glob("lytro-02-*"):
        path.unlink()
    said: list[str] = []
    with pytest.raises(UserError, match="2 files that differ from those of own: mff/lytro: "):
        build_benchmark(made.page, (f"lytro={data}",), str(tmp_path / "out"), workers=1, say=said.append)
    assert any(line.startswith(f"problem: mff/lytro: {data}/lytro-01-B.png is another file: sha256 ") for line in said)
    assert f"problem: mff/lytro: no pair '02' in {data}" in said
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="own has no set 'msrs': its sets are lytro, nyud"):
        build_benchmark(made.page, (f"msrs={data}",), str(tmp_path / "out"), workers=1)
    with pytest.raises(UserError, match="none of its sets can be built"):
        build_benchmark(made.page, (), str(tmp_path / "out"), workers=1)


def test_own_results_are_scored_handed_in_and_drawn(
    made: Made, bench: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The method is a copy of a. A changed figure, another shard and a made-up set are found."""
    assert bench("extract", made.out, "--page", made.path, "--out", tmp_path / "in").code == 0
    inputs = sorted(path.name for path in (tmp_path / "in/mff/a").iterdir())
    assert len(inputs) == 5 and inputs[0] == "lytro-gaussian_noise-000000000.png"
    shutil.copytree(tmp_path / "in/mff/a", tmp_path / "results/mff")
    scores = tmp_path / "scores"
    how = ("run", made.out, "--page", made.path, "--model", "none", "--results", f"copy={tmp_path / 'results'}")
    how = (*how, "--out", scores, "--workers", "1", "--examples", "0", "--json")
    assert "unknown task 'mef': did you mean 'mff'? allowed: mff" in bench(*how, "--task", "mef").error
    ran = bench(*how)
    assert ran.code == 0, ran.err
    again = bench(*how, "--task", "mff")
    assert again.out == ran.out and "mff: already scored" in again.err
    report = json.loads(ran.out)["mff"]
    assert next(one["name"] for one in report["methods"]) == "copy" and report["samples"] == 5

    few = tmp_path / "few"
    assert bench(*how, "--limit", "2", "--out", few).code == 0

    from clearfuse.bench import submission

    monkeypatch.setattr(submission, "resource_names", lambda folder: ["own"])
    monkeypatch.setattr(submission, "load_page", lambda name: made.page)
    ran = bench("submit", few, "--out", tmp_path / "few.json")
    assert ran.out.splitlines() == ["note: mff: 2 of 5 samples scored", f"{tmp_path / 'few.json'}: ok"]
    out = tmp_path / "board/copy.json"
    ran = bench("submit", scores, "--out", out, "--name", "copy <a>", "--trained-on", "lytro")
    assert ran.code == 0 and ran.out.splitlines()[-1] == f"{out}: ok", ran.out + ran.err
    data = json.loads(out.read_bytes())
    mean = data["tracks"]["mff"]["groups"]["overall"]["all"]["metrics"]["PSNR"]["mean"]
    assert mean == report["groups"]["overall"]["all"]["methods"]["copy"]["PSNR"]["mean"]
    assert re.fullmatch("[0-9a-f]{64}", data["images"]) and data["weights"] is None

    drawn = import_module("clearfuse.bench.leaderboard")
    monkeypatch.setattr(drawn, "load_page", lambda name: made.page)
    assert bench("submit", scores, "--method", "pyramid on clean", "--out", out.with_name("bound.json")).code == 0
    assert bench("leaderboard", out.parent, "--out", tmp_path / "board.html").code == 0
    page = (tmp_path / "board.html").read_text()
    assert "Own &lt;benchmark&gt;" in page and "copy &lt;a&gt;" in page and '<tr class="bound">' in page
    assert f"<b>{mean:.2f}</b>" in page and "trained on pairs of lytro" in page

    for wrong, said in _spoiled(data):
        out.write_text(json.dumps(wrong))
        ran = bench("check", out)
        assert ran.code in (1, 2)
        assert said in ran.out + ran.err
    assert "copy &lt;a&gt;" not in drawn.leaderboard(drawn.load_entries([str(out)]))


def _spoiled(data: dict[str, Any]) -> list[tuple[dict[str, Any], str]]:
    """Submissions that are not right, and what is to be said of them."""

    def spoil(change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        copy = json.loads(json.dumps(data))
        change(copy)
        return copy

    name = next(iter(data["shards"]))
    overall = ("tracks", "mff", "groups", "overall", "all", "metrics", "PSNR")

    def better(copy: dict[str, Any]) -> None:
        at = copy
        for key in overall:
            at = at[key]
        at["mean"] += 0.1

    return [
        (spoil(lambda copy: copy.update(metod="x")), "unknown key 'metod': did you mean 'method'?"),
        (spoil(lambda copy: copy["trained_on"].append("sice")), "trained_on: sice is none of the sets of own"),
        (spoil(lambda copy: copy.update(definition="0" * 64)), "definition: is of another 'own'"),
        (spoil(lambda copy: copy["tracks"]["mff"].update(of=7)), "tracks: mff: 7 samples, its shards hold 5"),
        (spoil(lambda copy: copy["shards"].update({name: "0" * 64})), f"shards: {name} has sha256 000000000000…"),
        (spoil(better), "PSNR: the means by n are not those of"),
    ]


def test_a_scene_of_mini_comes_out_as_its_page_says(tmp_path: Path) -> None:
    """What changes pixels, prompts or draws shows here: then the pages are hashed anew before they are published."""
    page = load_page("mini")
    if changed := versions_here(page):
        pytest.skip(changed[0])
    part = next(part for part in page.parts(page.sets[0]) if part.what == "ir_stripes")
    done = Built(str(tmp_path))
    build_parts([part], Job(tmp_path, {}), 1, done, lambda done, total: None)
    assert done.samples == 3
    assert compare(page, tmp_path, [part]) == []


def test_a_set_of_v1_is_the_one_that_was_hashed_and_comes_out_as_its_page_says(shared: Path, tmp_path: Path) -> None:
    page = load_page("v1")
    if changed := versions_here(page):
        pytest.skip(changed[0])
    folders = {"textif": str(shared / "data/vif/TextIF_test_imgs"), "llvip": str(shared / "data/vif/LLVIP")}
    entries = {entry.name: entry for entry in page.sets}
    for name, folder in folders.items():
        assert wrong_files(entries[name], folder, page.files[f"vif/{name}"]) == []
    parts = page.parts(entries["textif"])
    done = Built(str(tmp_path))
    build_parts(parts, Job(tmp_path, folders), 1, done, lambda done, total: None)
    assert (done.samples, compare(page, tmp_path, parts)) == (4, [])
