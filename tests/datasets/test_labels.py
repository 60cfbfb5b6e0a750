"""Label maps: maps of numbers as data sets store them, COCO's polygons and run lengths, built-in scenes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from clearfuse.synth.datasets.find import builtin_pairs, find_all
from clearfuse.synth.datasets.labels import (
    Annotations,
    Labels,
    _annotations,
    decode_runs,
    encode_runs,
    rasterise,
    uncompress,
)
from clearfuse.synth.datasets.manifest import load_manifest
from clearfuse.synth.datasets.read import read_pair
from clearfuse.synth.types import BadPair, UserError
from conftest import save, textured


def ids(height: int = 128, width: int = 160) -> np.ndarray:
    """A map with a car (1) of 30x40 pixels and a person (2) of 20x10."""
    out = np.zeros((height, width), np.uint8)
    out[50:80, 60:100], out[40:60, 10:20] = 1, 2
    return out


@pytest.fixture
def labelled_msrs(msrs: Path) -> Path:
    """MSRS with label maps beside four of its training pairs: in grey, and with a palette of other colours."""
    for number in range(1, 5):
        path = msrs / "train" / "Segmentation_labels" / f"{number:05d}D.png"
        path.parent.mkdir(exist_ok=True)
        image = Image.fromarray(ids(), "L")
        if number % 2:
            image = Image.fromarray(ids(), "P")
            image.putpalette([200, 10, 10, 0, 255, 0, 9, 9, 9] + [0] * 759)
        image.save(path)
    return msrs


def test_label_maps_are_found_where_asked_for_and_read_by_number(labelled_msrs: Path) -> None:
    manifest = load_manifest("msrs")
    without = find_all(manifest, str(labelled_msrs), "vif")
    found = find_all(manifest, str(labelled_msrs), "vif", labels=True)
    assert len(found.pairs) == len(without.pairs) == 8 and without.ignored == found.ignored + 4
    assert not any("labels" in ref.sources for ref in without.pairs)
    read = {ref.key: read_pair(ref) for ref in found.pairs}
    assert sum(pair.labels is not None for pair in read.values()) == 4
    for number in range(1, 5):
        labels = read[f"{number:05d}D"].labels
        assert labels is not None and labels.shown() == ["car", "person"]
        assert np.array_equal(labels.mask("car"), ids() == 1) and np.array_equal(labels.mask("person"), ids() == 2)
        assert not labels.mask("bump").any()
    assert len(read["00001D"].sha256["labels"]) == 64


def test_a_class_that_is_hardly_there_is_not_shown() -> None:
    small = np.zeros((100, 100), np.int32)
    small[0, :9], small[1, :10], small[2, :3], small[3, :7] = 1, 2, 3, 4
    labels = Labels(small, {1: "car", 2: "person", 3: "bus", 4: "bus"})
    assert labels.shown() == ["person", "bus"], "and several numbers may have one name"
    assert labels.mask("bus").sum() == 10


@pytest.mark.parametrize(
    ("picture", "reason"),
    [
        (textured(1), "is in colour, where the numbers of classes are wanted"),
        (ids(64, 64)[..., None], "is 64x64, its picture 160x128"),
    ],
)
def test_what_is_no_label_map_is_a_reason(msrs: Path, picture: np.ndarray, reason: str) -> None:
    save(msrs / "train" / "labels" / "00001D.png", picture)
    refs = find_all(load_manifest("msrs"), str(msrs), "vif", labels=True).pairs
    with pytest.raises(BadPair, match=reason):
        read_pair(next(ref for ref in refs if ref.key == "00001D"))


def test_own_pictures_have_their_classes_in_a_text_file(tmp_path: Path) -> None:
    save(tmp_path / "images" / "x.jpg", textured(1))
    save(tmp_path / "labels" / "x.png", ids()[..., None])
    manifest = load_manifest("labelled")
    (ref,) = find_all(manifest, str(tmp_path), "mff", labels=True).pairs
    with pytest.raises(UserError, match=r"classes\.txt, with a class a line, is not in its folder"):
        read_pair(ref)
    (tmp_path / "classes.txt").write_text("background\ncar\nperson\n")
    labels = read_pair(ref).labels
    assert labels is not None and labels.names == {1: "car", 2: "person"} and ref.single


def test_coco_annotations(tmp_path: Path) -> None:
    """A polygon, whose edges are on pixels' borders as COCO has them, and a smaller crowd of run lengths over it."""
    save(tmp_path / "train2017" / "000000000009.jpg", textured(1))
    save(tmp_path / "train2017" / "000000000010.jpg", textured(2))
    crowd = np.zeros((128, 160), np.bool_)
    crowd[60:70, 70:75] = True
    runs = {"size": [128, 160], "counts": encode_runs(crowd)}
    square = [[20, 30, 120, 30, 120, 90, 20, 90]]
    data = {
        "images": [{"id": 9, "file_name": "000000000009.jpg"}, {"id": 10, "file_name": "000000000010.jpg"}],
        "categories": [{"id": 3, "name": "car"}, {"id": 18, "name": "dog"}],
        "annotations": [
            {"image_id": 9, "category_id": 18, "area": 50, "segmentation": runs, "iscrowd": 1},
            {"image_id": 9, "category_id": 3, "area": 6000, "segmentation": square},
        ],
    }
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_train2017.json").write_text(json.dumps(data))
    first, second = find_all(load_manifest("coco"), str(tmp_path), "mff", labels=True).pairs
    labels, none = read_pair(first).labels, read_pair(second).labels
    assert labels is not None and labels.shown() == ["car", "dog"]
    assert np.array_equal(labels.mask("dog"), crowd)
    inside = np.zeros((128, 160), np.bool_)
    inside[30:90, 20:120] = True
    union = (labels.mask("car") | crowd) ^ inside
    assert union.sum() <= 2 * (60 + 100), "but for the pixels that the edge halves"
    assert none is not None and none.shown() == []


