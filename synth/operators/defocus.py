"""A lens out of focus: the aperture's shape as point-spread function, uniform or by the thin lens's law of depth."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
from jaxtyping import Float32

from clearfuse.synth.color import as_hwc
from clearfuse.synth.operators.base import Image, Operator, Scene, Stage, choice, free, severe
from clearfuse.synth.operators.optics import convolve
from clearfuse.synth.operators.physics.fill import inverse_depth, mixed, pull_push, saturated, spread

FINE = 2.0
"""Pixels: radii up to this are blurred at full resolution, wider ones at half, which holds all that they leave."""

STEP = 1.4
"""Ratio of the radii between which a varying blur interpolates."""

OUTLINE = 0.02
"""Weight of the colour of a pixel on an outline in the layers at both of its sides."""

SHARED = 1.0
"""Pixels of radius over which the in-focus part passes into the blurred ones."""


def aperture_kernel(radius: float, blades: int | None = None, rotation: float = 0.0) -> Float32[np.ndarray, "k k"]:
    """The aperture's image of a point out of focus: its area spread on the pixels bilinearly, unit sum, odd-sided.

    Bilinear weights keep a place's position, so that the kernel's centroid is the aperture's: the centre.
    A disk of ``radius`` pixels, or with ``blades`` a regular polygon of that area, (n/2) R² sin(2π/n) = π r²,
    ``rotation`` a share of the turn 2π/n that brings it back onto itself.
    """
    reach = radius if blades is None else radius * math.sqrt(2 * math.pi / (blades * math.sin(2 * math.pi / blades)))
    n = math.ceil(reach)
    fine = 2 * min(max(192 // (2 * n + 1), 4), 64)  # sub-pixels a side: many where the kernel is small
    at = (np.arange((2 * n + 1) * fine) + 0.5) / fine - (n + 0.5)
    if blades is None:
        inside = at[:, None] ** 2 + at**2 <= radius**2
    else:
        turn = 2 * math.pi / blades
        normals = turn * (rotation + np.arange(blades))
        apothem = reach * math.cos(turn / 2)
        inside = np.ones((len(at), len(at)), bool)
        for angle in normals.tolist():
            inside &= at * math.cos(angle) + at[:, None] * math.sin(angle) <= apothem
    if not inside.any():  # smaller than the sub-pixels: a point
        inside = at**2 == (at**2).min()
        inside = inside[:, None] & inside
    spread_on = np.maximum(1 - np.abs(np.arange(-n, n + 1)[:, None] - at), 0)
    kernel = spread_on @ inside @ spread_on.T
    return (kernel / kernel.sum()).astype(np.float32)


def circle_of_confusion(
    inverse: Float32[np.ndarray, "h w"], focus: float, largest: float
) -> Float32[np.ndarray, "h w"]:
    """Signed radius in pixels, A (1/z − 1/z_f), positive in front of the focus; ``largest`` fixes A.

    Thin lens: a point at z, focused at z_f, draws a disk of diameter D v |1/z − 1/z_f|, D the aperture's diameter, v
    the image distance (Potmesil and Chakravarty 1981), so its radius is linear in 1/z. inverse: 1/z in 1/m. largest:
    the radius that the frame's largest is to have. focus places 1/z_f between the farthest (0) and the nearest (1) of
    the frame, robustly its percentiles 1 and 99; outside of [0, 1] nothing is in focus. One distance all over has one
    radius: ``largest``.
    """
    some = inverse[:: max(1, inverse.shape[0] // 240), :: max(1, inverse.shape[1] // 240)]
    far, near = (float(v) for v in np.percentile(some, [1, 99]))
    if near - far < 1e-6:
        return np.full(inverse.shape, largest, np.float32)
    focused = far + focus * (near - far)
    scale = largest / max(abs(far - focused), abs(near - focused))
    return np.clip((inverse - np.float32(focused)) * np.float32(scale), -largest, largest)


def _stops(largest: float) -> list[float]:
    """Radii from ``largest`` down in steps, to where the in-focus part takes over: ascending, the last exact."""
    steps = max(math.ceil(math.log(largest / (FINE + SHARED)) / math.log(STEP) - 1e-9), 0)
    return [largest / STEP**k for k in range(steps, -1, -1)]


def _tents(radius: Float32[np.ndarray, "h w"], stops: list[float]) -> list[Float32[np.ndarray, "h w"]]:
    """Each stop's share of each place: linear between neighbours, and into the in-focus part below the first."""
    places = np.interp(radius, [FINE, max(FINE + SHARED, stops[0]), *stops[1:]], np.arange(len(stops) + 1))
    return [np.maximum(1 - np.abs(places - k - 1), 0).astype(np.float32) for k in range(len(stops))]


def _group(
    image: Image,
    radius: Float32[np.ndarray, "h w"],
    pure: Float32[np.ndarray, "h w"],
    largest: float,
    blades: int | None,
    rotation: float,
) -> Float32[np.ndarray, "h w c1"] | None:
    """What lies at one side of the focus, blurred: colours times their coverage, then the coverage. None if empty.

    image and radius at half resolution, ``largest`` in whole pixels; radius is negative at the other side. pure: the
    weight of each place's colour. Colour and coverage are means over the blurs that reach a place, so that a thing in
    which radii change stays opaque.
    """
    shares = _tents(radius, _stops(largest))
    member = np.minimum(np.add.reduce(shares), 1)
    if not member.any():
        return None
    total, cover = np.zeros((*radius.shape, image.shape[2] + 1), np.float32), np.zeros_like(member)
    for stop, share in zip(_stops(largest), shares, strict=True):
        if share.any():
            kernel = aperture_kernel(stop / 2, blades, rotation)
            weight = share * pure
            layer = cv2.merge([*cv2.split(image * spread(weight, image.shape[2])), weight])
            blurred = convolve(layer, kernel)
            total += blurred
            cover += blurred[..., -1] * (convolve(member[..., None], kernel)[..., 0] if member.min() < 1 else 1)
    reached = total[..., -1] > 1e-5
    inverse = np.where(reached, 1 / np.where(reached, total[..., -1], 1), 0)
    # The last channel, weight over weight, becomes 1 and then the coverage.
    return total * spread(inverse * inverse * cover, image.shape[2] + 1)


