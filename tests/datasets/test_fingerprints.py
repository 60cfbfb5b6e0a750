"""Fingerprints: robustness, the cache of thumbnails, and no scene in two splits across data sets."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from clearfuse.synth.datasets import fingerprints
from clearfuse.synth.datasets.find import find_all
from clearfuse.synth.datasets.fingerprints import (
    BITS,
    SAME,
    distances,
    fingerprint,
    from_hex,
    known_scene,
    known_scenes,
    thumbnail,
    thumbnails,
    to_hex,
)
from clearfuse.synth.datasets.manifest import load_manifest
from clearfuse.synth.types import PairRef, Task
from conftest import save, textured

pytestmark = pytest.mark.slow


def apart(one: np.ndarray, two: np.ndarray, folder: Path) -> float:
    """The distance of two images' fingerprints."""
    prints = [fingerprint(thumbnail(str(save(folder / f"{i}.png", image)))) for i, image in enumerate((one, two))]
    return float(distances(prints[0][None], prints[1][None])[0, 0])


def test_blur_size_coding_and_exposure_keep_a_fingerprint(tmp_path: Path) -> None:
    picture = textured(1, 640, 480)
    assert apart(picture, cv2.GaussianBlur(picture, (0, 0), 4), tmp_path) < SAME / 2
    assert apart(picture, cv2.resize(picture, (300, 225), interpolation=cv2.INTER_AREA), tmp_path) < SAME / 2
    assert apart(picture, (255 * (picture / 255.0) ** 1.8).astype(np.uint8), tmp_path) < SAME
    Image.fromarray(picture).save(tmp_path / "low.jpg", quality=20)
    low = np.asarray(Image.open(tmp_path / "low.jpg"))
    assert apart(picture, low, tmp_path) < SAME / 2
    assert apart(picture, textured(2, 640, 480), tmp_path) > 2 * SAME


def test_hex_holds_a_fingerprint_whole(tmp_path: Path) -> None:
    bits = fingerprint(thumbnail(str(save(tmp_path / "x.png", textured(3)))))
    assert bits.shape == (BITS,) and np.array_equal(from_hex(to_hex(bits)), bits)


def test_sixteen_bit_pictures_have_thumbnails(tmp_path: Path) -> None:
    wide = textured(4, channels=1)[..., 0].astype(np.uint16) * 20 + 7000
    Image.fromarray(wide).save(tmp_path / "wide.png")
    small = thumbnail(str(tmp_path / "wide.png"), "infrared")
    assert (int(small.min()), int(small.max())) == (0, 255)
    visible = thumbnail(str(tmp_path / "wide.png"))
    assert abs(float(visible.mean()) - wide.mean() / 257) < 1 and int(visible.max()) < 50


def test_thumbnails_are_kept_until_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEARFUSE_CACHE", str(tmp_path / "cache"))
    path = str(save(tmp_path / "pictures/x.png", textured(5)))
    (tmp_path / "pictures/y.png").write_bytes(b"")
    first = thumbnails([path, str(tmp_path / "pictures/y.png")], str(tmp_path))
    assert list(first) == [path]
    with monkeypatch.context() as patched:
        patched.setattr(fingerprints, "thumbnail", lambda path: pytest.fail("made anew"))
        assert np.array_equal(thumbnails([path], str(tmp_path))[path], first[path])
    save(Path(path), textured(6, 168, 128))
    assert not np.array_equal(thumbnails([path], str(tmp_path))[path], first[path])


def test_a_known_scene_bears_the_name_of_the_set_that_had_it_first() -> None:
    scenes, prints = known_scenes(("mfiwhu",))
    names = {scene.scene for scene in scenes}
    assert len(prints) == 30 and {"1", "16", "Knossos7", "WaffleHouse"} <= names
    assert known_scenes(("msrs",))[0][0].split in ("train", "test")
    assert known_scene([np.zeros((32, 32), np.uint8)], ("mfiwhu", "mefb")) is None


def everything(shared: Path, *sets: tuple[str, str, Task]) -> list[PairRef]:
    """All pairs of some data sets of the shared data."""
    return [
        ref
        for name, at, task in sets
        for ref in find_all(load_manifest(name), str(shared / "data" / at), task, "all").pairs
    ]


def test_no_scene_lies_in_two_splits_across_sets(shared: Path) -> None:
    """SICE, MFI-WHU, MEFB and Ma et al.'s sequences: by name, and by pixels between all images."""
    refs = everything(
        shared,
        ("sice", "mef/SICE", "mef"),
        ("mfiwhu", "mff/MFI-WHU_MiT", "mff"),
        ("mefb", "mef/MEFB", "mef"),
        ("kedema", "mef/KedeMa_sequences", "mef"),
    )
    splits: dict[str, set[str]] = {}
    for ref in refs:
        splits.setdefault(ref.scene, set()).add(ref.split)
    assert all(len(of) == 1 for of in splits.values())
    small = thumbnails([path for ref in refs for path in ref.sources.values()], str(shared))
    of_path = {path: ref for ref in refs for path in ref.sources.values()}
    paths = [path for path in of_path if path in small and small[path].std() > 5]
    prints = np.array([fingerprint(small[path]) for path in paths])
    alike = np.argwhere(np.triu(distances(prints, prints) <= SAME, 1))
    across = {(of_path[paths[i]].dataset, of_path[paths[j]].dataset) for i, j in alike}
    assert ("sice", "mfiwhu") in across and ("mefb", "kedema") in across  # the sets do share scenes
    for i, j in alike:
        one, two = of_path[paths[i]], of_path[paths[j]]
        assert (one.scene, one.split) == (two.scene, two.split), f"{one.name} and {two.name}"


def test_a_split_follows_the_set_that_states_it(shared: Path) -> None:
    refs = everything(
        shared,
        ("msrs", "vif/MSRS", "vif"),
        ("awfusion", "vif/AWFusion_degraded", "vif"),
        ("textif", "vif/TextIF_test_imgs", "vif"),
    )
    own = {ref.scene: ref.split for ref in refs if ref.dataset == "msrs"}
    shared_scenes = [ref for ref in refs if ref.dataset != "msrs" and ref.scene in own]
    assert len(shared_scenes) == 6
    assert all(ref.split == own[ref.scene] for ref in shared_scenes)
