"""Shading of the visible surfaces: one pass over the samples of all faces, then the sprites between them."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from clearfuse.synth.scenes.rendering.faces import Face, Real
from clearfuse.synth.scenes.rendering.imaging import repeated
from clearfuse.synth.scenes.rendering.lamps import Lamps, lamp_light, lamp_map, lamps_of
from clearfuse.synth.scenes.rendering.materials import MATERIALS, sample, weathering
from clearfuse.synth.scenes.rendering.projection import Projected, Samples, paint, project, resolve
from clearfuse.synth.scenes.rendering.renderer import CLASSES, OBJECTS, Batch, Cutout, Frame, Light
from clearfuse.synth.scenes.rendering.rounding import rounding
from clearfuse.synth.scenes.rendering.sprites import paste
from clearfuse.synth.scenes.rendering.view import View

NAMES = tuple(MATERIALS)


@dataclass
class Tables:
    """Properties per label; row 0 is the sky's.

    base: radiance without texture, lamps and shadows; its fourth value is the temperature. direct: the sun's part of
    both. reflects: albedo where lamps reach. mirror: radiance of the sky in glossy faces. rise: kelvin per metre
    of height. The fourth value of emitted, mirror and reflects is zero.
    """

    plane: np.ndarray
    spans: np.ndarray
    normal: np.ndarray
    base: np.ndarray
    direct: np.ndarray
    emitted: np.ndarray
    mirror: np.ndarray
    material: np.ndarray
    level: np.ndarray
    reflects: np.ndarray
    round: np.ndarray
    s_axis: np.ndarray
    t_axis: np.ndarray
    scale: np.ndarray
    shows: np.ndarray
    objects: np.ndarray
    rise: np.ndarray


SUN_HEAT = 4.0
"""Kelvin by which a black surface warms per unit of the sun's light: 10 to 12 K at noon, as of stone and brick."""


def _axes(faces: list[Face], normal: np.ndarray, view: View) -> tuple[np.ndarray, np.ndarray]:
    """The planes' texture axes in camera coordinates: s along ``s_axis``, else horizontal; t perpendicular to it."""
    has_axis = np.array([f.s_axis is not None for f in faces], bool)
    s = np.stack([normal[:, 2], 0 * normal[:, 0], -normal[:, 0]], -1)
    s[np.abs(normal[:, 1]) > 0.9] = view.turned(np.array([1.0, 0, 0]))
    along = view.turned(np.array([f.s_axis or (1, 0, 0) for f in faces], float).reshape(-1, 3))
    along = along - normal * (along * normal).sum(-1, keepdims=True)
    s[has_axis] = along[has_axis]
    s /= np.maximum(np.sqrt((s**2).sum(-1, keepdims=True)), 1e-9)
    (a, b, c), (p, q, r) = normal.T, s.T
    return s, np.stack([b * r - c * q, c * p - a * r, a * q - b * p], -1)


def _with_sky_row(rows: np.ndarray, head: Real = 0.0) -> np.ndarray:
    """A float32 table with the row of the sky prepended."""
    return np.concatenate([np.full((1, *rows.shape[1:]), head, np.float32), rows.astype(np.float32)])


