"""What moved between two exposures: things in another place, and what is beside them where they were."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Int

from clearfuse.synth.color import as_hwc, luma
from clearfuse.synth.operators.base import Image, Operator, Scene, Stage, free, severe
from clearfuse.synth.operators.physics.fill import inverse_depth, mixed, pull_push, spread
from clearfuse.synth.types import Modality

COARSE = 320
"""Pixels: regions are outlined in a frame whose longest side is at most this."""

LED = 0.08
"""Most by which a fill is made lighter or darker to meet its surroundings, in square roots of linear light."""

FEATHER = 0.004
"""Standard deviation of a region's soft edge, over the longest side."""

REGIONS = 3
"""Regions drawn, of which as many move as the step says."""

DRAWS = 16
"""Uniform draws of a region, used or not."""

STANDS_OUT = (math.log(4.0), math.log(2.0), math.log(1.3))
"""How much farther, as ln z, surroundings are than a near object before them: three levels, the clearest first."""

SAME = 0.12
"""Difference of ln z within one thing."""

OBJECT = (0.002, 0.12)
"""Share of the frame of a near object that may be the one that moved."""


def near_objects(inverse: Float32[np.ndarray, "h w"]) -> list[Bool[np.ndarray, "h w"]]:
    """Masks of the things that stand before their surroundings, those that stand out most first, in a coarse picture.

    White top-hat of ln(1/z) with a window of a third of the frame: the ground, which rises evenly, has none; what is
    nearer than everything that the window reaches beyond it has. Cut at the levels ``STANDS_OUT``: at a lower one
    things run into others behind them. A thing is of ``OBJECT``'s size and at most half as wide as the frame.
    """
    log = np.log(np.maximum(inverse, np.float32(1e-4)))
    side = max(3, max(log.shape) // 3 | 1)
    # Rectangles: cv2 runs them in time that does not grow with their size, rows and columns apart.
    standing = cv2.morphologyEx(log, cv2.MORPH_TOPHAT, cv2.getStructuringElement(cv2.MORPH_RECT, (side, side)))
    brush = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
    low, high = OBJECT
    taken, found = np.zeros(log.shape, bool), list[np.ndarray]()
    for level in STANDS_OUT:
        above = (standing > level).astype(np.uint8)
        # Frames, rails and twigs are thinner than the brush; what is left grows back to its outline.
        body = np.minimum(cv2.dilate(cv2.morphologyEx(above, cv2.MORPH_OPEN, brush), brush), above)
        _, labels, stats, _ = cv2.connectedComponentsWithStats(body, connectivity=4)
        for k in range(1, len(stats)):
            fits = low <= stats[k, cv2.CC_STAT_AREA] / log.size <= high
            if fits and stats[k, cv2.CC_STAT_WIDTH] <= log.shape[1] / 2:
                mask = _whole(labels == k, log)
                if not (mask & taken).any() and mask.mean() <= high:
                    taken |= mask
                    found.append(mask)
    return found


def _whole(part: Bool[np.ndarray, "h w"], log: Float32[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """What stands out of a thing with the rest of it, at the same distance: legs stand before ground that is as near.

    Connected, within ``SAME`` of its ln z, and little wider than the part, since the ground at its feet is as near too.
    """
    (columns,) = np.nonzero(part.any(axis=0))
    spare = (columns[-1] - columns[0]) // 4 + 1
    within = np.zeros(part.shape, bool)
    within[:, max(columns[0] - spare, 0) : columns[-1] + spare + 1] = True
    near = (np.abs(log - np.float32(np.median(log[part]))) < SAME) & within
    _, labels = cv2.connectedComponents((near | part).astype(np.uint8), connectivity=4)
    return labels == labels[part][0]


def blob(
    shape: tuple[int, int], centre: tuple[float, float], radius: float, draws: list[float]
) -> Float32[np.ndarray, "h w"]:
    """Distance from ``centre`` (x, y) in units of an outline's: an ellipse with waves of order 2 and 3.

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


def snapped(mask: Bool[np.ndarray, "h w"], guide: Float32[np.ndarray, "h w"], radius: int) -> Bool[np.ndarray, "h w"]:
    """The mask with its outline drawn to the guide's edges within some ``radius`` pixels.

    Guided filter (He, Sun and Tang, TPAMI 2013): a guide + b with a = cov(guide, mask) / (var guide + ε) over windows.
    """
    window, m = (2 * radius + 1, 2 * radius + 1), mask.astype(np.float32)
    mean_g, mean_m = cv2.boxFilter(guide, -1, window), cv2.boxFilter(m, -1, window)
    variance = np.maximum(cv2.boxFilter(guide * guide, -1, window) - mean_g * mean_g, 0)
    a = (cv2.boxFilter(guide * m, -1, window) - mean_g * mean_m) / (variance + np.float32(1e-3))
    b = mean_m - a * mean_g
    fitted = cv2.boxFilter(a, -1, window) * guide + cv2.boxFilter(b, -1, window)
    return cv2.medianBlur((fitted > 0.5).astype(np.uint8), 5).reshape(mask.shape) > 0


def interest(guide: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """How much there is to see around each place: the local deviation."""
    sigma = max(0.06 * max(guide.shape), 0.5)
    mean, square = (cv2.GaussianBlur(v, (0, 0), sigma).reshape(guide.shape) for v in (guide, guide * guide))
    return np.sqrt(np.maximum(square - mean * mean, 0))


def mirrored(start: int, stop: int, size: int) -> Int[np.ndarray, " n"]:
    """Indices start..stop − 1 mirrored about the border pixels into 0..size − 1."""
    if size == 1:
        return np.zeros(stop - start, np.int64)
    i = np.arange(start, stop) % (2 * size - 2)
    return np.where(i < size, i, 2 * size - 2 - i)


def donor(
    picture: Image, bared: Bool[np.ndarray, "h w"], taboo: Bool[np.ndarray, "h w"], length: float
) -> tuple[int, int]:
    """(dx, dy) to the place whose surroundings are most like those of ``bared``, in pixels of the picture.

    bared is what a thing uncovers by moving ``length`` pixels, and so at most that wide along the motion: tried are
    sixteen directions, and distances of 1.2 to 6 lengths. Compared by mean square on a ring around it; places in
    ``taboo``, where things move, or out of the frame count against it, and far ones a little.
    """
    h, w = bared.shape
    (my, mx), (top, left, tall, wide) = np.nonzero(bared), _extent(bared)
    near = np.s_[max(top - 4, 0) : top + tall + 4, max(left - 4, 0) : left + wide + 4]
    ring = np.zeros_like(bared)
    ring[near] = cv2.dilate(bared[near].astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    ys, xs = np.nonzero(ring & ~taboo)
    best, found = math.inf, (0, 0)
    for far in (1.2, 1.8, 2.8, 4.2, 6.0):
        for k in range(16):
            reach, angle = far * length + 2, math.pi * k / 8
            dx, dy = round(reach * math.cos(angle)), round(reach * math.sin(angle))
            rows, columns = mirrored(dy, h + dy, h), mirrored(dx, w + dx, w)
            inside = (mx + dx >= 0) & (mx + dx < w) & (my + dy >= 0) & (my + dy < h)
            bad = float(taboo[rows[my], columns[mx]].mean()) + 1 - float(inside.mean())
            unlike = (picture[ys, xs] - picture[rows[ys], columns[xs]]) ** 2
            cost = (float(unlike.mean()) if ys.size else 0.0) * (1 + 0.25 * far) + 0.3 * bad
            if cost < best:
                best, found = cost, (dx, dy)
    return found


def _moved(mask: np.ndarray, dx: int, dy: int) -> np.ndarray:
    """The map moved by (dx, dy), mirrored where it comes from outside of the frame."""
    h, w = mask.shape
    return mask[mirrored(-dy, h - dy, h)[:, None], mirrored(-dx, w - dx, w)]


def _extent(mask: Bool[np.ndarray, "h w"]) -> tuple[int, int, int, int]:
    """Top, left, height and width of what holds the mask."""
    (ys,), (xs,) = np.nonzero(mask.any(1)), np.nonzero(mask.any(0))
    return int(ys[0]), int(xs[0]), int(ys[-1] - ys[0]) + 1, int(xs[-1] - xs[0]) + 1


def healed(under: Image, beside: Image, cover: Float32[np.ndarray, "h w"]) -> Image:
    """``beside`` where it covers, its level led towards what ``under`` has around it, by at most ``LED``.

    The difference outside of the cover is continued into it and taken off: the membrane of Poisson blending (Pérez,
    Gangnet and Blake, SIGGRAPH 2003) by pull and push; on square roots of linear light, which are near to what is
    seen. It is bounded, since an edge that crosses the outline would otherwise tint all of the inside.
    """
    root, other = np.sqrt(np.maximum(under, 0)), np.sqrt(np.maximum(beside, 0))
    around = (cover < 0.01).astype(np.float32)
    bounded = np.clip(root - other, -LED, LED) * spread(around, root.shape[2])
    other = np.maximum(other + pull_push(bounded, around), 0)
    return mixed(under, other * other, cover)


@dataclass(frozen=True)
class Region:
    """One thing that moved: its coverage of the frame, and its displacement in pixels."""

    cover: Float32[np.ndarray, "h w"]
    dx: int
    dy: int

    def leave(self, out: Image, image: Image, dx: int, dy: int) -> None:
        """Fill the thing's old place, in ``out``, with what is (dx, dy) away."""
        h, w = self.cover.shape
        pad = max(4, max(h, w) // 100)
        # Wider than the thing by its soft edge, so that no rim of it stays behind.
        wide = np.minimum(2 * self.cover, 1)
        top, left, tall, across = _extent(wide > 0.01)
        box = np.s_[max(top - pad, 0) : top + tall + pad, max(left - pad, 0) : left + across + pad]
        rows, columns = mirrored(dy, h + dy, h)[box[0], None], mirrored(dx, w + dx, w)[box[1]]
        out[box] = healed(out[box], image[rows, columns], wide[box])

    def arrive(self, out: Image, image: Image) -> None:
        """Lay the thing over its new place, in ``out``."""
        h, w = self.cover.shape
        rows, columns = mirrored(-self.dy, h - self.dy, h)[:, None], mirrored(-self.dx, w - self.dx, w)
        cover = _moved(self.cover, self.dx, self.dy)
        if (cover > 0.002).any():
            top, left, tall, across = _extent(cover > 0.002)
            box = np.s_[top : top + tall, left : left + across]
            out[box] = mixed(out[box], image[rows[box[0]], columns[box[1]]], cover[box])


@dataclass(frozen=True)
class Ghosting(Operator):
    """Something moved between the exposures: one to three regions of this image are in another place.

    out(p) = B(p) (1 − m(p − v)) + image(p − v) m(p − v): m a region's soft-edged coverage, v its displacement, mostly
    across the frame, B the image with the old places filled by what is beside them and most alike around. Where
    depth is known and near objects stand out in it, they move as wholes, as many as there are; else regions do where
    there is something to see, their outlines drawn to the picture's edges. Lengths over the frame's longest side;
    linear light, whole pixels, borders mirrored.
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
        0.006, 0.06, "how far things moved, over the longest side", low=0.0, high=0.2, identity=0.0
    )
    size: float = severe(
        0.04, 0.12, "radius of a region that is no whole object, over the longest side", low=0.01, high=0.3
    )
    regions: int = free(1, REGIONS, "regions that moved, at most", integer=True)

    def __call__(self, image: Image, rng: np.random.Generator, scene: Scene) -> Image:
        draws = rng.random((REGIONS, DRAWS)).tolist()[: self.regions]
        out = image.copy()
        moving = self._regions(image, draws, scene) if self.displacement > 0 else []
        if moving:
            picture = np.sqrt(np.maximum(_coarse(image), 0))
            masks = [_coarse(region.cover[..., None])[..., 0] > 0.02 for region in moving]
            taboo, ratio = np.logical_or.reduce(masks), max(image.shape[:2]) / max(picture.shape[:2])
            for region, mask in zip(moving, masks, strict=True):
                bared = mask & ~_moved(mask, round(region.dx / ratio), round(region.dy / ratio))
                if bared.any():
                    beside = donor(picture, bared, taboo, math.hypot(region.dx, region.dy) / ratio)
                    region.leave(out, image, *(round(v * ratio) for v in beside))
        for region in moving:
            region.arrive(out, image)
        return out

    def _regions(self, image: Image, draws: list[list[float]], scene: Scene) -> list[Region]:
        """The regions that move by a pixel at least."""
        h, w = image.shape[:2]
        longest = max(h, w)
        guide = np.sqrt(np.maximum(luma(_coarse(image)), 0))
        worth, inverse = interest(guide), inverse_depth(scene)
        objects = [] if inverse is None else near_objects(_coarse(inverse[..., None])[..., 0])
        found: list[Region] = []
        for d in draws[: len(objects)] if objects else draws:
            mask = objects.pop(int(d[0] * len(objects))) if objects else self._outline(d, worth, guide)
            length = self.displacement * longest * (0.7 + 0.6 * d[1])
            angle = math.radians(60 * (d[2] - 0.5)) + (math.pi if d[3] < 0.5 else 0.0)
            dx, dy = round(length * math.cos(angle)), round(-length * math.sin(angle))
            if (dx or dy) and mask.any():
                found.append(Region(_softened(mask, (h, w)), dx, dy))
        return found

    def _outline(self, draws: list[float], worth: np.ndarray, guide: np.ndarray) -> np.ndarray:
        """A region at the place, of four drawn, around which there is most to see."""
        h, w = worth.shape
        places = [((0.1 + 0.8 * draws[k]) * (w - 1), (0.15 + 0.7 * draws[k + 1]) * (h - 1)) for k in (4, 6, 8, 10)]
        centre = max(places, key=lambda p: float(worth[round(p[1]), round(p[0])]))
        radius = self.size * max(h, w)
        far = blob((h, w), centre, radius, draws[12:16])
        # Not far from the outline, and never without its middle: edges may be anywhere.
        return (far <= 0.7) | ((far <= 1.3) & snapped(far <= 1, guide, max(1, round(0.4 * radius))))


def _coarse(image: Image) -> Float32[np.ndarray, "ch cw c"]:
    h, w = image.shape[:2]
    scale = min(1.0, COARSE / max(h, w))
    return as_hwc(cv2.resize(image, (max(round(w * scale), 1), max(round(h * scale), 1)), interpolation=cv2.INTER_AREA))


def _softened(mask: Bool[np.ndarray, "h w"], frame: tuple[int, int]) -> Float32[np.ndarray, "fh fw"]:
    """A coarse mask's coverage of the frame, (h, w), with a soft edge."""
    soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), max(FEATHER * max(mask.shape), 0.5)).reshape(mask.shape)
    return cv2.resize(soft, frame[::-1], interpolation=cv2.INTER_LINEAR).reshape(frame)
