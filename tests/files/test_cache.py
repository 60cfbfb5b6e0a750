"""What is kept is found by what it was made of, whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from clearfuse.synth.files import cache
from clearfuse.synth.types import UserError


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CLEARFUSE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_an_entry_is_found_by_its_parts(own_folder: Path) -> None:
    path = cache.entry("truth", "pyramid", None, {"b": 1, "a": 2})
    assert path == cache.entry("truth", "pyramid", None, {"a": 2, "b": 1}) and own_folder in path.parents
    assert path != cache.entry("truth", "pyramid", "", {"a": 2, "b": 1}) != cache.entry("truth", "pyramid", None)
    assert cache.load_cached(path) is None
    assert cache.keep(path, b"one") and cache.load_cached(path) == b"one"
    assert cache.keep(path, b"two") and cache.load_cached(path) == b"two"
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    assert cache.load_cached(path) is None and not path.exists()
    assert cache.keep(path, b"") and cache.load_cached(path) == b""
    cache.forget(path)
    cache.forget(path)
    assert cache.load_cached(path) is None


def test_a_folder_that_cannot_be_written_keeps_nothing(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_folder.write_bytes(b"a file where the folder should be")
    assert not cache.keep(cache.entry("depth", 1), b"map")
    own_folder.unlink()

    def full(source: str, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    path = cache.entry("depth", 1)
    assert not cache.keep(path, b"map")
    assert list(path.parent.iterdir()) == [], "no temporary file stays"


def test_usage_and_clearing_by_kind(own_folder: Path) -> None:
    for kind, count in (("truth", 3), ("inverse", 2)):
        for k in range(count):
            cache.keep(cache.entry(kind, k), bytes(10))
    weights = own_folder / "weights/some.pth"
    weights.parent.mkdir()
    weights.write_bytes(b"weights")
    assert {each.kind: (each.entries, each.size) for each in cache.usage()} == {
        "truth": (3, 78), "quality": (0, 0), "depth": (0, 0), "inverse": (2, 52), "thumbnails": (0, 0)
    }  # fmt: skip
    assert sum(each.entries for each in cache.clear(("inverse",))) == 2
    assert sum(each.entries for each in cache.clear()) == 3
    assert not any(each.entries for each in cache.usage()) and weights.is_file()


def test_the_command_shows_and_clears(own_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from clearfuse.synth.cli.cache import clear_command, info_command

    cache.keep(cache.entry("depth", 1), bytes(2_000_000))
    info_command()
    assert "2.0 MB" in capsys.readouterr().out
    info_command(json_=True)
    assert json.loads(capsys.readouterr().out)["kinds"]["depth"] == {"entries": 1, "bytes": 2_000_016}
    with pytest.raises(UserError, match="unknown kind 'dept': did you mean 'depth'"):
        clear_command(kind=["dept"])
    clear_command(kind=["depth"], json_=True)
    assert json.loads(capsys.readouterr().out) == {"entries": 1, "bytes": 2_000_016}
    command: Callable[[], None] = clear_command
    command()
    assert capsys.readouterr().out == "removed 0, 0.0 MB\n"