def compressed(counts: list[int]) -> str:
    """COCO's compressed run lengths, by its description: see ``uncompress``, which undoes it."""
    text = ""
    for index, count in enumerate(counts):
        value = count - (counts[index - 2] if index > 2 else 0)
        while True:
            bits, value = value & 31, value >> 5
            last = value == (-1 if bits & 16 else 0)
            text += chr(48 + bits + (0 if last else 32))
            if last:
                break
    return text


def test_run_lengths_are_coco_s() -> None:
    """Down the columns, background first; the compressed text is what pycocotools writes for these runs."""
    mask = np.array([[0, 0, 1], [1, 0, 1]], np.bool_)
    assert encode_runs(mask) == [1, 1, 2, 2]
    assert encode_runs(~mask) == [0, 1, 1, 2, 2]
    for case in (mask, ~mask, np.ones((3, 4), np.bool_), np.zeros((3, 4), np.bool_)):
        assert np.array_equal(decode_runs(encode_runs(case), case.shape), case)
    for counts in ([0, 3, 1, 5], [6, 1, 40, 4, 5, 4, 5, 4, 21], [0, 20480, 7, 2, 300000, 1, 1]):
        assert uncompress(compressed(counts)) == counts
    with pytest.raises(ValueError, match="runs of 5 pixels for 3x2"):
        decode_runs([1, 1, 3], (2, 3))
    assert rasterise({"size": [2, 3], "counts": [1, 1, 2, 2]}, (2, 3)).tolist() == mask.tolist()


@pytest.mark.slow
def test_built_in_scenes_have_exact_label_maps() -> None:
    """The sky is where the depth is infinite, and people are warmer than what is around them."""
    shown: set[str] = set()
    for ref in builtin_pairs("vif", "train", 3):
        pair = read_pair(ref)
        assert pair.labels is not None and pair.depth is not None
        shown |= set(pair.labels.shown())
        assert np.array_equal(pair.labels.mask("sky"), np.isinf(pair.depth))
        person = pair.labels.mask("person")
        if person.sum() > 400:
            around = cv2.dilate(person.astype(np.uint8), np.ones((15, 15), np.uint8)).astype(bool) & ~person
            assert np.median(pair.b[person]) > np.median(pair.b[around])
    assert {"sky", "person", "car"} <= shown


@pytest.mark.parametrize(
    "wrong",
    [
        {"area": [1]},
        {"area": "large"},
        {"category_id": 10**12},
        {"segmentation": [[]]},
        {"segmentation": [[1, 2, 3]]},
        {"segmentation": {"size": [96, 128], "counts": "o" * 100_000}},
        {"segmentation": {"size": [96, 128], "counts": 5}},
    ],
)
def test_annotations_that_cannot_be_are_a_bad_pair(wrong: dict[str, Any]) -> None:
    shape = {"area": 1.0, "category_id": 3, "segmentation": [[1, 1, 9, 1, 9, 9]]} | wrong
    with pytest.raises(BadPair, match=r"1\.jpg: its annotations cannot be read"):
        Annotations({3: "car"}, {"1.jpg": [shape]}).labels("1.jpg", (96, 128))


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "{}", '{"images": 5}', ""])
def test_what_is_no_coco_file_is_a_bad_pair(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(BadPair, match=r"x\.json: is no COCO file of instances"):
        _annotations(str(tmp_path / "x.json"))
