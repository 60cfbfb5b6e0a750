"""Properties of every operator in the table, derived from its declarations."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from clearfuse.synth import color
from clearfuse.synth.operators import OPERATORS, physical_order
from clearfuse.synth.operators.base import STAGES, Operator, Scene
from clearfuse.synth.samples.chain import apply_steps, degrade, run_chain
from clearfuse.synth.seeds import generator, seed_of
from clearfuse.synth.types import ImageName, Modality, Step, UserError

NAMES = list(OPERATORS)
RANDOM = {
    "motion_blur",
    "gaussian_noise",
    "sensor_noise",
    "ir_stripes",
    "ir_dead_pixels",
    "rain",
    "snow",
    "lens_rain",
    "ghosting",
}
"""Operators whose pixels depend on the seed of the step, not only on its parameters."""
SIZES = [(1, 1), (1, 9), (9, 1), (2, 3), (17, 33)]
SEVERITIES = (0.0, 0.25, 0.5, 0.75, 1.0)
IDENTITY_TOLERANCE = {("jpeg", 1): 2.0, ("jpeg", 3): 5.0}
"""In 1/255 by channels, where it is not 1: at quality 100 JPEG still rounds Y'CbCr and its DCT to whole numbers."""


def parameters() -> list[tuple[str, str]]:
    return [(name, parameter) for name, cls in OPERATORS.items() for parameter in cls.ranges()]


def identities() -> list[str]:
    return [name for name, cls in OPERATORS.items() if cls.identity() is not None]


def modality_of(name: str) -> Modality:
    return "visible" if "visible" in OPERATORS[name].modalities else "infrared"


def modalities_of(name: str) -> list[Modality]:
    """The modalities that a step may target, and the infrared for weather, which affects both images."""
    cls = OPERATORS[name]
    return [m for m in ("visible", "infrared") if m in cls.modalities or (cls.event and m == "infrared")]


def metres(h: int, w: int) -> np.ndarray:
    """A street: sky in the top third, ground from 60 m down to 4 m, a wall at 12 m on the right."""
    rows = np.linspace(0, 1, h, dtype=np.float32)[:, None]
    depth = np.broadcast_to(4 / np.maximum(1.5 * rows - 0.43, 1e-3) ** 0.9, (h, w)).astype(np.float32)
    depth[rows[:, 0] < 0.33] = np.inf
    depth[h // 4 :, 3 * w // 4 :] = np.minimum(depth[h // 4 :, 3 * w // 4 :], 12)
    return depth


def scene_of(name: str, h: int, w: int, modality: Modality | None = None) -> Scene:
    return Scene(modality or modality_of(name), metres(h, w))


def textured(h: int, w: int, c: int, seed: int = 0) -> np.ndarray:
    """A uint8 image with structure at all scales: smooth noise over octaves, edges, and a fine texture."""
    rng = generator(seed_of("textured", h, w, c, seed))
    image = np.full((h, w, c), 0.45)
    for octave in range(1, 6):
        coarse = rng.standard_normal((2**octave + 1, 2**octave + 1, c)).astype(np.float32)
        image += 0.08 * color.as_hwc(cv2.resize(coarse, (w, h), interpolation=cv2.INTER_CUBIC))
    for _ in range(12):
        y, x = int(rng.integers(0, h)), int(rng.integers(0, w))
        image[y : y + h // 5 + 1, x : x + w // 5 + 1] += 0.2 * rng.standard_normal(c)
    image += 0.02 * rng.standard_normal((h, w, c))
    return color.to_uint8(np.clip(image, 0.04, 0.96))


def drawn(name: str, severity: float, seed: int = 0) -> Operator:
    return OPERATORS[name].draw(generator(seed_of("law", name, seed)), severity)


def through_chain(op: Operator, image: np.ndarray, seed: int = 0, scene: Scene | None = None) -> np.ndarray:
    where = scene or scene_of(op.name, *image.shape[:2])
    return run_chain(image, [(op, generator(seed))], where)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((a.astype(np.float64) - b) ** 2) / 255**2 + 1e-12))


