"""Buildings, fences, street lamps and plants."""

from __future__ import annotations

import math

import numpy as np

from clearfuse.synth.scenes.rendering.faces import Face, Frame2, Real, Rgb, arc, box, srgb, tinted
from clearfuse.synth.scenes.rendering.renderer import Frame, Lamp, draw, paste
from clearfuse.synth.scenes.rendering.shadows import cast_shadow, ground_contact
from clearfuse.synth.scenes.things.sprites import BUSHES, TREES, bush, tree

WALLS: tuple[tuple[str, tuple[int, ...]], ...] = (
    ("brick", (0x9A5B42, 0x7E4A3A, 0xA9745A, 0x6E4B40)),
    ("plaster", (0xD9CDB4, 0xC9B08A, 0xB9C0C2, 0xD8D2C6, 0xC4917A, 0xA8B39A)),
    ("block", (0xB3A893, 0x9C958A, 0xC2B59B)),
    ("panel", (0x8E9396, 0xA7A49C, 0x767B80)),
)
WARM_WINDOW: Rgb = (0.95, 0.58, 0.24)
COOL_WINDOW: Rgb = (0.62, 0.72, 0.78)


def _grid(rng: np.random.Generator, width: Real, height: Real, storey: Real, start: Real) -> np.ndarray:
    """Lower left corners and sizes of the windows of a wall, ``(n, 4)``: x, y, width, height."""
    pitch, w, h = float(rng.uniform(1.9, 3.0)), float(rng.uniform(0.85, 1.35)), float(rng.uniform(1.25, 1.75))
    columns, rows = int((width - 0.6) / pitch), int((height - start) / storey)
    if columns < 1 or rows < 1:
        return np.zeros((0, 4))
    left = (width - (columns - 1) * pitch - w) / 2
    x, y = np.meshgrid(left + np.arange(columns) * pitch, start + 0.85 + np.arange(rows) * storey)
    return np.stack([x.ravel(), y.ravel(), np.full(x.size, w), np.full(x.size, h)], -1)


def _rects(at: Frame2, cells: np.ndarray, inset: tuple[float, float, float, float], b: Real) -> list[np.ndarray]:
    """Cells inset by (left, bottom, right, top), as rectangles on the wall plane ``b``."""
    corners = np.empty((len(cells), 4, 3))
    corners[:, ::3, 0] = cells[:, :1] + inset[0]
    corners[:, 1:3, 0] = cells[:, :1] + cells[:, 2:3] + inset[2]
    corners[:, :2, 1] = cells[:, 1:2] + inset[1]
    corners[:, 2:, 1] = cells[:, 1:2] + cells[:, 3:] + inset[3]
    corners[..., 2] = b
    return list(at.at(corners))


def windows(
    rng: np.random.Generator, at: Frame2, cells: np.ndarray, night: bool, wall: Rgb, material: str, warm: Real
) -> list[Face]:
    """Windows on the plane b = 0, facing b < 0: frames, panes, mullions, sills and the shadow of the lintels.

    material, warm: of the wall.
    """
    if not len(cells):
        return []
    normal = at.direction(0, 0, -1)
    trim = srgb(int(rng.choice([0xE8E4DA, 0xD8D0C0, 0x3A3A38, 0x5A4636])))
    faces = [
        Face(_rects(at, cells, (-0.08, -0.06, 0.08, 0.08), 0), trim, outward=normal, warmth=0.8),
        Face(_rects(at, cells, (-0.14, -0.14, 0.14, -float(cells[0, 3])), 0), tinted(trim, 0.9), outward=normal),
    ]
    share = rng.random(len(cells))
    # Radiators warm the wall below some windows.
    heated = cells[share < 0.35]
    if len(heated):
        h = float(heated[0, 3])
        faces.append(
            Face(_rects(at, heated, (0.1, -0.7, -0.1, -h - 0.14), 0), wall, material, warm + 1.3, outward=normal)
        )
    lit = share < (0.38 if night else 0.0)
    groups = [
        (~lit & (share < 0.72), srgb(0x1B2126), None, 0.40, -0.8),
        (~lit & (share >= 0.72), srgb(0x8A8578), None, 0.25, 0.8),
        (lit & (share < 0.25), srgb(0xC0A070), tinted(WARM_WINDOW, float(rng.uniform(0.25, 0.9))), 0.0, 6.0),
        (lit & (share >= 0.25), srgb(0xA0A8A8), tinted(COOL_WINDOW, float(rng.uniform(0.2, 0.6))), 0.0, 6.0),
    ]
    for on, colour, glow, gloss, warmth in groups:
        if on.any():
            faces.append(
                Face(
                    _rects(at, cells[on], (0, 0, 0, 0), 0),
                    colour,
                    outward=normal,
                    glow=glow,
                    gloss=gloss,
                    warmth=warmth,
                )
            )
            if glow is not None:
                side = _rects(at, cells[on], (0, 0, -float(cells[0, 2]) * 0.72, 0), 0)
                faces.append(Face(side, tinted(colour, 0.6), outward=normal, glow=tinted(glow, 0.55), warmth=warmth))
    h = float(cells[0, 3])
    faces.append(Face(_rects(at, cells, (0, h - 0.14, 0, 0), 0), tinted(wall, 0.12), outward=normal, warmth=1.0))
    w = float(cells[0, 2])
    bars = _rects(at, cells, (w / 2 - 0.03, 0, -w / 2 + 0.03, 0), 0) + _rects(
        at, cells, (0, h * 0.62, 0, -h * 0.38 + 0.05), 0
    )
    faces.append(Face(_rects(at, cells, (w / 2 - 0.03, 0, -w / 2 + 0.03, 0), 0), tinted(trim, 0.9), outward=normal))
    faces.append(Face(bars[len(cells) :], tinted(trim, 0.9), outward=normal))
    return faces


