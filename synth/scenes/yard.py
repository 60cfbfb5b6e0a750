"""A yard: lawn, path, fence, a house or a shed, trees and garden furniture."""

from __future__ import annotations

import math

import numpy as np

from clearfuse.synth.scenes.rendering import sky
from clearfuse.synth.scenes.rendering.faces import Face, Frame2, Real, ground, srgb, tinted
from clearfuse.synth.scenes.rendering.renderer import Frame, Lamp, draw, paste
from clearfuse.synth.scenes.rendering.shadows import cast_shadow, ground_contact, soften
from clearfuse.synth.scenes.rendering.view import View
from clearfuse.synth.scenes.street import SceneObject, draw_objects, near_subject
from clearfuse.synth.scenes.things import buildings, figures, furniture, vehicles
from clearfuse.synth.scenes.things.sprites import bush


def _lawn(rng: np.random.Generator, far: Real, side: Real, day: bool) -> list[Face]:
    """Grass, a path or a terrace, and beds of soil."""
    green = srgb(int(rng.choice([0x5F7A34, 0x6B7F3C, 0x4F6B30, 0x7C8446])))
    stone = srgb(int(rng.choice([0xA59E92, 0xB3A48C, 0x8E8A84])))
    warm, stony = (0.5, 1.5) if day else (-1.0, 1.0)
    faces = [ground([(-90, -4), (90, -4), (90, 220), (-90, 220)], colour=green, material="grass", warmth=warm)]
    if rng.random() < 0.75:
        half_width, bend = float(rng.uniform(0.5, 1.0)), float(rng.uniform(-0.25, 0.25))
        x = float(rng.uniform(-1.6, 1.6))
        z = np.linspace(-2, far, 14)
        middle = x + bend * z + 0.4 * np.sin(z / 3)
        left, right = np.c_[middle - half_width, z], np.c_[middle + half_width, z][::-1]
        border_left, border_right = np.c_[middle - half_width - 0.06, z], np.c_[middle + half_width + 0.06, z][::-1]
        faces.append(ground([*border_left, *border_right], colour=tinted(stone, 0.4), material="soil", warmth=warm))
        kind = str(rng.choice(["paving", "cobble", "soil"]))
        faces.append(ground([*left, *right], colour=stone, material=kind, warmth=stony))
    else:
        z = float(rng.uniform(2.5, 4.5))
        faces.append(
            ground(
                [(-40, -4), (40, -4), (40, z), (-40, z)],
                colour=stone,
                material="paving",
                warmth=stony,
            )
        )
    bed = float(rng.uniform(0.7, 1.3))
    faces.append(
        ground(
            [(-side - 3, far - bed), (side + 3, far - bed), (side + 3, far), (-side - 3, far)],
            colour=srgb(0x4A3A2C),
            material="soil",
            warmth=warm,
        )
    )
    return faces


def _enclosure(frame: Frame, rng: np.random.Generator, far: Real, side: Real, night: bool) -> list[SceneObject]:
    """The fence, the house or shed, and what is visible beyond."""
    objects: list[SceneObject] = []
    fence_height = float(rng.uniform(1.2, 2.0))
    runs = [Frame2(-side - 6, far, 0.0)]
    lengths = [2 * side + 12]
    for sign in (-1, 1):
        if rng.random() < 0.75:
            runs.append(Frame2(sign * side, -1.0, math.pi / 2))
            lengths.append(far + 1)
    for run, length in zip(runs, lengths, strict=True):
        faces = buildings.fence(rng, run, length, fence_height)
        wall = run.at([(0, 0, 0), (length, 0, 0), (length, fence_height, 0), (0, fence_height, 0)])
        cast_shadow(frame, [wall])
        objects.append((far if run.heading == 0 else far - 0.5, lambda faces=faces: draw(frame, faces)))
    for _ in range(int(rng.integers(2, 5))):
        z = far + float(rng.uniform(2, 22))
        objects.append((z, buildings.plant(frame, rng, float(rng.uniform(-1.0, 1.0)) * z * 0.7, z)))
    for _ in range(int(rng.integers(0, 3))):
        width, z = float(rng.uniform(8, 12)), far + float(rng.uniform(14, 40))
        at = Frame2(float(rng.uniform(-0.7, 0.5)) * z, z, float(rng.normal(0, 0.2)))
        faces = buildings.house(rng, at, width, float(rng.uniform(3.2, 6.5)), 8, night)
        objects.append((z + 4, lambda faces=faces: draw(frame, faces, shows="building")))
    if rng.random() < 0.75:
        shed = rng.random() < 0.4
        width, height, depth = (3.2, 2.3, 2.6) if shed else (float(rng.uniform(7, 11)), float(rng.uniform(3, 5.6)), 7.0)
        sign = float(rng.choice([-1, 1]))
        z = far - (3.2 if shed else float(rng.uniform(2, 4)))
        x = sign * side * float(rng.uniform(0.35, 0.6)) - width / 2 + (sign * width * 0.3 if not shed else 0)
        at = Frame2(x, z, float(rng.normal(0, 0.12)))
        faces = buildings.house(rng, at, width, height, depth, night)
        buildings.building_shadow(frame, at, width, height + 0.8, depth)
        if night:
            spot = at.at(np.array([width * 0.5, 2.25, -0.35]))
            frame.light.lamps.append(Lamp(tuple(spot), (1.5, 1.05, 0.6), None, 0, 0.4))
            bulb = furniture.prism(
                Frame2(float(spot[0]), float(spot[2]), 0),
                [(0.07, 2.1), (0.09, 2.2), (0.05, 2.3)],
                srgb(0xE8D8B0),
                n=8,
                glow=(12, 8.5, 5),
                warmth=14.0,
            )
            faces = [*faces, *bulb]
        objects.append((far - 0.6 if not shed else z, lambda faces=faces: draw(frame, faces, shows="building")))
    return objects