def _tables(view: View, cast: Projected, faces: list[Face], batches: list[Batch], inside: Light) -> Tables:
    """Light on each face: sun max(0, n·s) + the upper and lower hemispheres weighted by the normal's height."""
    n = cast.normal
    lights = [b.light for b in batches]

    def rows(name: str) -> np.ndarray:
        return np.array([getattr(light, name) for light in lights], float).reshape(-1, 3)

    up = (0.5 + 0.5 * n[:, 1])[:, None]
    cosine = np.maximum((n * view.turned(rows("sun_from"))).sum(-1, keepdims=True), 0)
    direct = rows("sun") * cosine
    lit = np.array([f.lit for f in faces], float)[:, None]
    albedo = np.minimum(np.array([f.colour for f in faces], float).reshape(-1, 3), 1)
    gloss = np.array([f.gloss for f in faces], float)[:, None] * (0.45 + 0.55 * np.maximum(n[:, 1:2], 0))
    glow = np.array([f.glow or (0, 0, 0) for f in faces], float).reshape(-1, 3)
    s, t = _axes(faces, n, view)
    heat = np.array([b.light.air + f.warmth for b, f in zip(batches, faces, strict=True)], float)
    # Absorbed sunlight; glass lets it through.
    opaque = np.array([f.gloss < 0.25 for f in faces], float)
    solar = SUN_HEAT * direct.mean(-1) * (1 - albedo.mean(-1)) * opaque
    level = np.array([b.level for b in batches], bool)
    cold = np.array([light.cooling for light in lights], float) * np.maximum(n[:, 1], 0) * ~level
    rise = np.array([light.rise for light in lights], float) * (np.abs(n[:, 1]) < 0.7)
    reached, none = np.array([b.light is inside for b in batches], float), np.zeros(len(faces))
    scale = np.array([f.scale for f in faces], float)
    eye = view.turned(np.array([view.x, view.eye, 0.0]))
    s, t = (np.column_stack([a / scale[:, None], (a @ eye) / scale]) for a in (s, t))
    return Tables(
        plane=_with_sky_row(cast.plane),
        spans=_with_sky_row(cast.spans, 1.0),
        normal=_with_sky_row(n),
        base=_with_sky_row(
            np.column_stack(
                [albedo * (direct + rows("sky") * up + rows("bounce") * (1 - up)) * lit, heat + solar - cold]
            )
        ),
        direct=_with_sky_row(np.column_stack([albedo * direct, 0.8 * solar])),
        emitted=_with_sky_row(np.column_stack([glow, none])),
        mirror=_with_sky_row(np.column_stack([rows("mirror") * gloss, none])),
        material=np.array([0, *(1 + NAMES.index(f.material) if f.material else 0 for f in faces)], np.uint8),
        level=np.concatenate([[False], level]),
        reflects=_with_sky_row(np.column_stack([albedo * reached[:, None], none])),
        round=np.array([False, *(b.round_off > 0 for b in batches)]),
        s_axis=_with_sky_row(s),
        t_axis=_with_sky_row(t),
        scale=_with_sky_row(scale, 1.0),
        shows=np.array([CLASSES.index("sky"), *(CLASSES.index(b.shows) for b in batches)], np.uint8),
        objects=_numbers(batches),
        rise=_with_sky_row(rise),
    )


def _numbers(batches: list[Batch]) -> np.ndarray:
    """The number of each face's object, the sky's first: faces of one call have the same; 0 where it is none."""
    numbers: dict[int, int] = {}
    for batch in batches:
        if batch.shows in OBJECTS:
            numbers.setdefault(id(batch), len(numbers) + 1)
    return np.array([0, *(numbers.get(id(batch), 0) for batch in batches)], np.uint16)


def render(frame: Frame) -> None:
    """Render the queued draw calls into the frame, in place."""
    view = frame.view
    batches = [item for item in frame.queue if isinstance(item, Batch)]
    batch_of_face = [batch for batch in batches for _ in batch.faces]
    faces = [face for batch in batches for face in batch.faces]
    cast = project(view, faces)
    shown, batch_of_shown = [faces[i] for i in cast.index], [batch_of_face[i] for i in cast.index]
    tables = _tables(view, cast, shown, batch_of_shown, frame.light)
    painted = paint(view, cast.contours)
    parts = resolve(painted)
    _light(frame, tables, parts, rounding(frame, cast, batch_of_shown))
    lamps = {id(item.light): lamps_of(item.light, view) for item in frame.queue if isinstance(item, Cutout)}
    before = 0
    for item in frame.queue:
        if isinstance(item, Batch):
            before += len(item.faces)
        else:
            paste(frame, item, lamps[id(item.light)], painted, int(np.searchsorted(cast.index, before)))
    frame.queue.clear()


