"""What every depth source of the table obeys."""

from __future__ import annotations

import pickle
import re
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from clearfuse.synth.cli.listing import listing
from clearfuse.synth.depth import DEPTHS, DepthInput, DepthNetwork, DepthSource, depth_help
from clearfuse.synth.depth.choice import parse_depth
from clearfuse.synth.depth.metres import dequantise, quantise
from clearfuse.synth.types import BadPair, UserError

NAMES = list(DEPTHS)
WITH_FOLDERS = [name for name, cls in DEPTHS.items() if cls.takes != "nothing"]
NETWORKS = [name for name, cls in DEPTHS.items() if issubclass(cls, DepthNetwork)]
SIZES = [(1, 1), (1, 9), (7, 1), (2, 3), (17, 133), (60, 90)]
FAR = 150.0


def picture(height: int, width: int, channels: int, seed: int = 0) -> np.ndarray:
    """A bright flat sky over a textured ground."""
    image = np.random.default_rng(seed).integers(0, 120, (height, width, channels), dtype=np.uint8)
    image[: height // 3] = 235
    return image


def ramp(height: int, width: int) -> np.ndarray:
    """Codes of a map: large at the foot."""
    return np.repeat(np.linspace(640, 60000, height).astype(np.uint16)[:, None], width, axis=1)


def answers(self: DepthNetwork, pictures: Sequence[np.ndarray]) -> list[np.ndarray]:
    """In place of a network: a map at half the picture's size, of the picture alone."""
    halves = [[max(1, side // 2) for side in each.shape[:2]] for each in pictures]
    return [
        ramp(*half).astype(np.float32) + np.float32(each.mean()) for half, each in zip(halves, pictures, strict=True)
    ]


@pytest.fixture
def source(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DepthSource:
    """The source of a name: with a folder of one map where it reads maps, and without its network where it has one."""
    cls = DEPTHS[request.param]
    if issubclass(cls, DepthNetwork):
        monkeypatch.setattr(cls, "predict", answers)
        return cls(str(tmp_path), "0" * 16)
    if cls.takes == "nothing":
        return parse_depth(cls.name, has_true=True)
    cv2.imwrite(str(tmp_path / "one.png"), ramp(60, 90))
    return parse_depth(f"{cls.name}={tmp_path}", has_true=True)


def estimated(source: DepthSource, image: np.ndarray, key: str = "one") -> np.ndarray:
    height, width = image.shape[:2]
    true = dequantise(ramp(height, width)) if source.own else None
    return source.estimate(DepthInput(key, image, true, FAR))


@pytest.mark.parametrize("name", NAMES)
def test_every_source_says_what_it_is(name: str) -> None:
    cls = DEPTHS[name]
    assert cls.name == name and "\n" not in cls.help and len(cls.help) > 20
    assert listing("depths")[name] == cls.help and list(listing("depths")) == ["auto", *DEPTHS] == list(depth_help())


@pytest.mark.parametrize("source", NAMES, indirect=True)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", SIZES)
def test_metres_at_the_pictures_size_from_the_same_picture_the_same(
    source: DepthSource, size: tuple[int, int], channels: int
) -> None:
    image = picture(*size, channels)
    before = image.copy()
    metres = estimated(source, image)
    assert metres.shape == size and metres.dtype == np.float32
    assert (metres > 0).all(), "known everywhere; the sky is infinite"
    assert np.array_equal(metres, estimated(source, before)) and np.array_equal(image, before)
    assert np.array_equal(metres, estimated(pickle.loads(pickle.dumps(source)), image)), "as a worker has it"
    assert (dequantise(quantise(metres)) > 0).all(), "as it is stored"


@pytest.mark.parametrize("source", NAMES, indirect=True)
def test_weights_are_recorded_where_there_are_files(source: DepthSource) -> None:
    if type(source).takes == "nothing" and not source.torch:
        assert source.weights is None and source == type(source)()
    else:
        assert re.fullmatch("[0-9a-f]{16}", source.weights or "")
    if type(source).takes == "nothing":
        assert source == type(source).open(""), "the same whenever it is opened"


@pytest.mark.parametrize("source", NETWORKS, indirect=True)
def test_a_networks_answer_may_be_given_and_is_the_same(source: DepthNetwork) -> None:
    images = [picture(40, 60, 3, seed) for seed in (1, 2)]
    together = source.predict(images)
    for image, predicted in zip(images, together, strict=True):
        given = source.estimate(DepthInput("one", image, None, FAR, None, predicted))
        assert np.array_equal(given, source.estimate(DepthInput("one", image, None, FAR)))
    assert source.cached


@pytest.mark.parametrize("name", WITH_FOLDERS)
def test_a_folder_that_is_not_there_or_empty_is_one_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for folder in (tmp_path / "absent" / "er" / "still", tmp_path):
        with pytest.raises(UserError, match=f"--depth {name}=.*{folder.name}") as told:
            parse_depth(f"{name}={folder}", has_true=False)
        assert "\n" not in str(told.value)


@pytest.mark.parametrize("name", NAMES)
def test_what_a_source_does_not_take_is_one_line(name: str) -> None:
    cls = DEPTHS[name]
    if cls.takes == "nothing":
        with pytest.raises(UserError, match=f"--depth {name}=x: {name} takes no folder"):
            parse_depth(f"{name}=x", has_true=True)
    if cls.takes == "a folder":
        with pytest.raises(UserError, match=f"--depth {name}: {name} needs a folder, as in {name}=DIR"):
            parse_depth(name, has_true=True)
    if cls.own:
        others = ", ".join(other.usage() for other in DEPTHS.values() if not other.own)
        with pytest.raises(UserError, match=f"no depth of its own; allowed: {others}"):
            parse_depth(name, has_true=False)


@pytest.mark.parametrize("source", NAMES, indirect=True)
def test_a_pair_without_depth_is_a_bad_pair(source: DepthSource) -> None:
    """What a source cannot know of a pair it says, and does not make up."""
    if source.cached:
        return  # it is made of the picture alone
    with pytest.raises(BadPair):
        source.estimate(DepthInput("absent", picture(8, 8, 3), None, FAR))


def test_auto_asks_in_the_order_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Maps want a folder, so the user names them; Depth Anything only where its weights are on disk."""
    for found, wanted in ((Path("x"), "depth-anything"), (None, "small")):
        monkeypatch.setattr("clearfuse.synth.depth.anything.on_disk", lambda found=found: found)
        monkeypatch.setattr("clearfuse.synth.depth.anything.weights_digest", lambda _: "0" * 16)
        assert parse_depth("auto", has_true=False).name == wanted
    assert parse_depth("auto", has_true=True).name == "true"


@pytest.mark.parametrize("has_true", [True, False])
def test_auto_finds_a_source_whatever_is_on_disk(has_true: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clearfuse.synth.depth.anything.on_disk", lambda: None)
    found = parse_depth("auto", has_true=has_true)
    assert type(found) in DEPTHS.values() and found.own == has_true
