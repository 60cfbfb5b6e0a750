"""Cars: body, cabin, wheels and lights as faces, in true perspective at any heading."""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from clearfuse.synth.scenes.rendering.faces import Face, Frame2, Real, Rgb, arc, srgb, tinted
from clearfuse.synth.scenes.rendering.renderer import Frame, Lamp, draw
from clearfuse.synth.scenes.rendering.shadows import cast_shadow, ground_contact

PAINTS = tuple(
    srgb(c)
    for c in (0xB8BCC2, 0x1E2126, 0xE6E6E2, 0x8C1F1F, 0x27446E, 0x5C6468, 0x3B5A49, 0xC7A13C, 0x9C4A26, 0x7A8CA0)
)
GLASS = srgb(0x1C2226)

# length, half width, belt, roof, then the cabin along the length: rear foot, rear top, front top, front foot.
BODIES = {
    "hatchback": (4.0, 0.86, 0.92, 1.48, (-1.95, -1.55, 0.30, 1.05)),
    "saloon": (4.6, 0.90, 0.92, 1.43, (-1.55, -0.85, 0.35, 1.15)),
    "estate": (4.7, 0.90, 0.95, 1.50, (-2.25, -1.95, 0.30, 1.15)),
    "van": (4.9, 0.96, 1.05, 1.95, (-2.42, -2.36, 1.20, 1.85)),
    "offroad": (4.5, 0.94, 1.08, 1.74, (-2.20, -1.90, 0.35, 1.00)),
}


def _body(frame: Frame2, shape: tuple, paint: Rgb, engine: Real) -> list[Face]:
    """Bonnet and boot, cabin and sides, with glass over the cabin's faces."""
    _, half, belt, roof, (rear, top_rear, top_front, front) = shape
    inner = half * 0.80
    faces: list[Face] = []

    def add(points, colour, outward, **rest) -> None:
        faces.append(Face([frame.at(points)], colour, outward=frame.direction(*outward), **rest))

    def pane(points: np.ndarray, outward, **rest) -> None:
        middle = points.mean(0)
        add(middle + (points - middle) * np.array([0.88, 0.84, 0.88]), GLASS, outward, gloss=0.5, warmth=-2.0, **rest)

    front_glass = np.array(
        [(front, belt, -half), (front, belt, half), (top_front, roof, inner), (top_front, roof, -inner)]
    )
    rear_glass = np.array([(rear, belt, -half), (rear, belt, half), (top_rear, roof, inner), (top_rear, roof, -inner)])
    slope_front = (roof - belt, front - top_front + 1e-3)
    add(front_glass, tinted(paint, 0.9), (slope_front[0], slope_front[1], 0), gloss=0.08)
    pane(front_glass, (slope_front[0], slope_front[1], 0))
    add(rear_glass, tinted(paint, 0.9), (-1, 0.3, 0), gloss=0.08)
    pane(rear_glass, (-1, 0.3, 0))
    add(
        [(top_rear, roof, -inner), (top_rear, roof, inner), (top_front, roof, inner), (top_front, roof, -inner)],
        paint,
        (0, 1, 0),
        gloss=0.22,
    )
    for b, c in ((-half, -inner), (half, inner)):
        out = (0, half - inner, math.copysign(roof - belt, b))
        add(
            [(rear, belt, b), (front, belt, b), (top_front, roof, c), (top_rear, roof, c)],
            tinted(paint, 0.85),
            out,
            gloss=0.06,
        )
        low, height = belt + 0.04, roof - 0.07
        t = (height - belt) / (roof - belt)
        for share0, share1 in ((0.07, 0.47), (0.53, 0.93)):
            corners = []
            for level, part in ((low, share0), (low, share1), (height, share1), (height, share0)):
                s = (level - belt) / (roof - belt)
                a0, a1 = rear + (top_rear - rear) * s, front + (top_front - front) * s
                corners.append((a0 + (a1 - a0) * part, level, b + (c - b) * s * min(t * 1.2, 1)))
            add(corners, GLASS, out, gloss=0.5, warmth=-2.0)
    # The cabin may occlude the lid behind it, and each near side occludes what is beyond.
    return [*_lids(frame, shape, paint, engine), *faces, *_sides(frame, shape, paint)]


def _lids(frame: Frame2, shape: tuple, paint: Rgb, engine: Real) -> list[Face]:
    """The bonnet, warm above the engine, and the boot."""
    length, half, belt, _, (rear, _, _, front) = shape
    nose, tail, bonnet = length / 2, -length / 2, belt - 0.08
    faces: list[Face] = []

    def add(points, colour, outward, **rest) -> None:
        faces.append(Face([frame.at(points)], colour, outward=frame.direction(*outward), **rest))

    if front < nose - 0.01:
        add(
            [
                (front, belt, -half),
                (front, belt, half),
                (nose, bonnet - 0.1, half),
                (nose, bonnet - 0.1, -half),
            ],
            paint,
            (0.2, 1, 0),
            gloss=0.2,
            warmth=engine,
        )
    if rear > tail + 0.01:
        add(
            [
                (rear, belt, -half),
                (rear, belt, half),
                (tail, belt - 0.03, half),
                (tail, belt - 0.03, -half),
            ],
            paint,
            (-0.1, 1, 0),
            gloss=0.2,
        )
    return faces


