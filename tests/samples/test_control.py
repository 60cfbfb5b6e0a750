"""Targets of control and segment samples, pixel by pixel against their formulas."""

from __future__ import annotations

import numpy as np
import pytest

from clearfuse.synth import color
from clearfuse.synth.samples.control import adjust, controlled, marked
from clearfuse.synth.shards.records import Control
from clearfuse.synth.types import TAGS, Tag
from conftest import textured


def luminance(image: np.ndarray) -> np.ndarray:
    """The luma of a picture, in codes."""
    return color.luma(image.astype(np.float32))


@pytest.mark.parametrize(("tag", "gamma"), [("LIGHT++", 0.5), ("LIGHT+", 0.75), ("LIGHT-", 4 / 3), ("LIGHT--", 2.0)])
def test_brightness_is_a_power_law_on_code_values(tag: Tag, gamma: float) -> None:
    picture = textured(1)
    target, _ = controlled(picture, tag)
    exact = 255 * (picture / 255) ** gamma
    assert np.abs(target - exact).max() <= 0.5 + 1e-9
    assert (luminance(target).mean() > luminance(picture).mean()) == (gamma < 1)
    ends = np.array([[[0], [255]]], np.uint8)
    assert np.array_equal(controlled(ends, tag)[0], ends), "black and white stay"


def test_brightness_is_in_steps_of_which_one_undoes_the_other() -> None:
    codes = np.arange(256, dtype=np.uint8).reshape(1, 256, 1)
    means = {tag: controlled(codes, tag)[0].mean() for tag in TAGS if tag.startswith("LIGHT")}
    assert means["LIGHT++"] > means["LIGHT+"] > codes.mean() > means["LIGHT-"] > means["LIGHT--"]
    darker = codes[:, 64:].astype(float)
    there_and_back = controlled(controlled(codes[:, 64:], "LIGHT-")[0], "LIGHT+")[0]
    assert np.abs(there_and_back - darker).max() <= 1


@pytest.mark.parametrize(("tag", "factor"), [("CONTRAST+", 1.5), ("CONTRAST-", 0.6)])
def test_contrast_is_about_the_mean_luma(tag: Tag, factor: float) -> None:
    picture = textured(2)
    target, how = controlled(picture, tag)
    assert how.pivot == pytest.approx(luminance(picture).mean(), abs=0.01)
    exact = np.clip(how.pivot + factor * (picture - how.pivot), 0, 255)
    assert np.abs(target - exact).max() <= 0.5 + 1e-9
    assert (luminance(target).std() > luminance(picture).std()) == (factor > 1)


@pytest.mark.parametrize(("tag", "stops"), [("WARM+", 0.25), ("WARM-", -0.25)])
def test_warmth_is_a_gain_of_red_and_blue_in_linear_light(tag: Tag, stops: float) -> None:
    picture = (textured(3) * 0.7).astype(np.uint8)
    light, target = color.code_to_linear(picture), controlled(picture, tag)[0]
    assert np.array_equal(target[..., 1], picture[..., 1])
    for channel, by in ((0, stops), (2, -stops)):
        exact = 255 * color.linear_to_srgb(np.minimum(light[..., channel] * 2**by, 1))
        assert np.abs(target[..., channel] - exact).max() <= 0.5 + 1e-3


@pytest.mark.parametrize("tag", TAGS)
def test_the_record_makes_the_target_again(tag: Tag) -> None:
    for channels in (1, 3):
        picture = textured(4, channels=channels)
        target, how = controlled(picture, tag)
        assert np.array_equal(adjust(picture, Control.model_validate_json(how.model_dump_json())), target)
        assert target.shape[2] == (3 if tag.startswith("WARM") else channels)


def test_the_mark_is_half_blue_on_the_mask_and_nothing_beside_it() -> None:
    picture = textured(5)
    mask = np.zeros(picture.shape[:2], np.bool_)
    mask[10:40, 20:70] = True
    target = marked(picture, mask)
    assert np.array_equal(target[~mask], picture[~mask])
    assert np.array_equal(target[mask], np.floor(picture[mask] / 2 + np.array([0, 0, 127.5]) + 0.5))
    grey = textured(5, channels=1)
    assert np.array_equal(marked(grey, mask)[~mask], np.repeat(grey, 3, 2)[~mask])