def shared() -> Path:
    """The folder of real pairs; tests that need it are skipped where it is missing."""
    folder = Path(os.environ.get("CLEARFUSE_SHARED", Path(__file__).resolve().parents[2].parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no real pairs: {folder / 'data'} is absent; set CLEARFUSE_SHARED")
    return folder / "data"


# The table


def test_table_is_in_physical_order() -> None:
    places = [STAGES.index(cls.stage) for cls in OPERATORS.values()]
    assert places == sorted(places)
    assert physical_order(reversed(NAMES)) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_operator_is_a_documented_frozen_dataclass(name: str) -> None:
    cls = OPERATORS[name]
    assert cls.name == name
    assert dataclasses.is_dataclass(cls)
    op = drawn(name, 0.5)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(op, next(iter(cls.ranges())), 0)
    doc = cls.__doc__ or ""
    assert len(doc) > 60
    assert not doc.startswith(f"{cls.__name__}("), "the dataclass's generated signature is no documentation"
    assert len(cls.source) > 10
    assert cls.modalities


@pytest.mark.parametrize(("name", "parameter"), parameters())
def test_every_parameter_is_declared(name: str, parameter: str) -> None:
    declared = OPERATORS[name].ranges()[parameter]
    assert len(declared.doc) > 5
    if declared.kind == "choice":
        assert len(declared.options) > 1
        assert declared.identity is None or declared.identity in declared.options
        return
    for end in (declared.mild, declared.strong):
        declared.check(parameter, end)
    assert math.isfinite(declared.low)
    assert math.isfinite(declared.high)
    if declared.identity is not None:
        declared.check(parameter, declared.identity)


# Draws


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("severity", [None, 0.0, 0.37, 1.0])
def test_draws_are_valid_json_and_repeat(name: str, severity: float | None) -> None:
    cls = OPERATORS[name]
    for seed in range(30):
        op = cls.draw(generator(seed), severity)
        assert cls(**json.loads(json.dumps(op.params()))) == op
        assert cls.draw(generator(seed), severity) == op


@pytest.mark.parametrize("name", NAMES)
def test_severity_drives_from_the_mild_to_the_strong_end(name: str) -> None:
    ranges = {n: r for n, r in OPERATORS[name].ranges().items() if r.kind == "severe"}
    assert ranges, "severity changes nothing"
    draws = [drawn(name, s).params() for s in SEVERITIES]
    for parameter, declared in ranges.items():
        values = [draw[parameter] for draw in draws]
        assert values[0] == pytest.approx(declared.mild, rel=1e-5)
        assert values[-1] == pytest.approx(declared.strong, rel=1e-5)
        assert values == sorted(values, reverse=declared.strong < declared.mild)


@pytest.mark.parametrize("name", NAMES)
def test_draws_that_severity_does_not_touch_stay(name: str) -> None:
    cls = OPERATORS[name]
    rest = [n for n, r in cls.ranges().items() if r.kind != "severe"]
    seen: list[tuple[Any, ...]] = []
    for severity in (None, *SEVERITIES):
        rng = generator(11)
        op = cls.draw(rng, severity)
        seen.append((*(op.params()[n] for n in rest), rng.random()))
    assert len(set(seen)) == 1


@pytest.mark.parametrize(("name", "parameter"), parameters())
def test_values_out_of_bounds_are_refused(name: str, parameter: str) -> None:
    cls, declared = OPERATORS[name], OPERATORS[name].ranges()[parameter]
    good = drawn(name, 0.5).params()
    if declared.kind == "choice":
        wrong = "none of these" if isinstance(good[parameter], str) else 999  # of the type that it has
        with pytest.raises(ValueError, match=rf"{name}\.{parameter} = {wrong!r}: allowed: "):
            cls(**(good | {parameter: wrong}))
        return
    step = 1 if declared.integer else 1e-3
    bounds = rf"must be in \[{declared.low:g}, {declared.high:g}\]"
    for bad in (declared.low - step, declared.high + step):
        value = round(bad) if declared.integer else float(bad)
        with pytest.raises(ValueError) as error:
            cls(**(good | {parameter: value}))
        assert f"{name}.{parameter} = {value:g}: " in str(error.value)
        assert bounds.replace("\\", "") in str(error.value)


@pytest.mark.parametrize("severity", [-0.1, 1.1])
def test_severity_out_of_bounds_is_refused(severity: float) -> None:
    with pytest.raises(ValueError, match=r"must be in \[0, 1\]"):
        OPERATORS[NAMES[0]].draw(generator(0), severity)


# Pixels


def check_call(name: str, image: np.ndarray, severity: float, modality: Modality) -> None:
    """One call on float32: shape, type, finiteness, range, and an unchanged input."""
    op, before = drawn(name, severity), image.copy()
    scene = scene_of(name, *image.shape[:2], modality)
    depth = None if scene.depth is None else scene.depth.copy()
    out = op(image, generator(3), scene)
    np.testing.assert_array_equal(image, before, err_msg="the input was changed")
    np.testing.assert_array_equal(scene.depth, depth, err_msg="the depth was changed")
    assert out is not image
    assert not np.shares_memory(out, image)
    assert out.shape == image.shape
    assert out.dtype == np.float32
    assert np.isfinite(out).all()
    assert out.min() >= 0
    if not op.unclipped:
        assert out.max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_any_size_and_content(name: str, channels: int, size: tuple[int, int]) -> None:
    shape = (*size, channels)
    for modality in modalities_of(name):
        for severity in (0.0, 1.0):
            for image in (np.zeros(shape), np.ones(shape), textured(*shape) / 255):
                check_call(name, image.astype(np.float32), severity, modality)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_usual_size(name: str, channels: int) -> None:
    for modality in modalities_of(name):
        check_call(name, color.code_to_float(textured(480, 640, channels)), 1.0, modality)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_large_size(name: str) -> None:
    check_call(name, color.code_to_float(textured(2000, 3000, 3)), 1.0, modality_of(name))


@pytest.mark.parametrize("name", NAMES)
def test_what_leaves_the_chain_is_in_range(name: str) -> None:
    for seed in range(4):
        out = through_chain(drawn(name, 1.0, seed), textured(40, 56, 3, seed), seed)
        assert np.isfinite(out).all()
        assert out.min() >= 0
        assert out.max() <= 1 or modality_of(name) == "infrared"


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_same_pixels(name: str) -> None:
    image, op = textured(120, 160, 3), drawn(name, 1.0)
    first = through_chain(op, image, 5)
    np.testing.assert_array_equal(first, through_chain(op, image, 5))
    assert np.array_equal(first, through_chain(op, image, 6)) != (name in RANDOM)


@pytest.mark.parametrize("name", NAMES)
def test_replay_from_json_is_bit_for_bit(name: str) -> None:
    infrared = "visible" not in OPERATORS[name].modalities
    image, depth = textured(72, 96, 1 if infrared else 3), metres(72, 96)
    reached: list[tuple[ImageName, Modality]] = [("b", "infrared")] if infrared else [("a", "visible")]
    if OPERATORS[name].event:
        reached.append(("b", "infrared"))
    for seed in range(5):
        op = OPERATORS[name].draw(generator(seed), None)
        step = Step(name, "b" if infrared else "a", op.params(), seed_of("replay", name, seed))
        read = Step(**json.loads(json.dumps(asdict(step))))
        assert read == step
        for which, modality in reached:
            direct = run_chain(image, [(op, generator(seed_of(step.seed, which)))], Scene(modality, depth))
            replayed = apply_steps(image, [read], task="vif", name=which, depth=depth)
            np.testing.assert_array_equal(replayed, color.to_uint8(direct))


@pytest.mark.parametrize("name", identities())
def test_a_weakened_step_does_less_the_less_is_left_and_at_none_nothing(name: str) -> None:
    """Parameters go in a line to their identity, fog by its extinction, and the change goes with them."""
    cls, modality = OPERATORS[name], modality_of(name)
    image, depth = textured(96, 128, 1 if modality == "infrared" else 3), metres(96, 128)
    params = drawn(name, 0.8).params()
    assert cls.weakened(params, 1.0) == params
    changes = []
    for share in (0.0, 0.5, 1.0):
        op = cls(**cls.weakened(params, share))
        result = run_chain(image, [(op, generator(7))], Scene(modality, depth))
        changes.append(np.abs(result - color.code_to_float(image)).mean())
    assert changes[0] * 255 <= IDENTITY_TOLERANCE.get((name, image.shape[2]), 1.0)
    assert changes[0] - 1 / 255 <= changes[1] < changes[2]
    half = cls.weakened(params, 0.5)
    for key, declared in cls.ranges().items():
        if declared.kind == "severe" and isinstance(declared.identity, (int, float)):
            effect = (lambda v: 1 / v) if declared.reciprocal else (lambda v, at=declared.identity: v - at)
            assert effect(half[key]) == pytest.approx(effect(params[key]) / 2, abs=0.5 if declared.integer else 1e-9), (
                key
            )


@pytest.mark.parametrize("name", identities())
@pytest.mark.parametrize("channels", [1, 3])
def test_identity_gives_the_input_back(name: str, channels: int) -> None:
    op = OPERATORS[name].identity()
    assert op is not None
    tolerance = IDENTITY_TOLERANCE.get((name, channels), 1.0) / 255 + 1e-6
    for modality in modalities_of(name):
        image = textured(90, 120, channels)
        out = through_chain(op, image, 2, scene_of(name, 90, 120, modality))
        np.testing.assert_allclose(out, image / 255, rtol=0, atol=tolerance)


def mean_psnr(name: str, severity: float, images: list[np.ndarray]) -> float:
    """The mean over images with different draws and seeds, which are the same at every severity."""
    return float(
        np.mean(
            [
                psnr(image, color.to_uint8(through_chain(drawn(name, severity, i), image, i)))
                for i, image in enumerate(images)
            ]
        )
    )


def assert_falls(name: str, images: list[np.ndarray]) -> None:
    means = [mean_psnr(name, s, images) for s in SEVERITIES]
    assert all(a > b for a, b in itertools.pairwise(means)), [round(m, 2) for m in means]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_stronger_is_farther_from_clean(name: str) -> None:
    images = [textured(240, 320, 3, seed) for seed in range(3)]
    if name == "ghosting":  # texture alone holds nothing that could move
        for image in images:
            image[90:120, 140:170] = 250
    assert_falls(name, images)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dataset", ["vif/MSRS", "mef/MEFB"])
def test_stronger_is_farther_from_clean_on_real_pairs(name: str, dataset: str) -> None:
    folder = shared() / dataset
    if dataset == "vif/MSRS":
        files = sorted(folder.glob("train/ir/*.png" if modality_of(name) == "infrared" else "train/vi/*.png"))[:6]
    elif modality_of(name) == "infrared":
        pytest.skip(f"{name} is for the infrared, which {dataset} has none of")
    else:
        files = sorted(folder.glob("input/*/*_A.*"))[:6]
    if not files:
        pytest.skip(f"no pictures under {folder}")
    images = [cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB) for file in files]
    assert_falls(name, images)


# degrade(): the function for users


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(24, 31), (24, 31, 1), (24, 31, 3)], ids=str)
def test_degrade_gives_the_same_shape_and_type_back(name: str, shape: tuple[int, ...]) -> None:
    picture = textured(24, 31, shape[2] if len(shape) == 3 else 1).reshape(shape)
    for image in (picture, (picture / 255).astype(np.float32)):
        before = image.copy()
        out = degrade(image, name, severity=0.7, seed=1, depth=metres(24, 31), modality=modality_of(name))
        np.testing.assert_array_equal(image, before)
        assert out.shape == image.shape
        assert out.dtype == image.dtype
        assert out.min() >= 0
        assert out.max() <= (255 if image.dtype == np.uint8 else 1)
        again = degrade(image, name, severity=0.7, seed=1, depth=metres(24, 31), modality=modality_of(name))
        np.testing.assert_array_equal(out, again)


