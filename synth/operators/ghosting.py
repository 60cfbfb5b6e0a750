"""Motion between two exposures: displaced objects, and the inpainting of the background they uncover."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Int

from clearfuse.synth.color import as_hwc, luma
from clearfuse.synth.operators.base import Image, Operator, Scene, Stage, free, severe
from clearfuse.synth.operators.physics.fill import blend, inverse_depth, per_channel, pull_push
from clearfuse.synth.types import Modality

COARSE = 320
"""Longest side, in pixels, of the downsampled frame in which regions are segmented."""

MOST_CHANGE = 0.08
"""Largest brightness change of a filled patch towards its surroundings, in square roots of linear light."""

FEATHER = 0.004
"""Standard deviation of a region's soft edge, relative to the longest side."""

REGIONS = 3
"""Most regions that move; the draws for all of them are made whatever their number."""

DRAWS_PER_REGION = 16
"""Uniform draws per region, used or not."""

PROMINENCE = (math.log(4.0), math.log(2.0), math.log(1.3))
"""Thresholds on the difference of ln z between a near object and its surroundings, the strictest first."""

WITHIN_OBJECT = 0.12
"""Largest difference of ln z within one object."""

OBJECT_AREA = (0.002, 0.12)
"""Area of a near object that may move, as a share of the frame: least and most."""