def _sides(frame: Frame2, shape: tuple, paint: Rgb) -> list[Face]:
    """The sides with sills, lines and doors."""
    length, half, belt, _, (rear, _, _, front) = shape
    nose, tail, bonnet = length / 2, -length / 2, belt - 0.08
    faces: list[Face] = []

    def add(points, colour, outward, **rest) -> None:
        faces.append(Face([frame.at(points)], colour, outward=frame.direction(*outward), **rest))

    for b in (-half, half):
        side = [
            (tail + 0.05, 0.3, b),
            (nose - 0.08, 0.3, b),
            (nose, 0.5, b),
            (nose - 0.02, bonnet - 0.1, b),
            (front, belt, b),
            (rear, belt, b),
            (tail, belt - 0.03, b),
            (tail, 0.5, b),
        ]
        out = (0, 0, math.copysign(1, b))
        add(side, paint, out, gloss=0.14, warmth=1.0)
        add(
            [(tail + 0.02, 0.28, b), (nose - 0.04, 0.28, b), (nose - 0.02, 0.42, b), (tail, 0.42, b)],
            srgb(0x26282A),
            out,
        )
        add([(tail, 0.7, b), (nose, 0.7, b), (nose, 0.72, b), (tail, 0.72, b)], tinted(paint, 0.55), out)
        for a in (rear * 0.05, (rear + front) / 2 + 0.1):
            add([(a, 0.45, b), (a + 0.015, 0.45, b), (a + 0.015, belt, b), (a, belt, b)], tinted(paint, 0.45), out)
    return faces


def _ends(frame: Frame2, shape: tuple, paint: Rgb, lights: bool, engine: Real) -> list[Face]:
    length, half, belt = shape[0], shape[1], shape[2]
    faces: list[Face] = []
    for end, sign in ((length / 2, 1), (-length / 2, -1)):
        out = frame.direction(sign, 0, 0)
        top = belt - (0.18 if sign > 0 else 0.03)
        a = end + sign * 0.005

        def strip(y0, y1, b0, b1, colour, a=a, out=out, **rest) -> None:
            faces.append(
                Face([frame.at([(a, y0, b0), (a, y0, b1), (a, y1, b1), (a, y1, b0)])], colour, outward=out, **rest)
            )

        strip(
            0.3,
            top,
            -half,
            half,
            tinted(paint, 0.92),
            gloss=0.06,
            warmth=engine * 0.5 if sign > 0 else 0.5,
        )
        strip(0.28, 0.45, -half * 0.95, half * 0.95, srgb(0x25272A), warmth=1.0)
        strip(0.48, 0.58, -0.26, 0.26, srgb(0xD9D6C6))
        if sign > 0:
            strip(0.5, top - 0.12, -half * 0.55, half * 0.55, srgb(0x15171A), warmth=engine * 0.9)
            strip(0.48, 0.58, -0.26, 0.26, srgb(0xD9D6C6))
        else:
            strip(0.26, 0.33, half * 0.5, half * 0.68, srgb(0x555555), warmth=engine * 2.2)
        for b in (-1, 1):
            inner, outer = b * half * 0.62, b * half * 0.94
            if sign > 0:
                strip(
                    top - 0.2,
                    top - 0.05,
                    inner,
                    outer,
                    srgb(0xE8EAEC),
                    glow=(14, 13, 11.5) if lights else None,
                    gloss=0.4,
                )
            else:
                strip(
                    top - 0.28,
                    top - 0.06,
                    b * half * 0.72,
                    outer,
                    srgb(0x9A1512),
                    glow=(1.1, 0.05, 0.03) if lights else None,
                )
    return faces


@cache
def _wheel() -> tuple[list[np.ndarray], list[np.ndarray]]:
    """A wheel's rings and the gaps between its spokes, relative to the axle: (a, y, outward offset)."""
    rings, spokes = [], []
    for radius in (0.41, 0.335, 0.22, 0.07):
        ring = arc(0, 0.335, radius, radius, n=22)
        ring = ring[ring[:, 1] > 0.3] if radius > 0.4 else ring
        rings.append(np.c_[ring, np.full(len(ring), 0.006 + 0.004 * (0.41 - radius))])
    for start in range(0, 360, 72):
        gap = np.concatenate([[(0, 0.335)], arc(0, 0.335, 0.205, 0.205, start, start + 34, 5)])
        spokes.append(np.c_[gap, np.full(len(gap), 0.0074)])
    return rings, spokes


