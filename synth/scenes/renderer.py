"""Draws faces into a frame of radiance, depth and temperature, far things first.

Every face is planar, so 1/z is affine in the pixel (n·r = d/z): one table a drawing gives each pixel's depth, normal,
light and temperature from the label of its face. Edges are antialiased in linear light.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import cv2
import numpy as np

from synth.scenes.faces import Axis, Face, Real, Rgb
from synth.scenes.materials import sample
from synth.scenes.view import NEAR, View, clip_near


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
class Frame:
    """The picture so far, and the shadow masks that level ground receives (1 lit)."""

    view: View
    light: Light
    radiance: np.ndarray
    z: np.ndarray
    temperature: np.ndarray
    sunlit: np.ndarray
    contact: np.ndarray


@dataclass
class _Cast:
    """Projected faces and their bounding box."""

    polygons: list[list[np.ndarray]]
    planes: list[np.ndarray]
    normals: list[np.ndarray]
    faces: list[Face]
    spans: list[tuple[float, float]]
    box: tuple[int, int, int, int]


def _planes(frame: Frame, faces: list[Face]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit normals towards the camera, d = n·p, and which faces are seen (Newell's normal: the sum over the edges)."""
    firsts = [face.contours[0] for face in faces]
    counts = np.array([len(c) for c in firsts])
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    camera = frame.view.to_camera(np.concatenate(firsts))
    following = np.arange(1, len(camera) + 1)
    following[starts + counts - 1] = starts
    b = camera[following]
    edges = np.stack([camera[:, i] * b[:, j] - camera[:, j] * b[:, i] for i, j in ((1, 2), (2, 0), (0, 1))], -1)
    normal = np.add.reduceat(edges, starts)
    normal /= np.maximum(np.sqrt((normal**2).sum(-1, keepdims=True)), 1e-12)
    middle = np.add.reduceat(camera, starts) / counts[:, None]
    d = (normal * middle).sum(-1)
    normal[d > 0] *= -1
    outward = frame.view.turned(np.array([f.outward or (0, 0, 0) for f in faces], float))
    side = (outward * camera[starts]).sum(-1)
    seen = (-np.abs(d) < -1e-4) & (np.array([f.outward is None for f in faces]) | (side < 0))
    return normal, -np.abs(d), seen


def _sliver(points: np.ndarray, spans: list[float]) -> bool:
    """Whether a receding plane is seen so edge-on, under half a pixel wide, that its pixels' depth means nothing."""
    if max(spans) < 1.3 * min(spans):
        return False
    after = np.roll(points, -1, axis=0)
    area = abs(float((points[:, 0] * after[:, 1] - after[:, 0] * points[:, 1]).sum())) / 2
    return area < 0.3 * float(np.hypot(*(after - points).T).sum())


def _project(frame: Frame, faces: list[Face]) -> _Cast | None:
    view = frame.view
    normal, d, seen = _planes(frame, faces)
    index = np.flatnonzero(seen)
    if not len(index):
        return None
    contours = [c for i in index for c in faces[i].contours]
    ends = np.cumsum([len(c) for c in contours])
    camera = view.to_camera(np.concatenate(contours))
    depths = camera[:, 2]
    cut = np.minimum.reduceat(depths, np.concatenate([[0], ends[:-1]])) < NEAR
    pixel = view.pixels(np.where(depths[:, None] < NEAR, (0.0, 0.0, NEAR), camera))
    result = _Cast([], [], [], [], [], (0, 0, 0, 0))
    low, high = np.full(2, np.inf), np.full(2, -np.inf)
    number = start = 0
    for i in index:
        parts, spans = [], []
        for _ in faces[i].contours:
            stop = int(ends[number])
            whole = clip_near(camera[start:stop]) if cut[number] else camera[start:stop]
            if len(whole) >= 3:
                parts.append(view.pixels(whole) if cut[number] else pixel[start:stop])
                spans += [whole[:, 2].min(), whole[:, 2].max()]
            number, start = number + 1, stop
        if parts and not _sliver(parts[0], spans):
            points = np.concatenate(parts)
            low, high = np.minimum(low, points.min(0)), np.maximum(high, points.max(0))
            result.polygons.append(parts)
            result.planes.append(normal[i] / d[i])
            result.normals.append(normal[i])
            result.faces.append(faces[i])
            result.spans.append((min(spans), max(spans)))
    if not result.faces:
        return None
    low, high = np.clip(low, -1e6, 1e6), np.clip(high, -1e6, 1e6)
    x0, y0 = max(math.floor(low[0]) - 1, 0), max(math.floor(low[1]) - 1, 0)
    x1, y1 = min(math.ceil(high[0]) + 2, view.width), min(math.ceil(high[1]) + 2, view.height)
    result.box = (x0, x1, y0, y1)
    return result if x1 > x0 and y1 > y0 else None


