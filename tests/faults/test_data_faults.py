"""Shards that are damaged, gone or others, before a run, in it, and before it goes on: a line, checkpoints whole."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from clearfuse.synth.builder.run import build
from clearfuse.synth.shards.tar import read_shard, write_shard
from clearfuse.synth.types import WorkIncomplete
from clearfuse.train.runs.options import RunOptions
from clearfuse.train.runs.settings import Settings
from clearfuse.train.training import checkpoint
from clearfuse.train.training.trainer import fit
from conftest import Ran, save, textured

pytestmark = pytest.mark.slow

Train = Callable[..., Ran]
LAST = "vif-train-000001.tar"
SMALL = ["config.depth=1", "config.width=32", "config.heads=2", "config.lora=8", "schedule.warmup=1"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made")
    for number in range(8):
        save(root / "a" / f"{number}.png", textured(number))
        save(root / "b" / f"{number}.png", textured(100 + number, channels=1))
    data = f"folder={root / 'a'},{root / 'b'}"
    build("vif", data=[data], out=str(root / "out"), limit=5, n="1-2", shard_size=3, executor="serial", workers=1)
    return root / "out"


@pytest.fixture
def shards(made: Path, tmp_path: Path) -> Path:
    """Five samples in two shards, one's own to damage."""
    return Path(shutil.copytree(made, tmp_path / "shards"))


@pytest.fixture(autouse=True)
def _all_train(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clearfuse.train.data.corpus.HELD_OUT", 0.0)


def damage(shard: Path) -> None:
    """Zeros where the first picture of the shard begins."""
    data = bytearray(shard.read_bytes())
    start = data.index(b"RIFF")
    data[start : start + 200] = bytes(200)
    shard.write_bytes(data)


def checkpoints(out: Path) -> list[str]:
    return [path.name.partition(".")[0] for path in checkpoint.found(out / "checkpoints")]


def options(out: Path, workers: int = 1) -> list[object]:
    sets = [part for item in SMALL for part in ("--set", item)]
    more = ["--preset", "tiny-reg", "--workers", str(workers), "--checkpoint-every", "1", "--steps", "4", "--out", out]
    return [*sets, "--crop", "32", "--batch", "2", *more]


def test_a_shard_that_is_cut_short_is_refused_before_work(train: Train, shards: Path, tmp_path: Path) -> None:
    os.truncate(shards / LAST, (shards / LAST).stat().st_size // 2)
    ran = train("fit", shards, *options(tmp_path / "run"))
    assert ran.code == 2 and f"{LAST}: not a whole shard" in ran.error and ran.error.count("\n") == 0
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("member", ["json", "gt.webp", "txt"])
def test_a_sample_without_a_member_is_refused_before_work(
    train: Train, shards: Path, tmp_path: Path, member: str
) -> None:
    samples = list(read_shard(shards / LAST))
    samples[1][1].pop(member)
    write_shard(shards / LAST, samples)
    ran = train("fit", shards, *options(tmp_path / "run"))
    assert ran.code == 2 and f"{LAST}: sample {samples[1][0]}" in ran.error and ran.error.count("\n") == 0
    assert not (tmp_path / "run").exists()


def test_a_damaged_picture_ends_the_run_and_names_its_sample(train: Train, shards: Path, tmp_path: Path) -> None:
    """In a loader process: the line is the same, nothing hangs, and the run goes on when the shard is mended."""
    whole = (shards / LAST).read_bytes()
    damage(shards / LAST)
    ran = train("fit", shards, *options(tmp_path / "run"))
    assert ran.code == 1 and ran.error.count("\n") == 0, ran.err
    assert f"{LAST}: sample 000000003: a does not decode: no WebP image; see synth verify" in ran.error
    for name in checkpoints(tmp_path / "run"):
        assert name.startswith("step-")
    (shards / LAST).write_bytes(whole)
    ran = train("fit", shards, *options(tmp_path / "run", workers=0), "--json")
    assert ran.code == 0 and json.loads(ran.out)["step"] == 4, ran.err


def test_a_shard_that_vanishes_in_a_run_is_named_and_the_last_checkpoint_is_whole(shards: Path, tmp_path: Path) -> None:
    """Where the run had not opened it; one that is open is read to the end, as the system has it."""
    kept = (shards / LAST).read_bytes()
    settings = Settings.of("tiny-reg", sets=SMALL, crop=32, batch=2, steps=3)
    run_options = RunOptions(checkpoint_every=1)
    paths = [str(shards / "vif-train-000000.tar"), str(shards / LAST)]
    with pytest.raises(WorkIncomplete) as error:
        fit(
            paths,
            str(tmp_path / "run"),
            settings,
            run_options=run_options,
            progress=lambda report: (shards / LAST).unlink(missing_ok=True),
        )
    assert str(error.value).startswith(f"{shards / LAST}: sample 00000000")
    assert "the shard is gone since the run began" in str(error.value)
    (shards / LAST).write_bytes(kept)
    assert fit(paths, str(tmp_path / "run"), settings, run_options=run_options).step == 3


def test_other_shards_before_a_run_goes_on_are_named(train: Train, shards: Path, tmp_path: Path) -> None:
    usual = [shards, *options(tmp_path / "run", workers=0)]
    assert train("fit", *usual).code == 0
    before, whole = checkpoints(tmp_path / "run"), (shards / LAST).read_bytes()
    kept = list(read_shard(shards / LAST))
    other = "a run on other shards: {}; choose another --out"
    changes = [f"{LAST} has changed", "vif-train-000002.tar is new"]
    for said in (f"{LAST}: is gone; copy or build it again", *map(other.format, changes)):
        if "gone" in said:
            (shards / LAST).unlink()
        elif "has changed" in said:
            write_shard(shards / LAST, kept[:1])
        else:
            (shards / LAST).write_bytes(whole)
            shutil.copy(shards / LAST, shards / "vif-train-000002.tar")
        ran = train("fit", *usual)
        assert ran.code == 2 and said in ran.error, ran.err
    assert checkpoints(tmp_path / "run") == before


def test_a_damaged_cache_ends_the_run_and_names_its_sample(train: Train, shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "cache"
    assert (
        train("cache", shards, "--preset", "tiny-reg", "--crop", "32", "--out", out, "--executor", "serial").code == 0
    )
    shard = out / LAST
    whole = shard.read_bytes()
    at = whole.index(b'"latent.a"') + 2000
    shard.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    ran = train("fit", out, *options(tmp_path / "run", workers=0))
    assert ran.code == 1 and f"{LAST}: sample 000000003: 0.safetensors is damaged" in ran.error, ran.err
    os.truncate(shard, len(whole) // 2)
    ran = train("fit", out, *options(tmp_path / "run2", workers=0))
    assert ran.code == 2 and f"{LAST}: not a whole shard" in ran.error


def test_no_command_writes_over_the_shards_that_it_reads(train: Train, synth: Train, shards: Path) -> None:
    held = {path: path.read_bytes() for path in shards.iterdir()}
    (shards.parent / "link").symlink_to(shards)
    for out in (shards, shards.parent / "link"):
        ran = train("cache", shards, "--preset", "tiny-reg", "--out", out, "--executor", "serial", "--overwrite")
        assert ran.code == 2 and "holds the shards to cache" in ran.error, ran.err
    for name in (LAST, LAST.replace(".tar", ".json"), "dataset.json"):
        ran = synth("verify", shards, "--out", shards / name)
        assert ran.code == 2 and "is no report of synth verify" in ran.error, ran.err
    assert {path: path.read_bytes() for path in shards.iterdir()} == held
