"""A room: floor boards, walls, a window with a bright view, furniture, sometimes a person."""

from __future__ import annotations

import math
from itertools import pairwise

import cv2
import numpy as np

from clearfuse.synth.scenes.rendering import sky
from clearfuse.synth.scenes.rendering.faces import Face, Frame2, Real, Rgb, Upright, arc, box, srgb, tinted
from clearfuse.synth.scenes.rendering.renderer import Frame, Lamp, Light, draw, paste
from clearfuse.synth.scenes.rendering.shadows import ground_contact, soften
from clearfuse.synth.scenes.rendering.view import View, clip_near, fixed_point
from clearfuse.synth.scenes.street import SceneObject, draw_objects
from clearfuse.synth.scenes.things import figures, furniture
from clearfuse.synth.scenes.things.buildings import house
from clearfuse.synth.scenes.things.sprites import bush, tree

PAINTS = tuple(srgb(c) for c in (0xD9D2C2, 0xB9C4BE, 0xC9B79A, 0xA9B4C2, 0xD8C0B0, 0x8FA08E, 0xCFCBC8))
Opening = tuple[float, float, float, float]
"""Left, right, bottom and top of the window on the back wall."""


def _shell(
    rng: np.random.Generator, half: Real, depth: Real, height: Real, hole: Opening
) -> tuple[list[Face], list[Face]]:
    """Floor, walls and ceiling; the back wall has an opening for the window."""
    wall = PAINTS[int(rng.integers(len(PAINTS)))]
    paper = "wallpaper" if rng.random() < 0.3 else "paint"
    floor = furniture.WOODS[int(rng.integers(len(furniture.WOODS)))]
    axis = (1.0, 0, 0) if rng.random() < 0.5 else (0, 0, 1.0)
    kind = "wood" if rng.random() < 0.8 else "paving"
    base = [
        Face(
            [np.array([(-half, 0, -2), (half, 0, -2), (half, 0, depth), (-half, 0, depth)], float)],
            floor,
            kind,
            outward=(0, 1, 0),
            s_axis=axis,
        )
    ]
    left, right, b, t = hole
    back = [(-half, left, 0, height), (right, half, 0, height), (left, right, 0, b), (left, right, t, height)]
    plane = [[(x0, y0, depth), (x1, y0, depth), (x1, y1, depth), (x0, y1, depth)] for x0, x1, y0, y1 in back]
    faces = [Face([np.array(p, float) for p in plane], wall, paper, warmth=0.3, lit=0.9)]
    for sign in (-1, 1):
        side = [(sign * half, 0, -2), (sign * half, 0, depth), (sign * half, height, depth), (sign * half, height, -2)]
        faces.append(Face([np.array(side, float)], tinted(wall, 0.97), paper, warmth=0.3))
        board = [
            (sign * (half - 0.01), 0, -2),
            (sign * (half - 0.01), 0, depth),
            (sign * (half - 0.01), 0.1, depth),
            (sign * (half - 0.01), 0.1, -2),
        ]
        faces.append(Face([np.array(board, float)], srgb(0xDAD6CC)))
    top = [(-half, height, -2), (half, height, -2), (half, height, depth), (-half, height, depth)]
    faces.append(Face([np.array(top, float)], srgb(0xE2DFD8), "paint", warmth=0.8))
    skirting = [
        (-half, 0, depth - 0.01),
        (half, 0, depth - 0.01),
        (half, 0.1, depth - 0.01),
        (-half, 0.1, depth - 0.01),
    ]
    faces.append(Face([np.array(skirting, float)], srgb(0xDAD6CC)))
    return base, faces


