"""A street: road, pavements, two rows of buildings, trees, lamps, cars and people."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from clearfuse.synth.scenes.rendering import sky
from clearfuse.synth.scenes.rendering.faces import Face, Frame2, Real, box, ground, quad, srgb, tinted
from clearfuse.synth.scenes.rendering.renderer import Frame, draw
from clearfuse.synth.scenes.rendering.shadows import soften
from clearfuse.synth.scenes.rendering.view import View
from clearfuse.synth.scenes.things import buildings, figures, vehicles
from clearfuse.synth.scenes.things.furniture import bench, bin_faces

SceneObject = tuple[float, Callable[[], None]]
"""Distance in metres and the function that draws the object."""

FAR = 88.0


def draw_objects(frame: Frame, objects: list[SceneObject]) -> None:
    """Draw the objects from far to near."""
    for _, call in sorted(objects, key=lambda item: -item[0]):
        call()


def _surface(rng: np.random.Generator, half: Real, walk: Real, day: bool) -> list[Face]:
    """Road, markings, gutters, curbs and pavements."""
    edge, back = half, half + walk
    near, far = -4.0, 260.0
    road = tinted(srgb(int(rng.choice([0x5A5A5C, 0x6A6866, 0x4A4B50]))), float(rng.uniform(0.8, 1.1)))
    slab = srgb(int(rng.choice([0xA8A296, 0x98948C, 0xB0A690])))
    paint = srgb(0xDAD8CE)
    warm = float(rng.uniform(0.5, 3)) if day else float(rng.uniform(1.5, 3.5))

    def band(x0: Real, x1: Real, z0: Real = near, z1: Real = far) -> list[tuple[Real, Real]]:
        return [(x0, z0), (x1, z0), (x1, z1), (x0, z1)]

    verge = srgb(int(rng.choice([0x66743C, 0x6F7A44, 0x77705A])))
    faces = [ground(band(-90, 90), colour=verge, material="grass", warmth=-1.0 if not day else 1.0)]
    kind = str(rng.choice(["paving", "cobble", "paving"]))
    for sign in (-1, 1):
        faces.append(ground(band(sign * edge, sign * back), colour=slab, material=kind, warmth=warm * 0.6))
    cobbled = rng.random() < 0.15
    faces.append(ground(band(-edge, edge), colour=road, material="cobble" if cobbled else "asphalt", warmth=warm))
    for _ in range(int(rng.integers(0, 4))):
        x, z = rng.uniform(-edge, edge - 1), rng.uniform(3, 25)
        patch = band(x, x + rng.uniform(0.6, 2), z, z + rng.uniform(1, 5))
        faces.append(ground(patch, colour=tinted(road, rng.uniform(0.65, 0.85)), material="asphalt", warmth=warm + 0.5))
    for sign in (-1, 1):
        faces.append(
            ground(band(sign * (edge - 0.28), sign * edge), colour=tinted(road, 0.75), material="asphalt", warmth=warm)
        )
        faces.append(
            ground(
                band(sign * edge, sign * (edge + 0.16)), colour=tinted(slab, 1.2), material="plaster", warmth=warm * 0.5
            )
        )
        faces.append(ground(band(sign * (edge - 0.07), sign * edge), colour=tinted(slab, 0.35), warmth=warm * 0.5))
    if cobbled:
        return faces
    if rng.random() < 0.75:
        dash = float(rng.uniform(1.5, 3))
        for z in np.arange(0.3 + rng.uniform(0, 3), 90, dash * 2.4):
            faces.append(
                ground(band(-0.07, 0.07, z, z + dash), colour=paint, material="noise", scale=0.05, warmth=warm - 1)
            )
    if rng.random() < 0.5:
        for sign in (-1, 1):
            line = band(sign * (edge - 0.55), sign * (edge - 0.42))
            faces.append(ground(line, colour=tinted(paint, 0.9), material="noise", scale=0.05, warmth=warm - 1))
    if rng.random() < 0.4:
        z = float(rng.uniform(6, 15))
        for x in np.arange(-edge + 0.4, edge - 0.5, 1.0):
            faces.append(
                ground(band(x, x + 0.5, z, z + 3), colour=paint, material="noise", scale=0.05, warmth=warm - 1)
            )
    if rng.random() < 0.7:
        x, z = rng.uniform(-edge * 0.6, edge * 0.6), rng.uniform(4.5, 12)
        t = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        for radius, tone in ((0.36, 0.4), (0.31, 0.62), (0.25, 0.5)):
            ring = [(x + radius * c, z + radius * s) for c, s in zip(np.cos(t), np.sin(t), strict=True)]
            faces.append(ground(ring, colour=tinted(road, tone), material="cobble", scale=0.4, warmth=warm + 2))
    return faces


def _rows(frame: Frame, rng: np.random.Generator, back: Real, night: bool) -> list[SceneObject]:
    """Buildings along both sides and at the far end of the street."""
    objects: list[SceneObject] = []
    typical_height = float(rng.uniform(7, 17))
    for sign in (-1, 1):
        z = float(rng.uniform(-6, 1))
        green = rng.random() < 0.18
        while z < FAR:
            width = float(rng.uniform(7, 16)) * (1 if z < 30 else 1.6)
            height = float(np.clip(typical_height * rng.uniform(0.6, 1.35), 5.5, 26))
            gap = float(rng.uniform(2, 6)) if rng.random() < 0.25 else 0.0
            depth = 14.0
            # The front runs along z: local a is +z on the right side and -z on the left, so that b = -1 is the road.
            at = Frame2(sign * back, z if sign < 0 else z + width, math.pi / 2 if sign < 0 else -math.pi / 2)
            if rng.random() < (0.65 if green else 0.06):
                for k in np.arange(z + 1, z + width, 4.0):
                    objects.append(
                        (float(k) + 3, buildings.plant(frame, rng, sign * (back + float(rng.uniform(1, 4))), float(k)))
                    )
            else:
                faces = (buildings.house if height < 8 and rng.random() < 0.7 else buildings.facade)(
                    rng, at, width, height, depth, night
                )
                buildings.building_shadow(frame, at, width, height, depth)
                objects.append((z + width + 8, lambda faces=faces: draw(frame, faces, shows="building")))
            z += width + gap
    x = float(rng.uniform(-14, -6))
    at = Frame2(x, FAR + 6, 0.0)
    faces = buildings.facade(rng, at, 30, float(typical_height * rng.uniform(0.7, 1.3)), 12, night)
    if rng.random() < 0.6:
        objects.append((FAR + 30, lambda: draw(frame, faces, shows="building")))
    return objects


def _traffic(frame: Frame, rng: np.random.Generator, half: Real, walk: Real, night: bool) -> list[SceneObject]:
    objects: list[SceneObject] = []
    lane = half / 2
    for sign in (-1, 1):
        z = float(rng.uniform(5.5, 12))
        parked = rng.random() < 0.7 and half > 2.9
        while parked and z < 60:
            if rng.random() < 0.7:
                heading = math.pi / 2 * (1 if sign > 0 else -1) + float(rng.normal(0, 0.015))
                objects.append((z + 1, vehicles.car(frame, rng, sign * (half - 1.05), z, heading)))
            z += float(rng.uniform(5.5, 8.5))
    for sign in (-1, 1):
        if rng.random() < 0.6:
            z = float(rng.uniform(9, 34))
            x = sign * (lane - (0.6 if half > 2.9 else 0.1))
            heading = math.pi / 2 if sign > 0 else -math.pi / 2
            objects.append((z, vehicles.car(frame, rng, x, z, heading, driving=True, lights=night)))
    side = walk - 0.7
    for number in range(int(rng.integers(3, 8))):
        z = float(rng.uniform(4.2, 9) if number == 0 else rng.uniform(5, 32))
        if rng.random() < 0.72:
            x = float(rng.choice([-1, 1])) * (half + 0.4 + float(rng.random()) * max(side, 0.4))
        else:
            x = float(rng.uniform(-half, half)) * 0.8
        if number == 0:
            x = frame.view.spot(float(rng.uniform(-0.6, 0.6)), z)[0]
        objects.append((z, figures.person(frame, rng, x, z)))
    return objects


def _furniture(frame: Frame, rng: np.random.Generator, half: Real, walk: Real, night: bool) -> list[SceneObject]:
    objects: list[SceneObject] = []
    spacing, height = float(rng.uniform(14, 22)), float(rng.uniform(4.6, 7))
    both = rng.random() < 0.5
    first = float(rng.uniform(6, 13))
    for number, z in enumerate(np.arange(first, 75, spacing)):
        sign = 1 if number % 2 else -1
        for s in (-1, 1) if both else (sign,):
            x = s * (half + 0.45)
            objects.append(
                (float(z), buildings.lamp_post(frame, rng, x, float(z), (-s, 0), height, bool(night and z < 62)))
            )
    if rng.random() < 0.65:
        step = float(rng.uniform(7, 12))
        for sign in (-1, 1):
            for z in np.arange(float(rng.uniform(6, 12)), 70, step):
                if rng.random() < 0.7:
                    objects.append((float(z), buildings.plant(frame, rng, sign * (half + 0.9), float(z))))
    if rng.random() < 0.6:
        sign, z = float(rng.choice([-1, 1])), float(rng.uniform(5, 11))
        at = Frame2(sign * (half + walk * 0.6), z, math.pi / 2)
        faces = bench(rng, at) if rng.random() < 0.5 else bin_faces(rng, at)
        objects.append((z, lambda: draw(frame, faces)))
    return objects


def street(
    rng: np.random.Generator, size: tuple[int, int], night: bool, *, near: bool = False, dusk: bool = False
) -> Frame:
    """A street scene, ready to render. near: adds a subject about two metres away. dusk: some light in the sky."""
    width, height = size
    half, walk = float(rng.uniform(2.6, 4.8)), float(rng.uniform(1.8, 3.6))
    x = float(rng.uniform(-0.75, 0.75)) * half
    view = View(
        width,
        height,
        height * float(rng.uniform(0.40, 0.56)),
        float(rng.uniform(1.45, 2.5)),
        x,
        float(rng.normal(0, 0.14)),
    )
    sky_model, light = sky.night(rng, dusk) if night else sky.day(rng)
    frame = sky.start_frame(view, sky_model, light, rng)
    surface = _surface(rng, half, walk, not night)
    objects = _rows(frame, rng, half + walk, night)
    objects += _furniture(frame, rng, half, walk, night)
    objects += _traffic(frame, rng, half, walk, night)
    if near:
        objects.append(near_subject(frame, rng))
    light.lamps[:] = sorted(light.lamps, key=lambda lamp: lamp.at[2])[:8]
    soften(frame)
    draw(frame, surface, level=True)
    draw_objects(frame, objects)
    return frame


def near_subject(frame: Frame, rng: np.random.Generator) -> SceneObject:
    """A subject 1.5 to 2.6 m away: a person, a bush or a sign post."""
    z = float(rng.uniform(1.5, 2.6))
    x, wz = frame.view.spot(float(rng.uniform(0.12, 0.5)) * float(rng.choice([-1, 1])), z)
    kind = rng.random()
    if kind < 0.62:
        return (z, figures.person(frame, rng, x, wz))
    if kind < 0.82:
        return (z, buildings.plant(frame, rng, x, wz, small=True))
    colour = srgb(int(rng.choice([0x8A2A22, 0x24343A, 0x3F5A3A])))
    at = Frame2(x, wz, float(rng.uniform(0, 1.5)))
    faces = box(at, (-0.11, 0.11), (0, 2.6), (-0.11, 0.11), colour=colour, material="timber")
    board = srgb(int(rng.choice([0xE4DFCF, 0x2A4A7A, 0xC7A13C])))
    right = frame.view.to_world(np.array([1.0, 0, 0])) - frame.view.to_world(np.zeros(3))
    plane = figures.Upright(x, wz, (float(right[0]), float(right[2])))
    low = float(frame.view.eye) - 0.35
    faces += [plane.face([(-0.42, low), (0.42, low), (0.42, low + 0.6), (-0.42, low + 0.6)], board, material="paint")]
    for row in np.arange(low + 0.08, low + 0.54, 0.11):
        end = float(rng.uniform(0.05, 0.36))
        faces += [
            plane.face([(-0.36, row), (end, row), (end, row + 0.05), (-0.36, row + 0.05)], tinted(srgb(0x1B1B1E), 1.0))
        ]
    return (z, lambda: draw(frame, faces))


__all__ = ["SceneObject", "draw_objects", "near_subject", "quad", "street"]
