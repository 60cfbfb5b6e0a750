"""The order in which stacks are fused, and what steadies a video, on cases that are known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import small

from clearfuse.synth.color import code_to_linear, linear_to_srgb
from clearfuse.synth.datasets.read import read_image
from clearfuse.synth.seeds import generator
from clearfuse.train.designs.design import Assembly
from clearfuse.train.pipeline.fusion import FusionPipeline
from clearfuse.train.pipeline.stack import brightness, fold, order_of, stack_task
from clearfuse.train.pipeline.steady import KEPT, Steady
from conftest import Ran, save, textured

Train = Callable[..., Ran]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    FusionPipeline(Assembly(small(guess=True), torch.Generator().manual_seed(0))).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("count", [1, 2, 3, 5, 24, 100])
def test_a_fold_is_flat_and_even(count: int) -> None:
    """In order, each thing under ⌈log2 n⌉ steps at most, and no more than ⌈log2 n⌉ + 1 of them held at once."""
    held = most = 0

    def load(number: int) -> tuple[list[int], int]:
        nonlocal held, most
        held += 1
        most = max(most, held)
        return [number], 0

    def fuse(x: tuple[list[int], int], y: tuple[list[int], int]) -> tuple[list[int], int]:
        nonlocal held
        held -= 1
        return x[0] + y[0], max(x[1], y[1]) + 1

    order, depth = fold(count, load, fuse)
    assert order == list(range(count)) and depth == int(np.ceil(np.log2(count)))
    assert most <= depth + 1 and held == 1


def test_exposures_are_told_from_foci_and_sorted() -> None:
    linear = code_to_linear(textured(1))
    lights = [brightness(linear_to_srgb(linear * np.float32(2.0**ev))) for ev in (-1.0, -4.0, 0.0)]
    assert np.allclose(np.diff(np.log2(lights)), (-3, 4), atol=0.1)
    assert stack_task(lights).task == "mef" and "span 3.9 EV" in stack_task(lights).why
    assert order_of(lights, 3) == [1, 0, 2] and order_of([], 3) == [0, 1, 2]
    assert stack_task([0.2, 0.21, 0.19]).task == "mff"


def test_flicker_goes_and_movement_stays() -> None:
    """Of a still scene the steps that fusing adds are damped by K; where the scene changes the frame is its own."""
    scene, rng = textured(1, 96, 64), generator(0)
    steps = rng.normal(0, 12, 60)
    steady = Steady()
    shown: list[float] = []
    for step in steps:
        fused = np.clip(scene.astype(float) * 0.5 + 60 + step, 0, 255).astype(np.uint8)
        shown.append(float(steady((scene, scene), fused).mean()))
    assert np.std(np.diff(shown)) < 1.3 * (1 - KEPT) * np.std(np.diff(steps))
    other = 255 - scene  # a cut
    fused = np.full_like(scene, 90)
    assert np.abs(steady((other, other), fused).astype(int) - 90)[np.abs(other.astype(int) - scene) > 100].mean() < 6
    again = Steady()
    np.testing.assert_array_equal(again((scene, scene), fused), fused)
    np.testing.assert_array_equal(again((scene[:32], scene[:32]), fused[:32]), fused[:32], "another size starts anew")
    lit, jumping = Steady(), Steady()
    for k, gain in enumerate((0, 9, -9, 9, 0)):  # what the sources account for is left as it is
        brighter, same = (np.clip(scene.astype(int) * 0.5 + 60 + d, 0, 255).astype(np.uint8) for d in (3 * k, 0))
        assert np.abs(lit((brighter, brighter), brighter).astype(int) - brighter).max() <= 1
        thermal = np.clip(scene[..., :1].astype(int) * 0.5 + 60 + gain, 0, 255).astype(np.uint8)
        np.testing.assert_array_equal(
            jumping((same, thermal), same), same, "one camera's gain jumps, the frame does not"
        )
    deep = Steady()
    assert deep((scene, scene[..., :1]), fused / np.float32(255)).dtype == np.float32


@pytest.mark.slow
def test_frames_pair_by_their_order_and_are_steadied(train: Train, model: Path, tmp_path: Path) -> None:
    for number in range(12):  # natural order: 2 before 10
        save(tmp_path / f"vi/v{number}.png", textured(1, 64, 48))
        save(tmp_path / f"ir/i{number + 3}.png", np.clip(textured(2, 64, 48, 1) * (1 + number % 2), 0, 255))
    given = (tmp_path / "vi", tmp_path / "ir", "--task", "vif", "--model", model)
    ran = train("fuse", *given, "-o", tmp_path / "no")
    assert ran.code == 2 and "vi has v0.png, v1.png" in ran.error and "ir has i10.png, i11.png" in ran.error
    ran = train("fuse", *given, "-o", tmp_path / "plain", "--frames")
    assert ran.code == 0 and "from v0.png with i3.png to v11.png with i14.png" in ran.err, ran.err
    ran = train("fuse", *given, "-o", tmp_path / "steady", "--frames", "--steady")
    assert ran.code == 0 and len(list((tmp_path / "steady").iterdir())) == 12, ran.err
    first = [read_image(str(tmp_path / f"{name}/v0.png"))[0] for name in ("plain", "steady")]
    np.testing.assert_array_equal(*first)
    for options, said in (
        (("--steady",), "--steady: is for a video's frames: add --frames"),
        (("--split", "test"), "--split test: is of data sets"),
        (("--data", "folder=a,b"), "--data folder=a,b: goes without other inputs"),
    ):
        ran = train("fuse", *given, "-o", tmp_path / "x", *options)
        assert ran.code == 2 and said in ran.error


def test_stacks_of_a_folder_and_of_folders(train: Train, model: Path, tmp_path: Path) -> None:
    scene = textured(1, 64, 48)
    for name in ("one", "two"):
        for number, ev in enumerate((0, -3, -1)):
            save(tmp_path / f"stacks/{name}/{number}.png", (scene * 2.0**ev).astype(np.uint8))
    ran = train("fuse", tmp_path / "stacks", "-o", tmp_path / "out", "--model", model, "--compare")
    assert ran.code == 0 and "task: mef, as the exposures span" in ran.err, ran.err
    names = ["one-compare.png", "one.png", "two-compare.png", "two.png"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    sheet = read_image(str(tmp_path / "out/one-compare.png"))[0]
    assert sheet.shape[1] > 4 * 160 and sheet.shape[0] > 48 + 60 and sheet.mean() > 100
    ran = train("fuse", tmp_path / "stacks/one", "-o", tmp_path / "o.png", "--model", model, "--task", "vif")
    assert ran.code == 2 and "0.png, 1.png, 2.png: 3 pictures: of vif pairs are fused" in ran.error
    three = [tmp_path / f"{name}" for name in ("under", "mid", "over")]
    for place, folder in enumerate(three):
        save(folder / "x.png", (scene * 2.0 ** (place - 2)).astype(np.uint8))
    ran = train("fuse", *three, "-o", tmp_path / "by", "--model", model, "--task", "mef")
    assert ran.code == 0 and [path.name for path in (tmp_path / "by").iterdir()] == ["x.png"], ran.err
