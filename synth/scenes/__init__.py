"""Built-in scenes: procedural streets, yards and rooms with linear radiance, metric depth and temperature.

Each seed gives another scene, and a pair for each task: visible and infrared, under- and over-exposed, near and far
focus.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float32, UInt8, UInt16

from clearfuse.synth.scenes.interior import interior
from clearfuse.synth.scenes.rendering import imaging
from clearfuse.synth.scenes.rendering.focus import focused, separate, split_depth
from clearfuse.synth.scenes.rendering.imaging import repeated
from clearfuse.synth.scenes.rendering.renderer import CLASSES, OBJECTS, Frame
from clearfuse.synth.scenes.rendering.shading import render
from clearfuse.synth.scenes.street import street
from clearfuse.synth.scenes.yard import yard
from clearfuse.synth.seeds import generator, seed_of
from clearfuse.synth.types import Task, unknown

KINDS = ("street", "yard", "interior")
SMALLEST = 16
_BUILDERS: dict[str, Callable[..., Frame]] = {"street": street, "yard": yard, "interior": interior}


@dataclass(frozen=True)
class SceneMap:
    """The physical quantities of a scene. radiance: linear RGB. depth: metres along the ray, infinity for the sky.

    temperature: kelvin. classes: what each pixel shows, numbers of ``CLASSES``. objects: which person or car, numbers
    from 1; 0: none. seed: of the cameras' noise; the maps themselves have none.
    """

    kind: str
    night: bool
    radiance: Float32[np.ndarray, "h w 3"]
    depth: Float32[np.ndarray, "h w"]
    temperature: Float32[np.ndarray, "h w"]
    classes: UInt8[np.ndarray, "h w"]
    objects: UInt16[np.ndarray, "h w"]
    seed: int


@dataclass(frozen=True)
class ScenePair:
    """A clean pair of one task with its depth in metres. gt: the all-in-focus image of MFF, else None.

    classes: what each pixel shows, numbers of ``CLASSES``. objects: which person or car, numbers from 1; 0: none.
    a and b are of one world and one camera, with its mild noise, independent in each. gt has none: it is what the
    camera would give in the mean of many frames, so that no fusion of the two can have less noise.
    """

    a: UInt8[np.ndarray, "h w c"]
    b: UInt8[np.ndarray, "h w d"]
    gt: UInt8[np.ndarray, "h w c"] | None
    depth: Float32[np.ndarray, "h w"]
    kind: str
    night: bool
    classes: UInt8[np.ndarray, "h w"]
    objects: UInt16[np.ndarray, "h w"]


def make_scene(
    seed: int, size: tuple[int, int] = (640, 480), kind: str | None = None, night: bool | None = None
) -> SceneMap:
    """The scene of a seed. size: (width, height), at least 16 each; kind and night are drawn where None."""
    rng = generator(seed_of(seed, "scene"))
    drawn_kind, drawn_night = str(rng.choice(KINDS, p=(0.45, 0.3, 0.25))), bool(rng.random() < 0.5)
    return _scene(rng, seed, size, drawn_kind if kind is None else kind, drawn_night if night is None else night)


def _scene(
    rng: np.random.Generator, seed: int, size: tuple[int, int], kind: str, night: bool, **rest: bool
) -> SceneMap:
    if kind not in _BUILDERS:
        raise unknown("scene kind", kind, KINDS)
    if min(size) < SMALLEST:
        raise ValueError(f"size {size[0]}x{size[1]}: a scene is at least {SMALLEST}x{SMALLEST}")
    frame = _BUILDERS[kind](rng, size, night, **rest)
    render(frame)
    view = frame.view
    rx, ry = view.rays(0, view.width, 0, view.height)
    along = np.sqrt(1 + rx[None, :] ** 2 + ry[:, None] ** 2)
    depth = np.maximum(frame.z * along, np.float32(0.25))
    radiance = _aerial(frame.radiance, depth, night) if kind != "interior" else frame.radiance
    radiance = np.maximum(_glare(radiance), 0)
    return SceneMap(kind, night, radiance, depth, frame.temperature, frame.classes, frame.objects, seed)


def _aerial(radiance: np.ndarray, depth: np.ndarray, night: bool) -> np.ndarray:
    """Aerial perspective of clear air: L t + A (1 - t), t = exp(-depth / 900 m), 2000 m at night; A: the horizon."""
    t = cv2.exp(depth * np.float32(-1 / (2000 if night else 900)))
    t[np.isinf(depth)] = 1
    air = np.array((0.002, 0.002, 0.003) if night else (0.62, 0.72, 0.86), np.float32)
    radiance *= repeated(t)
    radiance += cv2.merge([(1 - t) * a for a in air])
    return radiance


def _glare(radiance: np.ndarray) -> np.ndarray:
    """Veiling glare of the lens: two per cent of the light in two wide halos, computed at low resolution."""
    h, w = radiance.shape[:2]
    small = cv2.resize(radiance, (max(w // 4, 4), max(h // 4, 4)), interpolation=cv2.INTER_AREA)
    sigma = small.shape[1] / 160
    halos = 0.014 * cv2.GaussianBlur(small, (0, 0), sigma * 2.2) + 0.006 * cv2.GaussianBlur(small, (0, 0), sigma * 8)
    return cv2.addWeighted(radiance, 0.98, cv2.resize(halos, (w, h), interpolation=cv2.INTER_LINEAR), 1, 0)


def _noise(scene: SceneMap, frame: str) -> imaging.Noise:
    """The noise of one frame: the scene's camera, with deviates of the frame's own."""
    full_well = float(generator(seed_of(scene.seed, "camera")).uniform(*imaging.FULL_WELLS))
    return imaging.Noise(full_well, generator(seed_of(scene.seed, "noise", frame)))


def visible(scene: SceneMap) -> UInt8[np.ndarray, "h w 3"]:
    """The photograph of a scene at the metered exposure, with the noise of a good exposure."""
    exposure = imaging.metered(scene.radiance, night=scene.night)
    return imaging.finish(scene.radiance, exposure, _noise(scene, "visible"))


def infrared(scene: SceneMap) -> UInt8[np.ndarray, "h w 1"]:
    """The thermal image of a scene, with the detector's noise."""
    return imaging.thermal(scene.temperature, scene.depth, generator(seed_of(scene.seed, "noise", "infrared")))


