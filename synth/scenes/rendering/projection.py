"""Which face shows where: faces projected all at once, then painted, far ones first, as labels of 3x3 samples a pixel.

Every face is planar, so 1/z is affine in the pixel (n·r = d/z): a face's plane gives the depth of each of its pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from clearfuse.synth.scenes.rendering.faces import Face
from clearfuse.synth.scenes.rendering.view import NEAR, View, clip_near

SAMPLES = 3
"""Samples a pixel along each axis, for antialiasing."""


@dataclass
class Projected:
    """The faces in view. index: their places in the list given. plane: n/d. spans: nearest and farthest z.

    bounds: left, top, right and bottom in pixels. contours: each face's polygons in 1/16 pixel.
    """

    index: np.ndarray
    plane: np.ndarray
    normal: np.ndarray
    spans: np.ndarray
    bounds: np.ndarray
    contours: list[list[np.ndarray]]


def _planes(view: View, faces: list[Face]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit normals towards the camera, d = n·p, and which faces are seen (Newell's normal: the sum over the edges)."""
    firsts = [face.contours[0] for face in faces]
    counts = np.array([len(c) for c in firsts])
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    camera = view.to_camera(np.concatenate(firsts))
    following = np.arange(1, len(camera) + 1)
    following[starts + counts - 1] = starts
    b = camera[following]
    edges = np.stack([camera[:, i] * b[:, j] - camera[:, j] * b[:, i] for i, j in ((1, 2), (2, 0), (0, 1))], -1)
    normal = np.add.reduceat(edges, starts)
    normal /= np.maximum(np.sqrt((normal**2).sum(-1, keepdims=True)), 1e-12)
    middle = np.add.reduceat(camera, starts) / counts[:, None]
    d = (normal * middle).sum(-1)
    normal[d > 0] *= -1
    outward = view.turned(np.array([f.outward or (0, 0, 0) for f in faces], float))
    side = (outward * camera[starts]).sum(-1)
    seen = (-np.abs(d) < -1e-4) & (np.array([f.outward is None for f in faces]) | (side < 0))
    return normal, -np.abs(d), seen