def _window(rng: np.random.Generator, hole: Opening, depth: Real) -> list[Face]:
    """Reveal, frame, bars, sill and curtains."""
    left, right, b, t = hole
    white = srgb(0xE6E3DB)
    at = Frame2(0, depth, 0)
    faces: list[Face] = []
    out = 0.22
    reveal = [
        ([(left, b, 0), (left, b, out), (left, t, out), (left, t, 0)], (1, 0, 0)),
        ([(right, b, 0), (right, b, out), (right, t, out), (right, t, 0)], (-1, 0, 0)),
        ([(left, t, 0), (right, t, 0), (right, t, out), (left, t, out)], (0, -1, 0)),
        ([(left, b, 0), (right, b, 0), (right, b, out), (left, b, out)], (0, 1, 0)),
    ]
    faces += [Face([at.at(p)], white, "paint", outward=n, lit=2.2) for p, n in reveal]
    bars = [
        (left, left + 0.07, b, t),
        (right - 0.07, right, b, t),
        (left, right, b, b + 0.07),
        (left, right, t - 0.07, t),
    ]
    count = int(rng.integers(2, 4))
    bars += [
        (left + (right - left) * i / count - 0.025, left + (right - left) * i / count + 0.025, b, t)
        for i in range(1, count)
    ]
    bars += [(left, right, b + (t - b) * 0.66, b + (t - b) * 0.66 + 0.045)]
    faces += [
        Face([at.at([(x0, y0, 0.1), (x1, y0, 0.1), (x1, y1, 0.1), (x0, y1, 0.1)])], white, lit=0.8)
        for x0, x1, y0, y1 in bars
    ]
    faces += box(at, (left - 0.12, right + 0.12), (b - 0.05, b), (-0.16, 0.02), colour=white, material="paint")
    if rng.random() < 0.7:
        cloth = furniture.CLOTHS[int(rng.integers(len(furniture.CLOTHS)))]
        for x0, x1 in ((left - 0.42, left + 0.1), (right - 0.1, right + 0.42)):
            folds = np.linspace(x0, x1, 9)
            for i, (a, c) in enumerate(pairwise(folds)):
                strip = [(a, b - 0.5, -0.08), (c, b - 0.5, -0.08), (c, t + 0.14, -0.08), (a, t + 0.14, -0.08)]
                faces.append(Face([at.at(strip)], tinted(cloth, 0.78 if i % 2 else 1.08), "fabric", warmth=-0.5))
        faces += box(at, (left - 0.5, right + 0.5), (t + 0.12, t + 0.16), (-0.12, -0.08), colour=srgb(0x3A2E26))
    return faces


def _outdoors(frame: Frame, rng: np.random.Generator, bright: Real) -> None:
    """The view from the window, drawn over the sky: lawn, trees and a house by day, a street lamp by night."""
    meadow = Face(
        [np.array([(-80, 0, 6), (80, 0, 6), (80, 0, 160), (-80, 0, 160)], float)],
        srgb(0x5F7A34),
        "grass",
        outward=(0, 1, 0),
    )
    inside = frame.light
    frame.light = Light(
        tuple(bright * c for c in (0.55, 0.52, 0.46)),
        (0.4, 0.75, -0.52),
        tuple(bright * c for c in (0.25, 0.3, 0.36)),
        (bright * 0.06,) * 3,
        (bright * 0.4,) * 3,
        inside.air - 6,
        2.0,
    )  # type: ignore[arg-type]
    draw(frame, [meadow])
    z = float(rng.uniform(22, 40))
    at = Frame2(float(rng.uniform(-10, 2)), z, float(rng.normal(0, 0.2)))
    draw(frame, house(rng, at, 9.0, 5.5, 7.0, bright < 0.5))
    for z in sorted(rng.uniform(11, 26, int(rng.integers(2, 5))), reverse=True):
        paste(
            frame,
            tree(int(rng.integers(6))),
            (float(rng.uniform(-0.6, 0.6)) * z, 0, float(z)),
            4.5,
            srgb(0x5E7D3A),
            warmth=0.5,
        )
    frame.light = inside