def facade(
    rng: np.random.Generator, at: Frame2, width: Real, height: Real, depth: Real, night: bool, *, shop: bool = True
) -> list[Face]:
    """A building with its front along the local a axis at b = 0, facing b < 0, extending into b > 0."""
    material, colours = WALLS[int(rng.choice(len(WALLS), p=(0.35, 0.35, 0.15, 0.15)))]
    wall = tinted(srgb(int(rng.choice(colours))), float(rng.uniform(0.8, 1.1)))
    storey = float(rng.uniform(2.9, 3.5))
    warm = float(rng.uniform(0.5, 3.5))
    faces = box(at, (0, width), (0, height), (0, depth), colour=wall, material=material, warmth=warm)
    normal = at.direction(0, 0, -1)

    def strip(x0: Real, x1: Real, y0: Real, y1: Real, colour: Rgb, **rest) -> None:
        faces.append(
            Face([at.at([(x0, y0, 0), (x1, y0, 0), (x1, y1, 0), (x0, y1, 0)])], colour, outward=normal, **rest)
        )

    strip(0, width, 0, 0.55, tinted(wall, 0.55), material="plaster", warmth=warm)
    strip(0, width, height - 0.45, height, tinted(srgb(0xCFC8BA), 0.8), material="plaster", warmth=warm)
    strip(0, width, height - 0.62, height - 0.45, tinted(wall, 0.35), warmth=warm)
    start, door = 0.4, width * float(rng.uniform(0.15, 0.7))
    if shop and rng.random() < 0.55 and width > 5:
        start = storey + 0.3
        sign = srgb(int(rng.choice([0x2F4F46, 0x7A2A26, 0x27364F, 0xC7A24A, 0x3A3A3A])))
        glow = (
            tinted(WARM_WINDOW if rng.random() < 0.6 else COOL_WINDOW, float(rng.uniform(0.8, 2.2)))
            if night and rng.random() < 0.6
            else None
        )
        strip(0.35, width - 0.35, 0.45, 2.75, srgb(0x22282B), glow=glow, gloss=0.0 if glow else 0.28, warmth=5.0)
        for x in np.arange(0.35, width - 0.3, float(rng.uniform(1.3, 2.1))):
            strip(float(x), float(x) + 0.09, 0.45, 2.75, srgb(0x39352F))
        strip(width * 0.4, width * 0.4 + 1.0, 0.1, 2.5, tinted(sign, 0.7), warmth=2.0)
        strip(0.2, width - 0.2, 2.75, storey + 0.1, sign, material="timber", glow=tinted(sign, 0.5) if glow else None)
        strip(
            width * 0.3,
            width * 0.7,
            2.88,
            storey - 0.05,
            tinted(srgb(0xE8E2D0), 0.9),
            glow=(0.4, 0.38, 0.3) if glow else None,
        )
        if glow is not None:
            strip(0.5, width - 0.5, 0.45, 1.1, srgb(0x554433), glow=tinted(glow, 0.35), warmth=4.0)
    else:
        strip(door - 0.12, door + 1.12, 0.0, 2.42, srgb(0xCFC8B8))
        strip(
            door,
            door + 1.0,
            0.05,
            2.3,
            srgb(int(rng.choice([0x5A2F22, 0x23402F, 0x2A3448, 0x6B5A40]))),
            material="timber",
            warmth=2.0,
        )
    cells = _grid(rng, width, height - 0.7, storey, start)
    if start < 1 and len(cells):
        hit = (cells[:, 1] < 2.6) & (cells[:, 0] + cells[:, 2] > door - 0.25) & (cells[:, 0] < door + 1.25)
        cells = cells[~hit]
    faces += windows(rng, at, cells, night, wall, material, warm)
    return faces