def _clipped(view: View, contours: list[np.ndarray], owner: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All contours in camera axes, end to end, cut at the near plane; where each starts; whose it is."""
    sizes = np.array([len(c) for c in contours])
    starts = np.cumsum(sizes) - sizes
    camera = view.to_camera(np.concatenate(contours))
    cut = np.minimum.reduceat(camera[:, 2], starts) < NEAR
    if cut.any():
        begins = starts.tolist()
        parts = [camera[a:b] for a, b in zip(begins, [*begins[1:], len(camera)], strict=True)]
        for k in np.flatnonzero(cut):
            parts[k] = clip_near(parts[k])
        sizes = np.array([len(p) for p in parts])
        kept = sizes >= 3
        parts = [p for p, keep in zip(parts, kept, strict=True) if keep]
        owner, sizes = owner[kept], sizes[kept]
        starts = np.cumsum(sizes) - sizes
        camera = np.concatenate(parts) if parts else np.zeros((0, 3))
    return camera, starts, owner


def _slivers(pixel: np.ndarray, starts: np.ndarray, spans: np.ndarray) -> np.ndarray:
    """Whether a receding plane is seen so edge-on, under half a pixel wide, that its pixels' depth means nothing."""
    stops = np.append(starts[1:], len(pixel))
    following = np.arange(1, len(pixel) + 1)
    following[stops - 1] = starts
    after = pixel[following]
    area = np.abs(np.add.reduceat(pixel[:, 0] * after[:, 1] - after[:, 0] * pixel[:, 1], starts)) / 2
    long = np.add.reduceat(np.hypot(*(after - pixel).T), starts)
    return (spans[:, 1] >= 1.3 * spans[:, 0]) & (area < 0.3 * long)


def project(view: View, faces: list[Face]) -> Projected:
    """The faces that look at the camera and fall into its view."""
    empty = Projected(np.zeros(0, int), *(np.zeros((0, n)) for n in (3, 3, 2, 4)), [])
    if not faces:
        return empty
    normal, d, seen = _planes(view, faces)
    index = np.flatnonzero(seen)
    contours = [c for i in index for c in faces[i].contours]
    if not contours:
        return empty
    counts = np.array([len(faces[i].contours) for i in index])
    camera, starts, owner = _clipped(view, contours, np.repeat(index, counts))
    if not len(camera):
        return empty
    pixel = view.pixels(camera)
    index, first = np.unique(owner, return_index=True)
    edges = starts[first]
    spans = np.stack([f.reduceat(camera[:, 2], edges) for f in (np.minimum, np.maximum)], -1)
    bounds = np.concatenate([f.reduceat(pixel, edges) for f in (np.minimum, np.maximum)], -1)
    thin = _slivers(pixel, starts, spans[np.searchsorted(index, owner)])[first]
    inside = (bounds[:, 2:] > -0.5).all(-1) & (bounds[:, :2] < (view.width - 0.5, view.height - 0.5)).all(-1)
    shown = np.flatnonzero(inside & ~thin)
    # cv2 takes coordinates of 1/16 pixel; far outside the frame they would overflow.
    fixed = np.rint((pixel.clip(-20000, 20000) * SAMPLES + (SAMPLES - 1) / 2) * 16).astype(np.int32)
    stops = np.append(starts[1:], len(pixel)).tolist()
    begin, ends = starts.tolist(), np.append(first[1:], len(starts)).tolist()
    start_of = first.tolist()
    polygons = [[fixed[begin[k] : stops[k]] for k in range(start_of[i], ends[i])] for i in shown]
    index = index[shown]
    return Projected(index, normal[index] / d[index, None], normal[index], spans[shown], bounds[shown], polygons)


def paint(view: View, contours: list[list[np.ndarray]]) -> np.ndarray:
    """The label of every sample: 1 + the number of the last face that covers it, 0 where none does."""
    label = np.zeros((view.height * SAMPLES, view.width * SAMPLES), np.uint16)
    for number, polygons in enumerate(contours, start=1):
        cv2.fillPoly(label, polygons, number, cv2.LINE_8, 4)
    return label


@dataclass
class Samples:
    """Each pixel's central label, then what else the mixed pixels show.

    label: all of them, the pixels' own first. pixel: which pixel each belongs to. weight: its share of that pixel.
    mixed: the mixed pixels; runs: where the further labels of each start, after the pixels' own.
    """

    label: np.ndarray
    pixel: np.ndarray
    weight: np.ndarray
    mixed: np.ndarray
    runs: np.ndarray


def resolve(painted: np.ndarray) -> Samples:
    """The labels of a painting, pixel by pixel."""
    rows = painted.reshape(len(painted) // SAMPLES, SAMPLES, -1)
    middle = rows[:, SAMPLES // 2]
    across = middle.reshape(len(rows), -1, SAMPLES)
    apart = (rows[:, 0] != middle) | (rows[:, 2] != middle)
    differs = (across[..., 0] != across[..., 1]) | (across[..., 1] != across[..., 2])
    for column in range(SAMPLES):
        differs |= apart[:, column::SAMPLES]
    own = across[..., SAMPLES // 2].astype(np.intp).ravel()
    count, wide = own.size, painted.shape[1]
    mixed = np.flatnonzero(differs)
    first = mixed // across.shape[1] * (SAMPLES * wide) + mixed % across.shape[1] * SAMPLES
    parts = (np.arange(SAMPLES)[:, None] * wide + np.arange(SAMPLES)).ravel()
    subs = np.take(painted, first[:, None] + parts)
    subs.sort(axis=-1)
    fresh = np.ones(subs.shape, bool)
    fresh[:, 1:] = subs[:, 1:] != subs[:, :-1]
    at = np.flatnonzero(fresh)
    share = np.diff(np.append(at, subs.size)).astype(np.float32) / np.float32(len(parts))
    row, label = at // len(parts), subs.ravel()[at].astype(np.intp)
    other = label != own[mixed][row]
    weight = np.ones(count, np.float32)
    weight[mixed[row[~other]]] = share[~other]
    row = row[other]
    runs = np.flatnonzero(np.diff(row, prepend=-1))
    pixel = np.concatenate([np.arange(count), mixed[row]])
    return Samples(np.concatenate([own, label[other]]), pixel, np.append(weight, share[other]), mixed, runs)
