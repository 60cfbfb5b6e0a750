"""Pairs in columns equal single pairs, and the memory of many is that of their names."""

from __future__ import annotations

import hashlib
import itertools
import random
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from clearfuse.synth.builder.options import Options
from clearfuse.synth.builder.run import plan_build
from clearfuse.synth.datasets.find import builtin_pairs, find_all
from clearfuse.synth.datasets.manifest import SPLITS, load_manifest, natural
from clearfuse.synth.datasets.pairs import Pairs, Table, texts
from clearfuse.synth.files import storage
from clearfuse.synth.files.jsonstream import dumps
from conftest import save, textured


def table(dataset: str, keys: list[str], splits: list[str]) -> Table:
    """Pairs without files; the key is also the scene."""
    numbers = np.array([list(SPLITS).index(split) for split in splits], np.int8)
    return Table("vif", dataset, texts(keys), texts(keys), numbers, {}, np.zeros(len(keys), np.int16))


def test_pairs_are_a_sequence() -> None:
    pairs = Pairs([table("one", ["a", "b"], ["train", "test"]), table("none", [], []), table("two", ["c"], ["train"])])
    names = ["one/a", "one/b", "two/c"]
    assert [ref.name for ref in pairs] == [pairs[i].name for i in range(3)] == names
    assert [ref.name for ref in pairs[::-1]] == names[::-1] and pairs[-1].name == "two/c" and not pairs[3:]
    assert [ref.name for ref in pairs.take(np.array([2, 0, 1, 2]))] == ["two/c", *names]
    assert [ref.name for ref in pairs.of_split("train")] == ["one/a", "two/c"] and pairs.count("val") == 0
    assert {name: [ref.key for ref in mine] for name, mine in pairs.by_dataset.items()} == {
        "one": ["a", "b"],
        "two": ["c"],
    }
    assert [ref.name for ref in Pairs.joined([pairs[1:], pairs[:1]])] == ["one/b", "two/c", "one/a"]
    for at in (3, -4):
        with pytest.raises(IndexError):
            pairs[at]


def test_built_in_scenes_of_several_splits_are_one_set() -> None:
    pairs = Pairs.joined(builtin_pairs("vif", split, 3) for split in ("train", "val"))
    assert list(pairs.by_dataset) == ["scenes"] and len(pairs.by_dataset["scenes"]) == 6


def test_names_order_as_their_pieces_do() -> None:
    def pieces(text: str) -> list[tuple[int, int, str]]:
        parts = re.split(r"([0-9]+)", text)
        return [(1, 0, part) if i % 2 == 0 else (0, int(part), "") for i, part in enumerate(parts) if part]

    drawn = random.Random(0)
    words = ["".join(drawn.choices("0019ab_é 中", k=drawn.randint(0, 7))) for _ in range(400)]
    words += [str(10**i + j) for i in range(25) for j in (-1, 0, 1)]
    assert [natural(w) for w in sorted(words, key=natural)] == [natural(w) for w in sorted(words, key=pieces)]
    for a, b in itertools.pairwise(sorted(words, key=pieces)):
        assert (pieces(a) == pieces(b)) == (natural(a) == natural(b))


def test_the_digest_of_a_set_is_of_its_whole_listing(msrs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clearfuse.synth.builder.settings.RUN", 2)
    planned, _ = plan_build(Options(task="vif", data=(f"msrs={msrs}",)))
    listing = [[ref.key, {i: Path(p).stat().st_size for i, p in ref.sources.items()}] for ref in planned.pairs]
    record = {"pairs": 6, "digest": hashlib.sha256(dumps(listing)).hexdigest()[:32]}
    assert planned.settings["data"] == {"msrs": record}


def test_a_listing_in_pieces_is_the_same(msrs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(msrs / "train/vi/alone.png", textured(0))
    (msrs / "train/vi/pipe.png").symlink_to("nowhere")
    (msrs / "train/again").symlink_to(msrs)  # a loop
    (msrs / ".hidden").mkdir()
    (msrs / ".hidden/x.png").touch()
    whole = find_all(load_manifest("msrs"), str(msrs), "vif")
    for name in (
        "clearfuse.synth.files.storage.LISTED",
        "clearfuse.synth.datasets.find.RUN",
        "clearfuse.synth.datasets.pairs.RUN",
    ):
        monkeypatch.setattr(name, 3)
    pieces = find_all(load_manifest("msrs"), str(msrs), "vif")
    assert list(whole.pairs) == list(pieces.pairs)
    assert [(f.ignored, f.unpaired) for f in (whole, pieces)] == [(2, (f"{msrs}/train/vi/alone.png",))] * 2
    assert [len(listed.names) for listed in storage.scan(msrs / "train/vi")] == [3, 3, 2]


MANY = """
from clearfuse.synth.files import storage
from clearfuse.synth.builder.run import plan_build
from clearfuse.synth.builder.resolve import Options
from clearfuse.synth.files.storage import Listed

def scan(root):
    for side in ("vi", "ir"):
        for at in range(0, PAIRS, 4096):
            names = [f"{i:07d}D.png" for i in range(at, min(at + 4096, PAIRS))]
            yield Listed(f"train/{side}/", names, [1000] * len(names))

def most():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) * 1024

PAIRS, storage.scan = 200_000, scan
before = most()
build, _ = plan_build(Options(task="vif", data=("msrs=.",), variants=10))
assert build.sample_count == 10 * PAIRS, build.sample_count
assert build.task(build.shard_count - 1).samples[-1].index == (build.shard_count - 1) * 256 + PAIRS % 256 - 1
print((most() - before) / PAIRS)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs /proc to see the memory")
def test_a_plan_of_many_pairs_is_small(tmp_path: Path) -> None:
    ran = subprocess.run([sys.executable, "-c", MANY], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert ran.returncode == 0, ran.stderr
    assert float(ran.stdout) < 500  # bytes per pair; a PairRef takes 1,300
