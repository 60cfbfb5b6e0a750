"""URLs in the place of folders: the same bytes, resume, and one line for what a store refuses or fails at."""

from __future__ import annotations

import errno
import json
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from clearfuse.synth.builder.run import build
from clearfuse.synth.datasets.fingerprints import thumbnails
from clearfuse.synth.depth.base import DepthInput
from clearfuse.synth.depth.choice import parse_depth
from clearfuse.synth.depth.metres import encode_png
from clearfuse.synth.files import cache, storage
from clearfuse.synth.files.remote import Refused, Remote, Unreachable
from clearfuse.synth.review.verify import verify
from clearfuse.synth.types import BadPair, UserError, WorkIncomplete
from clearfuse.train.cli.options import FuseOptions
from conftest import Ran, folder_bytes

COMMON: dict[str, Any] = {"executor": "serial", "n": "1", "shard_size": 2, "split": "train"}
SETS = ["operators.rain.weight=0", "operators.snow.weight=0", "operators.haze.weight=0"]


@pytest.fixture(autouse=True)
def memory() -> Iterator[MemoryFileSystem]:
    """The store of this process, empty."""
    fs = fsspec.filesystem("memory")
    yield fs
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


def put(fs: MemoryFileSystem, folder: Path, url: str) -> None:
    """Copy a folder to a store."""
    for path in folder.rglob("*"):
        if path.is_file():
            fs.pipe_file(f"{url}/{path.relative_to(folder).as_posix()}", path.read_bytes())


def held(url: str) -> dict[str, bytes]:
    """Every object of a store's folder."""
    return {path.name: path.read_bytes() for path in storage.locate(url).iterdir()}


def make(out: str, data: str, **options: Any) -> Any:
    """A small build without weather."""
    return build("vif", out=out, data=[f"msrs={data}"], sets=SETS, **(COMMON | options))


class Failing(MemoryFileSystem):
    """A store that fails at a put or a get of a name: ``broken://``."""

    protocol = "broken"
    fails: dict[str, Exception] = {}  # noqa: RUF012

    def _fail(self, path: str) -> None:
        for name, error in self.fails.items():
            if path.endswith(name):
                raise error

    def put_file(self, lpath: Any, rpath: str, *args: Any, **options: Any) -> None:
        self._fail(rpath)
        super().put_file(lpath, rpath, *args, **options)

    def cat_file(self, path: str, *args: Any, **options: Any) -> bytes:
        self._fail(path)
        return super().cat_file(path, *args, **options)

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return MemoryFileSystem._strip_protocol(path.replace("broken://", "memory://"))


@pytest.fixture
def broken(memory: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch) -> dict[str, Exception]:
    """What ``broken://``, the same store by another name, fails at."""
    fsspec.register_implementation("broken", Failing, clobber=True)
    monkeypatch.setattr(Failing, "fails", {})
    return Failing.fails


def test_a_place_is_a_path_or_a_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert storage.locate("shards/vif") == Path("shards/vif")
    assert storage.locate(f"file://{tmp_path}") == tmp_path
    at = storage.locate("memory://bucket/shards/")
    assert isinstance(at, Remote)
    tar = at / "vif-train-000000.tar"
    assert (str(at), tar.name, tar.stem, tar.suffix) == (
        "memory://bucket/shards", "vif-train-000000.tar", "vif-train-000000", ".tar"
    )  # fmt: skip
    assert tar.with_suffix(".json") == at / "vif-train-000000.json" and tar.parent == at
    with pytest.raises(UserError, match=r"unknown protocol 's4': did you mean 's3'\? allowed: az, file, gs, hf"):
        storage.locate("s4://bucket/x")
    with pytest.raises(UserError, match="s3://: names no place: must be like s3://bucket/folder"):
        storage.locate("s3://")

    def missing(protocol: str) -> None:
        raise ImportError("Install it")

    monkeypatch.setattr(fsspec, "get_filesystem_class", missing)
    with pytest.raises(UserError, match=r"s3://b/x: needs a library: pip install 'clearfuse\[s3\]'\Z"):
        storage.locate("s3://b/x")
    with pytest.raises(UserError, match="gs://b/x: needs a library: pip install gcsfs"):
        storage.locate("gs://b/x")
    with pytest.raises(UserError, match="oci://b/x: needs a library: Install it"):
        storage.locate("oci://b/x")