def _light(frame: Frame, tables: Tables, parts: Samples, figures: np.ndarray | None) -> None:
    """Radiance, temperature and depth of every sample, averaged per pixel; what the middle of the pixel shows.

    ``value`` holds a sample's radiance and, as its fourth value, the temperature: rows of 16 bytes are copied at once.
    """
    view, label, pixel = frame.view, parts.label, parts.pixel
    shape = (view.height, view.width)
    count = view.height * view.width
    rx, ry = view.rays(0, view.width, 0, view.height)
    far = pixel[count:]
    rx = np.concatenate([np.tile(rx, view.height), rx[far % view.width]])
    ry = np.concatenate([np.repeat(ry, view.width), ry[far // view.width]])
    iz = np.take(tables.plane[:, 0], label) * rx
    iz += np.take(tables.plane[:, 1], label) * ry
    iz += np.take(tables.plane[:, 2], label)
    # A boundary pixel may lie outside its polygon, where the plane may be far away: limit z to the vertices' range.
    z = 1 / np.maximum(iz, np.float32(1e-3))
    np.clip(z, np.take(tables.spans[:, 0], label), np.take(tables.spans[:, 1], label), out=z)
    value = np.take(tables.base, label, axis=0)
    gain = np.ones(label.size, np.float32)
    ground = np.flatnonzero(np.take(tables.level, label))
    if ground.size:
        _shade_ground(frame, tables, parts, ground, (value, gain))
    lamps = lamps_of(frame.light, view)
    if lamps is not None:
        value += _lamps(lamps, view, tables, parts, (rx, ry, z))
    if frame.patch is not None:
        patch = np.take(frame.patch, pixel[ground])
        on = np.flatnonzero(patch)
        share = repeated(patch[on], 4)
        wet = np.array((*frame.patch_gain, 0), np.float32)
        _put(value, ground[on], _rows(value, ground[on]) * (1 + share * wet) + share * np.float32([0, 0, 0, 4]))
    if figures is not None:
        on = np.flatnonzero(np.take(tables.round, label))
        shade = np.take(figures.reshape(-1, 2), pixel[on], axis=0)
        gain[on] *= shade[:, 0]
        value[on, 3] += shade[:, 1]
    _weather(view, tables, parts, (value, gain), (rx, ry, z))
    _add_textures(view, tables, label, (value, gain), (rx, ry, z))
    value *= cv2.merge([gain, gain, gain, np.ones_like(gain)]).reshape(-1, 4)
    shining = np.flatnonzero(np.take(tables.emitted.any(-1), label))
    _put(value, shining, _rows(value, shining) + _rows(tables.emitted, label[shining]))
    glossy = np.flatnonzero(np.take(tables.mirror.any(-1), label))
    sees = _sky_in_mirror(np.take(tables.normal, label[glossy], axis=0), rx[glossy], ry[glossy])
    _put(value, glossy, _rows(value, glossy) + _rows(tables.mirror, label[glossy]) * repeated(sees, 4))
    sky = np.flatnonzero(label == 0)
    above = cv2.merge([*cv2.split(frame.radiance), frame.temperature]).reshape(-1, 4)
    _put(value, sky, _rows(above, pixel[sky]))
    z[sky] = np.inf
    frame.z = z[:count].reshape(shape)
    frame.classes = np.take(tables.shows, label[:count]).reshape(shape)
    frame.objects = np.take(tables.objects, label[:count]).reshape(shape)
    summed = _sum_samples(value, parts, count).reshape(*shape, 4)
    frame.radiance = cv2.cvtColor(summed, cv2.COLOR_BGRA2BGR)
    frame.temperature = summed[..., 3].copy()


def _sky_in_mirror(normal: np.ndarray, rx: np.ndarray, ry: np.ndarray) -> np.ndarray:
    """The share of the sky's light in the mirrored ray d - 2 (d·n) n: little from the ground and the skyline."""
    along = rx * normal[:, 0] + ry * normal[:, 1] + normal[:, 2]
    up = (ry - 2 * along * normal[:, 1]) / np.sqrt(1 + rx * rx + ry * ry)
    share = np.clip((up + np.float32(0.06)) * np.float32(2.5), 0, 1)
    return np.float32(0.15) + np.float32(1.1) * share * share * (3 - 2 * share)


def _rows(values: np.ndarray, at: np.ndarray) -> np.ndarray:
    """A copy of the rows ``at`` of an ``(n, 4)`` array."""
    return np.take(values, at, axis=0)


def _put(values: np.ndarray, at: np.ndarray, rows: np.ndarray) -> None:
    """Write rows of four float32 in place, each as one item of 16 bytes, which is ten times as fast."""
    values.view(np.complex128)[at, 0] = np.ascontiguousarray(rows, np.float32).view(np.complex128)[:, 0]


def _sum_samples(values: np.ndarray, parts: Samples, count: int) -> np.ndarray:
    """The weighted sum of the samples of each pixel."""
    out = values[:count]
    if parts.mixed.size:
        rest = np.add.reduceat(values[count:] * repeated(parts.weight[count:], 4), parts.runs, axis=0)
        _put(out, parts.mixed, _rows(out, parts.mixed) * repeated(parts.weight[parts.mixed], 4) + rest)
    return out


def _shade_ground(
    frame: Frame, tables: Tables, parts: Samples, ground: np.ndarray, into: tuple[np.ndarray, np.ndarray]
) -> None:
    """Apply cast and contact shadows to the samples of level ground, in place."""
    value, gain = into
    under = parts.pixel[ground]
    shade = 1 - np.take(frame.sunlit, under)
    dark = np.flatnonzero(shade > 0.002)
    on = ground[dark]
    _put(value, on, _rows(value, on) - _rows(tables.direct, parts.label[on]) * repeated(shade[dark], 4))
    gain[ground] = np.take(frame.contact, under)


def _lamps(
    lamps: Lamps, view: View, tables: Tables, parts: Samples, at: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> np.ndarray:
    """The lamps' light reflected by the faces."""
    label = parts.label
    labels = label[: view.height * view.width].reshape(view.height, view.width)
    smooth, exact = lamp_map(lamps, view, labels, tables.plane, tables.spans, tables.normal)
    lit = np.take(tables.reflects.any(-1), label)
    lit[: labels.size] &= ~exact.ravel()
    rest = np.flatnonzero(lit)
    rx, ry, z = (np.take(a, rest) for a in at)
    which = label[rest]
    normals = tuple(np.take(tables.normal[:, i], which) for i in range(3))
    total = np.empty((label.size, 4), np.float32)
    total[: labels.size] = smooth.reshape(-1, 4)
    total[labels.size :] = 0
    _put(total, rest, lamp_light(lamps, (rx * z, ry * z, z), normals))
    total *= _rows(tables.reflects, label)
    return total


WORN = 3.0
"""Kelvin per unit of the weathering's temperature, whose standard deviation is about 0.2."""


def _weather(
    view: View,
    tables: Tables,
    parts: Samples,
    into: tuple[np.ndarray, np.ndarray],
    at: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    """Multiply the gain by the weathering of the surfaces, in place; worn places are warmer, upright faces by height.

    Both span decimetres and more: they are computed for every second pixel of every second row.
    """
    value, gain = into
    h, w = view.height, view.width
    on = np.arange(h * w).reshape(h, w)[::2, ::2]
    size, on = on.shape, on.ravel()
    which = np.take(parts.label, on)
    rx, ry, z = (np.take(a, on) for a in at)
    scale = np.take(tables.scale, which)
    worn = weathering(*(_across(axis, which, rx, ry, z) * scale for axis in (tables.s_axis, tables.t_axis)))
    worn[:, 1] = np.float32(WORN) * (worn[:, 1] - 1) + np.take(tables.rise, which) * (ry * z + np.float32(view.eye))
    whole = cv2.resize(worn.reshape(*size, 2), (w, h), interpolation=cv2.INTER_LINEAR).reshape(-1, 2)
    rest = np.take(whole, parts.pixel[h * w :], axis=0)
    gain *= np.concatenate([whole[:, 0], rest[:, 0]])
    value[:, 3] += np.concatenate([whole[:, 1], rest[:, 1]])


CHUNK = 1 << 15
"""Samples textured at a time; they fit in the processor's cache."""


def _add_textures(
    view: View,
    tables: Tables,
    label: np.ndarray,
    into: tuple[np.ndarray, np.ndarray],
    at: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    """Multiply the radiance, or the gain for grey materials, by the textures, in place; dark spots are warmer."""
    value, gain = into
    material = np.take(tables.material, label)
    steepness = np.sqrt((tables.plane**2).sum(-1))
    finest = 1 / (np.float32(view.focal) * tables.scale)
    heat = value[:, 3]
    for number in np.flatnonzero(np.bincount(material, minlength=1)[1:]) + 1:
        whole = np.flatnonzero(material == number)
        for start in range(0, whole.size, CHUNK):
            on = whole[start : start + CHUNK]
            which = np.take(label, on)
            rx, ry, z = (np.take(a, on) for a in at)
            s, t = (_across(axis, which, rx, ry, z) for axis in (tables.s_axis, tables.t_axis))
            # The geometric mean of the footprint's long and short sides: a compromise of blur and aliasing.
            footprint = np.sqrt(np.maximum(z * np.take(steepness, which), 1))
            footprint *= z
            footprint *= np.take(finest, which)
            tone = sample(NAMES[number - 1], s, t, footprint)
            if tone.ndim == 1:
                gain[on] *= tone
                heat[on] += np.float32(1.1) * (1 - tone)
            else:
                rows = _rows(value, on)
                rows[:, :3] *= tone
                rows[:, 3] += np.float32(1.1) * (1 - tone[:, 1])
                _put(value, on, rows)


def _across(axis: np.ndarray, which: np.ndarray, rx: np.ndarray, ry: np.ndarray, z: np.ndarray) -> np.ndarray:
    """The plane coordinate of samples along a texture axis, in metres."""
    out = np.take(axis[:, 0], which)
    out *= rx
    out += np.take(axis[:, 1], which) * ry
    out += np.take(axis[:, 2], which)
    out *= z
    out += np.take(axis[:, 3], which)
    return out
