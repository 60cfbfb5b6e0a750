"""Manifests and decoding: irregular layouts, splits by scene, and the reason of every reject."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clearfuse.synth.datasets.find import FoundPairs, builtin_pairs, check_split, find_all, of_split, scene_split
from clearfuse.synth.datasets.manifest import SPLITS, Manifest, load_manifest, natural, template_regex
from clearfuse.synth.datasets.read import as_grey, read_image, read_pair
from clearfuse.synth.types import BadPair, PairRef, Task, UserError
from conftest import save, textured


def find_pairs(manifest: Manifest, location: str, task: Task, split: str) -> FoundPairs:
    """What is found below a folder, its pairs those of a split."""
    check_split(manifest, task, split)
    found = find_all(manifest, location, task)
    return replace(found, pairs=of_split(manifest, location, found, split))


def keys(name: str, location: Path | str, task: str, split: str = "train") -> list[str]:
    """The keys of the pairs that a manifest finds."""
    return [ref.key for ref in find_pairs(load_manifest(name), str(location), task, split).pairs]  # type: ignore[arg-type]


def test_msrs_has_its_own_splits(msrs: Path) -> None:
    found = find_pairs(load_manifest("msrs"), str(msrs), "vif", "train")
    assert [ref.key for ref in found.pairs] == [f"{i:05d}D" for i in range(1, 7)]
    assert found.splits == {"train": 6, "test": 2}
    assert found.ignored == 1
    assert keys("msrs", msrs, "vif", "test") == ["00007D", "00008D"]


def test_irregular_names_of_mefb(tmp_path: Path) -> None:
    names = ["Lighthouse/Lighthouse_a.png", "Lighthouse/Lighthouse_B.JPG", "Farmhouse/Farmhouse_A.png"]
    names += ["Farmhouse/FarmHouse_B.png", "Night/Night_A.jpg", "Night/Night_B.JPG", "Night/800px-Night.JPG"]
    for i, name in enumerate(names):
        save(tmp_path / "input" / name, textured(i, 80, 64))
    found = find_pairs(load_manifest("mefb"), str(tmp_path), "mef", "train")
    everywhere = [keys("mefb", tmp_path, "mef", split) for split, count in found.splits.items() if count]
    assert sorted(key for keys_ in everywhere for key in keys_) == ["Farmhouse", "Lighthouse", "Night"]
    assert found.ignored == 1


def test_unpadded_numbers_spaces_and_parentheses(tmp_path: Path) -> None:
    for number in (1, 2, 10, 11, 100):
        for folder in ("source_1", "source_2", "full_clear"):
            save(tmp_path / folder / f"NYU-D ({number}).jpg", textured(number, 80, 64))
    found = find_pairs(load_manifest("mfiwhu"), str(tmp_path), "mff", "train")
    names = [ref.key for ref in found.pairs]
    assert names == sorted(names, key=natural) and "NYU-D (1)" in names
    assert sum(found.splits.values()) == 5
    assert all(set(ref.sources) == {"a", "b", "gt"} for ref in found.pairs)


def test_folder_pairs_by_stem_and_reports_what_has_no_partner(tmp_path: Path, folder_pair: str) -> None:
    save(tmp_path / "near" / "alone.v2.png", textured(9))
    found = find_pairs(load_manifest("folder"), folder_pair, "mff", "train")
    assert sum(found.splits.values()) == 4
    assert [Path(name).name for name in found.unpaired] == ["alone.v2.png"]


def test_a_template_matches_whole_names_only() -> None:
    pattern = template_regex("input/{key}/{key}_A.*", (), True)
    assert pattern.match("input/Sky/sky_a.png") is not None
    assert pattern.match("input/Sky/Skyline_A.png") is None
    assert pattern.match("input/Sky/Sky_A.png/x.png") is None
    kept = template_regex("{key}.*", (), False).match("a.b.png")
    assert kept is not None and kept["key"] == "a.b"


@pytest.mark.slow
def test_a_scene_has_one_split_in_the_papers_proportions() -> None:
    counts = dict.fromkeys(SPLITS, 0)
    for i in range(20_000):
        counts[scene_split(f"scene-{i}")] += 1
    total = sum(SPLITS.values())
    assert all(abs(counts[s] / 20_000 - SPLITS[s] / total) < 0.01 for s in SPLITS)


def test_builtin_scenes_differ_between_splits() -> None:
    train, val = builtin_pairs("vif", "train", 4), builtin_pairs("vif", "val", 4)
    assert not {ref.key for ref in train} & {ref.key for ref in val}


@pytest.mark.parametrize(
    ("name", "location", "task", "split", "message"),
    [
        ("msrs", "nowhere", "vif", "train", "--data msrs=nowhere: folder nowhere does not exist"),
        ("msrs", ".", "mef", "train", "data set 'msrs' is for vif, not for mef"),
        ("msrs", ".", "vif", "val", "data set 'msrs' has no split 'val': it has train, test"),
        ("msrs", ".", "vif", "trian", "unknown split 'trian': did you mean 'train'? allowed: test, train, val"),
        ("folder", "one", "vif", "train", "--data folder=one: must be folder=DIR_A,DIR_B or folder=DIR_A,DIR_B,DIR_GT"),
    ],
)
def test_mistakes_are_one_line(name: str, location: str, task: str, split: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        find_pairs(load_manifest(name), location, task, split)  # type: ignore[arg-type]
    assert str(error.value) == message


def test_an_empty_folder_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        find_pairs(load_manifest("msrs"), str(tmp_path), "vif", "train")
    expected = "no pair found: expected {split}/vi/{key}.png and {split}/ir/{key}.png below it"
    assert str(error.value).startswith(
        f"--data msrs={tmp_path}: {expected}; {tmp_path} has no file; images end in .bmp,"
    )


def test_folders_without_a_pair_name_what_they_hold(tmp_path: Path) -> None:
    """Names that differ by a suffix, and endings that are not read, are both seen in the line."""
    for name in ("vi/1.png", "ir/1x4.png", "p/1.gif", "q/1.gif"):
        save(tmp_path / name, textured(0))
    for a, b, names in (("vi", "ir", ("1.png", "1x4.png")), ("p", "q", ("1.gif", "1.gif"))):
        location = f"{tmp_path / a},{tmp_path / b}"
        with pytest.raises(UserError) as error:
            find_pairs(load_manifest("folder"), location, "vif", "train")
        assert f"{tmp_path / a} has {names[0]}; {tmp_path / b} has {names[1]}; images" in str(error.value)


def test_unknown_data_set_names_the_nearest() -> None:
    with pytest.raises(UserError, match="unknown data set 'mrss': did you mean 'msrs'"):
        load_manifest("mrss")


def test_two_files_for_one_image_are_refused(tmp_path: Path) -> None:
    for name in ("a/1.png", "a/1.bmp", "b/1.png"):
        save(tmp_path / name, textured(0))
    with pytest.raises(UserError, match=r"two files for one image: 1\.bmp and 1\.png"):
        find_pairs(load_manifest("folder"), f"{tmp_path / 'a'},{tmp_path / 'b'}", "mff", "train")


def test_decoding_keeps_grey_drops_alpha_and_turns_upright(tmp_path: Path) -> None:
    grey, _ = read_image(str(save(tmp_path / "grey.png", textured(1, channels=1))))
    assert grey.shape == (128, 160, 1)
    colour = textured(2)
    alpha = np.dstack([colour, np.full(colour.shape[:2], 9, np.uint8)])
    assert np.array_equal(read_image(str(save(tmp_path / "alpha.png", alpha)))[0], colour)
    turned = Image.fromarray(colour)
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.png", exif=exif)
    assert read_image(str(tmp_path / "turned.png"))[0].shape == (160, 128, 3)


def _png(image: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image).save(out, format="PNG")
    return out.getvalue()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "x.png: is not an image"),
        (b"hello", "x.png: is not an image"),
        (_png(textured(0))[:2000], "x.png: cannot be read: "),
        (_png(np.zeros((4, 4), np.uint16)), "x.png: I;16 is not 8 bit, and holds one value throughout"),
    ],
)
def test_a_bad_file_has_a_reason(tmp_path: Path, data: bytes, reason: str) -> None:
    (tmp_path / "x.png").write_bytes(data)
    with pytest.raises(BadPair) as error:
        read_image(str(tmp_path / "x.png"))
    assert str(error.value).startswith(reason)


def test_sizes_that_differ_are_a_reject(tmp_path: Path) -> None:
    a, b = save(tmp_path / "a.png", textured(0)), save(tmp_path / "b.png", textured(0, 80, 64))
    with pytest.raises(BadPair) as error:
        read_pair(PairRef("mef", "folder", "x", "x", "train", {"a": str(a), "b": str(b)}))
    assert str(error.value) == "sizes differ: a 160x128, b 80x64"


def test_three_channel_infrared_becomes_one(tmp_path: Path) -> None:
    grey = textured(3, channels=1)
    a, b = save(tmp_path / "a.png", textured(0)), save(tmp_path / "b.png", np.repeat(grey, 3, 2))
    pair = read_pair(PairRef("vif", "folder", "x", "x", "train", {"a": str(a), "b": str(b)}))
    assert np.array_equal(pair.b, grey)
    assert as_grey(textured(0)).shape == (128, 160, 1)


@pytest.mark.parametrize(
    ("name", "path", "task", "train", "total"),
    [
        ("msrs", "vif/MSRS", "vif", 9, 29),
        ("m3fd", "vif/M3FD", "vif", 4, 4),
        ("llvip", "vif/LLVIP", "vif", 32, 38),
        ("roadscene", "vif/RoadScene", "vif", 131, 160),
        ("vifb", "vif/VIFB", "vif", 19, 21),
        ("drmf", "vif/DRMF_degraded", "vif", 4, 4),
        ("awfusion", "vif/AWFusion_degraded", "vif", 4, 4),
        ("sice", "mef/SICE", "mef", 4, 4),
        ("sice", "mef/SICE/Dataset_Part1", "mef", 4, 4),
        ("sice-flat", "mef/SICE_over_under", "mef", 3, 5),
        ("mefb", "mef/MEFB", "mef", 45, 48),
        ("kedema", "mef/KedeMa_sequences", "mef", 4, 4),
        ("mfiwhu", "mff/MFI-WHU_MiT", "mff", 18, 19),
        ("mfiwhu", "mff/NYU-D-100", "mff", 22, 30),
        ("nyud", "mff/NYU-D-100", "mff", 20, 30),
        ("lytro", "mff/Lytro", "mff", 15, 20),
        ("mfifb", "mff/MFIFB", "mff", 39, 49),
        ("mfif-liu", "mff/MFIF_Liu", "mff", 5, 10),
    ],
)
def test_real_sets_are_found_whole(shared: Path, name: str, path: str, task: str, train: int, total: int) -> None:
    found = find_pairs(load_manifest(name), str(shared / "data" / path), task, "train")  # type: ignore[arg-type]
    assert (len(found.pairs), sum(found.splits.values())) == (train, total)
    assert not found.unpaired
    pair = read_pair(found.pairs[0])
    assert pair.a.shape[:2] == pair.b.shape[:2]
    assert pair.b.shape[2] == (1 if task == "vif" or name in ("mfifb", "mfif-liu") else 3)
