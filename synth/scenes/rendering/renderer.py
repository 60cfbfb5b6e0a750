"""The frame and its draw calls: faces and cut-outs (sprites), from far to near.

Drawing is deferred: calls are queued, and ``scenes.rendering.shading.render`` shades only what is visible.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from clearfuse.synth.scenes.rendering.faces import Axis, Face, Real, Rgb
from clearfuse.synth.scenes.rendering.view import View

CLASSES = ("", "sky", "person", "car", "tree", "building")
"""What a pixel of the label map shows, by number; 0: anything else."""
OBJECTS = ("person", "car")
"""Those of them that are drawn one by one, each by a call of ``draw``: they are counted."""


@dataclass
class Lamp:
    """A point light: radiant intensity over pi, world position; its lobe is cos^(2^doublings) around ``facing``."""

    at: Axis
    power: Rgb
    facing: Axis | None = None
    doublings: int = 0
    size: Real = 0.25


@dataclass
class Light:
    """The light sources of a scene, as irradiances over pi, so that radiance = albedo times their sum.

    sun, sun_from: the sun's light and the direction to it. sky, bounce: light from above and from below. mirror: the
    radiance that glossy faces reflect. air: temperature in kelvin. cooling: kelvin that a horizontal surface without
    heat of its own lies below the air, since it faces the cold sky. rise: kelvin per metre of height on upright faces.
    """

    sun: Rgb
    sun_from: Axis
    sky: Rgb
    bounce: Rgb
    mirror: Rgb
    air: Real
    cooling: Real = 0.0
    rise: Real = 0.0
    lamps: list[Lamp] = field(default_factory=list)


@dataclass
class Batch:
    """The faces of one call, the farthest first, and the light at the time of the call."""

    faces: list[Face]
    light: Light
    level: bool
    round_off: Real
    shows: str


@dataclass
class Cutout:
    """The sprite of one call; its base in camera coordinates."""

    levels: tuple[np.ndarray, ...]
    base: np.ndarray
    width: Real
    tint: Rgb
    warmth: Real
    flip: bool
    light: Light
    shows: str


@dataclass
class Stain:
    """A polygon that darkens the ground: only the sun's light (a cast shadow) or all light (a contact shadow)."""

    contour: np.ndarray
    sun: bool
    level: Real


@dataclass
class Frame:
    """The image, initially the sky: radiance, z in metres, temperature in kelvin.

    sunlit, contact: shadow masks of the ground, 1 where it is lit. patch: mask of sunlight on a room's floor, 0 to 1;
    patch_gain: the factor on the light there. classes: the label map, numbers of ``CLASSES``. objects: which of the
    ``OBJECTS`` a pixel shows, numbers from 1 in the order of the calls; 0: none.
    """

    view: View
    light: Light
    radiance: np.ndarray
    z: np.ndarray
    temperature: np.ndarray
    sunlit: np.ndarray
    contact: np.ndarray
    queue: list[Batch | Cutout] = field(default_factory=list)
    stains: list[Stain] = field(default_factory=list)
    patch: np.ndarray | None = None
    patch_gain: Rgb = (0, 0, 0)
    classes: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.uint8))
    objects: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.uint16))


def draw(frame: Frame, faces: list[Face], *, level: bool = False, round_off: Real = 0.0, shows: str = "") -> None:
    """Draw faces, the farthest first, over the frame. level: they lie on the ground and receive shadows.

    round_off: strength of the shading that makes flat figures look round. shows: one of ``CLASSES``.
    """
    if faces:
        frame.queue.append(Batch(faces, frame.light, level, round_off, shows))


def paste(
    frame: Frame,
    levels: tuple[np.ndarray, ...],
    centre: Axis,
    width: Real,
    tint: Rgb,
    *,
    warmth: Real = 0.0,
    flip: bool = False,
    shows: str = "tree",
) -> None:
    """Draw a flat sprite facing the camera, its base at ``centre``.

    levels: mip levels, each (h, w, 4), the finest first: factors on the albedo, which include the sprite's shading, and
    coverage. width: metres. shows: one of ``CLASSES``; all sprites so far are trees and bushes.
    """
    base = frame.view.to_camera(np.array(centre, float))
    if base[2] >= 0.4:
        frame.queue.append(Cutout(levels, base, width, tint, warmth, flip, frame.light, shows))
