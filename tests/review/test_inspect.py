"""``synth inspect``: counts in bounded memory, and a page that a browser shows without anything else."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from clearfuse.synth.builder.run import build
from clearfuse.synth.review.inspection import inspect
from clearfuse.synth.review.tally import BINS, BoundedSample, DistinctCount, Tally, kind_of
from clearfuse.synth.shards.sample import read_samples
from clearfuse.synth.shards.tar import read_shard, write_shard
from clearfuse.synth.types import WorkIncomplete
from conftest import Ran, save, textured

pytestmark = pytest.mark.slow

Synth = Callable[..., Ran]


class Checked(HTMLParser):
    """Collects tags, and fails where one is not closed in its turn."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.links: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build of two shards, of which two pairs were rejects."""
    root = tmp_path_factory.mktemp("inspect")
    for number in range(8):
        save(root / f"a/<b>{number}.png", textured(number, 128, 96))
        save(root / f"b/<b>{number}.png", textured(50 + number, 128, 96, channels=1))
    for number in (1, 2):
        (root / f"a/<b>{number}.png").write_text("not a picture")
    data = {"data": f"folder={root / 'a'},{root / 'b'}", "executor": "serial", "sets": ["operators.rain.weight=0"]}
    with pytest.raises(WorkIncomplete, match="rejected"):
        build("vif", out=root / "out", n="2", shard_size=2, variants=2, **data)
    return root / "out"


def test_the_counts_are_those_of_the_samples(made: Path) -> None:
    report = inspect([str(made)])
    samples = [sample for tar in sorted(made.glob("*.tar")) for sample in read_samples(tar)]
    steps = [step for sample in samples for step in sample.meta.steps]
    assert report["samples"] == len(samples) and report["n"] == {"2": len(samples)}
    assert sum(report["operators"].values()) == len(steps) == 2 * len(samples)
    for op, held in report["together"].items():
        assert sum(held.values()) == report["operators"][op]  # each has one other beside it
        assert all(report["together"][other][op] == count for other, count in held.items())
    for op, held in report["parameters"].items():
        drawn = [step.params for step in steps if step.op == op]
        for name, stats in held.items():
            values = [one[name] for one in drawn]
            if "bins" in stats:
                assert (stats["low"], stats["high"], stats["count"]) == (min(values), max(values), len(values))
                assert sum(stats["bins"]) == len(values) and len(stats["bins"]) == BINS
            else:
                assert sum(stats["names"].values()) == len(values)
    quality = [sample.meta.gt_quality["Qabf"] for sample in samples]
    assert report["metrics"]["Qabf"]["median"] == sorted(quality)[len(quality) // 2]
    words = [len(sample.prompt.split()) for sample in samples]
    assert (report["words"]["low"], report["words"]["high"]) == (min(words), max(words))
    assert report["prompts"] == len({sample.prompt for sample in samples})
    listed = [reject for at in made.glob("vif-*.json") for reject in json.loads(at.read_bytes())["rejects"]]
    assert report["rejects"] == {"is not an image": len(listed)} and listed
    assert report["bytes"] == sum(tar.stat().st_size for tar in made.glob("*.tar"))


def test_what_is_kept_does_not_grow() -> None:
    thinned = BoundedSample(most=64)
    for value in range(10_000):
        thinned.add(value / 10_000)
    stats = thinned.stats()
    assert len(thinned.values) <= 64 and (stats["count"], stats["low"], stats["high"]) == (10_000, 0, 0.9999)
    assert abs(stats["median"] - 0.5) < 0.03 and min(stats["bins"]) > 0
    one = BoundedSample()
    one.add(3.0)
    assert one.stats() == {"count": 1, "low": 3.0, "median": 3.0, "high": 3.0, "bins": [1] + [0] * (BINS - 1)}
    assert Tally().to_json()["samples"] == 0
    few, many = DistinctCount(), DistinctCount(most=256)
    for value in range(6000):
        few.add(str(value % 900))
        many.add(str(value))
    assert len(few) == 900 and len(many.hashes) < 512 and abs(len(many) - 6000) < 6000 / 8


def test_like_reasons_fall_together() -> None:
    assert kind_of("00003D.png: cannot be read: broken at 317") == "cannot be read: broken at #"
    assert kind_of("sizes differ: a 160x128, b 80x64") == "sizes differ: a #x#, b #x#"


def test_the_page_stands_alone(synth: Synth, made: Path, tmp_path: Path) -> None:
    page = tmp_path / "new/report.html"
    ran = synth("inspect", made, "--out", page, "--thumbnails", "5")
    assert ran.code == 0 and "samples in" in ran.out and f"wrote {page}" in ran.err
    text = page.read_text()
    checked = Checked()
    checked.feed(text)
    assert checked.open == [] and "script" not in checked.seen and "link" not in checked.seen
    assert checked.seen.count("img") == 5 * 5
    assert all(link.startswith("data:image/webp;base64,") for link in checked.links)
    assert not re.search(r"url\(|@import|https?://", text) and len(text) < 3_000_000
    for word in ("Operators", "Samples that have both", "Rejects", "is not an image", "Qabf", "words a prompt"):
        assert word in checked.text
    assert "folder/<b>" in checked.text and "<b>3" not in text  # names of files are text, never markup
    assert text == page.read_text() and "prefers-color-scheme:dark" in text


def test_a_lean_build_has_a_page(synth: Synth, tmp_path: Path, msrs: Path) -> None:
    build("vif", data=f"msrs={msrs}", out=tmp_path / "out", lean=True, limit=2, executor="serial")
    assert synth("inspect", tmp_path / "out", "--out", tmp_path / "x.html", "--json").code == 0
    checked = Checked()
    checked.feed((tmp_path / "x.html").read_text())
    assert checked.seen.count("img") == 2 * 3 and "2 lean" in checked.text and "Operators" not in checked.text


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--out", "x.png"], "--out x.png: must end in .html"),
        (["--out", "x.html", "--thumbnails", "99"], "--thumbnails 99: must be in [0, 60]"),
        (["--out", "/proc/x.html"], "--out /proc/x.html: cannot be written: "),
    ],
)
def test_what_cannot_be_drawn_is_refused(synth: Synth, made: Path, options: list[str], said: str) -> None:
    ran = synth("inspect", made, *options)
    assert ran.code == 2 and ran.error.startswith(f"synth: error: {said}")