def test_a_store_is_listed_as_a_folder_is(memory: MemoryFileSystem, tmp_path: Path) -> None:
    for name in ("a.png", "b/c.png", "b/d/e.png", ".hidden", "b/.hidden"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    put(memory, tmp_path, "memory://set")
    at = storage.locate("memory://set")
    assert storage.walk_files(at) == storage.walk_files(tmp_path) == ["a.png", "b/c.png", "b/d/e.png"]
    assert storage.listing(at) == storage.listing(tmp_path) == {"a.png": 5, ".hidden": 7}
    assert storage.listing(at / "none") == storage.listing(tmp_path / "none") == {}
    assert storage.size(at / "b/c.png") == 7 and storage.read_bytes("memory://set/b/c.png") == b"b/c.png"
    names = [f"memory://set/{name}" for name in ("a.png", "b/c.png", "none.png", "no/where.png")]
    found = storage.facts([*names, str(tmp_path / "a.png"), str(tmp_path / "none")])
    assert {path: fact.size for path, fact in found.items()} == {names[0]: 5, names[1]: 7, str(tmp_path / "a.png"): 5}
    stamp = found[names[0]].stamp
    memory.pipe_file(names[0], b"other")
    assert storage.facts(names)[names[0]].stamp != stamp
    assert (at / "a.png").is_file() and not (at / "b").is_file() and (at / "b").is_dir() and not (at / "x").exists()
    assert sorted(path.name for path in at.glob("*.png")) == ["a.png"]
    with pytest.raises(FileNotFoundError, match="memory://set/x"):
        (at / "x").read_bytes()
    with pytest.raises(FileNotFoundError):
        storage.size(at / "x")
    (at / "x").unlink(missing_ok=True)
    with (at / "b/c.png").open() as file:
        file.seek(2)
        assert file.read() == b"c.png" and file.tell() == 7


def test_what_lands_in_a_store_lands_whole_or_not_at_all(memory: MemoryFileSystem) -> None:
    target = storage.locate("memory://b/x.tar")
    with pytest.raises(RuntimeError, match="stop"), storage.landing(target) as file:
        file.write(b"half")
        raise RuntimeError("stop")
    assert not target.exists()
    with storage.landing(target) as file:
        file.write(b"whole")
        assert not target.exists()
    assert target.read_bytes() == b"whole"
    with storage.fetched(target) as local:
        assert local.read_bytes() == b"whole"
    assert not local.exists()
    assert not list(Path(tempfile.gettempdir()).glob(f"clearfuse-*-{os.getpid()}-*"))

    def full(name: str) -> OSError:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)

    with pytest.raises(OSError, match="where uploads wait"), storage.landing(target) as file:
        raise full(file.name)


def test_what_killed_uploads_left_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    host = os.uname().nodename
    left, live, other = (
        tmp_path / f"clearfuse-{where}-{pid}-abc-x.tar"
        for where, pid in ((host, ended.pid), (host, os.getpid()), ("elsewhere", ended.pid))
    )
    for path in (left, live, other):
        path.touch()
    storage.sweep()
    assert not left.exists() and live.exists() and other.exists()


@pytest.mark.slow
def test_a_build_in_a_store_has_a_folders_bytes(memory: MemoryFileSystem, msrs: Path, tmp_path: Path) -> None:
    put(memory, msrs, "memory://data/MSRS")
    make(str(tmp_path / "out"), str(msrs))
    expected = folder_bytes(tmp_path / "out")
    report = make("memory://shards/vif", "memory://data/MSRS")
    assert (report.samples, report.shards, held("memory://shards/vif")) == (6, 3, expected)
    assert verify(["memory://shards/vif"], replay=True, workers=2).to_json() == {
        "ok": True, "samples": 6, "replayed": 6, "problems": []
    }  # fmt: skip
    for name in ("vif-train-000000.tar", "vif-train-000001.json", "dataset.json", "README.md"):
        memory.rm_file(f"memory://shards/vif/{name}")
    assert make("memory://shards/vif", "memory://data/MSRS").resumed == 1
    assert held("memory://shards/vif") == expected
    with pytest.raises(UserError, match="memory://shards/vif holds another build: seed was 0, is 1"):
        make("memory://shards/vif", "memory://data/MSRS", seed=1)
    make("memory://shards/vif", "memory://data/MSRS", overwrite=True, codec="png")
    assert held("memory://shards/vif").keys() == expected.keys()