def _garden(frame: Frame, rng: np.random.Generator, far: Real, side: Real, night: bool) -> list[SceneObject]:
    """Trees, bushes, bench, table, pots, people, a dog, sometimes a car."""
    objects: list[SceneObject] = []

    def place(low: Real, high: Real, reach: Real = 0.75) -> tuple[Real, Real]:
        z = float(rng.uniform(low, high))
        x, wz = frame.view.spot(float(rng.uniform(-reach, reach)), z)
        return float(np.clip(x, -side + 0.6, side - 0.6)), wz

    def boxes(faces: list[Face], x: Real, z: Real, rx: Real, rz: Real, heading: Real) -> None:
        cast_shadow(frame, [f.contours[0] for f in faces])
        ground_contact(frame, x, z, rx, rz, heading, 0.35)
        objects.append((z, lambda: draw(frame, faces)))

    for _ in range(int(rng.integers(1, 3))):
        x, z = place(6, far - 1, 0.9)
        objects.append((z, buildings.plant(frame, rng, x, z)))
    for x in np.arange(-side, side, float(rng.uniform(1.2, 2.4))):
        if rng.random() < 0.7:
            z = far - float(rng.uniform(0.3, 0.9))
            objects.append((z, buildings.plant(frame, rng, float(x), z, small=True)))
    if rng.random() < 0.7:
        x, z = place(4.5, far - 2)
        heading = float(rng.uniform(-0.7, 0.7))
        boxes(furniture.bench(rng, Frame2(x, z, heading)), x, z, 0.9, 0.35, heading)
    if rng.random() < 0.5:
        x, z = place(4.5, far - 2)
        boxes(furniture.table(rng, Frame2(x, z, 0.4), (0.7, 0.5)), x, z, 0.8, 0.6, 0.4)
    for _ in range(int(rng.integers(1, 4))):
        x, z = place(3.2, far - 1.5, 0.95)
        size = float(rng.uniform(0.35, 0.7))
        boxes(furniture.pot(rng, Frame2(x, z, 0), size), x, z, 0.45 * size, 0.45 * size, 0)
        objects.append((z - 0.01, lambda x=x, z=z, size=size: _potted(frame, x, z, size)))
    for _ in range(int(rng.integers(1, 4))):
        x, z = place(4.2, far - 1.5, 0.7)
        objects.append((z, figures.person(frame, rng, x, z)))
    if rng.random() < 0.5:
        x, z = place(4.2, 8)
        objects.append((z, figures.dog(frame, rng, x, z)))
    if rng.random() < 0.25:
        x, z = place(8, max(far - 2, 9))
        objects.append(
            (z, vehicles.car(frame, rng, x, z, float(rng.uniform(-0.5, 0.5)) + (math.pi if rng.random() < 0.5 else 0)))
        )
    if rng.random() < 0.4 or night:
        x, z = place(6, far - 1, 0.8)
        objects.append((z, buildings.lamp_post(frame, rng, x, z, (-x, 0.2), 3.0, night, 9)))
    return objects


def _potted(frame: Frame, x: Real, z: Real, size: Real) -> None:
    paste(frame, bush(int(size * 100) % 3), (x, 0.7 * size, z), size * 1.5, srgb(0x5F8A3E), warmth=0.5)


def yard(
    rng: np.random.Generator, size: tuple[int, int], night: bool, *, near: bool = False, dusk: bool = False
) -> Frame:
    """A yard scene, ready to render. near: adds a subject about two metres away. dusk: some light in the sky."""
    width, height = size
    view = View(
        width,
        height,
        height * float(rng.uniform(0.36, 0.5)),
        float(rng.uniform(1.4, 2.1)),
        float(rng.uniform(-1, 1)),
        float(rng.normal(0, 0.12)),
    )
    sky_model, light = sky.night(rng, dusk) if night else sky.day(rng)
    frame = sky.start_frame(view, sky_model, light, rng)
    far, side = float(rng.uniform(11, 19)), float(rng.uniform(6, 11))
    surface = _lawn(rng, far, side, not night)
    objects = _enclosure(frame, rng, far, side, night)
    objects += _garden(frame, rng, far, side, night)
    if near:
        objects.append(near_subject(frame, rng))
    soften(frame)
    draw(frame, surface, level=True)
    draw_objects(frame, objects)
    return frame