def _wheels(frame: Frame2, shape: tuple, b: Real, moving: Real) -> list[Face]:
    """The wheels of one side: arch, tyre, rim, hub and spokes; the brake behind the rim is the warmest part."""
    length, out = shape[0], frame.direction(0, 0, math.copysign(1, b))
    rings, spokes = _wheel()
    looks = ((srgb(0x0E0F10), moving * 0.3), (srgb(0x1B1C1E), moving), (srgb(0x8F9498), moving * 0.8))
    looks = (*looks, (srgb(0x3A3D40), moving * 1.6))
    side = (1, 1, math.copysign(1, b))
    faces: list[Face] = []
    for a in (-length * 0.31, length * 0.32):
        shift = (a, 0, b)
        for ring, (colour, warmth) in zip(rings, looks, strict=True):
            faces.append(Face([frame.at(ring * side + shift)], colour, outward=out, warmth=warmth))
        contours = [frame.at(gap * side + shift) for gap in spokes]
        faces.append(Face(contours, srgb(0x2A2C2E), outward=out, warmth=moving * 1.3))
    return faces


def car(
    frame: Frame,
    rng: np.random.Generator,
    x: Real,
    z: Real,
    heading: Real,
    *,
    driving: bool = False,
    lights: bool = False,
):
    """A car: the function that draws it; its shadow and lights are added to the frame immediately."""
    kind = str(rng.choice(list(BODIES), p=(0.3, 0.25, 0.15, 0.12, 0.18)))
    paint = PAINTS[int(rng.integers(len(PAINTS)))]
    shape = BODIES[kind]
    length, half, belt, roof, cabin = shape
    at = Frame2(x, z, heading)
    engine = float(rng.uniform(12, 22)) if driving else float(rng.choice([0.0, 9.0], p=(0.65, 0.35)))
    wheels = float(rng.uniform(9, 15)) if driving else 0.4 * engine + 0.5
    low = [(-length / 2, 0.15, half), (length / 2, 0.15, half), (length / 2, 0.15, -half), (-length / 2, 0.15, -half)]
    height = [
        (cabin[1], roof, half * 0.8),
        (cabin[2], roof, half * 0.8),
        (cabin[2], roof, -half * 0.8),
        (cabin[1], roof, -half * 0.8),
    ]
    belts = [(a, belt - drop, b) for a, drop, b in ((-1, 0, 1), (1, 0.1, 1), (1, 0.1, -1), (-1, 0, -1))]
    belts = [(a * length / 2, y, b * half) for a, y, b in belts]
    shadows = [at.at(np.array(p)) for p in (low, height, belts)]
    shadows += [
        at.at(np.array([p[i], p[(i + 1) % 4], q[(i + 1) % 4], q[i]]))
        for p, q in ((low, belts), (belts, height))
        for i in range(4)
    ]
    cast_shadow(frame, shadows)
    ground_contact(frame, x, z, length * 0.48, half * 0.98, heading, 0.12)
    if lights:
        for b in (-half * 0.75, half * 0.75):
            place = at.at(np.array([length / 2 + 0.1, 0.68, b]))
            frame.light.lamps.append(Lamp(tuple(place), (2.6, 2.45, 2.2), at.direction(1, -0.045, 0), 4, 0.4))
    under = Face(
        [
            at.at(
                [(-length / 2 + 0.2, 0.22, b) for b in (-half, half)]
                + [(length / 2 - 0.2, 0.22, b) for b in (half, -half)]
            )
        ],
        (0.01, 0.01, 0.01),
    )
    far = [w for b in (-half + 0.12, half - 0.12) for w in _tyres(at, length, b)]
    faces = [*far, under, *_body(at, shape, paint, engine), *_ends(at, shape, paint, lights, engine)]
    # Only the side that faces the camera shows its wheels.
    for b in (-half, half):
        out = at.direction(0, 0, b)
        if out[0] * (frame.view.x - x) - out[2] * z > half * half:
            faces += _wheels(at, shape, b, wheels)
    return lambda: draw(frame, faces, shows="car")


def _tyres(at: Frame2, length: Real, b: Real) -> list[Face]:
    """The treads of the tyres, visible under the body from the front and the rear."""
    faces = []
    for a in (-length * 0.31, length * 0.32):
        for sign in (-1, 1):
            points = [
                (a + sign * 0.3, 0.0, b - 0.1),
                (a + sign * 0.3, 0.0, b + 0.1),
                (a + sign * 0.3, 0.45, b + 0.1),
                (a + sign * 0.3, 0.45, b - 0.1),
            ]
            faces.append(Face([at.at(points)], srgb(0x161718), outward=at.direction(sign, 0, 0), warmth=3.0))
    return faces