def test_degrade_puts_a_list_in_physical_order() -> None:
    image = textured(40, 50, 3)
    names = ["gaussian_blur", "low_exposure", "gaussian_noise", "jpeg"]
    np.testing.assert_array_equal(degrade(image, names, seed=4), degrade(image, names[::-1], seed=4))


def test_degrade_names_the_nearest_operator() -> None:
    with pytest.raises(UserError) as error:
        degrade(textured(8, 8, 3), "gausian_noise")
    assert str(error.value) == (
        f"unknown operator 'gausian_noise': did you mean 'gaussian_noise'? allowed: {', '.join(sorted(OPERATORS))}"
    )


@pytest.mark.parametrize("name", [name for name, cls in OPERATORS.items() if cls.needs_depth])
def test_degrade_asks_for_the_depth_it_needs(name: str) -> None:
    with pytest.raises(ValueError) as error:
        degrade(textured(8, 8, 3), name)
    assert str(error.value) == f"{name} needs depth: pass depth=metres along the ray, (h, w)"


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4), np.float64), "image is float64: must be uint8, or float32 in [0, 1]"),
        (np.zeros((4, 4, 2), np.uint8), "image is (4, 4, 2): must be (h, w), (h, w, 1) or (h, w, 3)"),
        (np.full((4, 4), 255, np.float32), "image is float32 outside [0, 1]: divide by its full scale first"),
        (np.full((4, 4), np.nan, np.float32), "image is float32 outside [0, 1]: divide by its full scale first"),
    ],
    ids=["float64", "two channels", "255", "nan"],
)
def test_degrade_says_what_is_wrong_with_an_image(image: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError) as error:
        degrade(image, "jpeg")
    assert str(error.value) == message