def _pictures(rng: np.random.Generator, half: Real, depth: Real, hole: Opening) -> list[Face]:
    """Framed pictures on the side walls and beside the window."""
    faces: list[Face] = []
    places: list[Frame2] = []
    for sign in (-1, 1):
        for z in np.arange(1.6, depth - 0.6, 1.25):
            if rng.random() < 0.5:
                places.append(Frame2(sign * (half - 0.02), float(z), math.pi / 2 * sign + (math.pi if sign < 0 else 0)))
    if hole[0] + half > 1.2 and rng.random() < 0.8:
        places.append(Frame2((hole[0] - half) / 2 - 0.1, depth - 0.02, 0.0))
    for at in places:
        w, h, y = float(rng.uniform(0.2, 0.4)), float(rng.uniform(0.22, 0.4)), float(rng.uniform(1.5, 1.75))

        def sheet(a0, a1, y0, y1, colour: Rgb, material: str | None = None, at=at, **rest) -> Face:
            return Face([at.at([(a0, y0, 0), (a1, y0, 0), (a1, y1, 0), (a0, y1, 0)])], colour, material, **rest)

        faces.append(sheet(-w, w, y - h, y + h, furniture.WOODS[int(rng.integers(5))], "timber"))
        faces.append(sheet(-w + 0.03, w - 0.03, y - h + 0.03, y + h - 0.03, srgb(0xE8E4DA)))
        hue = [furniture.CLOTHS[int(i)] for i in rng.integers(0, len(furniture.CLOTHS), 3)]
        split = y + h * float(rng.uniform(-0.4, 0.3))
        faces.append(sheet(-w + 0.08, w - 0.08, split, y + h - 0.08, tinted(hue[0], 1.3), "noise", scale=0.03))
        faces.append(sheet(-w + 0.08, w - 0.08, y - h + 0.08, split, hue[1], "noise", scale=0.02))
        blob = arc(float(rng.uniform(-0.4, 0.4)) * w, split, w * 0.3, h * 0.35, 0, 180, 12)
        faces.append(Face([at.at(np.c_[blob, np.zeros(len(blob))])], tinted(hue[2], 0.8), "noise", scale=0.03))
    return faces


def _standing_lamp(frame: Frame, x: Real, z: Real, on: bool) -> list[Face]:
    at = Frame2(x, z, 0)
    faces = furniture.prism(at, [(0.16, 0), (0.16, 0.03), (0.02, 0.04), (0.02, 1.35)], srgb(0x2A2826), n=10)
    glow = (3.2, 2.1, 1.05) if on else None
    faces += furniture.prism(
        at, [(0.24, 1.3), (0.15, 1.65)], srgb(0xD8C8A4), n=16, glow=glow, material="fabric", warmth=9.0 if on else 0.0
    )
    if on:
        frame.light.lamps.append(Lamp((x, 1.75, z - 0.05), (0.34, 0.25, 0.14), None, 0, 0.35))
    return faces


