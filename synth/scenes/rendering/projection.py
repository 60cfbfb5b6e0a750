"""Visibility: faces are projected, then painted from far to near as labels, with 3x3 samples per pixel.

Every face is planar, so 1/z is affine in the pixel (n·r = d/z): a face's plane gives the depth of each of its pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from clearfuse.synth.scenes.rendering.faces import Face
from clearfuse.synth.scenes.rendering.view import NEAR, View, clip_near

SAMPLES = 3
"""Samples per pixel along each axis, for anti-aliasing."""


@dataclass
class Projected:
    """The visible faces. index: into the input list. plane: n/d. normal: n. spans: least and greatest z.

    bounds: left, top, right and bottom in pixels. contours: each face's polygons in 1/16 pixel.
    """

    index: np.ndarray
    plane: np.ndarray
    normal: np.ndarray
    spans: np.ndarray
    bounds: np.ndarray
    contours: list[list[np.ndarray]]


def _planes(view: View, faces: list[Face]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit normals towards the camera, d = n·p, and a mask of the front faces (Newell's normals: sums over edges)."""
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


def _clip(view: View, contours: list[np.ndarray], owner: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All contours in camera coordinates, concatenated and clipped at the near plane; their starts; their faces."""
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
        valid = sizes >= 3
        parts = [p for p, keep in zip(parts, valid, strict=True) if keep]
        owner, sizes = owner[valid], sizes[valid]
        starts = np.cumsum(sizes) - sizes
        camera = np.concatenate(parts) if parts else np.zeros((0, 3))
    return camera, starts, owner


def _slivers(pixel: np.ndarray, starts: np.ndarray, spans: np.ndarray) -> np.ndarray:
    """Whether a receding face is seen edge-on, less than half a pixel wide, so that its depth is meaningless."""
    stops = np.append(starts[1:], len(pixel))
    following = np.arange(1, len(pixel) + 1)
    following[stops - 1] = starts
    after = pixel[following]
    area = np.abs(np.add.reduceat(pixel[:, 0] * after[:, 1] - after[:, 0] * pixel[:, 1], starts)) / 2
    perimeter = np.add.reduceat(np.hypot(*(after - pixel).T), starts)
    return (spans[:, 1] >= 1.3 * spans[:, 0]) & (area < 0.3 * perimeter)


def project(view: View, faces: list[Face]) -> Projected:
    """The faces that face the camera and lie in its view."""
    empty = Projected(np.zeros(0, int), *(np.zeros((0, n)) for n in (3, 3, 2, 4)), [])
    if not faces:
        return empty
    normal, d, seen = _planes(view, faces)
    index = np.flatnonzero(seen)
    contours = [c for i in index for c in faces[i].contours]
    if not contours:
        return empty
    counts = np.array([len(faces[i].contours) for i in index])
    camera, starts, owner = _clip(view, contours, np.repeat(index, counts))
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
    # cv2 takes coordinates in 1/16 pixel; far outside the frame they would overflow.
    fixed = np.rint((pixel.clip(-20000, 20000) * SAMPLES + (SAMPLES - 1) / 2) * 16).astype(np.int32)
    stops = np.append(starts[1:], len(pixel)).tolist()
    begin, ends = starts.tolist(), np.append(first[1:], len(starts)).tolist()
    start_of = first.tolist()
    polygons = [[fixed[begin[k] : stops[k]] for k in range(start_of[i], ends[i])] for i in shown]
    index = index[shown]
    return Projected(index, normal[index] / d[index, None], normal[index], spans[shown], bounds[shown], polygons)


def paint(view: View, contours: list[list[np.ndarray]]) -> np.ndarray:
    """The label of every sample: 1 + the index of the last face that covers it, 0 where none does."""
    label = np.zeros((view.height * SAMPLES, view.width * SAMPLES), np.uint16)
    for number, polygons in enumerate(contours, start=1):
        cv2.fillPoly(label, polygons, number, cv2.LINE_8, 4)
    return label


@dataclass
class Samples:
    """The label at each pixel's centre, then the other labels in pixels that show several (mixed pixels).

    label: all of them, the central ones first. pixel: the index of the pixel of each. weight: its share of the pixel.
    mixed: indices of the mixed pixels. runs: where the other labels of each mixed pixel start, after the central ones.
    """

    label: np.ndarray
    pixel: np.ndarray
    weight: np.ndarray
    mixed: np.ndarray
    runs: np.ndarray


def resolve(painted: np.ndarray) -> Samples:
    """The samples of a label image from ``paint``."""
    rows = painted.reshape(len(painted) // SAMPLES, SAMPLES, -1)
    middle = rows[:, SAMPLES // 2]
    across = middle.reshape(len(rows), -1, SAMPLES)
    rows_differ = (rows[:, 0] != middle) | (rows[:, 2] != middle)
    differs = (across[..., 0] != across[..., 1]) | (across[..., 1] != across[..., 2])
    for column in range(SAMPLES):
        differs |= rows_differ[:, column::SAMPLES]
    central = across[..., SAMPLES // 2].astype(np.intp).ravel()
    count, row_length = central.size, painted.shape[1]
    mixed = np.flatnonzero(differs)
    first = mixed // across.shape[1] * (SAMPLES * row_length) + mixed % across.shape[1] * SAMPLES
    parts = (np.arange(SAMPLES)[:, None] * row_length + np.arange(SAMPLES)).ravel()
    subs = np.take(painted, first[:, None] + parts)
    subs.sort(axis=-1)
    is_new = np.ones(subs.shape, bool)
    is_new[:, 1:] = subs[:, 1:] != subs[:, :-1]
    at = np.flatnonzero(is_new)
    share = np.diff(np.append(at, subs.size)).astype(np.float32) / np.float32(len(parts))
    row, label = at // len(parts), subs.ravel()[at].astype(np.intp)
    other = label != central[mixed][row]
    weight = np.ones(count, np.float32)
    weight[mixed[row[~other]]] = share[~other]
    row = row[other]
    runs = np.flatnonzero(np.diff(row, prepend=-1))
    pixel = np.concatenate([np.arange(count), mixed[row]])
    return Samples(np.concatenate([central, label[other]]), pixel, np.append(weight, share[other]), mixed, runs)