def house(rng: np.random.Generator, at: Frame2, width: Real, height: Real, depth: Real, night: bool) -> list[Face]:
    """A house or shed with a pitched roof, the eaves along the local a axis."""
    faces = facade(rng, at, width, height, depth, night, shop=False)
    rise, over = depth * float(rng.uniform(0.25, 0.42)), 0.35
    tile = srgb(int(rng.choice([0x8A4632, 0x5A4A44, 0x6B3A30, 0x4A4E52])))
    ridge = height + rise
    slopes = [
        (
            [
                (-over, height - 0.1, -over),
                (width + over, height - 0.1, -over),
                (width + over, ridge, depth / 2),
                (-over, ridge, depth / 2),
            ],
            (0, depth / 2, -rise),
        ),
        (
            [
                (-over, height - 0.1, depth + over),
                (width + over, height - 0.1, depth + over),
                (width + over, ridge, depth / 2),
                (-over, ridge, depth / 2),
            ],
            (0, depth / 2, rise),
        ),
    ]
    wall = faces[0]
    for a, sign in ((0.0, -1), (width, 1)):
        gable = [(a, height, 0), (a, height, depth), (a, ridge - 0.1, depth / 2)]
        faces.append(
            Face(
                [at.at(gable)],
                wall.colour,
                wall.material,
                wall.warmth,
                outward=at.direction(sign, 0, 0),
                s_axis=at.direction(0, 0, 1),
            )
        )
    for points, out in slopes:
        faces.append(
            Face([at.at(points)], tile, "shingle", 1.0, outward=at.direction(*out), s_axis=at.direction(1, 0, 0))
        )
    gutter = [
        (-over, height - 0.2, -over),
        (width + over, height - 0.2, -over),
        (width + over, height - 0.08, -over),
        (-over, height - 0.08, -over),
    ]
    faces.append(Face([at.at(gutter)], srgb(0x5A5A58), outward=at.direction(0, 0, -1)))
    return faces


def building_shadow(frame: Frame, at: Frame2, width: Real, height: Real, depth: Real) -> None:
    """Cast the shadow of a box-shaped building on the ground."""
    corners = [(0, 0), (width, 0), (width, depth), (0, depth)]
    sides = [
        [
            (*corners[i][:1], 0, corners[i][1]),
            (corners[(i + 1) % 4][0], 0, corners[(i + 1) % 4][1]),
            (corners[(i + 1) % 4][0], height, corners[(i + 1) % 4][1]),
            (corners[i][0], height, corners[i][1]),
        ]
        for i in range(4)
    ]
    roof = [(a, height, b) for a, b in corners]
    cast_shadow(frame, [at.at(np.array(p, float)) for p in (*sides, roof)])


def fence(rng: np.random.Generator, at: Frame2, length: Real, height: Real) -> list[Face]:
    """A board fence along the local a axis."""
    wood = srgb(int(rng.choice([0x8B6B4A, 0x6E5A48, 0xA8A294, 0x5B6B5A, 0xC8BFA8])))
    step = float(rng.uniform(0.13, 0.22))
    gap = float(rng.uniform(0.008, 0.05))
    a = np.arange(0, length, step)
    tops = height + 0.03 * rng.standard_normal(len(a))
    backing = Face(
        [at.at([(0, 0.1, 0.03), (length, 0.1, 0.03), (length, height - 0.05, 0.03), (0, height - 0.05, 0.03)])],
        tinted(wood, 0.12),
    )
    faces = [backing]
    tone = rng.integers(0, 3, len(a))
    for kind in range(3):
        contours = [
            at.at([(x, 0.04, 0), (x + step - gap, 0.04, 0), (x + step - gap, t, 0), (x, t, 0)])
            for x, t in zip(a[tone == kind], tops[tone == kind], strict=True)
        ]
        if contours:
            faces.append(Face(contours, tinted(wood, 0.82 + 0.14 * kind), "timber", 0.8, s_axis=(0, 1, 0)))
    return faces