def _fill(cast: _Cast) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The faces' root albedo (premultiplied, 8 bit), coverage and labels; 8 bit because cv2 antialiases only that."""
    x0, x1, y0, y1 = cast.box
    code = np.zeros((y1 - y0, x1 - x0, 3), np.uint8)
    alpha = np.zeros(code.shape[:2], np.uint8)
    label = np.zeros(code.shape[:2], np.uint8)
    for number, (face, parts) in enumerate(zip(cast.faces, cast.polygons, strict=True), start=1):
        # cv2 takes coordinates of 1/16 pixel; far outside the frame they would overflow.
        fixed = [np.rint((p - (x0, y0)).clip(-20000, 20000) * 16).astype(np.int32) for p in parts]
        root = [255 * math.sqrt(min(c, 1)) for c in face.colour]
        cv2.fillPoly(code, fixed, root, cv2.LINE_AA, 4)
        cv2.fillPoly(alpha, fixed, 255, cv2.LINE_AA, 4)
        cv2.fillPoly(label, fixed, number, cv2.LINE_8, 4)
    return code, alpha, label


def _texture(albedo: np.ndarray, heat: np.ndarray, number: int, cast: _Cast, label: np.ndarray, view: View) -> None:
    """Multiply one face's albedo by its material, in place; dark spots of a material are a little warmer."""
    face, plane = cast.faces[number - 1], cast.planes[number - 1]
    x0, x1, y0, y1 = cast.box
    points = np.concatenate(cast.polygons[number - 1])
    (left, top), (right, bottom) = (
        p.astype(int).tolist() for p in (np.floor(points.min(0)), np.ceil(points.max(0)) + 1)
    )
    u0, u1, v0, v1 = max(left, x0), min(right, x1), max(top, y0), min(bottom, y1)
    if (u1 - u0) * (v1 - v0) < 400 or face.material is None:
        return
    box = np.s_[v0 - y0 : v1 - y0, u0 - x0 : u1 - x0]
    on = label[box] == number
    if not on.any():
        return
    rx, ry = (r.astype(np.float32) for r in view.rays(u0, u1, v0, v1))
    normal, d = cast.normals[number - 1], 1 / float(np.linalg.norm(plane))
    n = plane.astype(np.float32)
    z = 1 / np.maximum(rx[None, :] * n[0] + (ry * n[1] + n[2])[:, None], np.float32(1e-4))
    s_dir, t_dir = _axes(face, normal, view)
    eye = view.turned(np.array([view.x, view.eye, 0.0]))
    s_dir, t_dir = s_dir / face.scale, t_dir / face.scale
    s = (rx[None, :] * np.float32(s_dir[0]) + (ry * s_dir[1] + s_dir[2])[:, None].astype(np.float32)) * z
    t = (rx[None, :] * np.float32(t_dir[0]) + (ry * t_dir[1] + t_dir[2])[:, None].astype(np.float32)) * z
    # The geometric mean of the footprint's long and short sides: neither smeared nor sparkling.
    footprint = z * np.sqrt(np.maximum(z / np.float32(d), 1)) * np.float32(1 / view.focal / face.scale)
    tone = sample(face.material, s + np.float32(eye @ s_dir), t + np.float32(eye @ t_dir), footprint)
    part = tone if tone.ndim == 3 else tone[..., None]
    albedo[box] *= np.where(on[..., None], part, np.float32(1))
    heat[box] += np.float32(1.4) * on * (1 - part[..., min(1, part.shape[2] - 1)])


def _axes(face: Face, normal: np.ndarray, view: View) -> tuple[np.ndarray, np.ndarray]:
    """The plane's texture axes in camera axes: s along ``s_axis``, else level; t at a right angle to it."""
    if face.s_axis is not None:
        s = view.turned(np.array(face.s_axis, float))
        s = s - normal * (s @ normal)
    elif abs(normal[1]) > 0.9:
        s = view.turned(np.array([1.0, 0, 0]))
    else:
        s = np.array([normal[2], 0, -normal[0]])
    s = s / max(float(np.linalg.norm(s)), 1e-9)
    return s, np.cross(normal, s)


def _irradiance(face: Face, normal: np.ndarray, light: Light, sun: np.ndarray) -> np.ndarray:
    """Sun and sky on a face: sun max(0, n·s) + the hemispheres above and below weighted by the normal's height."""
    up = 0.5 + 0.5 * float(normal[1])
    direct = np.array(light.sun) * max(float(normal @ sun), 0)
    return (direct + np.array(light.sky) * up + np.array(light.bounce) * (1 - up)) * face.lit


