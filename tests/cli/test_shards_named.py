"""Every command that reads shards takes the same arguments, and finds the same shards by them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clearfuse.synth.builder.run import build
from clearfuse.synth.files.remote import Remote
from clearfuse.synth.shards.find import Shards, find_shards
from conftest import Ran, textured
from conftest import save as save_picture

Runner = Callable[..., Ran]
ALL = [f"vif-train-{number:06d}.tar" for number in range(3)]
COMMANDS = ("inspect", "verify", "preview", "fit", "cache", "eval", "tokenizers")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shards, five samples in all, and what a killed build left beside them."""
    root = tmp_path_factory.mktemp("named")
    for number in range(6):
        save_picture(root / "data/a" / f"{number}.png", textured(number, 64, 64))
        save_picture(root / "data/b" / f"{number}.png", textured(50 + number, 64, 64, channels=1))
    data = f"folder={root / 'data/a'},{root / 'data/b'}"
    build("vif", data=data, out=str(root / "vif"), n="1", shard_size=2, codec="png", depth="prior", executor="serial")
    shutil.copy(root / "vif" / ALL[0], root / "vif" / f".tmp-99999-deadbeef-{ALL[1]}")
    return root


@pytest.fixture
def store(shards: Path) -> Iterator[str]:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.put(f"{shards}/vif/", "/named/vif/", recursive=True)
    yield "memory://named"
    memory.rm("/named", recursive=True)


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the shards that a command was told of."""
    told: list[str] = []
    whole = Shards.__init__

    def listen(self: Shards, parts: list) -> None:
        whole(self, parts)
        told.extend(str(name) for _, names in parts for name in names)

    monkeypatch.setattr(Shards, "__init__", listen)
    return told


def command(name: str, out: Path) -> tuple[str, list[object]]:
    """(program, arguments before the shards) of a command."""
    small = ["--crop", "32", "--set", "config.width=64", "--set", "config.depth=1"]
    return {
        "inspect": ("synth", ["inspect"]),
        "verify": ("synth", ["verify", "--workers", "1"]),
        "preview": ("synth", ["preview", "--samples", "1", "--out", out / "sheet.png"]),
        "fit": ("train", ["fit", "--steps", "1", "--batch", "1", "--workers", "0", "--tracker", "none", *small]),
        "cache": ("train", ["cache", "--preset", "tiny-reg", "--executor", "serial", "--crop", "32"]),
        "eval": ("train", ["eval", "--model", "none", "--metrics", "PSNR", "--workers", "1", "--limit", "1"]),
        "tokenizers": ("train", ["tokenizers", "dct", "--limit", "1", "--json"]),
    }[name]  # fmt: skip


def call(name: str, where: str, out: Path, synth: Runner, train: Runner) -> Ran:
    program, args = command(name, out)
    if name in ("fit", "cache", "eval"):
        args = [*args, "--out", out / name]
    named = ["--shards", where] if name == "tokenizers" else [where]
    return (synth if program == "synth" else train)(*args, *named)


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize(
    ("where", "named"),
    [
        ("{shards}/vif", ALL),
        ("{shards}/vif/vif-train-000001.tar", ALL[1:2]),
        ("{shards}/vif/*-00000[12].tar", ALL[1:]),
        ("{shards}/v*", ALL),
        ("{shards}/vif/vif-train-{{000000..000001}}.tar", ALL[:2]),
        ("{store}/vif", ALL),
        ("{store}/vif/*-00000[12].tar", ALL[1:]),
        ("file://{shards}/vif", ALL),
    ],
)
def test_a_command_finds_the_shards_that_an_argument_names(
    name: str,
    where: str,
    named: list[str],
    shards: Path,
    store: str,
    found: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    synth: Runner,
    train: Runner,
) -> None:
    monkeypatch.setattr("clearfuse.train.data.corpus.HELD_OUT", 0.0)
    ran = call(name, where.format(shards=shards, store=store), tmp_path, synth, train)
    assert ran.code == 0, ran.err
    assert found[: len(named)] == named and set(found) == set(named)


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("{shards}/vif/vif-train-000002.tr", ": no such file or folder: did you mean 'vif-train-000002.tar'?"),
        ("{shards}/viff", ": no such file or folder: did you mean 'vif'?"),
        ("{shards}/none", ": no such file or folder"),
        ("{shards}/data/a", ": no shards in this folder"),
        ("{shards}/vof*", ": matches no shard and no folder"),
        ("{store}/vif/vif-train-000001.tr", ": no such file or folder: did you mean 'vif-train-000001.tar'?"),
    ],
)
def test_what_is_not_there_is_one_line_with_the_nearest_name(
    name: str, where: str, said: str, shards: Path, store: str, tmp_path: Path, synth: Runner, train: Runner
) -> None:
    at = where.format(shards=shards, store=store)
    ran = call(name, at, tmp_path, synth, train)
    program, _ = command(name, tmp_path)
    assert ran.code == 2
    assert ran.error == f"{program}: error: {at}{said}"


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("index", [True, False])
def test_a_shard_that_is_gone_is_one_line_that_names_it(
    name: str, index: bool, shards: Path, tmp_path: Path, synth: Runner, train: Runner
) -> None:
    part = shutil.copytree(shards / "vif", tmp_path / "part")
    (part / ALL[1]).unlink()
    (part / ALL[0]).unlink()
    if not index:  # the build is not finished: its receipts say what was there
        (part / "dataset.json").unlink()
    ran = call(name, str(part), tmp_path, synth, train)
    if name == "verify":
        assert ran.code == 1
        assert (f"{part / ALL[1]}: missing, though dataset.json lists it" in ran.out + ran.err) == index
        return
    said = f"{part / ALL[0]}: is gone, and 1 more; copy or build it again, or name the shards that are there: "
    program, _ = command(name, tmp_path)
    assert (ran.code, ran.error) == (2, f"{program}: error: {said}'{part / '*.tar'}'")
    ran = call(name, str(part / "*.tar"), tmp_path, synth, train)
    assert "is gone" not in ran.err


def test_a_shard_that_two_arguments_name_is_one(shards: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(shards / "vif")
    named = [
        str(shards / "vif" / ALL[2]),
        str(shards / "vif"),
        f"{os.path.relpath(shards)}/vif",
        str(tmp_path / "link"),
    ]
    found, folders = find_shards(named)
    assert [path.name for path in found] == [ALL[2], *ALL[:2]] and len(folders) == 3
    assert not any(isinstance(path, Remote) for path in found)


def test_a_leftover_of_a_killed_build_is_no_shard(shards: Path, synth: Runner) -> None:
    assert json.loads(synth("inspect", shards / "vif", "--json").out)["samples"] == 5
    assert synth("verify", shards / "vif", "--workers", "1").code == 0
