"""Motion between two exposures: displaced objects, and the inpainting of the background they uncover."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Int

from clearfuse.synth.color import as_hwc, code_to_float, code_to_linear, luma
from clearfuse.synth.operators.base import Image, Operator, Range, Scene, Stage, free, severe
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

SEGMENT_AREA = 0.002
"""Least area of an extremal region that may move, as a share of the frame."""

MOST_SEGMENTS = 8
"""Most extremal regions among which those that move are drawn."""

STABLE = 8
"""Grey levels over which an extremal region keeps its area."""

EDGE = 0.06
"""Least difference across three quarters of the outline of what may move, in square roots of linear light."""

COMPACT = 0.75
"""Least share of its convex hull that a region fills, as a window or a car does and a patch of foliage does not."""

LIMBS = 0.55
"""The same for a near object, which may have legs."""


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


def extremal_regions(guide: Float32[np.ndarray, "h w"], largest: float) -> list[Bool[np.ndarray, "h w"]]:
    """Connected regions that are brighter or darker than all around them, over a wide range of thresholds.

    Maximally stable extremal regions (Matas, Chum, Urban and Pajdla, BMVC 2002): such a region ends at edges along its
    whole outline, as an object does that stands out. guide: square roots of luminance. largest: most pixels. Regions
    that reach the border, which may go on behind it, are left out.
    """
    smallest = math.ceil(SEGMENT_AREA * guide.size)
    if largest < smallest or min(guide.shape) < 3:
        return []
    codes = np.clip(guide * 255 + 0.5, 0, 255).astype(np.uint8)
    found, _ = cv2.MSER.create(STABLE, smallest, int(largest), 0.25, 0.0).detectRegions(codes)
    masks: list[np.ndarray] = []
    h, w = guide.shape
    for points in map(np.asarray, found):
        (left, top), (right, bottom) = points.min(0), points.max(0)
        if left > 0 and top > 0 and right < w - 1 and bottom < h - 1:
            mask = np.zeros(guide.shape, bool)
            mask[points[:, 1], points[:, 0]] = True
            masks.append(mask)
    return masks


def outlined(mask: Bool[np.ndarray, "h w"], guide: Float32[np.ndarray, "h w"]) -> float:
    """How well a mask's outline follows edges: the difference of the guide across it that three quarters exceed.

    Between means over two pixels inside and two outside of the outline. Half of an object, or an object with a piece of
    the ground, has no edge along the rest of its outline.
    """
    brush, box = np.ones((3, 3), np.uint8), _box_around(mask, 4)
    area, guide = mask[box].astype(np.uint8), guide[box]
    rim = (cv2.dilate(area, brush) > area).astype(np.uint8)
    near = cv2.blur(guide * area, (5, 5)), cv2.blur(area.astype(np.float32), (5, 5))
    beyond = cv2.blur(guide * (1 - area), (5, 5)), cv2.blur(1 - area.astype(np.float32), (5, 5))
    inner, outer = (total / np.maximum(count, np.float32(1e-3)) for total, count in (near, beyond))
    at = rim > 0
    return float(np.quantile(np.abs(inner - outer)[at], 0.25)) if at.any() else 0.0


def is_compact(mask: Bool[np.ndarray, "h w"], share: float = COMPACT) -> bool:
    """Whether a mask, holes filled, has at least that share of its convex hull's area."""
    area = mask[_box_around(mask, 1)].astype(np.uint8)
    outlines, _ = cv2.findContours(area, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outline = max(outlines, key=cv2.contourArea)
    return cv2.contourArea(outline) >= share * cv2.contourArea(cv2.convexHull(outline))


def segments(
    guide: Float32[np.ndarray, "h w"], inverse: Float32[np.ndarray, "h w"] | None, largest: float
) -> list[Bool[np.ndarray, "h w"]]:
    """What may move as a whole, apart from one another: near objects where there are any, else extremal regions.

    guide: square roots of luminance. inverse: 1/z in 1/m, or None. largest: most pixels of an extremal region. Only
    compact masks are taken that end at an edge along most of their outline; the clearest and largest first.
    """
    if inverse is not None:
        objects = [mask for mask in near_objects(inverse) if outlined(mask, guide) >= EDGE and is_compact(mask, LIMBS)]
        if objects:
            return objects
    clear = [(outlined(mask, guide), mask) for mask in extremal_regions(guide, largest) if is_compact(mask)]
    clear.sort(key=lambda one: -one[0] * math.sqrt(one[1].sum()))
    kept: list[np.ndarray] = []
    for edge, mask in clear:
        if len(kept) < MOST_SEGMENTS and edge >= EDGE and not any((mask & one).any() for one in kept):
            kept.append(filled(mask))
    return kept


def _box_around(mask: Bool[np.ndarray, "h w"], margin: int) -> tuple[slice, slice]:
    """The mask's bounding box, wider by ``margin`` pixels on each side as far as the frame goes."""
    top, left, height, width = _bounding_box(mask)
    return np.s_[max(top - margin, 0) : top + height + margin, max(left - margin, 0) : left + width + margin]


def filled(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """The mask without holes: what lies within a segment moves with it."""
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(np.zeros(mask.shape, np.uint8), outlines, -1, 1, cv2.FILLED) > 0


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
    my, mx = np.nonzero(uncovered)
    near = _box_around(uncovered, 4)
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
            hidden = np.count_nonzero(excluded[rows[my], columns[mx]])
            penalty = hidden / mx.size + 1 - np.count_nonzero(inside) / mx.size
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
    left, top, width, height = cv2.boundingRect(mask.view(np.uint8))
    return top, left, height, width


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
        box = _box_around(cover > 0.01, pad)
        rows, columns = mirrored_indices(dy, h + dy, h)[box[0], None], mirrored_indices(dx, w + dx, w)[box[1]]
        out[box] = paste_patch(out[box], image[rows, columns], cover[box])

    def paste(self, out: Image, image: Image) -> None:
        """Paste the region at its new place, in ``out``."""
        h, w = self.cover.shape
        rows, columns = mirrored_indices(-self.dy, h - self.dy, h)[:, None], mirrored_indices(-self.dx, w - self.dx, w)
        cover = _shift_mask(self.cover, self.dx, self.dy)
        if (cover > 0.002).any():
            box = _box_around(cover > 0.002, 0)
            out[box] = blend(out[box], image[rows[box[0]], columns[box[1]]], cover[box])


@dataclass(frozen=True)
class Ghosting(Operator):
    """Motion between the exposures: one to three regions of this image are displaced.

    out(p) = B(p) (1 − m(p − v)) + image(p − v) m(p − v): m is a region's soft-edged coverage, v its displacement,
    mostly horizontal, B the image with the old places filled from nearby patches with similar surroundings. What moves
    is a whole segment, with an edge along most of its outline: near objects where depth is known and shows some, else
    connected regions brighter or darker than all around them. Where the image has neither, nothing moves, and a recipe
    does not draw the step. Lengths relative to the longest side; linear light, whole pixels, borders mirrored.
    """

    name: ClassVar[str] = "ghosting"
    stage: ClassVar[Stage] = "scene"
    uses_depth: ClassVar[bool] = True
    unclipped: ClassVar[bool] = True
    modalities: ClassVar[frozenset[Modality]] = frozenset({"visible"})
    source: ClassVar[str] = (
        "scene motion in exposure stacks: Srikantha and Sidibé, Ghost detection and removal for high dynamic range "
        "images: recent advances, Signal Processing: Image Communication 2012; Matas et al., Robust wide baseline "
        "stereo from maximally stable extremal regions, BMVC 2002 (segments); the displacements are drawn"
    )

    displacement: float = severe(
        0.006, 0.06, "displacement relative to the longest side", low=0.0, high=0.2, identity=0.0
    )
    size: float = free(
        0.06,
        0.12,
        "radius of the largest region that is no near object, relative to the longest side",
        low=0.01,
        high=0.3,
    )
    regions: int = free(1, REGIONS, "largest number of regions that move", integer=True)

    @classmethod
    def fit(cls, ranges: Mapping[str, Range], clean: np.ndarray, scene: Scene) -> Mapping[str, Range] | None:
        """None where there is nothing in the picture that could move as a whole."""
        image = code_to_linear(clean) if scene.modality == "visible" else code_to_float(clean)
        longest = max(clean.shape[:2])
        moves = ranges["displacement"].mild * longest * 0.7 * math.cos(math.radians(30)) >= 0.5
        return ranges if moves and _segments(image, scene, ranges["size"].mild) else None

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
        masks = _segments(image, scene, self.size)
        regions: list[Region] = []
        for d in draws[: len(masks)]:
            mask = masks.pop(int(d[0] * len(masks)))
            length = self.displacement * max(h, w) * (0.7 + 0.6 * d[1])
            angle = math.radians(60 * (d[2] - 0.5)) + (math.pi if d[3] < 0.5 else 0.0)
            dx, dy = round(length * math.cos(angle)), round(-length * math.sin(angle))
            if dx or dy:
                regions.append(Region(_soften(mask, (h, w)), dx, dy))
        return regions


def _segments(image: Image, scene: Scene, size: float) -> list[np.ndarray]:
    """The segments of an image in linear light, on its downsampled frame. size: radius of the largest, relative."""
    guide = np.sqrt(np.maximum(luma(_downsample(image)), 0))
    inverse = inverse_depth(scene)
    small = None if inverse is None else _downsample(inverse[..., None])[..., 0]
    return segments(guide, small, math.pi * (size * max(guide.shape)) ** 2)


def _downsample(image: Image) -> Float32[np.ndarray, "ch cw c"]:
    h, w = image.shape[:2]
    scale = min(1.0, COARSE / max(h, w))
    return as_hwc(cv2.resize(image, (max(round(w * scale), 1), max(round(h * scale), 1)), interpolation=cv2.INTER_AREA))


def _soften(mask: Bool[np.ndarray, "h w"], frame: tuple[int, int]) -> Float32[np.ndarray, "fh fw"]:
    """The coverage, at the frame's size (h, w), of a downsampled mask, with a soft edge."""
    soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), max(FEATHER * max(mask.shape), 0.5)).reshape(mask.shape)
    return cv2.resize(soft, frame[::-1], interpolation=cv2.INTER_LINEAR).reshape(frame)