def _furnish(frame: Frame, rng: np.random.Generator, half: Real, depth: Real, night: bool) -> list[SceneObject]:
    objects: list[SceneObject] = []

    def stand(faces: list[Face], x: Real, z: Real, rx: Real, rz: Real, heading: Real = 0.0) -> None:
        ground_contact(frame, x, z, rx, rz, heading, 0.4)
        objects.append((z, lambda: draw(frame, faces)))

    side = float(rng.choice([-1, 1]))
    if rng.random() < 0.8:
        z = depth * float(rng.uniform(0.5, 0.7))
        heading = math.pi / 2 * -side
        x = side * (half - 0.55)
        stand(furniture.sofa(rng, Frame2(x, z, heading)), x, z, 1.05, 0.5, heading)
    x, z = float(rng.uniform(-0.4, 0.4)), depth * float(rng.uniform(0.52, 0.68))
    size = (float(rng.uniform(0.45, 0.75)), float(rng.uniform(0.35, 0.5)))
    height = float(rng.choice([0.42, 0.74]))
    top = furniture.table(rng, Frame2(x, z, 0), size, height)
    for _ in range(int(rng.integers(1, 4))):
        spot = Frame2(x + float(rng.uniform(-0.7, 0.7)) * size[0], z + float(rng.uniform(-0.6, 0.6)) * size[1], 0)
        top += furniture.vessel(rng, spot, height, 12.0 if rng.random() < 0.3 else 0.0)
    stand(top, x, z, size[0] * 1.1, size[1] * 1.1)
    if rng.random() < 0.8:
        width = float(rng.uniform(0.8, 1.4))
        z = depth * float(rng.uniform(0.55, 0.75))
        at = Frame2(-side * (half - 0.32), z + width / 2 * side, math.pi / 2 * -side + math.pi)
        at = Frame2(-side * (half - 0.32), z, math.pi / 2 * side)
        stand(furniture.shelf(rng, at, width, float(rng.uniform(1.2, 2.1))), -side * (half - 0.2), z, 0.25, width / 2)
    x, z = -side * (half - 0.45) * float(rng.uniform(0.75, 1)), depth - float(rng.uniform(0.4, 0.7))
    stand(_standing_lamp(frame, x, z, night or rng.random() < 0.3), x, z, 0.2, 0.2)
    x, z = side * (half - 0.5), depth - float(rng.uniform(0.45, 0.8))
    stand(furniture.pot(rng, Frame2(x, z, 0), 0.42), x, z, 0.25, 0.25)
    objects.append((z - 0.02, lambda: paste(frame, bush(3), (x, 0.3, z), 1.0, srgb(0x55803C), warmth=0.3)))
    if rng.random() < 0.65:
        px, pz = frame.view.spot(float(rng.uniform(-0.5, 0.5)), float(rng.uniform(0.55, 0.85)) * depth)
        objects.append((pz, figures.person(frame, rng, float(np.clip(px, -half + 0.4, half - 0.4)), pz)))
    return objects


def _near(frame: Frame, rng: np.random.Generator) -> SceneObject:
    """A near subject: a table with objects on it, or a plant on a stand."""
    across = float(rng.uniform(0.1, 0.45)) * float(rng.choice([-1, 1]))
    z = float(rng.uniform(1.25, 1.6))
    x, wz = frame.view.spot(across, z)
    at = Frame2(x, wz, float(rng.uniform(-0.3, 0.3)))
    height = frame.view.eye - 0.42
    faces = furniture.table(rng, at, (0.55, 0.36), height)
    spots = sorted(zip(rng.uniform(-0.2, 0.26, 5), np.linspace(-0.42, 0.42, 5), strict=True), reverse=True)
    for b, a in spots:
        spot = at.at(np.array([a, 0.0, b]))
        faces += furniture.vessel(
            rng, Frame2(float(spot[0]), float(spot[2]), 0), height, 15.0 if rng.random() < 0.3 else 0.0
        )
    leafy = rng.random() < 0.6

    def call() -> None:
        draw(frame, faces)
        if leafy:
            pot = Frame2(x, wz, 0)
            draw(frame, furniture.pot(np.random.Generator(np.random.Philox(1)), pot, 0.22, height))
            paste(frame, bush(3), (x, height + 0.15, wz), 0.5, srgb(0x55803C), warmth=0.3)

    return (z, call)


