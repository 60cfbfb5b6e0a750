"""People and dogs: flat figures, facing the camera, with their shadows."""

from __future__ import annotations

import math

import numpy as np

from clearfuse.synth.scenes.rendering.faces import Face, Real, Upright, limb, srgb, tinted
from clearfuse.synth.scenes.rendering.renderer import Frame, draw
from clearfuse.synth.scenes.rendering.shadows import cast_shadow, ground_contact
from clearfuse.synth.scenes.things.clothing import SKIN
from clearfuse.synth.scenes.things.people import person_faces


def upright(frame: Frame, x: Real, z: Real) -> Upright:
    """A vertical plane at a ground point, facing the camera."""
    view = frame.view
    dx, dz = x - view.x, z
    away = math.hypot(dx, dz)
    return Upright(x, z, (dz / away, -dx / away))


DETAILED = 14.0
"""Distance in metres within which a person's face has features."""


def place_shadow(frame: Frame, x: Real, z: Real, faces: list[Face], radius: Real) -> None:
    """Add a figure's shadows to the frame: its faces, turned to face the sun, and the contact shadow at its feet."""
    sun = frame.light.sun_from
    flat = math.hypot(sun[0], sun[2]) or 1.0
    across = np.array([-sun[2] / flat, 0, sun[0] / flat])
    here = np.array([x, 0, z])
    contours = []
    for face in faces:
        c = face.contours[0]
        off = (c - here)[:, [0, 2]]
        long = np.hypot(off[:, 0], off[:, 1]) * np.sign(off @ np.array([1.0, 0.35]) + 1e-9)
        contours.append(here + across * long[:, None] + np.array([0, 1, 0]) * c[:, 1:2])
    cast_shadow(frame, contours)
    ground_contact(frame, x, z, radius, radius * 0.7, dark=0.45)


def person(frame: Frame, rng: np.random.Generator, x: Real, z: Real, **rest):
    """A person: the function that draws it; its shadow is added to the frame immediately."""
    height = float(rng.uniform(1.55, 1.86))
    near = z < DETAILED
    faces, features = person_faces(rng, upright(frame, x, z), height, float(frame.light.air), **rest)
    place_shadow(frame, x, z, faces, 0.24)
    return lambda: draw(frame, faces + features * near, round_off=0.9, shows="person")


def dog(frame: Frame, rng: np.random.Generator, x: Real, z: Real):
    """A dog in side view: the function that draws it; its shadow is added to the frame immediately."""
    coat = (srgb(0x8A5A2E), srgb(0x2A2420), srgb(0xC9A877), srgb(0xD9D4CC))[int(rng.integers(4))]
    plane = upright(frame, x, z)
    side = 1 if rng.random() < 0.5 else -1
    k = float(rng.uniform(0.75, 1.15))
    warm = max(SKIN - float(frame.light.air), 6.0)
    parts = [
        (limb([(-0.22, 0.36), (-0.27, 0.2), (-0.25, 0.02)], [0.06, 0.035, 0.03]), 0.7),
        (limb([(0.2, 0.34), (0.23, 0.18), (0.21, 0.02)], [0.06, 0.035, 0.03]), 0.7),
        (limb([(-0.3, 0.46), (-0.42, 0.56), (-0.47, 0.68)], [0.03, 0.022, 0.012]), 0.9),
        (limb([(-0.25, 0.42), (0, 0.4), (0.24, 0.43)], [0.11, 0.1, 0.125]), 1.0),
        (limb([(-0.26, 0.4), (-0.21, 0.2), (-0.25, 0.02)], [0.075, 0.038, 0.032]), 1.0),
        (limb([(0.24, 0.38), (0.25, 0.18), (0.26, 0.02)], [0.065, 0.036, 0.03]), 1.0),
        (limb([(0.26, 0.46), (0.36, 0.6)], [0.085, 0.07]), 1.0),
        (limb([(0.36, 0.62), (0.47, 0.6), (0.54, 0.58)], [0.085, 0.055, 0.036]), 1.05),
        (limb([(0.33, 0.68), (0.29, 0.58)], [0.03, 0.04]), 0.65),
    ]
    faces = [
        plane.face(
            p * np.array([side * k, k]),
            tinted(coat, tone),
            warmth=warm * (0.42 if i != 7 else 0.62),
            material="folds",
            scale=0.5,
        )
        for i, (p, tone) in enumerate(parts)
    ]
    place_shadow(frame, x, z, faces, 0.35)
    return lambda: draw(frame, faces, round_off=0.9)