def near_objects(inverse: Float32[np.ndarray, "h w"]) -> list[Bool[np.ndarray, "h w"]]:
    """Masks of the objects nearer than their surroundings, the most prominent first.

    inverse: 1/z in 1/m, downsampled. White top-hat of ln(1/z) with a window of a third of the frame, in which the
    smoothly receding ground vanishes, thresholded at the levels ``PROMINENCE``: at lower ones objects merge with others
    behind them. Areas are limited to ``OBJECT_AREA``, widths to half of the frame.
    """
    log = np.log(np.maximum(inverse, np.float32(1e-4)))
    side = max(3, max(log.shape) // 3 | 1)
    # Rectangular: cv2 separates them, in a time that does not grow with their size.
    standing = cv2.morphologyEx(log, cv2.MORPH_TOPHAT, cv2.getStructuringElement(cv2.MORPH_RECT, (side, side)))
    brush = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
    low, high = OBJECT_AREA
    occupied, objects = np.zeros(log.shape, bool), list[np.ndarray]()
    for level in PROMINENCE:
        above = (standing > level).astype(np.uint8)
        # The opening removes rails and twigs; the dilation restores the outlines of the rest.
        body = np.minimum(cv2.dilate(cv2.morphologyEx(above, cv2.MORPH_OPEN, brush), brush), above)
        _, labels, stats, _ = cv2.connectedComponentsWithStats(body, connectivity=4)
        for k in range(1, len(stats)):
            fits = low <= stats[k, cv2.CC_STAT_AREA] / log.size <= high
            if fits and stats[k, cv2.CC_STAT_WIDTH] <= log.shape[1] / 2:
                mask = _whole_object(labels == k, log)
                if not (mask & occupied).any() and mask.mean() <= high:
                    occupied |= mask
                    objects.append(mask)
    return objects


def _whole_object(part: Bool[np.ndarray, "h w"], log: Float32[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """The whole object from the part found by the top-hat, which misses the feet since the ground there is as near.

    Connected, within ``WITHIN_OBJECT`` of the part's ln z, and hardly wider, so that the ground is left out.
    """
    (columns,) = np.nonzero(part.any(axis=0))
    margin = (columns[-1] - columns[0]) // 4 + 1
    columns_near = np.zeros(part.shape, bool)
    columns_near[:, max(columns[0] - margin, 0) : columns[-1] + margin + 1] = True
    object_mask = (np.abs(log - np.float32(np.median(log[part]))) < WITHIN_OBJECT) & columns_near
    _, labels = cv2.connectedComponents((object_mask | part).astype(np.uint8), connectivity=4)
    return labels == labels[part][0]


def blob(
    shape: tuple[int, int], centre: tuple[float, float], radius: float, draws: list[float]
) -> Float32[np.ndarray, "h w"]:
    """Distance from ``centre`` (x, y) relative to an outline, an ellipse with harmonics of order 2 and 3: 1 on it.

    draws: four uniforms.
    """
    turn, longer, second, third = draws
    x = np.arange(shape[1], dtype=np.float32) - np.float32(centre[0])
    y = (np.arange(shape[0], dtype=np.float32) - np.float32(centre[1]))[:, None]
    c, s = (np.float32(f(math.pi * turn)) for f in (math.cos, math.sin))
    along, across = c * x + s * y, (c * y - s * x) * np.float32(1 + 0.6 * longer)
    angle = np.arctan2(across, along)
    wave = 1 + 0.18 * np.cos(2 * angle + 2 * math.pi * second) + 0.12 * np.cos(3 * angle + 2 * math.pi * third)
    return (np.hypot(along, across) / (radius * wave)).astype(np.float32)


def snap_to_edges(
    mask: Bool[np.ndarray, "h w"], guide: Float32[np.ndarray, "h w"], radius: int
) -> Bool[np.ndarray, "h w"]:
    """The mask with its outline moved to edges of the guide within about ``radius`` pixels.

    Guided filter (He, Sun and Tang, TPAMI 2013): a guide + b with a = cov(guide, mask) / (var guide + ε) over windows.
    """
    window, m = (2 * radius + 1, 2 * radius + 1), mask.astype(np.float32)
    mean_g, mean_m = cv2.boxFilter(guide, -1, window), cv2.boxFilter(m, -1, window)
    variance = np.maximum(cv2.boxFilter(guide * guide, -1, window) - mean_g * mean_g, 0)
    a = (cv2.boxFilter(guide * m, -1, window) - mean_g * mean_m) / (variance + np.float32(1e-3))
    b = mean_m - a * mean_g
    fitted = cv2.boxFilter(a, -1, window) * guide + cv2.boxFilter(b, -1, window)
    return cv2.medianBlur((fitted > 0.5).astype(np.uint8), 5).reshape(mask.shape) > 0


def local_deviation(guide: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """The local standard deviation, as a measure of structure."""
    sigma = max(0.06 * max(guide.shape), 0.5)
    mean, square = (cv2.GaussianBlur(v, (0, 0), sigma).reshape(guide.shape) for v in (guide, guide * guide))
    return np.sqrt(np.maximum(square - mean * mean, 0))


def mirrored_indices(start: int, stop: int, size: int) -> Int[np.ndarray, " n"]:
    """Indices start to stop − 1 mirrored about the border pixels into 0 to size − 1."""
    if size == 1:
        return np.zeros(stop - start, np.int64)
    i = np.arange(start, stop) % (2 * size - 2)
    return np.where(i < size, i, 2 * size - 2 - i)


def best_offset(
    image: Image, uncovered: Bool[np.ndarray, "h w"], excluded: Bool[np.ndarray, "h w"], length: float
) -> tuple[int, int]:
    """Offset (dx, dy), in pixels, to the patch whose surroundings are most similar to those of ``uncovered``.

    uncovered: what an object uncovers by moving ``length`` pixels, hence at most that wide along the motion. Sixteen
    directions and distances of 1.2 to 6 lengths are compared by the mean squared difference on a ring around it;
    pixels in ``excluded`` (the moving objects) or outside of the frame are penalised, large distances slightly.
    """
    h, w = uncovered.shape
    (my, mx), (top, left, height, width) = np.nonzero(uncovered), _bounding_box(uncovered)
    near = np.s_[max(top - 4, 0) : top + height + 4, max(left - 4, 0) : left + width + 4]
    ring = np.zeros_like(uncovered)
    ring[near] = cv2.dilate(uncovered[near].astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    ys, xs = np.nonzero(ring & ~excluded)
    best, offset = math.inf, (0, 0)
    for far in (1.2, 1.8, 2.8, 4.2, 6.0):
        for k in range(16):
            reach, angle = far * length + 2, math.pi * k / 8
            dx, dy = round(reach * math.cos(angle)), round(reach * math.sin(angle))
            rows, columns = mirrored_indices(dy, h + dy, h), mirrored_indices(dx, w + dx, w)
            inside = (mx + dx >= 0) & (mx + dx < w) & (my + dy >= 0) & (my + dy < h)
            penalty = float(excluded[rows[my], columns[mx]].mean()) + 1 - float(inside.mean())
            difference = (image[ys, xs] - image[rows[ys], columns[xs]]) ** 2
            cost = (float(difference.mean()) if ys.size else 0.0) * (1 + 0.25 * far) + 0.3 * penalty
            if cost < best:
                best, offset = cost, (dx, dy)
    return offset


def _shift_mask(mask: np.ndarray, dx: int, dy: int) -> np.ndarray:
    """The mask shifted by (dx, dy), mirrored at the borders."""
    h, w = mask.shape
    return mask[mirrored_indices(-dy, h - dy, h)[:, None], mirrored_indices(-dx, w - dx, w)]


def _bounding_box(mask: Bool[np.ndarray, "h w"]) -> tuple[int, int, int, int]:
    """Top, left, height and width of the mask's bounding box."""
    (ys,), (xs,) = np.nonzero(mask.any(1)), np.nonzero(mask.any(0))
    return int(ys[0]), int(xs[0]), int(ys[-1] - ys[0]) + 1, int(xs[-1] - xs[0]) + 1


def paste_patch(under: Image, patch: Image, cover: Float32[np.ndarray, "h w"]) -> Image:
    """``patch`` pasted over ``under`` with the coverage ``cover``, its brightness adapted to the surroundings.

    The difference outside of the coverage is interpolated into it and removed: the membrane of Poisson blending (Pérez,
    Gangnet and Blake, SIGGRAPH 2003) by pull and push, on square roots of linear light, which are close to perceived
    brightness. It is limited to ``MOST_CHANGE``, since an edge across the outline would otherwise tint the whole patch.
    """
    root, pasted = np.sqrt(np.maximum(under, 0)), np.sqrt(np.maximum(patch, 0))
    around = (cover < 0.01).astype(np.float32)
    bounded = np.clip(root - pasted, -MOST_CHANGE, MOST_CHANGE) * per_channel(around, root.shape[2])
    pasted = np.maximum(pasted + pull_push(bounded, around), 0)
    return blend(under, pasted * pasted, cover)


@dataclass(frozen=True)
class Region:
    """A moving region: its coverage of the frame in [0, 1], and its displacement in pixels."""

    cover: Float32[np.ndarray, "h w"]
    dx: int
    dy: int

    def fill_old_place(self, out: Image, image: Image, dx: int, dy: int) -> None:
        """Fill the region's old place, in ``out``, with the patch of ``image`` at the offset (dx, dy)."""
        h, w = self.cover.shape
        pad = max(4, max(h, w) // 100)
        # Wider by the soft edge, so that no outline of the object remains.
        cover = np.minimum(2 * self.cover, 1)
        top, left, height, width = _bounding_box(cover > 0.01)
        box = np.s_[max(top - pad, 0) : top + height + pad, max(left - pad, 0) : left + width + pad]
        rows, columns = mirrored_indices(dy, h + dy, h)[box[0], None], mirrored_indices(dx, w + dx, w)[box[1]]
        out[box] = paste_patch(out[box], image[rows, columns], cover[box])

    def paste(self, out: Image, image: Image) -> None:
        """Paste the region at its new place, in ``out``."""
        h, w = self.cover.shape
        rows, columns = mirrored_indices(-self.dy, h - self.dy, h)[:, None], mirrored_indices(-self.dx, w - self.dx, w)
        cover = _shift_mask(self.cover, self.dx, self.dy)
        if (cover > 0.002).any():
            top, left, height, width = _bounding_box(cover > 0.002)
            box = np.s_[top : top + height, left : left + width]
            out[box] = blend(out[box], image[rows[box[0]], columns[box[1]]], cover[box])


@dataclass(frozen=True)
class Ghosting(Operator):
    """Motion between the exposures: one to three regions of this image are displaced.

    out(p) = B(p) (1 − m(p − v)) + image(p − v) m(p − v): m is a region's soft-edged coverage, v its displacement,
    mostly horizontal, B the image with the old places filled from nearby patches with similar surroundings. Where depth
    is known and shows near objects, these move as a whole; else the regions are drawn where the image has structure,
    and their outlines follow its edges. Lengths relative to the longest side; linear light, whole pixels, borders
    mirrored.
    """

    name: ClassVar[str] = "ghosting"
    stage: ClassVar[Stage] = "scene"
    uses_depth: ClassVar[bool] = True
    unclipped: ClassVar[bool] = True
    modalities: ClassVar[frozenset[Modality]] = frozenset({"visible"})
    source: ClassVar[str] = (
        "scene motion in exposure stacks: Srikantha and Sidibé, Ghost detection and removal for high dynamic range "
        "images: recent advances, Signal Processing: Image Communication 2012; the displacements are drawn"
    )

    displacement: float = severe(
        0.006, 0.06, "displacement relative to the longest side", low=0.0, high=0.2, identity=0.0
    )
    size: float = severe(
        0.04, 0.12, "radius of a region that is not an object, relative to the longest side", low=0.01, high=0.3
    )
    regions: int = free(1, REGIONS, "largest number of regions that move", integer=True)

    def __call__(self, image: Image, rng: np.random.Generator, scene: Scene) -> Image:
        draws = rng.random((REGIONS, DRAWS_PER_REGION)).tolist()[: self.regions]
        out = image.copy()
        moving = self._regions(image, draws, scene) if self.displacement > 0 else []
        if moving:
            small = np.sqrt(np.maximum(_downsample(image), 0))
            masks = [_downsample(region.cover[..., None])[..., 0] > 0.02 for region in moving]
            excluded, ratio = np.logical_or.reduce(masks), max(image.shape[:2]) / max(small.shape[:2])
            for region, mask in zip(moving, masks, strict=True):
                uncovered = mask & ~_shift_mask(mask, round(region.dx / ratio), round(region.dy / ratio))
                if uncovered.any():
                    offset = best_offset(small, uncovered, excluded, math.hypot(region.dx, region.dy) / ratio)
                    region.fill_old_place(out, image, *(round(v * ratio) for v in offset))
        for region in moving:
            region.paste(out, image)
        return out

    def _regions(self, image: Image, draws: list[list[float]], scene: Scene) -> list[Region]:
        """The regions that move by at least one pixel."""
        h, w = image.shape[:2]
        longest = max(h, w)
        guide = np.sqrt(np.maximum(luma(_downsample(image)), 0))
        structure, inverse = local_deviation(guide), inverse_depth(scene)
        objects = [] if inverse is None else near_objects(_downsample(inverse[..., None])[..., 0])
        regions: list[Region] = []
        for d in draws[: len(objects)] if objects else draws:
            mask = objects.pop(int(d[0] * len(objects))) if objects else self._outline(d, structure, guide)
            length = self.displacement * longest * (0.7 + 0.6 * d[1])
            angle = math.radians(60 * (d[2] - 0.5)) + (math.pi if d[3] < 0.5 else 0.0)
            dx, dy = round(length * math.cos(angle)), round(-length * math.sin(angle))
            if (dx or dy) and mask.any():
                regions.append(Region(_soften(mask, (h, w)), dx, dy))
        return regions

    def _outline(self, draws: list[float], structure: np.ndarray, guide: np.ndarray) -> np.ndarray:
        """The mask of a region at that of four drawn places that has the most structure."""
        h, w = structure.shape
        places = [((0.1 + 0.8 * draws[k]) * (w - 1), (0.15 + 0.7 * draws[k + 1]) * (h - 1)) for k in (4, 6, 8, 10)]
        centre = max(places, key=lambda p: float(structure[round(p[1]), round(p[0])]))
        radius = self.size * max(h, w)
        far = blob((h, w), centre, radius, draws[12:16])
        # Edges may be anywhere: keep the middle, and stay near the outline.
        return (far <= 0.7) | ((far <= 1.3) & snap_to_edges(far <= 1, guide, max(1, round(0.4 * radius))))


def _downsample(image: Image) -> Float32[np.ndarray, "ch cw c"]:
    h, w = image.shape[:2]
    scale = min(1.0, COARSE / max(h, w))
    return as_hwc(cv2.resize(image, (max(round(w * scale), 1), max(round(h * scale), 1)), interpolation=cv2.INTER_AREA))


def _soften(mask: Bool[np.ndarray, "h w"], frame: tuple[int, int]) -> Float32[np.ndarray, "fh fw"]:
    """The coverage, at the frame's size (h, w), of a downsampled mask, with a soft edge."""
    soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), max(FEATHER * max(mask.shape), 0.5)).reshape(mask.shape)
    return cv2.resize(soft, frame[::-1], interpolation=cv2.INTER_LINEAR).reshape(frame)
