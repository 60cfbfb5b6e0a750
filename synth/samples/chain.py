"""The imaging chain: steps in physical order, at most one conversion to linear light and one back.

scene -> optics -> exposure -> sensor -> processing -> resolution -> codec. Applying steps draws nothing: parameters and
seeds are in the steps, so the same clean image, depth and steps give the same pixels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from clearfuse.synth import color
from clearfuse.synth.operators import operator_class, physical_order, reaches
from clearfuse.synth.operators.base import LINEAR_STAGES, Operator, Scene
from clearfuse.synth.operators.light.pair import light_of_pair
from clearfuse.synth.seeds import generator, seed_of
from clearfuse.synth.types import MODALITIES, ImageName, Modality, Step, Task


def apply_steps(
    image: np.ndarray,
    steps: Sequence[Step],
    *,
    task: Task,
    name: ImageName,
    depth: np.ndarray | None = None,
    beside: np.ndarray | None = None,
) -> np.ndarray:
    """The image ``name`` of a pair, ``(h, w, c)`` uint8, after the steps that affect it.

    depth: (h, w) float32 metres along the ray, infinity for the sky; required where a step needs it. beside: the other
    clean image, (h, w, c) uint8: where both are visible, weather takes one light for both; None: this image alone
    decides. Raises ValueError for steps without a seed, whose degradation came with the data set.
    """
    if any(step.seed is None for step in steps):
        raise ValueError("a step that came with the image has no parameters and no seed: it cannot be applied")
    one_camera = set(MODALITIES[task].values()) == {"visible"}
    calls: list[tuple[Operator, np.random.Generator]] = []
    for step in steps:
        if reaches(step, name):
            cls = operator_class(step.op)
            drawn_for = "a" if one_camera and cls.on_lens else name
            calls.append((cls(**step.params), generator(seed_of(step.seed, drawn_for))))
    if not calls:
        return image
    scene = Scene(MODALITIES[task][name], depth)
    return color.to_uint8(run_chain(image, calls, scene, beside if one_camera else None))


def run_chain(
    image: np.ndarray,
    calls: Sequence[tuple[Operator, np.random.Generator]],
    scene: Scene,
    beside: np.ndarray | None = None,
) -> np.ndarray:
    """Apply operators, in this order, to a uint8 or float32 ``(h, w, c)`` image; returns float32 code values.

    beside: another exposure of the same scene, clean, of the same type.
    """
    converts = scene.modality == "visible"
    needs_linear = [converts and op.stage in LINEAR_STAGES for op, _ in calls]
    x, linear = _to_working_space(image, bool(needs_linear and needs_linear[0]))
    bounded = True
    if linear and any(op.restores for op, _ in calls):
        other = None if beside is None else _to_working_space(beside, linear=True)[0]
        light, x = light_of_pair(x, other, scene.depth)
        scene, bounded = dataclasses.replace(scene, light=light), False
    for (op, rng), needs in zip(calls, needs_linear, strict=True):
        if not op.unclipped and not bounded:
            np.clip(x, 0, 1, out=x)  # full well
            bounded = True
        if linear and not needs:
            x, linear = color.linear_to_srgb(x), False
        elif needs and not linear:
            raise ValueError(f"{op.name} ({op.stage}) after a step in code values: steps are not in physical order")
        shape = x.shape
        x = op(x, rng, scene)
        if x.shape != shape:
            raise ValueError(f"{op.name} made {x.shape} of an image of {shape}: an operator keeps the shape")
        bounded = bounded and not op.unclipped
    if linear:
        return color.linear_to_srgb(x)
    return x if bounded else np.clip(x, 0, 1)


def _to_working_space(image: np.ndarray, linear: bool) -> tuple[np.ndarray, bool]:
    if image.dtype == np.uint8:
        return (color.code_to_linear(image) if linear else color.code_to_float(image)), linear
    return (color.srgb_to_linear(image) if linear else image.astype(np.float32)), linear


def degrade(
    image: np.ndarray,
    ops: str | Sequence[str],
    *,
    severity: float | None = None,
    seed: int = 0,
    depth: np.ndarray | None = None,
    modality: Modality = "visible",
) -> np.ndarray:
    """Degrade one image: ``degrade(image, "haze", severity=0.6, seed=1, depth=metres)``.

    image: (h, w) or (h, w, c), uint8 or float32 in [0, 1]; shape and type stay. One channel does not imply
    infrared: pass ``modality="infrared"``. ops: a name or a list, put in physical order. severity: 0 to 1; None
    draws it. depth: (h, w) metres along the ray, infinity for the sky, used as given. Raises ValueError for a bad
    image, and where an operator needs depth and it is None.
    """
    names = physical_order([ops] if isinstance(ops, str) else ops)
    frame = _check_image(image)
    if depth is not None and depth.shape != frame.shape[:2]:
        raise ValueError(f"depth is {depth.shape}, the image {frame.shape[:2]}: they must agree")
    calls: list[tuple[Operator, np.random.Generator]] = []
    for name in names:
        cls = operator_class(name)
        if cls.needs_depth and depth is None:
            raise ValueError(f"{name} needs depth: pass depth=metres along the ray, (h, w)")
        op = cls.draw(generator(seed_of(seed, name, "draw")), severity)
        calls.append((op, generator(seed_of(seed, name, "apply"))))
    out = run_chain(frame, calls, Scene(modality, depth))
    out = color.to_uint8(out) if image.dtype == np.uint8 else np.clip(out, 0, 1)
    return out.reshape(image.shape)


def _check_image(image: np.ndarray) -> np.ndarray:
    if image.dtype not in (np.uint8, np.float32):
        raise ValueError(f"image is {image.dtype}: must be uint8, or float32 in [0, 1]")
    frame = color.as_hwc(image)
    if frame.ndim != 3 or frame.shape[2] not in (1, 3) or 0 in frame.shape:
        raise ValueError(f"image is {image.shape}: must be (h, w), (h, w, 1) or (h, w, 3)")
    if image.dtype == np.float32 and not (np.isfinite(image).all() and image.min() >= 0 and image.max() <= 1):
        raise ValueError("image is float32 outside [0, 1]: divide by its full scale first")
    return frame