def placed(array: np.ndarray, offset: int) -> np.ndarray:
    """The same array ``offset`` items past an aligned address, where vectorised code splits it differently."""
    buffer = np.empty(array.size + 64, array.dtype)
    start = (-buffer.ctypes.data // array.itemsize) % 16 + offset
    view = buffer[start : start + array.size].reshape(array.shape)
    view[...] = array
    return view


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_same_pixels_wherever_they_lie_in_memory(name: str) -> None:
    """Results must not depend on memory alignment, not even in the last bit; on a whole chain with conversions."""
    image = textured(97, 131, 3) if modality_of(name) == "visible" else textured(97, 131, 1)
    depth = metres(97, 131)
    made: set[bytes] = set()
    for offset in range(0, 16, 3):
        for severity in (0.3, 0.9):
            op = drawn(name, severity)
            scene = Scene(modality_of(name), placed(depth, offset))
            code = placed(color.code_to_float(image), offset)
            out = run_chain(code, [(op, generator(7))], scene)
            made.add(bytes([int(severity * 10)]) + out.tobytes())
    assert len(made) == 2


def test_a_parameter_has_one_type_in_every_sample() -> None:
    """Readers that infer a schema from the first samples expect one type per name in all of them."""
    types: dict[str, set[str]] = {}
    for cls in OPERATORS.values():
        for seed in range(40):
            for name, value in cls.draw(generator(seed)).params().items():
                types.setdefault(name, set()).add(type(json.loads(json.dumps(value))).__name__)
    assert {name: sorted(kinds) for name, kinds in types.items() if len(kinds) > 1} == {}
