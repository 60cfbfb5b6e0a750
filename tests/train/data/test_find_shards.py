"""Finding shards: patterns, braces, URLs; each argument is a source with a weight."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from made import made_shards

from clearfuse.synth.files import cache
from clearfuse.synth.types import UserError
from clearfuse.train.cli.options import parse_mix
from clearfuse.train.data.corpus import index, shards_changed
from clearfuse.train.data.find import ground_truth_by
from clearfuse.train.data.samples import Samples
from fakehub import TOKEN, Repository, fake_hub


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_shards(tmp_path_factory.mktemp("made"))


def names(*paths: str) -> list[str]:
    return [path.name for path in index(list(paths)).shards]


def test_whose_ground_truth_shards_have(shards: Path, tmp_path: Path) -> None:
    both = index([str(shards / "vif"), str(shards / "mef")]).shards
    assert ground_truth_by(both) == {"pyramid": len(both)} and len(both) == 3
    for name in ("mef-train-000000.tar", "mef-train-000000.json"):
        shutil.copy(shards / "mef" / name, tmp_path / name)
    receipt = json.loads((tmp_path / "mef-train-000000.json").read_text())
    for fuser in receipt["settings"]["fuser"].values():
        fuser["name"] = "defuse"
    (tmp_path / "mef-train-000000.json").write_text(json.dumps(receipt))
    assert ground_truth_by([tmp_path / "mef-train-000000.tar", *both[:1]]) == {"defuse": 1, "pyramid": 1}
    (tmp_path / "mef-train-000000.json").unlink()
    assert not ground_truth_by([tmp_path / "mef-train-000000.tar"])


def test_patterns_and_braces(shards: Path, tmp_path: Path) -> None:
    both = ["vif-train-000000.tar", "vif-train-000001.tar"]
    assert names(f"{shards}/vif/vif-train-{{000000..000001}}.tar") == both
    assert names(f"{shards}/vif/*-00000?.tar") == both and names(f"{shards}/v*") == both
    assert names(f"{shards}/vif/*-00000[1-9].tar") == both[1:]
    assert names(f"{shards}/{{vif,mef}}/*0.tar") == ["vif-train-000000.tar", "mef-train-000000.tar"]
    odd = tmp_path / "a[1]{2,3}.tar"
    shutil.copy(shards / "vif/vif-train-000000.tar", odd)
    assert names(str(odd)) == [odd.name]
    for wrong, said in (
        (f"{shards}/vof*", "matches no shard and no folder"),
        (f"{shards}/vif/vif-train-{{000000..000002}}.tar", "vif-train-000002.tar: no such file or folder"),
    ):
        with pytest.raises(UserError, match=said):
            index([wrong])


def test_each_argument_is_a_source(shards: Path) -> None:
    corpus = index([str(shards / "vif"), str(shards / "mef"), str(shards / "vif/vif-train-000000.tar")])
    counts = [int((corpus.train.source == number).sum()) for number in range(3)]
    assert corpus.weights() == counts and counts[2] == 0  # its shard belongs to the first
    data = Samples(corpus, side=32, training=True, mix=[3, 1, 0], batch=4)
    assert data.order is not None
    rows = [corpus.train.source[data.order.at(position).row] for position in range(400)]
    assert abs(rows.count(0) - 300) <= 3 and rows.count(2) == 0
    for mix, said in (
        ([1.0, 2.0], "--mix 1,2: 2 weights for 3 sources"),
        ([1.0, -1.0, 0.0], "weights must be at least 0"),
        ([0.0, 0.0, 0.0], "one of them above it"),
        ([1.0, 1.0, 1.0], "has no samples to train on: its weight must be 0"),
    ):
        with pytest.raises(UserError, match=said):
            corpus.weights(mix)
    assert parse_mix("2,1,.5") == [2, 1, 0.5]
    with pytest.raises(UserError, match="--mix 2;1: must be a weight for each argument"):
        parse_mix("2;1")


def test_what_became_of_a_runs_shards_is_said(shards: Path) -> None:
    before = index([str(shards / "vif")]).fingerprint()
    assert shards_changed(before, before) is None
    assert shards_changed(before, before[1:]) == "vif-train-000000.tar is missing"
    assert shards_changed(before[1:], before) == "vif-train-000000.tar is new"
    for column in (2, 3, 4):
        other = [[*before[0][:column], "5", *before[0][column + 1 :]], before[1]]
        assert shards_changed(before, other) == "vif-train-000000.tar has changed"
    assert shards_changed(before, before[::-1]) == "their order is another"
    earlier = [row[:3] for row in before]
    assert shards_changed(earlier, before) is None, "the record of an earlier version goes on"
    assert shards_changed(before, [[*row[:4], None] for row in before]) is None, "without receipts it is the same data"


@pytest.mark.parametrize("receipt", ["kept", "renewed", "gone"])
def test_shards_of_the_same_size_and_another_content_are_told_apart(shards: Path, tmp_path: Path, receipt: str) -> None:
    here = shutil.copytree(shards / "vif", tmp_path / "vif")
    tar, said = here / "vif-train-000000.tar", here / "vif-train-000000.json"
    before = index([str(here)]).fingerprint()
    data = bytearray(tar.read_bytes())
    at = data.index(b"gt.webp") + 512
    data[at + 60] ^= 1
    if receipt == "renewed":
        said.write_text(json.dumps(json.loads(said.read_text()) | {"sha256": "0" * 64}))
    elif receipt == "gone":
        said.unlink()
    if receipt != "renewed":
        tar.write_bytes(data)
    assert shards_changed(before, index([str(here / "*.tar")]).fingerprint()) == "vif-train-000000.tar has changed"


class Counting(SimpleHTTPRequestHandler):
    """Serves a folder over HTTP and counts requests."""

    asked: ClassVar[dict[str, int]] = {}

    def do_GET(self) -> None:
        self.asked[self.path] = self.asked.get(self.path, 0) + 1
        super().do_GET()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(shards: Path) -> Iterator[str]:
    pytest.importorskip("aiohttp")
    served = ThreadingHTTPServer(("127.0.0.1", 0), partial(Counting, directory=str(shards)))
    thread = threading.Thread(target=served.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{served.server_port}"
    served.shutdown()
    thread.join()
    served.server_close()


@pytest.mark.slow
def test_shards_at_a_url_are_downloaded_once(shards: Path, server: str) -> None:
    here = index([str(shards / "vif")])
    for _ in range(2):
        there = index([f"{server}/vif/vif-train-{{000000..000001}}.tar"])
        assert there.sizes == here.sizes and there.train.key.tolist() == here.train.key.tolist()
    assert Counting.asked["/vif/vif-train-000000.tar"] == 1
    assert all(str(path).startswith(str(cache.cache_folder())) for path in there.shards)
    assert (there.shards[0].with_suffix(".json")).is_file()
    with pytest.raises(UserError, match="no such file or folder"):
        index([f"{server}/vif/none.tar"])


def test_shards_in_a_store(shards: Path) -> None:
    import fsspec

    store = fsspec.filesystem("memory")
    store.put(f"{shards}/vif/", "/finding/vif/", recursive=True)
    here = index([str(shards / "vif")])
    for url in ("memory://finding/vif", "memory://finding/v*/*.tar"):
        assert index([url]).sizes == here.sizes
    with pytest.raises(UserError, match="matches no shard"):
        index(["memory://finding/none*.tar"])
    store.rm("/finding", recursive=True)


@pytest.mark.slow
def test_a_run_on_shards_of_the_hub(shards: Path, tmp_path: Path) -> None:
    """Shards on a hub over HTTP, at a branch: listed, matched by a pattern, each downloaded once."""
    with fake_hub() as hub:
        hub.repositories["me/pairs"] = made = Repository(private=True)
        made.branches["main"] = {path.name: (path.read_bytes(), True) for path in (shards / "vif").iterdir()}
        here = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
        env = {**os.environ, **here, "CLEARFUSE_CACHE": str(tmp_path / "cache")}
        sources = ["hf://datasets/me/pairs", "hf://datasets/me/pairs@main/*-000001.tar"]
        options = ["--steps", "1", "--batch", "2", "--crop", "32", "--set", "config.width=64", "--workers", "0"]
        command = [
            sys.executable,
            "-m",
            "clearfuse.train",
            "fit",
            *sources,
            "--out",
            str(tmp_path / "run"),
            "--json",
            *options,
        ]
        ran = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
        assert json.loads(ran.stdout)["step"] == 1
        # The pattern's is another URL than the folder's.
        assert [hub.downloads.count(f"vif-train-00000{number}.tar") for number in (0, 1)] == [1, 2]
        for token, source, said in (
            (TOKEN, "hf://datasets/me/none", "no such file or folder"),
            ("hf_wrong", "hf://datasets/me/pairs", "access denied: "),
        ):
            ran = subprocess.run([*command[:4], source], env={**env, "HF_TOKEN": token}, capture_output=True, text=True)
            assert ran.returncode == 2 and f"train: error: {source}: {said}" in ran.stderr