def test_damage_in_a_store_is_found(memory: MemoryFileSystem, msrs: Path) -> None:
    make("memory://shards", str(msrs))
    tar = "memory://shards/vif-train-000001.tar"
    data = bytearray(memory.cat_file(tar))
    data[3000] ^= 1
    memory.pipe_file(tar, bytes(data))
    memory.rm_file("memory://shards/vif-train-000002.tar")
    problems = verify(["memory://shards"]).problems
    assert "memory://shards/vif-train-000002.tar: missing, though dataset.json lists it" in problems
    assert any("its bytes are not those of its receipt" in line for line in problems)


@pytest.mark.slow
def test_the_commands_read_stores(synth: Callable[..., Ran], msrs: Path, tmp_path: Path) -> None:
    make("memory://shards", str(msrs))
    ran = synth("inspect", "memory://shards", "--json")
    assert (ran.code, json.loads(ran.out)["samples"]) == (0, 6)
    assert synth("verify", "memory://shards/vif-train-000001.tar").out == "ok: 2 samples, 0 replayed\n"
    assert synth("preview", "memory://shards", "--samples", "1", "--out", tmp_path / "sheet.png").code == 0
    ran = synth("verify", "memory://none")
    assert (ran.code, ran.error) == (2, "synth: error: memory://none: no such file or folder")


def test_what_is_local_says_so(synth: Callable[..., Ran]) -> None:
    for option in ("--prompts", "--recipe"):
        ran = synth("build", "--task", "vif", option, "s3://bucket/x")
        assert (ran.code, ran.error) == (2, f"synth: error: {option} s3://bucket/x: must be local, not a URL")
    ran = synth("prompts", "expand", "--out", "s3://bucket/x", "--model", "none")
    assert (ran.code, ran.error) == (2, "synth: error: --out s3://bucket/x: must be local, not a URL")


@pytest.mark.parametrize(
    "line",
    ["fuse a.png b.png", "fit shards", "eval shards", "export small", "metrics stress", "compare"],
)
def test_what_a_model_makes_is_local(train: Callable[..., Ran], tmp_path: Path, line: str) -> None:
    """A URL would become a folder of that name, ``file:`` among them; of file:// the path is taken."""
    ran = train(*line.split(), "--out", "s3://bucket/x")
    assert (ran.code, ran.error) == (2, "train: error: --out s3://bucket/x: must be local, not a URL")
    assert FuseOptions(inputs=("a", "b"), out=f"file://{tmp_path}/").out == f"{tmp_path}/"


def test_depth_maps_of_a_store_are_a_folders(memory: MemoryFileSystem, tmp_path: Path) -> None:
    maps = {"a.png": encode_png(np.full((4, 6), 640, np.uint16)), "b/c.png": encode_png(np.full((4, 6), 64, np.uint16))}
    for name, data in maps.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    put(memory, tmp_path, "memory://maps")
    one, other = (parse_depth(f"maps={at}", has_true=False) for at in (tmp_path, "memory://maps"))
    assert one.weights == other.weights is not None
    image = np.zeros((4, 6, 3), np.uint8)
    assert (other.estimate(DepthInput("a", image, None, 100.0)) == 10).all() and (
        one.estimate(DepthInput("b/c", image, None, 100.0)) == 1
    ).all()
    with pytest.raises(BadPair, match=r"no depth map b\.png"):
        other.estimate(DepthInput("b", image, None, 100.0))
    with pytest.raises(UserError, match="no folder memory://none"):
        parse_depth("maps=memory://none", has_true=False)


def test_a_store_of_one_process_is_refused_to_workers(synth: Callable[..., Ran], msrs: Path) -> None:
    at, args = f"msrs={msrs}", ("build", "--task", "vif", "--workers", "2")
    ran = synth(*args, "--data", at, "--out", "memory://x")
    said = "--out memory://x: memory:// is one process's own: add --executor serial"
    assert (ran.code, ran.error) == (2, f"synth: error: {said}")
    ran = synth(*args, "--data", "msrs=memory://d")
    assert (ran.code, "--data msrs=memory://d: memory:// is one" in ran.error) == (2, True)
    ran = synth(*args, "--data", "msrs=memory://d", "--executor", "serial")
    said = "--data msrs=memory://d: folder memory://d does not exist"
    assert (ran.code, ran.error) == (2, f"synth: error: {said}")


