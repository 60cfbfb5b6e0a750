"""What a frame holds, and the calls that put faces and cut-outs into it, far things first.

Nothing is drawn at once: the calls queue, and ``scenes.rendering.shading.render`` finds which face each pixel shows and
lights only that.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from clearfuse.synth.scenes.rendering.faces import Axis, Face, Real, Rgb
from clearfuse.synth.scenes.rendering.view import View


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
    """All that lights a scene. Irradiances over pi, so that radiance = albedo times their sum."""

    sun: Rgb
    sun_from: Axis
    sky: Rgb
    bounce: Rgb
    mirror: Rgb
    air: Real
    lamps: list[Lamp] = field(default_factory=list)


@dataclass
class Batch:
    """Faces drawn by one call, the first the farthest, under the light of that moment."""

    faces: list[Face]
    light: Light
    level: bool
    round_off: Real


@dataclass
class Cutout:
    """A sprite drawn by one call; its base in camera axes."""

    levels: tuple[np.ndarray, ...]
    base: np.ndarray
    width: Real
    tint: Rgb
    warmth: Real
    flip: bool
    light: Light


@dataclass
class Stain:
    """A polygon that darkens the ground: of the sun's light alone (a shadow) or of all of it (contact)."""

    contour: np.ndarray
    sun: bool
    level: Real


@dataclass
class Frame:
    """The picture so far (at first the sky), and the shadow masks that level ground receives (1 lit).

    patch: sunlight on a room's floor, 0 to 1, and by how much it multiplies the light there.
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


def draw(frame: Frame, faces: list[Face], *, level: bool = False, round_off: Real = 0.0) -> None:
    """Draw faces, the first the farthest, over the frame. level: they lie on the ground and receive shadows.

    round_off: how strongly a flat figure is shaded as if it were round.
    """
    if faces:
        frame.queue.append(Batch(faces, frame.light, level, round_off))


def paste(
    frame: Frame,
    levels: tuple[np.ndarray, ...],
    centre: Axis,
    width: Real,
    tint: Rgb,
    *,
    warmth: Real = 0.0,
    flip: bool = False,
) -> None:
    """A flat cut-out facing the camera: ``levels``, each (h, w, 4), hold albedo factors and
    coverage, the finest first; base at ``centre``.

    width: metres. The sprite's own shading is in its factors.
    """
    base = frame.view.to_camera(np.array(centre, float))
    if base[2] >= 0.4:
        frame.queue.append(Cutout(levels, base, width, tint, warmth, flip, frame.light))
