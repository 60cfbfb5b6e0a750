"""People and dogs: flat figures of tapered limbs, facing the camera."""

from __future__ import annotations

import math

import numpy as np

from clearfuse.synth.scenes.rendering.faces import Face, Real, Rgb, Upright, arc, limb, srgb, tinted
from clearfuse.synth.scenes.rendering.renderer import Frame, draw
from clearfuse.synth.scenes.rendering.shadows import cast_shadow, ground_contact

COATS = tuple(
    srgb(c)
    for c in (
        0x2B3A55,
        0x7A2E2A,
        0x3F4A3C,
        0xB08D57,
        0x8C8F94,
        0x24262B,
        0xC9B79C,
        0x4C6A8A,
        0xA8452F,
        0xD8D4CA,
        0x5B4A6B,
        0xC8A132,
    )
)
TROUSERS = tuple(srgb(c) for c in (0x26282E, 0x2F3E5C, 0x4A4237, 0x6B6A66, 0x1D2430, 0x8A7B62))
SKINS = tuple(srgb(c) for c in (0xE3B596, 0xC68E6A, 0x8D5A3C, 0xF0CBB0, 0x5E3B28))
HAIRS = tuple(srgb(c) for c in (0x1B1512, 0x3B281B, 0x6B4A2B, 0x9A7B4F, 0x2A2A2C, 0x8A8A88))


def upright(frame: Frame, x: Real, z: Real) -> Upright:
    """A vertical plane at a ground point, facing the camera."""
    view = frame.view
    dx, dz = x - view.x, z
    away = math.hypot(dx, dz)
    return Upright(x, z, (dz / away, -dx / away))


def person_faces(rng: np.random.Generator, plane: Upright, height: Real, *, walking: bool | None = None) -> list[Face]:
    """A person from behind, from the front or from the side; far limbs first."""
    u = rng.random(12)
    coat, legs = COATS[int(u[0] * len(COATS))], TROUSERS[int(u[1] * len(TROUSERS))]
    skin, hair = SKINS[int(u[2] * len(SKINS))], HAIRS[int(u[3] * len(HAIRS))]
    stride = (0.45 + 0.55 * u[4]) if (u[5] < 0.55 if walking is None else walking) else 0.0
    side = 1 if u[6] < 0.5 else -1
    width = 0.9 + 0.22 * u[7]
    k = height / 1.75
    faces: list[Face] = []

    def part(points: np.ndarray, colour: Rgb, warmth: Real, material: str | None = "folds") -> None:
        scaled = points * np.array([side * k, k])
        faces.append(plane.face(scaled, colour, warmth=warmth, material=material))

    reach = 0.25 * stride
    hips = 0.0 if stride else 0.085
    shoe = srgb(0x201C1A) if u[8] < 0.7 else srgb(0xC9C6C0)
    # The far leg and arm are darker: the body shades them.
    for foot, near, tone in ((-reach, -hips, 0.68), (reach, hips, 1.0)):
        fx = foot * 1.05 + near
        lift = 0.05 * stride if foot < 0 else 0.0
        knee = (near + foot * 0.45 + 0.06 * stride, 0.5)
        toe = 0.09 if stride else 0.02 * (1 if near > 0 else -1)
        part(arc(fx + toe * 0.6, 0.045 + lift, 0.115 if stride else 0.06, 0.05, n=12), tinted(shoe, tone), 4.0, None)
        leg = limb([(near * 1.0, 0.92), knee, (fx, 0.09 + lift)], [0.1 * width, 0.074 * width, 0.052])
        part(leg, tinted(legs, tone), 7.5)
    _upper_body(part, u, stride, width, coat, skin, hair)
    return faces


