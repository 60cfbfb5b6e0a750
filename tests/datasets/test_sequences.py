"""Exposure sequences: pairing of frames by measured brightness, and the layouts of SICE."""

from __future__ import annotations

from pathlib import Path

import pytest

from clearfuse.synth.datasets.find import find_all
from clearfuse.synth.datasets.manifest import load_manifest
from clearfuse.synth.types import UserError
from conftest import save, textured

LIGHT = {"1": 40, "2": 118, "3": 224, "4": 12, "5": 158}
"""Mean brightness by file: as in SICE, the order of files is not that of exposures."""


def sequence(folder: Path, light: dict[str, int] = LIGHT, label: Path | None = None) -> None:
    """A synthetic sequence: an image at several exposures, and its reference."""
    picture = textured(1, 80, 64).astype(float)
    for name, mean in light.items():
        exposed = picture * (mean / picture.mean())
        save(folder / f"{name}.JPG", exposed.clip(0, 255).astype("uint8"))
    if label is not None:
        save(label, picture.astype("uint8"))


def keys(root: Path, pairs: str) -> list[str]:
    """The keys of the pairs of a SICE folder in their scene's split."""
    return [ref.key for ref in find_all(load_manifest("sice"), str(root), "mef", pairs).pairs]


def test_the_extreme_pair_goes_by_brightness_not_by_name(tmp_path: Path) -> None:
    sequence(tmp_path / "Dataset_Part1/12", label=tmp_path / "Dataset_Part1/Label/12.JPG")
    (pair,) = find_all(load_manifest("sice"), str(tmp_path), "mef").pairs
    assert pair.key == "part1-12"
    names = {image: Path(path).name for image, path in pair.sources.items()}
    assert names == {"a": "4.JPG", "b": "3.JPG", "gt": "12.JPG"}


def test_adjacent_and_all_pairs(tmp_path: Path) -> None:
    sequence(tmp_path / "Dataset_Part1/12")
    assert sorted(keys(tmp_path, "adjacent")) == sorted(f"part1-12_{two}" for two in ("4_1", "1_2", "2_5", "5_3"))
    assert len(keys(tmp_path, "all")) == 10
    found = find_all(load_manifest("sice"), str(tmp_path), "mef", "all")
    assert (found.scenes, len({ref.scene for ref in found.pairs}), len({ref.split for ref in found.pairs})) == (1, 1, 1)


def test_parts_nested_folders_and_flattened_names(tmp_path: Path) -> None:
    sequence(tmp_path / "Dataset_Part1/Dataset_Part1/3", label=tmp_path / "Dataset_Part1/label/3.JPG")
    sequence(tmp_path / "Dataset_Part2/3", label=tmp_path / "Dataset_Part2/Label/3.JPG")
    sequence(tmp_path / "Dataset_Part2", {f"7_{name}": light for name, light in LIGHT.items()})
    found = find_all(load_manifest("sice"), str(tmp_path), "mef")
    assert [ref.key for ref in found.pairs] == ["part1-3", "part2-3", "part2-7"]
    assert ["gt" in ref.sources for ref in found.pairs] == [True, True, False]
    assert found.ignored == 0
    assert [ref.key for ref in find_all(load_manifest("sice"), str(tmp_path / "Dataset_Part2"), "mef").pairs] == [
        "part2-3",
        "part2-7",
    ]


def test_a_frame_that_is_no_picture_is_left_out(tmp_path: Path) -> None:
    sequence(tmp_path / "Tower")
    sequence(tmp_path / "Single", {"1": 100})
    (tmp_path / "Tower/broken.png").write_bytes(b"no picture")
    found = find_all(load_manifest("kedema"), str(tmp_path), "mef")
    assert [ref.key for ref in found.pairs] == ["Tower"]
    assert sorted(Path(path).name for path in found.unpaired) == ["1.JPG", "broken.png"]


def test_an_unknown_pairing_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        find_all(load_manifest("sice"), str(tmp_path), "mef", "extremes")
    assert str(error.value) == "unknown pairing 'extremes': did you mean 'extreme'? allowed: adjacent, all, extreme"


def test_real_sequences_are_ordered_by_brightness(shared: Path) -> None:
    found = find_all(load_manifest("sice"), str(shared / "data/mef/SICE"), "mef", "adjacent")
    first = [[Path(ref.sources[image]).stem for image in ("a", "b")] for ref in found.pairs if "part1-1_" in ref.key]
    assert [a for a, _ in first] + ["6"] and {"7_4", "4_5"} <= {"_".join(two) for two in first}
    assert len(found.pairs) == 4 * 6