def lamp_post(
    frame: Frame,
    rng: np.random.Generator,
    x: Real,
    z: Real,
    towards: tuple[Real, Real],
    height: Real,
    on: bool,
    power: Real = 30,
):
    """A street lamp: the function that draws it; where it is on, its light is added to the frame immediately."""
    metal = srgb(int(rng.choice([0x3A3F42, 0x4A4F52, 0x2F3A36])))
    heading = math.atan2(towards[1], towards[0])
    at = Frame2(x, z, heading)
    faces = box(at, (-0.14, 0.14), (0, 0.7), (-0.14, 0.14), colour=metal)
    faces += box(at, (-0.06, 0.06), (0.7, height), (-0.06, 0.06), colour=metal, material="paint")
    faces += box(at, (-0.05, 1.5), (height - 0.06, height + 0.04), (-0.05, 0.05), colour=metal)
    faces += box(
        at,
        (1.1, 1.9),
        (height - 0.02, height + 0.14),
        (-0.16, 0.16),
        colour=tinted(metal, 1.2),
        warmth=4.0 if on else 0.0,
    )
    colour = ((1.0, 0.72, 0.38), (1.0, 0.86, 0.66), (0.9, 0.95, 1.0))[int(rng.integers(3))]
    bulb = [
        (1.18, height - 0.025, -0.13),
        (1.82, height - 0.025, -0.13),
        (1.82, height - 0.025, 0.13),
        (1.18, height - 0.025, 0.13),
    ]
    faces.append(
        Face([at.at(bulb)], srgb(0xD8D8D0), glow=tinted(colour, 26) if on else None, warmth=16.0 if on else 0.0)
    )
    if on:
        spot = at.at(np.array([1.5, height - 0.2, 0.0]))
        frame.light.lamps.append(Lamp(tuple(spot), tinted(colour, power * 0.12), (0, -1, 0), 0, 0.5))
    cast_shadow(frame, [f.contours[0] for f in faces[6:12]])
    ground_contact(frame, x, z, 0.2, 0.2)
    return lambda: draw(frame, faces)


def plant(frame: Frame, rng: np.random.Generator, x: Real, z: Real, *, small: bool = False):
    """A tree or bush: the function that draws it; its shadow is added to the frame immediately."""
    number, flip = int(rng.integers(BUSHES - 1 if small else TREES)), bool(rng.random() < 0.5)
    green = srgb(
        int(
            rng.choice(
                [0x5E7D3A, 0x4B6E35, 0x7A8A3E, 0x55703F, 0x8A8440, 0xA8742E], p=(0.3, 0.25, 0.15, 0.15, 0.1, 0.05)
            )
        )
    )
    width = float(rng.uniform(0.9, 1.8) if small else rng.uniform(3.6, 6.0) * (0.62 if number >= 4 else 1.0))
    sprite = (lambda: bush(number)) if small else (lambda: tree(number))
    height = width * (0.7 if small else (2.2 if number >= 4 else 1.45))
    level, size = np.array([(0.3, 0.34), (0.55, 0.5), (0.75, 0.42), (0.9, 0.25)]).T[..., None]
    wobble = 1 + 0.18 * rng.standard_normal((4, 16)).clip(-1.5, 1.5)
    blobs = np.empty((4, 16, 3))
    blobs[..., ::2] = arc(0, 0, width, width, n=16) * (size * wobble)[..., None] + (x, z)
    blobs[..., 1] = height * level
    cast_shadow(frame, list(blobs))
    if not small:
        cast_shadow(
            frame,
            [np.array([(x - 0.15, 0, z), (x + 0.15, 0, z), (x + 0.1, height * 0.6, z), (x - 0.1, height * 0.6, z)])],
        )
    ground_contact(frame, x, z, width * (0.4 if small else 0.09), width * (0.25 if small else 0.09), dark=0.4)
    return lambda: paste(frame, sprite(), (x, 0.0, z), width, tinted(green, 1.15), warmth=1.0, flip=flip)
