"""``synth datasets check``: every planted fault is found and named, and good folders have none."""

from __future__ import annotations

import json
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_sequences import sequence

from clearfuse.synth.datasets.check import CheckReport, check_sets
from clearfuse.synth.datasets.registration import displacement
from conftest import Ran, save, textured

Synth = Callable[..., Ran]


def problems(**sets: Path | str) -> list[tuple[str, str, str]]:
    """(pair, check, detail) of what is wrong with data sets' folders."""
    report = check_sets({name: str(at) for name, at in sets.items()})
    return [(one.pair, one.check, one.detail) for one in report.problems]


def test_a_sound_folder_is_clean(msrs: Path, synth: Synth) -> None:
    ran = synth("datasets", "check", f"msrs={msrs}")
    assert ran.code == 0
    assert ran.out.splitlines() == [
        "msrs: 8 pairs (6 train, 2 test), published: 1083 train, 361 test, 1 other files ignored",
        "ok",
    ]


def test_every_planted_fault_is_found_and_named(msrs: Path, synth: Synth) -> None:
    train, test = msrs / "train", msrs / "test"
    whole = (train / "vi/00001D.png").read_bytes()
    (train / "vi/00001D.png").write_bytes(whole[: len(whole) // 2])
    (train / "vi/00002D.png").rename(msrs / "swap.png")
    (train / "ir/00002D.png").rename(train / "vi/00002D.png")
    (msrs / "swap.png").rename(train / "ir/00002D.png")
    save(train / "ir/00003D.png", textured(103, 120, 96, channels=1))
    shutil.copy(train / "vi/00004D.png", test / "vi/00008D.png")
    near = Image.open(train / "vi/00005D.png").resize((152, 120)).resize((160, 128))
    near.save(test / "vi/00007D.png")
    save(train / "ir/00006D.png", textured(106))
    (train / "ir/00009D.png").write_bytes((train / "ir/00004D.png").read_bytes())
    ran = synth("datasets", "check", f"msrs={msrs}", "--json")
    report = json.loads(ran.out)
    found = {(one["pair"], one["check"]): one["detail"] for one in report["problems"]}
    assert ran.code == 1 and report["ok"] is False
    assert set(found) == {
        ("00001D", "unreadable"),
        ("00002D", "modality"),
        ("00003D", "size"),
        ("00004D", "duplicate"),
        ("00005D", "duplicate"),
        ("00006D", "modality"),
        ("00009D", "partner"),
    }
    assert found["00001D", "unreadable"].startswith("a: 00001D.png: cannot be read: ")
    assert found["00002D", "modality"].startswith("visible and infrared are swapped: b is coloured")
    assert found["00003D", "size"] == "a 160x128, b 120x96"
    assert found["00004D", "duplicate"] == "in train is the same file as msrs/00008D in test"
    assert found["00005D", "duplicate"].startswith("in train is nearly msrs/00007D in test (")
    text = synth("datasets", "check", f"msrs={msrs}").out.splitlines()
    assert text[0].split() == ["set", "pair", "check", "what"]
    assert text[-1].startswith("7 problems: ") and "2 duplicate" in text[-1]


def test_duplicates_are_found_across_sets(tmp_path: Path, msrs: Path) -> None:
    for split, number in (("train", 7), ("test", 1)):
        save(tmp_path / "FMB" / split / "Visible" / f"{number}.png", textured(number))
        save(tmp_path / "FMB" / split / "Infrared" / f"{number}.png", textured(200 + number, channels=1))
    found = problems(msrs=msrs, fmb=tmp_path / "FMB")
    assert sorted((check, detail) for _, check, detail in found) == [
        ("duplicate", "in test is the same file as fmb/7 in train"),
        ("duplicate", "in train is the same file as fmb/1 in test"),
    ]


def test_an_over_exposed_frame_in_the_wrong_folder(tmp_path: Path) -> None:
    picture = textured(1)
    for name, (a, b) in {"1": (picture // 3, picture), "2": (picture, picture // 3)}.items():
        save(tmp_path / "under" / f"{name}.png", a)
        save(tmp_path / "over" / f"{name}.png", b)
    assert [(pair, check) for pair, check, _ in problems(**{"sice-flat": tmp_path}) if check != "duplicate"] == [
        ("2", "exposure")
    ]


def test_broken_frames_of_a_sequence(tmp_path: Path) -> None:
    sequence(tmp_path / "Tower")
    (tmp_path / "Tower/broken.png").write_bytes(b"no picture")
    assert [(pair, check) for pair, check, _ in problems(kedema=tmp_path)] == [("broken", "unreadable")]


def test_a_displaced_pair_is_measured(tmp_path: Path) -> None:
    wide = textured(7, 720, 560)
    a, b = wide[40:520, 40:680], wide[40 - 12 : 520 - 12, 40 - 30 : 680 - 30]
    assert displacement(a, a) is None
    assert displacement(a, 255 - a // 2) is None
    moved = displacement(a, b)
    assert moved is not None and np.abs(np.subtract(moved, (30, 12))).max() <= 3
    assert displacement(a, textured(8, 640, 480)) is None
    for name, image in (("a", a), ("b", b)):
        save(tmp_path / name / "1.png", image)
    report = check_sets({"folder": f"{tmp_path / 'a'},{tmp_path / 'b'}"}, "mff")
    assert [one.check for one in report.problems] == ["registration"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["msrs"], "msrs: must be NAME=DIR, such as msrs=/data/MSRS"),
        (["msrs=nowhere"], "--data msrs=nowhere: folder nowhere does not exist"),
        (["mrss=."], "unknown data set 'mrss': did you mean 'msrs'? "),
        (["scenes=."], "scenes=.: 'scenes' is built in: there is no folder to check"),
        (["msrs=a", "msrs=b"], "msrs=b: data set 'msrs' is given twice"),
        (["folder=a,b", "--task", "vis"], "unknown task 'vis': did you mean 'vif'? allowed: mef, mff, vif"),
    ],
)
def test_mistakes_are_one_line(synth: Synth, arguments: list[str], message: str) -> None:
    ran = synth("datasets", "check", *arguments)
    assert ran.code == 2 and ran.error.startswith(f"synth: error: {message}")


def test_a_report_without_problems_is_ok() -> None:
    assert CheckReport().to_json() == {"ok": True, "sets": {}, "problems": []}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "at"),
    [
        *(("msrs", "vif/MSRS"), ("roadscene", "vif/RoadScene"), ("vifb", "vif/VIFB"), ("m3fd", "vif/M3FD")),
        *(("sice", "mef/SICE"), ("mefb", "mef/MEFB"), ("nyud", "mff/NYU-D-100"), ("lytro", "mff/Lytro")),
    ],
)
def test_published_sets_are_clean(shared: Path, name: str, at: str) -> None:
    assert problems(**{name: shared / "data" / at}) == []


def test_list_datasets_counts_what_a_folder_holds(synth: Synth, msrs: Path) -> None:
    entries = json.loads(synth("list", "datasets", "--data", f"msrs={msrs}", "--json").out)
    assert entries["msrs"]["expected"] == {"train": 1083, "test": 361}
    assert entries["msrs"]["found"] == {"pairs": 8, "train": 6, "test": 2, "gt": 0, "ignored": 1, "unpaired": 0}
    assert entries["sice"]["found"] is None and entries["sice"]["sequences"] and entries["sice"]["gt"]
    assert set(entries["llvip"]) >= {"task", "splits", "licence", "citation", "url", "layout"}
    line = next(
        x for x in synth("list", "datasets", "--data", f"msrs={msrs}").out.splitlines() if x.startswith("msrs ")
    )
    assert "pairs: 1083 train, 361 test; found: 8 pairs, 6 train, 2 test" in line and "licence: " in line
    ran = synth("list", "fusers", "--data", f"msrs={msrs}")
    assert (ran.code, "has no effect in a list of fusers" in ran.error) == (2, True)


def test_fingerprints_are_lines_of_the_table(synth: Synth, msrs: Path) -> None:
    table = tomllib.loads(synth("datasets", "fingerprints", f"msrs={msrs}").out)
    assert set(table["msrs"]) == {f"train/{i:05d}D" for i in range(1, 7)} | {"test/00007D", "test/00008D"}
    assert all(len(texts) == 1 and len(texts[0]) == 128 for texts in table["msrs"].values())