def replayed(synth: Synth, *args: Any) -> int:
    ran = synth("verify", *args, "--workers", "1", "--json")
    assert ran.code == 0
    return json.loads(ran.out)["replayed"]


def test_a_share_of_the_samples_is_replayed(synth: Synth, made: Path) -> None:
    whole = replayed(synth, "--replay", made)
    some = replayed(synth, made, "--replay", "0.4")
    assert whole == replayed(synth, made, "--replay") == replayed(synth, "--replay", "1", made) > some > 0
    assert some == replayed(synth, "--replay=0.4", made) and replayed(synth, made) == 0
    ran = synth("verify", made, "--replay", "3")
    assert ran.code == 2 and ran.error == "synth: error: --replay 3: must be a share of the samples in [0, 1]"


def test_the_report_of_verify_is_a_file_too(synth: Synth, made: Path, tmp_path: Path) -> None:
    ran = synth("verify", made, "--out", tmp_path / "report.json", "--workers", "1")
    held = json.loads((tmp_path / "report.json").read_bytes())
    assert ran.code == 0 and (held["ok"], held["problems"]) == (True, []) and ran.out.startswith("ok: ")
    ran = synth("verify", made, "--out", "/proc/report.json")
    assert ran.code == 2 and "--out /proc/report.json: cannot be written" in ran.error


def test_members_are_those_of_a_sample(synth: Synth, made: Path, tmp_path: Path) -> None:
    content = list(read_shard(next(iter(sorted(made.glob("*.tar"))))))
    key, members = content[0]
    without = {name: data for name, data in members.items() if name != "depth.png"}
    depth = {name: data for name, data in members.items() if name != "gt.webp"}
    path = tmp_path / "vif-train-000000.tar"
    for changed in (members | {"extra.bin": b"x"}, without, depth):
        write_shard(path, [(key, changed)])
        ran = synth("verify", path, "--json", "--workers", "1")
        problems = json.loads(ran.out)["problems"]
        (wrong,) = set(changed) ^ set(members)
        assert ran.code == 1 and any(wrong.removesuffix(".webp") in line for line in problems)
