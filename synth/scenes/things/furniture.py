"""Furniture of rooms, gardens and streets, built of boxes."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from clearfuse.synth.scenes.rendering.faces import Face, Frame2, Real, Rgb, arc, box, srgb, tinted

WOODS = tuple(srgb(c) for c in (0x8A5E3A, 0x5E3F28, 0xB98F5E, 0x3E2C20, 0xC9B08A))
CLOTHS = tuple(srgb(c) for c in (0x6B7F8C, 0x8C4A3F, 0x55634A, 0xB59B6E, 0x4A4F63, 0xA8A196, 0x8A6A8A))


def _pick(rng: np.random.Generator, colours: tuple) -> Rgb:
    return colours[int(rng.integers(len(colours)))]


def bench(rng: np.random.Generator, at: Frame2) -> list[Face]:
    """A slatted bench, facing b < 0."""
    wood, metal = _pick(rng, WOODS), srgb(0x2E3234)
    faces: list[Face] = []
    for y in (0.58, 0.72, 0.86):
        faces += box(at, (-0.85, 0.85), (y, y + 0.1), (0.22, 0.26), colour=wood, material="timber")
    for a in (-0.72, 0.72):
        faces += box(at, (a - 0.03, a + 0.03), (0, 0.9), (0.26, 0.31), colour=metal)
        faces += box(at, (a - 0.03, a + 0.03), (0, 0.43), (-0.24, -0.18), colour=metal)
    for b in (0.1, -0.04, -0.18):
        faces += box(at, (-0.85, 0.85), (0.43, 0.47), (b - 0.06, b + 0.06), colour=tinted(wood, 1.1), material="timber")
    return faces


def bin_faces(rng: np.random.Generator, at: Frame2) -> list[Face]:
    """A litter bin."""
    colour = srgb(int(rng.choice([0x2F4A38, 0x3A3D40, 0x6B3A2A])))
    faces = box(at, (-0.24, 0.24), (0.06, 0.85), (-0.24, 0.24), colour=colour, material="paint")
    return faces + box(at, (-0.27, 0.27), (0.85, 0.95), (-0.27, 0.27), colour=tinted(colour, 0.6))


def table(rng: np.random.Generator, at: Frame2, half: tuple[Real, Real], height: Real = 0.74) -> list[Face]:
    """A table: four legs and a top."""
    wood = _pick(rng, WOODS)
    a, b = half
    faces: list[Face] = []
    for x, y in sorted(((s * (a - 0.06), t * (b - 0.06)) for s in (-1, 1) for t in (-1, 1)), key=lambda p: -p[1]):
        faces += box(
            at,
            (x - 0.035, x + 0.035),
            (0, height - 0.03),
            (y - 0.035, y + 0.035),
            colour=tinted(wood, 0.75),
            material="timber",
        )
    faces += box(
        at,
        (-a + 0.05, a - 0.05),
        (height - 0.11, height - 0.03),
        (-b + 0.05, b - 0.05),
        colour=tinted(wood, 0.6),
        material="timber",
    )
    return faces + box(at, (-a, a), (height - 0.035, height), (-b, b), colour=wood, material="timber")


def sofa(rng: np.random.Generator, at: Frame2, half: Real = 1.0) -> list[Face]:
    """A sofa, facing b < 0."""
    cloth, legs = _pick(rng, CLOTHS), srgb(0x2A2018)
    faces = box(at, (-half, half), (0.12, 0.85), (0.25, 0.45), colour=cloth, material="fabric")
    faces += box(at, (-half, half), (0.1, 0.3), (-0.4, 0.28), colour=tinted(cloth, 0.8), material="fabric")
    for i in range(2):
        a0 = -half + 0.2 + i * (half - 0.2)
        a1 = a0 + half - 0.2
        faces += box(
            at, (a0 + 0.01, a1 - 0.01), (0.5, 0.88), (0.14, 0.26), colour=tinted(cloth, 1.05), material="fabric"
        )
        faces += box(
            at, (a0 + 0.01, a1 - 0.01), (0.3, 0.46), (-0.42, 0.24), colour=tinted(cloth, 1.12), material="fabric"
        )
    pillow = _pick(rng, CLOTHS)
    side = float(rng.choice([-1, 1])) * (half - 0.42)
    faces += box(
        at, (side - 0.2, side + 0.2), (0.46, 0.82), (0.02, 0.13), colour=tinted(pillow, 1.1), material="fabric"
    )
    for a in (-half, half - 0.2):
        faces += box(at, (a, a + 0.2), (0.1, 0.62), (-0.44, 0.42), colour=tinted(cloth, 0.93), material="fabric")
    return faces + box(at, (-half + 0.05, -half + 0.1), (0, 0.1), (-0.38, -0.33), colour=legs)


def shelf(rng: np.random.Generator, at: Frame2, width: Real, height: Real) -> list[Face]:
    """A bookcase with books, facing b < 0."""
    wood = _pick(rng, WOODS)
    depth = 0.3
    faces = box(at, (0, width), (0, height), (0, depth), colour=tinted(wood, 0.28), material="timber")
    out = at.direction(0, 0, -1)
    spines = tuple(srgb(c) for c in (0x7A2A2A, 0x2A4A6B, 0xC9B27A, 0x3A5A3A, 0xB8B4A8, 0x4A3A5A, 0xC96A2A, 0x20242A))
    contours: list[list[np.ndarray]] = [[] for _ in spines]
    rows = max(int(height / 0.36), 2)
    step = height / rows
    for row in range(rows):
        x, y = 0.04, row * step + 0.03
        while x < width - 0.06:
            w, h = float(rng.uniform(0.022, 0.06)), step * float(rng.uniform(0.55, 0.86))
            if rng.random() < 0.12:
                x += float(rng.uniform(0.05, 0.22))
            elif x + w < width - 0.04:
                contours[int(rng.integers(len(spines)))].append(
                    at.at([(x, y, 0), (x + w, y, 0), (x + w, y + h, 0), (x, y + h, 0)])
                )
            x += w + 0.003
    faces += [Face(c, s, "paint", outward=out) for c, s in zip(contours, spines, strict=True) if c]
    boards = [
        [(0, r * step, 0), (width, r * step, 0), (width, r * step + 0.03, 0), (0, r * step + 0.03, 0)]
        for r in range(rows)
    ]
    boards += [[(0, height - 0.035, 0), (width, height - 0.035, 0), (width, height, 0), (0, height, 0)]]
    faces.append(Face([at.at(b) for b in boards], wood, "timber", outward=out))
    posts = [[(x, 0, 0), (x + 0.035, 0, 0), (x + 0.035, height, 0), (x, height, 0)] for x in (0.0, width - 0.035)]
    return [*faces, Face([at.at(p) for p in posts], wood, "timber", outward=out)]


def prism(at: Frame2, profile: list[tuple[Real, Real]], colour: Rgb, n: int = 14, **rest) -> list[Face]:
    """A solid of revolution with the profile (radius, y), approximated by n sides."""
    t = np.linspace(0, 2 * math.pi, n + 1)
    faces: list[Face] = []
    for (r0, y0), (r1, y1) in pairwise(profile):
        for a, b in pairwise(t):
            m = (a + b) / 2
            corners = [
                (r * math.cos(q), y, r * math.sin(q))
                for r, y, q in ((r0, y0, a), (r0, y0, b), (r1, y1, b), (r1, y1, a))
            ]
            out = at.direction(math.cos(m), (r0 - r1) / max(y1 - y0, 1e-3), math.sin(m))
            if r0 + r1 > 1e-3:
                faces.append(Face([at.at(corners)], colour, outward=out, **rest))
    return faces


def pot(rng: np.random.Generator, at: Frame2, size: Real, base: Real = 0.0) -> list[Face]:
    """A flower pot."""
    clay = srgb(int(rng.choice([0xB5653F, 0xD8D2C6, 0x4A5A63, 0x8A8478])))
    rings = [(0.32, 0.0), (0.42, 0.62), (0.47, 0.62), (0.47, 0.76)]
    faces = prism(at, [(r * size, base + y * size) for r, y in rings], clay, material="plaster")
    soil = arc(0, 0, 0.44 * size, 0.44 * size, n=14)
    top = np.stack([soil[:, 0], np.full(14, base + 0.75 * size), soil[:, 1]], -1)
    return [*faces, Face([at.at(top)], srgb(0x2E2218), "soil", outward=(0, 1, 0))]


def vessel(rng: np.random.Generator, at: Frame2, base: Real, warm: Real = 0.0) -> list[Face]:
    """A mug, a vase or a bottle."""
    colour = srgb(int(rng.choice([0xD8D4C8, 0x2F5A7A, 0xA83A2A, 0x3A5A3A, 0xC9A13C, 0x5A3A4A])))
    shapes = (
        [(0.036, 0), (0.042, 0.03), (0.042, 0.095)],
        [(0.04, 0), (0.075, 0.09), (0.065, 0.16), (0.03, 0.22), (0.042, 0.27)],
        [(0.037, 0), (0.037, 0.19), (0.014, 0.25), (0.014, 0.31)],
        [(0.05, 0), (0.11, 0.05), (0.125, 0.085)],
    )
    rings = shapes[int(rng.integers(len(shapes)))]
    return prism(at, [(r, base + y) for r, y in rings], colour, n=16, gloss=0.05, warmth=warm)