def _upper_body(part, u: np.ndarray, stride: Real, width: Real, coat: Rgb, skin: Rgb, hair: Rgb) -> None:
    swing = 0.26 * stride
    half = (0.155 if stride else 0.2) * width
    arms = []
    for turn, tone in ((1, 0.68), (-1, 1.0)):
        sx = half * 0.86 * turn if not stride else 0.02 * turn
        hand = (sx + turn * swing + (0.03 * turn if not stride else 0.05), 0.84 + 0.06 * stride)
        elbow = (sx + turn * swing * 0.35 + (0.045 * turn if not stride else -0.03), 1.12)
        arms.append((sx, elbow, hand, tone if stride else 0.86))
    for number, (sx, elbow, hand, tone) in enumerate(arms):
        if number == 1:
            _torso(part, u, half, coat, stride)
        part(arc(hand[0], hand[1] - 0.03, 0.035, 0.055, n=10), tinted(skin, tone), 17.0, None)
        part(limb([(sx, 1.37), elbow, hand], [0.055 * width, 0.052 * width, 0.04]), tinted(coat, tone), 8.5)
    lean = 0.03 * stride
    part(
        np.array([(-0.05 + lean, 1.4), (0.05 + lean, 1.4), (0.048 + lean, 1.53), (-0.048 + lean, 1.53)]),
        tinted(skin, 0.75),
        17.5,
        None,
    )
    part(arc(0.012 * bool(stride) + lean, 1.625, 0.088, 0.118, n=22), skin, 19.0, None)
    behind = u[9] < 0.6 or not stride
    if behind and not stride:
        part(arc(lean, 1.64, 0.094, 0.112, n=22), hair, 12.0, "bark")
        if u[10] < 0.4:
            part(
                np.array([(-0.092, 1.62), (0.092, 1.62), (0.075, 1.46), (0.03, 1.42), (-0.03, 1.42), (-0.075, 1.46)]),
                hair,
                9.0,
                "bark",
            )
    else:
        part(
            np.concatenate([arc(lean - 0.012, 1.64, 0.096, 0.115, 20, 235, 18), [(lean - 0.02, 1.6)]]),
            hair,
            12.0,
            "bark",
        )
    if u[11] < 0.16:
        part(
            np.concatenate(
                [arc(lean, 1.67, 0.1, 0.09, 0, 180, 14), [(lean - 0.1, 1.65), (lean + 0.14 * bool(stride), 1.65)]]
            ),
            coat,
            9.0,
        )


def _torso(part, u: np.ndarray, half: Real, coat: Rgb, stride: Real) -> None:
    waist, hem = half * 0.82, 0.86 if u[10] < 0.6 else 0.55
    flare = half * (0.95 if hem > 0.8 else 1.08)
    shape = [
        (-half * 0.35, 1.47), (half * 0.35, 1.47), (half * 0.85, 1.43), (half, 1.35), (waist, 1.08), (flare, hem),
        (-flare, hem), (-waist, 1.08), (-half, 1.35), (-half * 0.85, 1.43),
    ]  # fmt: skip
    part(np.array(shape), coat, 9.5)
    if u[9] < 0.35:
        bag = tinted(COATS[int(u[4] * len(COATS))], 0.8)
        off = -half * 0.9 if stride else 0.0
        part(limb([(off, 1.36), (off, 1.02)], [half * 0.6, half * 0.66]), bag, 3.5)
        part(limb([(off, 1.12), (off, 1.04)], [half * 0.42, half * 0.42]), tinted(bag, 0.75), 3.0)
    else:
        part(
            np.array([(-0.006, 1.45), (0.006, 1.45), (0.006, hem + 0.01), (-0.006, hem + 0.01)]),
            tinted(coat, 0.55),
            8.0,
            None,
        )
        part(
            np.array([(-half * 0.36, 1.475), (half * 0.36, 1.475), (half * 0.24, 1.43), (-half * 0.24, 1.43)]),
            tinted(coat, 0.6),
            9.0,
            None,
        )


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
    faces = person_faces(rng, upright(frame, x, z), height, **rest)
    place_shadow(frame, x, z, faces, 0.24)
    return lambda: draw(frame, faces, round_off=0.9, shows="person")


def dog(frame: Frame, rng: np.random.Generator, x: Real, z: Real):
    """A dog in side view: the function that draws it; its shadow is added to the frame immediately."""
    coat = (srgb(0x8A5A2E), srgb(0x2A2420), srgb(0xC9A877), srgb(0xD9D4CC))[int(rng.integers(4))]
    plane = upright(frame, x, z)
    side = 1 if rng.random() < 0.5 else -1
    k = float(rng.uniform(0.75, 1.15))
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
            p * np.array([side * k, k]), tinted(coat, tone), warmth=11.0 if i != 7 else 15.0, material="bark", scale=0.3
        )
        for i, (p, tone) in enumerate(parts)
    ]
    place_shadow(frame, x, z, faces, 0.35)
    return lambda: draw(frame, faces, round_off=0.9)
