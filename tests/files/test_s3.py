"""A local S3 server as input and output: the bytes of a folder's build, resume, and the commands that read shards."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from clearfuse.synth.builder.run import build
from clearfuse.synth.files import cache, storage
from clearfuse.synth.types import UserError
from conftest import Ran, folder_bytes, run_process

pytestmark = pytest.mark.slow

COMMON: dict[str, Any] = {"n": "2", "shard_size": 2}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of a server that holds the bucket ``fusion``."""
    moto = pytest.importorskip("moto.server", reason="needs moto: pip install 'clearfuse[dev]'")
    pytest.importorskip("s3fs", reason="needs s3fs: pip install 'clearfuse[s3]'")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    running = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def s3(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """S3 as this process and its workers see it, with an empty bucket."""
    import s3fs

    settings = {"ENDPOINT_URL": server, "ACCESS_KEY_ID": "key", "SECRET_ACCESS_KEY": "secret", "MAX_ATTEMPTS": "1"}
    for name, value in (settings | {"DEFAULT_REGION": "us-east-1"}).items():
        monkeypatch.setenv(f"AWS_{name}", value)
    s3fs.S3FileSystem.clear_instance_cache()
    fs = fsspec.filesystem("s3")
    fs.mkdir("fusion")
    yield fs
    fs.rm("fusion", recursive=True)
    for one in list(s3fs.S3FileSystem._cache.values()):
        one.close_session(one.loop, one._s3)
    s3fs.S3FileSystem.clear_instance_cache()


def held(url: str) -> dict[str, bytes]:
    """Every object of a folder."""
    return {path.name: path.read_bytes() for path in storage.locate(url).iterdir()}


def test_s3_in_and_out_is_the_same_bytes(s3: Any, msrs: Path, tmp_path: Path, synth: Callable[..., Ran]) -> None:
    s3.put(str(msrs), "fusion/MSRS", recursive=True)
    build("vif", out=str(tmp_path / "out"), data=[f"msrs={msrs}"], executor="serial", **COMMON)
    expected = folder_bytes(tmp_path / "out")
    there: dict[str, Any] = {"data": ["msrs=s3://fusion/MSRS"], **COMMON}
    build("vif", out="s3://fusion/serial", executor="serial", **there)
    assert held("s3://fusion/serial") == expected
    build("vif", out="s3://fusion/shards/vif", executor="processes", workers=2, **there)
    assert held("s3://fusion/shards/vif") == expected
    build("vif", out=str(tmp_path / "from"), executor="serial", **there)
    assert folder_bytes(tmp_path / "from") == expected

    for name in ("vif-train-000000.tar", "vif-train-000001.json", "dataset.json", "README.md"):
        s3.rm_file(f"fusion/serial/{name}")
    assert build("vif", out="s3://fusion/serial", executor="serial", **there).resumed == 1
    assert held("s3://fusion/serial") == expected

    ran = synth("verify", "s3://fusion/shards/vif", "--replay", "--workers", "1", "--json")
    assert (ran.code, json.loads(ran.out)) == (0, {"ok": True, "samples": 6, "replayed": 6, "problems": []})
    ran = synth("inspect", "s3://fusion/shards/vif/vif-train-000001.tar", "--json")
    assert (ran.code, json.loads(ran.out)["samples"]) == (0, 2)
    own = {name: value for name, value in os.environ.items() if name != "AWS_ENDPOINT_URL"}
    own |= {"FSSPEC_S3_ENDPOINT_URL": os.environ["AWS_ENDPOINT_URL"]}
    ran = run_process("inspect", "s3://fusion/shards/vif", env=own)  # its sessions end without a word
    assert (ran.returncode, "nclosed" in ran.stderr) == (0, False) and "6 samples in 3 shards" in ran.stdout


def test_a_run_on_shards_at_s3_is_the_run_on_a_folder_s(
    s3: Any, msrs: Path, tmp_path: Path, train: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each shard is downloaded once, to the cache; the second source is a pattern."""
    monkeypatch.setenv("CLEARFUSE_CACHE", str(tmp_path / "cache"))
    for name, variants in (("one", 1), ("two", 2)):
        pairs: dict[str, Any] = {"data": [f"msrs={msrs}"], "variants": variants, "executor": "serial", **COMMON}
        build("vif", out=str(tmp_path / name), **pairs)
        s3.put(str(tmp_path / name), f"fusion/{name}", recursive=True)
    options = {"--preset": "tiny-reg", "--steps": 2, "--crop": 32, "--batch": 2, "--workers": 0, "--device": "cpu"}
    asked = [str(part) for option in (options | {"--tracker": "none"}).items() for part in option]
    sources = {"there": ("s3://fusion/one", "s3://fusion/t*/*.tar"), "here": (tmp_path / "one", tmp_path / "two")}
    for name, shards in sources.items():
        ran = train("fit", *shards, *asked, "--out", tmp_path / "runs" / name)
        assert ran.code == 0, ran.err
    logs = [(tmp_path / "runs" / name / "log.jsonl").read_bytes() for name in sources]
    assert logs[0] == logs[1]
    copies = {path.relative_to(tmp_path / "cache"): path.stat().st_ino for path in (tmp_path / "cache").rglob("*.tar")}
    assert len(copies) == sum(len(list((tmp_path / name).glob("*.tar"))) for name in ("one", "two"))
    ran = train("fit", *sources["there"], *asked, "--out", tmp_path / "runs/there")
    again = {path.relative_to(tmp_path / "cache"): path.stat().st_ino for path in (tmp_path / "cache").rglob("*.tar")}
    assert ran.code == 0 and again == copies
    ran = train("fit", "s3://fusion/none", *asked, "--out", tmp_path / "runs/none")
    assert (ran.code, ran.error) == (2, "train: error: s3://fusion/none: no such file or folder")


def test_a_cache_on_s3_is_shared(s3: Any, msrs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEARFUSE_CACHE", "s3://fusion/cache")
    options: dict[str, Any] = {"data": [f"msrs={msrs}"], "variants": 2, "executor": "serial", **COMMON}
    first = build("vif", out="s3://fusion/one", **options)
    again = build("vif", out="s3://fusion/two", **options)
    assert (first.made.truths, again.made.truths) == (6, 0) and held("s3://fusion/one") == held("s3://fusion/two")
    assert {each.kind: each.entries for each in cache.usage()}["truth"] == 6
    cache.clear()
    assert not any(each.entries for each in cache.usage())
    monkeypatch.setenv("CLEARFUSE_CACHE", "s3://nowhere/cache")
    with pytest.raises(UserError, match="CLEARFUSE_CACHE s3://nowhere/cache: cannot be written: No such file"):
        build("vif", out="s3://fusion/three", **options)


def test_what_s3_refuses_is_one_line(
    s3: Any, msrs: Path, synth: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    args = ("build", "--task", "vif", "--executor", "serial", "--data", f"msrs={msrs}")
    ran = synth(*args, "--out", "s3://nowhere/out")
    assert (ran.code, ran.error) == (
        2, "synth: error: --out s3://nowhere/out: cannot be written: No such file or directory"
    )  # fmt: skip
    ran = synth("build", "--task", "vif", "--data", "msrs=s3://fusion/none")
    assert (ran.code, "folder s3://fusion/none does not exist" in ran.error) == (2, True)

    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    s3.__class__.clear_instance_cache()
    ran = synth("verify", "s3://fusion/out")
    assert (ran.code, "s3://fusion/out: " in ran.error and "Could not connect" in ran.error) == (1, True)
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
        monkeypatch.delenv(f"AWS_{name}")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    s3.__class__.clear_instance_cache()
    ran = synth(*args, "--out", "s3://fusion/out")
    assert (ran.code, "access denied: Unable to locate credentials" in ran.error) == (2, True)


def test_a_folder_is_listed_in_pages_and_by_how_names_start(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clearfuse.synth.files.remote.LISTED", 3)
    for number in range(9):
        s3.pipe_file(f"fusion/some/vif-train-{number:06d}.tar", b"x" * number)
    s3.pipe_file("fusion/some/.tmp-1-00000000-x", b"")
    s3.pipe_file("fusion/some/below/vif-train-000009.tar", b"")
    folder = storage.locate("s3://fusion/some")
    expected = {f"vif-train-{number:06d}.tar": number for number in range(9)}
    assert dict(storage.files(folder)) == expected | {".tmp-1-00000000-x": 0}
    assert dict(storage.files(folder, "vif-")) == expected
    assert dict(storage.files(folder, ".tmp-")) == {".tmp-1-00000000-x": 0}
    assert dict(storage.files(storage.locate("s3://fusion/none"))) == {}