def _in_focus(image: Image, radius: Float32[np.ndarray, "h w"], blades: int | None, rotation: float) -> Image:
    """Blurred by radii up to ``FINE``: between the image and two blurs of it."""
    out = image.copy()
    for k, stop in enumerate((0.5 * FINE, FINE)):
        share = np.clip(radius / np.float32(0.5 * FINE) - k, 0, 1)
        if share.any():
            out = mixed(out, convolve(image, aperture_kernel(stop, blades, rotation)), share)
    return out


def composite(
    image: Image, signed: Float32[np.ndarray, "h w"], blades: int | None = None, rotation: float = 0.0
) -> Image:
    """The image with a disk of ``|signed|`` pixels at each place, from far (negative) to near (positive).

    What is behind the focus is blurred with its coverage and divided by it, so that no light of a sharp object leaks
    into its background; it is then continued behind what is in front, whose edge, blurred, is transparent. Light in
    between adds up in linear light (normalised layers after Scofield 1992 and Lee, Eisemann and Seidel 2009).
    """
    h, w, c = image.shape
    size = ((w + 1) // 2, (h + 1) // 2)
    small = as_hwc(cv2.resize(image, size, interpolation=cv2.INTER_AREA))
    # The nearest sample: a mean over an outline would be a depth that nothing has, perhaps the one in focus.
    coarse = cv2.resize(signed, size, interpolation=cv2.INTER_NEAREST)
    largest = float(np.abs(signed).max())
    # A pixel on an outline holds light of both sides: no layer takes its colour from it where it has others, and it
    # is kept in focus as the nearer side is.
    box = np.ones((3, 3), np.uint8)
    pure = np.where(cv2.dilate(coarse, box) - cv2.erode(coarse, box) > SHARED, np.float32(OUTLINE), np.float32(1))
    behind = _group(small, -coarse, pure, largest, blades, rotation) if largest > FINE else None
    before = _group(small, coarse, pure, largest, blades, rotation) if largest > FINE else None
    radius = np.abs(cv2.dilate(signed, box))
    out = _in_focus(image, np.minimum(radius, FINE), blades, rotation)
    if behind is not None or before is not None:
        reach = max(FINE + SHARED, _stops(largest)[0])
        sharp = np.clip((reach - radius) / np.float32(reach - FINE), 0, 1)
        under, known = np.zeros_like(small), np.zeros(coarse.shape, np.float32)
        if behind is not None:
            under, known = saturated(behind[..., :c], behind[..., c])
        rest = (1 - known) * pure * cv2.resize(sharp, size, interpolation=cv2.INTER_NEAREST)
        under = pull_push(under + small * spread(rest, c), np.minimum(known + rest, 1))
        under = as_hwc(cv2.resize(under, (w, h), interpolation=cv2.INTER_LINEAR))
        out = mixed(under, out, cv2.GaussianBlur(sharp, (3, 3), 0.6))
    if before is not None:
        *colours, cover = cv2.split(cv2.resize(before, (w, h), interpolation=cv2.INTER_LINEAR))
        out = out * spread(1 - cover, c) + as_hwc(cv2.merge(colours))
    return np.maximum(out, 0, out=out)


@dataclass(frozen=True)
class DefocusBlur(Operator):
    """A lens focused at the wrong distance: out = image * k, k the aperture's image, a disk or a polygon of its blades.

    The kernel is anti-aliased, sums to one and is centred; radius in pixels, linear light, borders mirrored.
    Where depth is known and ``layout`` is "depth", the radius at z is A |1/z − 1/z_f|, a thin lens's, with A such that
    the largest in the frame is ``radius``; the picture is put together from far to near. Without depth, and in a
    scene at one distance, the blur is uniform. The infrared's lens is no different.
    """

    name: ClassVar[str] = "defocus_blur"
    stage: ClassVar[Stage] = "optics"
    uses_depth: ClassVar[bool] = True
    unclipped: ClassVar[bool] = True
    source: ClassVar[str] = (
        "Potmesil and Chakravarty, A lens and aperture camera model, SIGGRAPH 1981 (circle of confusion); "
        "ImageNet-C, ICLR 2019 (radii 3 to 10 px)"
    )

    radius: float = severe(
        1.5, 10.0, "largest in the frame, of a disk of the aperture's area", low=0.0, high=40.0, unit="px", identity=0.0
    )
    blades: int = choice(0, 5, 6, 7, 8, doc="blades of the aperture; 0: a disk")
    rotation: float = free(0.0, 1.0, "turn of the aperture, a share of the angle between blades")
    layout: str = choice("depth", "uniform", doc="by depth, where depth is known, or the same all over")
    focus: float = free(-1.0, 2.0, "1/z in focus, from the frame's farthest (0) to its nearest (1); outside nothing is")

    def __call__(self, image: Image, rng: np.random.Generator, scene: Scene) -> Image:
        if self.radius == 0:
            return image.copy()
        blades = self.blades or None
        inverse = inverse_depth(scene) if self.layout == "depth" else None
        if inverse is not None:
            signed = circle_of_confusion(inverse, self.focus, self.radius)
            if signed.max() - signed.min() > 0.1:
                return composite(image, signed, blades, self.rotation)
        return convolve(image, aperture_kernel(self.radius, blades, self.rotation))