@pytest.mark.slow
def test_a_store_that_fails_is_one_line_and_the_build_goes_on(
    memory: MemoryFileSystem, broken: dict[str, Exception], synth: Callable[..., Ran], msrs: Path, tmp_path: Path
) -> None:
    put(memory, msrs, "memory://data/MSRS")
    more = [word for item in SETS for word in ("--set", item)]
    args = ("build", "--task", "vif", "--n", "1", "--shard-size", "2", "--executor", "serial", *more)
    broken["000001.json"] = RuntimeError("connection\nreset")
    ran = synth(*args, "--data", "msrs=broken://data/MSRS", "--out", "broken://out")
    assert (ran.code, ran.error) == (
        1, "synth: error: broken://out/vif-train-000001.tar: cannot be written: connection reset; "
        "run the same command to go on",
    )  # fmt: skip
    assert "out: broken://out: a store has no locks: run one build there at a time" in ran.err
    broken.clear()
    broken["D.png"] = TimeoutError("timed out")
    ran = synth(*args, "--data", "msrs=broken://data/MSRS", "--out", "broken://out")
    assert ran.code == 1 and "2 of 3 shards failed" in ran.error and "timed out" in ran.error
    broken.clear()
    ran = synth(*args, "--data", "msrs=broken://data/MSRS", "--out", "broken://out")
    assert (ran.code, "(1 were there)" in ran.out) == (0, True)
    make(str(tmp_path / "out"), str(msrs))
    assert held("memory://out") == folder_bytes(tmp_path / "out")
    broken["-probe"] = PermissionError("Forbidden")
    ran = synth(*args, "--data", f"msrs={msrs}", "--out", "broken://other")
    assert (ran.code, "access denied: Forbidden" in ran.error) == (2, True)


def test_two_builds_of_one_url_are_found_out(memory: MemoryFileSystem, msrs: Path) -> None:
    def meddle(done: int, total: int) -> None:
        if done == 4:
            receipt = json.loads(memory.cat_file("memory://out/vif-train-000000.json"))
            memory.pipe_file("memory://out/vif-train-000000.json", json.dumps(receipt | {"digest": "0" * 64}).encode())

    with pytest.raises(
        WorkIncomplete, match=r"vif-train-000000.(tar|json): another build wrote to this folder meanwhile"
    ):
        make("memory://out", str(msrs), progress=meddle)
    assert not memory.exists("memory://out/dataset.json")


def test_a_build_that_ended_meanwhile_is_not_written_over(memory: MemoryFileSystem, msrs: Path) -> None:
    """Two builds find an empty store; one ends before the other's second shard, which then leaves its files alone."""
    ended: dict[str, bytes] = {}

    def meddle(done: int, total: int) -> None:
        if done == 0:
            make("memory://out", str(msrs), seed=1)
            ended.update(held("memory://out"))

    with pytest.raises(WorkIncomplete, match=r"vif-train-000000\.tar: another build wrote to this folder meanwhile"):
        make("memory://out", str(msrs), progress=meddle)
    assert held("memory://out") == ended


@pytest.mark.slow
def test_the_cache_may_be_a_url(
    memory: MemoryFileSystem, broken: dict[str, Exception], msrs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLEARFUSE_CACHE", "broken://cache")
    first = make("memory://one", str(msrs), variants=2)
    assert first.made.truths == 6
    again = make("memory://two", str(msrs), variants=2)
    assert again.made.truths == 0 and held("memory://one") == held("memory://two")
    assert {each.kind: each.entries for each in cache.usage()}["truth"] == 6
    paths = [str(path) for path in sorted(msrs.rglob("*.png"))]
    small = thumbnails(paths, str(msrs))
    assert len(small) == 16 and (storage.locate("broken://cache/thumbnails")).is_dir()
    entry = cache.entry("depth", 1)
    broken[entry.name] = ConnectionError("no route")
    assert not cache.keep(entry, b"map") and cache.load_cached(entry) is None
    broken.clear()
    assert cache.keep(entry, b"map") and cache.load_cached(entry) == b"map"
    assert sum(each.entries for each in cache.clear()) > 12 and not any(each.entries for each in cache.usage())
    broken["-probe"] = ConnectionError("no route")
    with pytest.raises(WorkIncomplete, match="no route; run the same command again"):
        make("memory://three", str(msrs), variants=2)
    with pytest.raises(UserError, match="CLEARFUSE_CACHE memory://c: memory:// is one process's own"):
        monkeypatch.setenv("CLEARFUSE_CACHE", "memory://c")
        make("shards", str(msrs), executor="processes", workers=2)


def test_a_stores_errors_cross_processes() -> None:
    for kind in (Unreachable, Refused):
        error = kind(errno.EIO, "no route", "s3://b/x")
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is kind and str(again) == str(error) and str(error).startswith("s3://b/x: no route")