def interior(
    rng: np.random.Generator, size: tuple[int, int], night: bool, *, near: bool = False, dusk: bool = False
) -> Frame:
    """A room, ready to render. near: adds a subject close by. dusk has no effect: the window shows day or night."""
    width, height = size
    half, room_depth, room_height = (
        float(rng.uniform(1.9, 2.8)),
        float(rng.uniform(4.0, 6.0)),
        float(rng.uniform(2.5, 2.9)),
    )
    view = View(
        width,
        height,
        height * float(rng.uniform(0.42, 0.5)),
        float(rng.uniform(1.3, 1.55)),
        float(rng.uniform(-0.4, 0.4)),
        float(rng.normal(0, 0.09)),
    )
    sky_model, out = sky.night(rng) if night else sky.day(rng, str(rng.choice(["noon", "morning", "overcast"])))
    bright = 0.05 if night else float(rng.uniform(3.0, 7.0))
    ambient = 0.006 if night else 0.035
    light = Light(
        (0, 0, 0),
        (0.3, 0.8, -0.5),
        (ambient, ambient, ambient * 0.98),
        (ambient * 0.8,) * 3,
        (ambient,) * 3,
        float(rng.uniform(292, 297)),
        rise=0.45,
    )
    frame = sky.start_frame(
        view, sky_model, Light(out.sun, out.sun_from, out.sky, out.bounce, out.mirror, light.air), rng
    )
    frame.light = light
    frame.temperature -= np.float32(6)
    if not night:
        frame.radiance *= np.float32(bright)
    _outdoors(frame, rng, bright)
    window_width = float(rng.uniform(1.2, min(2.4, half * 1.3)))
    middle = float(rng.uniform(-0.3, 0.3)) * half
    hole = (
        middle - window_width / 2,
        middle + window_width / 2,
        float(rng.uniform(0.75, 1.0)),
        float(rng.uniform(1.95, 2.25)),
    )
    base, walls = _shell(rng, half, room_depth, room_height, hole)
    if not night:
        # The window is an area light, approximated by four point lights with the lobe of a planar emitter.
        power = 0.045 * bright * window_width * (hole[3] - hole[2])
        for fx, fy in ((0.25, 0.3), (0.75, 0.3), (0.25, 0.75), (0.75, 0.75)):
            spot = (hole[0] + window_width * fx, hole[2] + (hole[3] - hole[2]) * fy, room_depth + 0.12)
            light.lamps.append(Lamp(spot, (power * 0.95, power, power * 1.06), (0, -0.12, -1), 0, 0.5))
    elif rng.random() < 0.7:
        light.lamps.append(Lamp((0, room_height - 0.45, room_depth * 0.5), (0.42, 0.33, 0.21), None, 0, 0.4))
    objects = _furnish(frame, rng, half, room_depth, night)
    if near:
        objects.append(_near(frame, rng))
    soften(frame)
    rug = [
        (-half * 0.5, 0.002, room_depth * 0.4),
        (half * 0.5, 0.002, room_depth * 0.4),
        (half * 0.5, 0.002, room_depth * 0.8),
        (-half * 0.5, 0.002, room_depth * 0.8),
    ]
    cloth = furniture.CLOTHS[int(rng.integers(len(furniture.CLOTHS)))]
    draw(frame, [*base, Face([np.array(rug, float)], cloth, "rug", outward=(0, 1, 0), warmth=0.5)], level=True)
    if not night and rng.random() < 0.6:
        _sun_patch(frame, rng, hole, room_depth, bright)
    draw(frame, [*walls, *_pictures(rng, half, room_depth, hole), *_window(rng, hole, room_depth)])
    draw_objects(frame, objects)
    return frame


def _sun_patch(frame: Frame, rng: np.random.Generator, hole: Opening, depth: Real, bright: Real) -> None:
    """Sunlight through the panes on the floor: the opening projected along the sun's rays."""
    slope, skew = float(rng.uniform(0.9, 1.5)), float(rng.uniform(-0.5, 0.5))
    left, right, b, t = hole
    mask = np.zeros(frame.z.shape, np.uint8)
    count = 3
    for i in range(count):
        x0, x1 = left + (right - left) * i / count + 0.05, left + (right - left) * (i + 1) / count - 0.03
        corners = ((x0, b + 0.05), (x1, b + 0.05), (x1, t - 0.05), (x0, t - 0.05))
        points = np.array([(x, 0.0, depth - y * slope + 0.1) for x, y in corners])
        points[:, 0] += skew * np.array([b, b, t, t])
        camera = clip_near(frame.view.to_camera(points))
        if len(camera) >= 3:
            cv2.fillPoly(mask, [fixed_point(frame.view.pixels(camera))], 255, cv2.LINE_AA, 4)
    frame.patch = mask.astype(np.float32) * np.float32(1 / 255)
    frame.patch_gain = tinted((2.6, 2.4, 2.0), bright**0.5)


__all__ = ["Upright", "interior"]
