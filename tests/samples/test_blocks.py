"""M3: what is drawn for blocks, and what each operator does to one, against the statistics that it is defined by."""

from __future__ import annotations

from collections import Counter

import cv2
import numpy as np
import pytest

from clearfuse.synth.operators.base import Scene
from clearfuse.synth.operators.blocks import BLOCK_OPERATORS, BLOCK_WEIGHTS
from clearfuse.synth.samples.blocks import apply_blocks, draw_blocks
from clearfuse.synth.seeds import generator
from clearfuse.synth.shards.records import Block, Blocks
from conftest import textured

SIZES = (32, 64, 128)


def drawn(count: int, both: float = 0.0) -> list[Blocks]:
    """The damage of so many pictures of 640x480."""
    return [draw_blocks((480, 640), SIZES, both, BLOCK_WEIGHTS, seed) for seed in range(count)]


@pytest.mark.slow
def test_shares_of_sizes_operators_and_sides_are_those_asked_for() -> None:
    """Over 500 samples within 2 %: operators and sides over 30,000 blocks, sizes within four standard deviations."""
    samples = drawn(500)
    sizes = Counter(one.size for one in samples)
    assert set(sizes) == set(SIZES)
    assert all(abs(sizes[size] / 500 - 1 / 3) < 4 * (2 / 9 / 500) ** 0.5 for size in SIZES)
    blocks = [block for one in samples for block in one.blocks]
    ops, sides = Counter(block.op for block in blocks), Counter(block.side for block in blocks)
    for op, share in BLOCK_WEIGHTS.items():
        assert ops[op] / len(blocks) == pytest.approx(share, abs=0.02)
    assert sides["a"] / len(blocks) == pytest.approx(0.5, abs=0.02) and not sides["both"]
    for name, declared in (("sigma", (10, 35)), ("share", (0.01, 0.03))):
        op = "block_gaussian_noise" if name == "sigma" else "block_salt_pepper"
        values = np.array([block.params[name] for block in blocks if block.op == op])
        assert declared[0] <= values.min() and values.max() <= declared[1]
        assert values.mean() == pytest.approx(np.mean(declared), rel=0.02)
    kernels = Counter(block.params["kernel"] for block in blocks if "kernel" in block.params)
    assert set(kernels) == {3, 5, 7, 9, 11}
    assert all(abs(count / kernels.total() - 0.2) < 0.02 for count in kernels.values())


@pytest.mark.parametrize("both", [0.0, 0.25, 1.0])
def test_the_share_damaged_in_both_is_exact(both: float) -> None:
    for one in drawn(12, both):
        count = sum(block.side == "both" for block in one.blocks)
        assert count == round(both * len(one.blocks))


def test_blocks_cover_the_picture_and_nothing_else_changes() -> None:
    """A block of the side that it does not name is the picture's, and its own differs; what is cut short counts."""
    picture = textured(1, width=160, height=112)
    how = draw_blocks(picture.shape[:2], (64,), 0.25, {"block_mask": 1.0}, 5)
    a, b = apply_blocks(picture, how)
    assert len(how.blocks) == 3 * 2
    for index, block in enumerate(how.blocks):
        y, x = index // 3 * 64, index % 3 * 64
        at = np.s_[y : y + 64, x : x + 64]
        for name, image in (("a", a), ("b", b)):
            assert np.array_equal(image[at], picture[at]) == (block.side not in (name, "both"))


def test_a_record_makes_the_same_pixels_again_and_others_without_it() -> None:
    picture = textured(2)
    how = draw_blocks(picture.shape[:2], (32,), 0.25, {"block_mask": 1.0}, 9)
    read = Blocks.model_validate_json(how.model_dump_json())
    assert all(
        np.array_equal(x, y) for x, y in zip(apply_blocks(picture, how), apply_blocks(picture, read), strict=True)
    )
    moved = read.model_copy(update={"seed": 10})
    assert not np.array_equal(apply_blocks(picture, moved)[0], apply_blocks(picture, how)[0])
    with pytest.raises(ValueError, match=r"blocks of .* pixels for a picture of 64x64"):
        apply_blocks(picture[:64, :64], Blocks(size=32, seed=1, blocks=how.blocks[:3]))


def damaged(op: str, image: np.ndarray, **params: float) -> np.ndarray:
    """What an operator makes of a picture, in codes."""
    made = BLOCK_OPERATORS[op](**params)(image.astype(np.float32) / 255, generator(3), Scene())
    return np.round(made.astype(np.float64) * 255, 3)


def test_each_operator_does_what_it_says() -> None:
    flat = np.full((256, 256, 3), 128, np.uint8)
    mask = damaged("block_mask", flat)
    assert mask.mean() == pytest.approx(127.5, rel=0.02) and mask.var() == pytest.approx((256**2 - 1) / 12, rel=0.02)
    noise = damaged("block_gaussian_noise", flat, sigma=20.0) - 128
    assert noise.std() == pytest.approx(20, rel=0.02) and abs(noise.mean()) < 0.4
    pepper = damaged("block_salt_pepper", flat, share=0.03)
    whites, blacks = (pepper == 255).all(2).mean(), (pepper == 0).all(2).mean()
    assert whites == pytest.approx(0.015, abs=0.002) and blacks == pytest.approx(0.015, abs=0.002)
    assert ((pepper == 128) | (pepper == 255) | (pepper == 0)).all()
    picture = textured(4)
    box = damaged("block_box_blur", picture, kernel=5)[20, 30]
    assert np.allclose(box, picture[18:23, 28:33].reshape(-1, 3).mean(0), atol=0.01)
    median = damaged("block_median_blur", picture, kernel=7)[20, 30]
    assert np.allclose(median, np.median(picture[17:24, 27:34].reshape(-1, 3), 0), atol=0.01)
    kernel = cv2.getGaussianKernel(9, 2.0) @ cv2.getGaussianKernel(9, 2.0).T
    blurred = damaged("block_gaussian_blur", picture, kernel=9, sigma=2.0)[20, 30]
    assert np.allclose(blurred, (picture[16:25, 26:35] * kernel[..., None]).sum((0, 1)), atol=0.01)


def test_every_operator_keeps_the_shape_of_grey_and_of_the_smallest_block() -> None:
    for op in BLOCK_OPERATORS:
        params = BLOCK_OPERATORS[op].draw(generator(1)).params()
        for channels in (1, 3):
            grey = textured(5, 16, 16, channels)
            how = Blocks(size=16, seed=1, blocks=(Block(op=op, side="both", params=params),))
            assert all(image.shape == grey.shape for image in apply_blocks(grey, how))