def exposure_pair(scene: SceneMap, ev: float = 2.0) -> tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w 3"]]:
    """The photographs ``ev`` stops under and over the metered exposure, each with its own noise."""
    exposure = imaging.metered(scene.radiance, night=False, key=0.12)
    under = imaging.expose(scene.radiance, -ev, exposure, _noise(scene, "under"))
    return under, imaging.expose(scene.radiance, ev, exposure, _noise(scene, "over"))


def focus_pair(
    scene: SceneMap, blur: float = 0.010
) -> tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w 3"]]:
    """The near-focus, the far-focus and the all-in-focus image. blur: largest disc radius as a share of the width.

    The two frames have noise, the all-in-focus image, which is their ground truth, has none.
    """
    inverse = 1 / scene.depth
    cut = split_depth(inverse)
    sampled = inverse[::2, ::2]
    near_side = sampled > cut
    near = 1 / float(np.percentile(sampled[near_side], 85)) if near_side.any() else 2.0
    far = 1 / max(float(np.median(sampled[~near_side])), 1 / 60) if (~near_side).any() else 20.0
    aperture = blur * scene.depth.shape[1] / max(1 / near - 1 / far, 1e-3)
    exposure = imaging.metered(scene.radiance, night=scene.night)
    sides = separate(scene.radiance, scene.depth, aperture, cut)
    a, b = (
        imaging.finish(focused(sides, z, aperture), exposure, _noise(scene, frame))
        for z, frame in ((near, "near"), (far, "far"))
    )
    return a, b, imaging.finish(scene.radiance, exposure)


def scene_pair(task: Task, seed: int, size: tuple[int, int] = (640, 480)) -> ScenePair:
    """A clean pair for a task. VIF: by day or night; MEF: high dynamic range; MFF: a subject close to the camera."""
    rng = generator(seed_of(seed, "pair", task))
    u, v = float(rng.random()), float(rng.random())
    if task == "vif":
        kind = "street" if u < 0.6 else "yard" if u < 0.92 else "interior"
        scene = _scene(rng, seed, size, kind, v < 0.5)
        return _pair(scene, visible(scene), infrared(scene))
    if task == "mef":
        kind = "interior" if u < 0.5 else "street" if u < 0.8 else "yard"
        dark = kind != "interior" and v < 0.75
        scene = _scene(rng, seed, size, kind, dark, dusk=dark)
        under, over = exposure_pair(scene)
        return _pair(scene, under, over)
    if task == "mff":
        kind = "interior" if u < 0.35 else "street" if u < 0.7 else "yard"
        scene = _scene(rng, seed, size, kind, v < 0.12, near=True)
        near, far, truth = focus_pair(scene)
        return _pair(scene, near, far, truth)
    raise unknown("task", task, ("vif", "mef", "mff"))


def _pair(scene: SceneMap, a: np.ndarray, b: np.ndarray, gt: np.ndarray | None = None) -> ScenePair:
    return ScenePair(a, b, gt, scene.depth, scene.kind, scene.night, scene.classes, scene.objects)


__all__ = [
    "CLASSES", "KINDS", "OBJECTS", "SceneMap", "ScenePair", "exposure_pair", "focus_pair", "infrared", "make_scene",
    "scene_pair", "visible",
]  # fmt: skip