def lamp_light(light: Light, view: View, points: list[np.ndarray], normals: list[np.ndarray]) -> np.ndarray:
    """Irradiance of the lamps, ``(h, w, 3)``: power max(0, n·l) / (r² + size²), times the beam's lobe."""
    x, y, z = points
    total = np.zeros((*z.shape, 3), np.float32)
    low, high = z.min(), z.max()
    # Too faint to be seen beside the sky's light.
    dim = 0.12 * max(light.sky)
    for lamp in light.lamps:
        px, py, pz = (float(v) for v in view.to_camera(np.array(lamp.at, float)))
        gap = max(float(low) - pz, pz - float(high), 0.0)
        if max(lamp.power) < dim * gap * gap:
            continue
        dx, dy, dz = px - x, py - y, pz - z
        r2 = dx * dx + dy * dy + dz * dz + np.float32(lamp.size**2)
        inverse = 1 / np.sqrt(r2)
        # A quarter of the light whatever the normal: what small shapes turn towards it.
        cosine = np.maximum((normals[0] * dx + normals[1] * dy + normals[2] * dz) * inverse, 0) * 0.85 + 0.08
        amount = cosine / r2
        if lamp.facing is not None:
            f = view.turned(np.array(lamp.facing, float))
            f = (f / np.linalg.norm(f)).astype(np.float32)
            lobe = np.maximum(-(f[0] * dx + f[1] * dy + f[2] * dz) * inverse, 0)
            for _ in range(lamp.doublings):
                lobe *= lobe
            amount *= lobe
        total += amount[..., None].astype(np.float32) * np.array(lamp.power, np.float32)
    return total


def draw(frame: Frame, faces: list[Face], *, level: bool = False, round_off: Real = 0.0) -> None:
    """Draw faces, the first the farthest, over the frame. level: they lie on the ground and receive shadows.

    round_off: how strongly a flat figure is shaded as if it were round.
    """
    for start in range(0, len(faces), 250):
        cast = _project(frame, faces[start : start + 250])
        if cast is not None:
            _compose(frame, cast, level, round_off)


def _compose(frame: Frame, cast: _Cast, level: bool, round_off: Real) -> None:
    view, light = frame.view, frame.light
    x0, x1, y0, y1 = cast.box
    code, alpha, label = _fill(cast)
    rx, ry = view.rays(x0, x1, y0, y1)
    sun = view.turned(np.array(light.sun_from, float))
    # Row 0 is for the fringe that coverage has and labels have not: it takes the first face's values.
    rows = [0, *range(len(cast.faces))]
    faces, normals = [cast.faces[i] for i in rows], [cast.normals[i] for i in rows]
    plane = np.array([cast.planes[i] for i in rows], np.float32)
    iz = (
        np.take(plane[:, 0], label) * rx[None, :]
        + np.take(plane[:, 1], label) * ry[:, None]
        + np.take(plane[:, 2], label)
    )
    # A boundary pixel may lie outside its polygon, where a plane seen edge-on runs away: hold z to the vertices' range.
    spans = np.array([cast.spans[i] for i in rows], np.float32)
    z = np.clip(1 / np.maximum(iz, np.float32(1e-3)), np.take(spans[:, 0], label), np.take(spans[:, 1], label))
    cover = alpha.astype(np.float32) * np.float32(1 / 255)
    albedo = code.astype(np.float32) / np.maximum(alpha, 1)[..., None]
    albedo *= albedo
    heat = np.take(np.array([light.air + f.warmth for f in faces], np.float32), label)
    for number, face in enumerate(cast.faces, start=1):
        if face.material is not None:
            _texture(albedo, heat, number, cast, label, view)
    table = np.array([_irradiance(f, n, light, sun) for f, n in zip(faces, normals, strict=True)], np.float32)
    if level:
        direct = np.array([np.array(light.sun) * max(float(n @ sun), 0) for n in normals], np.float32)
        shade = (1 - frame.sunlit[y0:y1, x0:x1])[..., None]
        light_map = (np.take(table, label, axis=0) - np.take(direct, label, axis=0) * shade) * frame.contact[
            y0:y1, x0:x1, None
        ]
    else:
        light_map = np.take(table, label, axis=0)
    if light.lamps:
        points = [rx[None, :] * z, ry[:, None] * z, z]
        spread = np.array(normals, np.float32)
        # Level ground is one plane, on which lamp light varies smoothly: every third pixel tells it.
        step = 3 if level and min(z.shape) > 24 else 1
        points = [np.ascontiguousarray(p[::step, ::step]) for p in points]
        lamps = lamp_light(light, view, points, [np.take(spread[:, i], label[::step, ::step]) for i in range(3)])
        if step > 1:
            lamps = cv2.resize(lamps, z.shape[::-1], interpolation=cv2.INTER_LINEAR)
        light_map = light_map + (lamps * frame.contact[y0:y1, x0:x1, None] if level else lamps)
    if round_off:
        light_map = light_map * _rounding(alpha, sun, round_off, bool(light.lamps))[..., None]
    radiance = albedo * light_map
    if any(f.glow or f.gloss for f in faces):
        glow = np.array([_emitted(f, n, light) for f, n in zip(faces, normals, strict=True)], np.float32)
        radiance += np.take(glow, label, axis=0)
    _over(frame, (x0, x1, y0, y1), radiance, cover, z, heat)


