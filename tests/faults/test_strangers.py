"""Other people's files, damaged receipts, mixed builds, damaged samples: nothing is lost, each is one clear line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clearfuse.synth.builder.run import build
from clearfuse.synth.review.verify import verify
from clearfuse.synth.shards.tar import read_shard, write_shard
from clearfuse.synth.types import UserError, WorkIncomplete
from conftest import Ran, folder_bytes, save, textured

pytestmark = pytest.mark.slow

Synth = Callable[..., Ran]


def make(out: Path, msrs: Path, **options: Any) -> Any:
    """A build of three shards."""
    common: dict[str, Any] = {"executor": "serial", "n": "2", "shard_size": 2, "codec": "png"}
    return build("vif", out=str(out), data=[f"msrs={msrs}"], **(common | options))


def test_overwrite_touches_nobody_elses_files(tmp_path: Path, msrs: Path) -> None:
    out = tmp_path / "out"
    foreign = {"trip-2024-123456.json": b"{}", "trip-2024-123456.tar": b"tar", ".tmp-mine": b"x", "notes.json": b"[]"}
    out.mkdir()
    for name, data in foreign.items():
        (out / name).write_bytes(data)
    (out / ".tmp-keep").mkdir()
    (out / "trip-2024-123456.tar").rename(tmp_path / "moved.tar")
    make(out, msrs)
    make(out, msrs, seed=2, overwrite=True)
    for name, data in foreign.items():
        assert name.endswith(".tar") or (out / name).read_bytes() == data
    (out / "trip-2024-123456.tar").write_bytes(b"tar")
    with pytest.raises(UserError, match=r"trip-2024-123456\.tar is no shard of this build: move it"):
        make(out, msrs, seed=2)
    assert (out / "trip-2024-123456.tar").read_bytes() == b"tar"


@pytest.mark.parametrize("name", ["dataset.json", "README.md", "index.json", "croissant.json"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_foreign_index_or_card_is_never_written_over(tmp_path: Path, msrs: Path, name: str, overwrite: bool) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text('{"mine": 1}')
    with pytest.raises(UserError):
        make(out, msrs, overwrite=overwrite)
    assert folder_bytes(out) == {name: b'{"mine": 1}'}


def test_an_edited_card_stays(tmp_path: Path, msrs: Path) -> None:
    out = tmp_path / "out"
    make(out, msrs)
    with (out / "README.md").open("a") as file:
        file.write("\nMy note.\n")
    make(out, msrs)
    assert (out / "README.md").read_text().endswith("My note.\n")


def test_a_lost_index_is_written_again(tmp_path: Path, msrs: Path) -> None:
    out = tmp_path / "out"
    make(out, msrs)
    before = folder_bytes(out)
    (out / "dataset.json").unlink()
    make(out, msrs)
    assert folder_bytes(out) == before


def test_a_truncated_shard_is_rendered_again(tmp_path: Path, msrs: Path) -> None:
    out = tmp_path / "out"
    make(out, msrs)
    before = folder_bytes(out)
    os.truncate(out / "vif-train-000001.tar", 5000)
    assert make(out, msrs).resumed == 2
    assert folder_bytes(out) == before


@pytest.mark.slow
@pytest.mark.parametrize("text", ["[]", "null", "{", '{"schema": 1}', ""])
@pytest.mark.parametrize("name", ["dataset.json", "vif-train-000001.json"])
def test_a_damaged_receipt_or_index_is_one_line(synth: Synth, tmp_path: Path, msrs: Path, name: str, text: str) -> None:
    out = tmp_path / "out"
    make(out, msrs)
    (out / name).write_text(text)
    with pytest.raises(UserError) as error:
        make(out, msrs)
    mend = "remove it and run the build again" if name == "dataset.json" else "remove it and its tar"
    assert str(error.value).startswith(f"{out / name}: ") and mend in str(error.value)
    ran = synth("verify", out, "--workers", "1")
    assert ran.code == 1 and f"problem: {out / name}: " in ran.out


def test_a_mixed_build_is_found(tmp_path: Path, msrs: Path) -> None:
    make(tmp_path / "one", msrs)
    make(tmp_path / "two", msrs, seed=5)
    for end in ("tar", "json"):
        (tmp_path / f"two/vif-train-000001.{end}").replace(tmp_path / f"one/vif-train-000001.{end}")
    report = verify([str(tmp_path / "one")])
    assert report.problems == [f"{tmp_path / 'one/vif-train-000001.tar'}: is of another build than dataset.json"]


def _without(field: str) -> Callable[[dict[str, Any]], Any]:
    return lambda meta: {k: v for k, v in meta.items() if k != field}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "said"),
    [
        *((_without(f), f"sample 000000001: json: {f} is missing") for f in ("pair", "fuser", "ratio", "seed")),
        (lambda meta: [1], "json: must be a table, not [1]"),
        (lambda meta: meta | {"schema": True}, "json: schema = True: must be a whole number"),
        (
            lambda meta: meta | {"schema": 2, "n": "?"},
            "schema 2 is newer than this version reads (1); upgrade clearfuse",
        ),
        (lambda meta: meta | {"channels": 3}, "json: channels = 3: must be a table"),
        (lambda meta: meta | {"channels": {"a": 4}}, "json: channels.a = 4: allowed: 1, 3"),
        (lambda meta: meta | {"task": ["vif"]}, "json: task = ['vif']: allowed: vif, mef, mff"),
        (lambda meta: meta | {"crop": [0, 0, -64, 64]}, "json: crop.2 = -64: must be at least 1"),
        (lambda meta: meta | {"crop": [0, 0, 64]}, "json: crop.3 is missing"),
        (lambda meta: meta | {"pair": "\ud800"}, "json: not valid JSON: "),
        (lambda meta: meta | {"steps": 5}, "json: steps = 5: must be a list"),
        (
            lambda meta: meta | {"gt_quality": {"CC": float("nan")}},
            "json: gt_quality.CC = nan: must be a finite number",
        ),
        (lambda meta: meta | {"n": 5}, "2 steps, n is 5"),
        (lambda meta: meta | {"steps": meta["steps"][::-1]}, "steps are not in physical order"),
        (
            lambda meta: meta | {"steps": [s | {"op": None} for s in meta["steps"]]},
            "json: steps.0.op = None: must be a text",
        ),
    ],
)
def test_a_damaged_sample_is_named_and_the_others_are_checked(
    synth: Synth, tmp_path: Path, msrs: Path, change: Callable[[dict[str, Any]], Any], said: str
) -> None:
    out = tmp_path / "out"
    make(out, msrs, shard_size=6)
    path = out / "vif-train-000000.tar"
    content = list(read_shard(path))
    content[1][1]["json"] = json.dumps(change(json.loads(content[1][1]["json"]))).encode()
    write_shard(path, content)
    report = verify([str(path)], replay=True)
    faults = [line for line in report.problems if "sample 000000001: " in line]
    assert len(faults) == 1 and said in faults[0]
    assert (report.samples, report.replayed) == (6, 5)
    for command in ("inspect", "preview"):
        ran = synth(command, path, *(("--out", tmp_path / "p.png") if command == "preview" else ()))
        assert ran.code in (0, 2) and "Error:" not in ran.err.replace("KeyError", "")


def test_an_input_that_cannot_be_read_is_a_failure_not_a_reject(
    tmp_path: Path, msrs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.read_bytes

    def flaky(self: Path) -> bytes:
        if self.name == "00002D.png":
            raise OSError(5, "Input/output error")
        return real(self)

    monkeypatch.setattr(Path, "read_bytes", flaky)
    with pytest.raises(WorkIncomplete, match="1 of 3 shards failed"):
        make(tmp_path / "out", msrs, max_rejects=1.0)
    monkeypatch.undo()
    assert make(tmp_path / "out", msrs).samples == 6


def test_other_contents_of_the_same_maps_are_another_build(tmp_path: Path, msrs: Path) -> None:
    import numpy as np

    maps = tmp_path / "maps"
    maps.mkdir()
    for number in range(1, 7):
        np.save(maps / f"{number:05d}D.npy", np.full((64, 80), 5.0, np.float32))
    make(tmp_path / "out", msrs, depth=f"maps={maps}")
    np.save(maps / "00001D.npy", np.full((64, 80), 200.0, np.float32))
    with pytest.raises(UserError, match=r"holds another build: depth\.msrs\.weights was "):
        make(tmp_path / "out", msrs, depth=f"maps={maps}")


def test_odd_files_among_the_pairs_are_ignored(tmp_path: Path, msrs: Path) -> None:
    for name in ("fr²1².png", "vide o.png"):
        save(msrs / "train/vi" / name, textured(1))
        save(msrs / "train/ir" / name, textured(2, channels=1))
    (msrs / "train/vi/gone.png").symlink_to(msrs / "nowhere.png")
    (msrs / "train/vi/dir.png").mkdir()
    os.mkfifo(msrs / "train/vi/pipe.png")
    assert make(tmp_path / "out", msrs).samples == 8


def test_degrade_never_writes_over_its_source(synth: Synth, tmp_path: Path) -> None:
    source = save(tmp_path / "x.png", textured(1))
    before = source.read_bytes()
    ran = synth("degrade", source, "--op", "jpeg", "--out", tmp_path)
    assert (ran.code, ran.error) == (
        2,
        f"synth: error: --out {tmp_path}: x.png would be written over; choose another folder",
    )
    assert source.read_bytes() == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"limit": "3"}, "--limit '3': must be a whole number"),
        ({"seed": 1.5}, "--seed 1.5: must be a whole number"),
        ({"overwrite": 1}, "--overwrite 1: must be true or false"),
        ({"data": 3}, "--data 3: must be a list"),
        ({"timeout": -1}, "--timeout -1: must be at least 0"),
        ({"partial": float("nan")}, "--partial nan: must be a finite number"),
        ({"out": ""}, "--out is empty: name a folder"),
    ],
)
def test_the_function_names_a_wrong_type(tmp_path: Path, msrs: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as error:
        build("vif", **({"out": str(tmp_path / "o"), "data": f"msrs={msrs}"} | options))
    assert str(error.value) == said


def test_the_function_takes_what_a_caller_has(tmp_path: Path, msrs: Path) -> None:
    report = build("vif", out=tmp_path / "o", data=f"msrs={msrs}", n=1, limit=2, executor="serial")
    assert report.samples == 2


RECIPES = [
    ("exclusive = 3", "exclusive = 3: must be a list"),
    ("at_most = 5", "at_most = 5: must be a list"),
    ('exclusive = [[["haze"]]]', "exclusive.0.0 = ['haze']: must be a text"),
    ('at_most = [{ of = ["haze"], n = "x" }]', "at_most.0.n = 'x': must be a whole number"),
    ('at_most = [{ of = ["haze"], n = 1.7 }]', "at_most.0.n = 1.7: must be a whole number"),
    ("at_most = [{ n = 1 }]", "at_most.0.of is missing"),
    ('ratios = { "²:1" = 1 }', "ratios: '²:1' must be a ratio such as 4:3"),
    ("ratios = {}", "ratios: at least one weight must be above 0"),
    ("operators.haze.weight = inf", "operators.haze.weight = inf: must be a weight in [0, 1e+09]"),
    ("operators.haze.params = 3", "operators.haze.params = 3: must be a table"),
    ("operators.jpeg.params.quality = inf", "operators.jpeg.params: jpeg.quality = inf: must be a finite number"),
    (
        "operators.haze.severity = true",
        "operators.haze.severity = True: must be a number in [0, 1], [low, high], or a schedule of these",
    ),
    ("operators.haze.target = 'a'", "operators.haze.target = 'a': must be a table"),
]


@pytest.mark.parametrize(("text", "said"), RECIPES)
def test_a_recipe_of_the_wrong_type_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    from clearfuse.synth.samples.recipe import load_recipe

    path = tmp_path / "mine.toml"
    path.write_text(f'schema = 1\ntask = "vif"\n{text}\n[operators.rain]\n')
    with pytest.raises(UserError) as error:
        load_recipe(path)
    assert str(error.value).startswith(f"{path}: {said}")


@pytest.mark.slow
@pytest.mark.parametrize("when", ["starting", "building"])
def test_an_interrupted_build_says_so_and_goes_on(tmp_path: Path, msrs: Path, when: str) -> None:
    out = tmp_path / "out"
    options = ["--variants", "20", "--shard-size", "2", "--n", "3", "--workers", "2", "--out", str(out)]
    command = [
        sys.executable,
        "-m",
        "clearfuse.synth.cli",
        "build",
        "--task",
        "vif",
        "--data",
        f"msrs={msrs}",
        *options,
    ]
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True)
    if when == "starting":
        time.sleep(0.3)
    else:  # the first of 60 shards has landed
        while not list(out.glob("vif-train-*.json")) and process.poll() is None:
            time.sleep(0.005)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode in (1, -signal.SIGINT)
    if when == "building":  # before the command line has started, the interpreter speaks for itself
        assert "Traceback" not in err
        assert err.splitlines()[-1] == "synth: error: interrupted; run the same command to go on"
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    assert verify([str(out)]).ok