def _emitted(face: Face, normal: np.ndarray, light: Light) -> np.ndarray:
    """Own radiance plus the mirrored sky."""
    mirrored = np.array(light.mirror) * (face.gloss * (0.45 + 0.55 * max(float(normal[1]), 0)))
    return mirrored + np.array(face.glow or (0, 0, 0))


def _rounding(alpha: np.ndarray, sun: np.ndarray, strength: Real, night: bool) -> np.ndarray:
    """A factor that falls off towards the shaded outline: the blurred silhouette's slope as the surface's tilt."""
    sigma = max(min(alpha.shape) * 0.07, 0.6)
    soft = cv2.GaussianBlur(alpha, (0, 0), sigma).astype(np.float32) / 255
    gx, gy = cv2.Sobel(soft, cv2.CV_32F, 1, 0), cv2.Sobel(soft, cv2.CV_32F, 0, 1)
    side = np.array([0.2, 0.8]) if night else sun[:2] / max(float(np.hypot(sun[0], sun[1])), 1e-6)
    tilt = (-gx * np.float32(side[0]) + gy * np.float32(side[1])) * np.float32(sigma * 0.35)
    return np.clip(1 + strength * (tilt - 0.35 * (1 - soft)), 0.35, 1.6)


def _over(
    frame: Frame,
    box: tuple[int, int, int, int],
    radiance: np.ndarray,
    cover: np.ndarray,
    z: np.ndarray,
    heat: np.ndarray,
) -> None:
    """Porter and Duff's over, in linear light; depth belongs to whoever covers more than half of the pixel."""
    x0, x1, y0, y1 = box
    at = np.s_[y0:y1, x0:x1]
    a = cover[..., None]
    frame.radiance[at] += (radiance - frame.radiance[at]) * a
    frame.temperature[at] += (heat - frame.temperature[at]) * cover
    np.copyto(frame.z[at], z, where=cover > 0.5)


def paste(
    frame: Frame,
    levels: tuple[np.ndarray, ...],
    centre: Axis,
    width: Real,
    tint: Rgb,
    *,
    warmth: Real = 0.0,
    flip: bool = False,
    lit: Real = 1.0,
) -> None:
    """A flat cut-out facing the camera: ``levels``, each (h, w, 4), hold albedo factors and
    coverage, the finest first; base at ``centre``.

    width: metres. The sprite's own shading is in its factors.
    """
    view, light = frame.view, frame.light
    base = view.to_camera(np.array(centre, float))
    if base[2] < 0.4:
        return
    u, v = view.pixels(base)
    wanted = width * view.focal / base[2]
    sprite = next((level for level in reversed(levels) if level.shape[1] >= wanted), levels[0])
    sprite = sprite[:, ::-1] if flip else sprite
    k = wanted / sprite.shape[1]
    rows, cols = sprite.shape[:2]
    left, top = u - cols * k / 2, v - rows * k
    x0, x1 = max(int(left), 0), min(int(left + cols * k) + 1, view.width)
    y0, y1 = max(int(top), 0), min(int(top + rows * k) + 1, view.height)
    if x1 <= x0 or y1 <= y0:
        return
    warp = np.array([[k, 0, left - x0], [0, k, top - y0]], np.float64)
    drawn = cv2.warpAffine(np.ascontiguousarray(sprite), warp, (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR)
    cover = np.clip(drawn[..., 3], 0, 1)
    colour = drawn[..., :3] / np.maximum(cover, np.float32(1e-3))[..., None]
    sun = view.turned(np.array(light.sun_from, float))
    facing = 0.55 + 0.35 * max(-float(sun[2]), 0)
    total = (np.array(light.sun) * facing + np.array(light.sky) * 0.7 + np.array(light.bounce) * 0.3) * lit
    light_map: np.ndarray = total.astype(np.float32)[None, None]
    if light.lamps:
        rx, ry = view.rays(x0, x1, y0, y1)
        z = np.full(cover.shape, base[2], np.float32)
        points = [rx[None, :] * z, ry[:, None] * z, z]
        light_map = light_map + lamp_light(light, view, points, [np.array(n, np.float32) for n in (0, 0, -1)])
    heat = light.air + warmth + 3.0 * (colour.mean(-1) - 0.7)
    z = np.full(cover.shape, base[2], np.float32)
    _over(frame, (x0, x1, y0, y1), colour * np.array(tint, np.float32) * light_map, cover, z, heat.astype(np.float32))
