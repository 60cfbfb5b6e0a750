"""Defocus blur: the aperture's shape as the point-spread function, uniform or varying with depth by the thin lens."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
from jaxtyping import Float32

from clearfuse.synth.color import as_hwc
from clearfuse.synth.operators.base import Image, Operator, Scene, Stage, choice, free, severe
from clearfuse.synth.operators.optics import convolve, in_frame
from clearfuse.synth.operators.physics.fill import blend, inverse_depth, per_channel, pull_push, saturate_weight

FINE = 2.0
"""Pixels: radii up to this are blurred at full resolution, larger ones at half, which loses nothing visible."""

STEP = 1.4
"""Ratio of successive radii, between which a varying blur is interpolated."""

OUTLINE = 0.02
"""Weight of a pixel on an outline, whose colour is a mixture, in the layers on both of its sides."""

SHARED = 1.0
"""Range of radii, in pixels, over which the in-focus layer blends into the blurred ones."""


def aperture_kernel(radius: float, blades: int | None = None, rotation: float = 0.0) -> Float32[np.ndarray, "k k"]:
    """The point-spread function of a defocused aperture: its area splatted bilinearly, unit sum, odd-sided.

    Bilinear weights preserve positions, so that the kernel's centroid is the aperture's: the centre.
    A disk of ``radius`` pixels, or with ``blades`` a regular polygon of the same area, (n/2) R² sin(2π/n) = π r²;
    ``rotation`` is a fraction of its symmetry angle 2π/n.
    """
    reach = radius if blades is None else radius * math.sqrt(2 * math.pi / (blades * math.sin(2 * math.pi / blades)))
    n = math.ceil(reach)
    fine = 2 * min(max(192 // (2 * n + 1), 4), 64)  # sub-pixels per pixel side: many where the kernel is small
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
    if not inside.any():  # smaller than a sub-pixel: a point
        inside = at**2 == (at**2).min()
        inside = inside[:, None] & inside
    spread_on = np.maximum(1 - np.abs(np.arange(-n, n + 1)[:, None] - at), 0)
    kernel = spread_on @ inside @ spread_on.T
    return (kernel / kernel.sum()).astype(np.float32)


def circle_of_confusion(
    inverse: Float32[np.ndarray, "h w"], focus: float, largest: float
) -> Float32[np.ndarray, "h w"]:
    """Signed radius of the blur disk in pixels, A (1/z − 1/z_f), positive in front of the focus.

    Thin lens: a point at z, with the focus at z_f, is imaged as a disk of diameter D v |1/z − 1/z_f|, D the aperture's
    diameter, v the image distance (Potmesil and Chakravarty 1981), so its radius is linear in 1/z. inverse: 1/z in 1/m.
    largest: the largest radius in the frame, which determines A. focus: 1/z_f, from the frame's farthest (0) to its
    nearest point (1), robustly its percentiles 1 and 99; outside of [0, 1] nothing is in focus. At a constant depth
    the radius is ``largest`` everywhere.
    """
    some = inverse[:: max(1, inverse.shape[0] // 240), :: max(1, inverse.shape[1] // 240)]
    far, near = (float(v) for v in np.percentile(some, [1, 99]))
    if near - far < 1e-6:
        return np.full(inverse.shape, largest, np.float32)
    focused = far + focus * (near - far)
    scale = largest / max(abs(far - focused), abs(near - focused))
    return np.clip((inverse - np.float32(focused)) * np.float32(scale), -largest, largest)


def _stops(largest: float) -> list[float]:
    """Radii for the blurred layers: ``largest`` and smaller ones by ``STEP``, down to the in-focus range; ascending."""
    steps = max(math.ceil(math.log(largest / (FINE + SHARED)) / math.log(STEP) - 1e-9), 0)
    return [largest / STEP**k for k in range(steps, -1, -1)]


def _tents(radius: Float32[np.ndarray, "h w"], stops: list[float]) -> list[Float32[np.ndarray, "h w"]]:
    """Weight of each radius at each pixel: linear interpolation between neighbours; below the first, the image's."""
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
    """The layer on one side of the focus, blurred: colours times coverage, then the coverage. None where it is empty.

    image, radius: at half resolution; radius, in pixels of full resolution like ``largest``, is negative on the other
    side. pure: the weight of each pixel's colour. Colour and coverage are averaged over the blurs that reach a pixel,
    so that an object with varying radii stays opaque.
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
            layer = cv2.merge([*cv2.split(image * per_channel(weight, image.shape[2])), weight])
            blurred = convolve(layer, kernel)
            total += blurred
            cover += blurred[..., -1] * (convolve(member[..., None], kernel)[..., 0] if member.min() < 1 else 1)
    reached = total[..., -1] > 1e-5
    inverse = np.where(reached, 1 / np.where(reached, total[..., -1], 1), 0)
    # The last channel, weight divided by weight, becomes 1, times the coverage.
    return total * per_channel(inverse * inverse * cover, image.shape[2] + 1)


def _in_focus(image: Image, radius: Float32[np.ndarray, "h w"], blades: int | None, rotation: float) -> Image:
    """Blur with radii up to ``FINE``: interpolation between the image and two blurred versions."""
    out = image.copy()
    for k, stop in enumerate((0.5 * FINE, FINE)):
        share = np.clip(radius / np.float32(0.5 * FINE) - k, 0, 1)
        if share.any():
            out = blend(out, convolve(image, aperture_kernel(stop, blades, rotation)), share)
    return out


def composite(
    image: Image, signed: Float32[np.ndarray, "h w"], blades: int | None = None, rotation: float = 0.0
) -> Image:
    """Spatially varying defocus: a disk of ``|signed|`` pixels at each pixel, far (negative) to near (positive).

    The background is blurred with its coverage and divided by it, so that no light of a sharp object leaks into it,
    and is extended behind the foreground, whose blurred edge is semi-transparent. Layers are composited in linear light
    (normalised layers after Scofield 1992 and Lee, Eisemann and Seidel 2009).
    """
    h, w, c = image.shape
    size = ((w + 1) // 2, (h + 1) // 2)
    small = as_hwc(cv2.resize(image, size, interpolation=cv2.INTER_AREA))
    # Nearest sample: a mean across an outline would be a depth that no surface has, perhaps the one in focus.
    coarse = cv2.resize(signed, size, interpolation=cv2.INTER_NEAREST)
    largest = float(np.abs(signed).max())
    # A pixel on an outline mixes light of both sides: layers prefer colours of other pixels, and in focus it counts
    # as part of the nearer side.
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
            under, known = saturate_weight(behind[..., :c], behind[..., c])
        rest = (1 - known) * pure * cv2.resize(sharp, size, interpolation=cv2.INTER_NEAREST)
        under = pull_push(under + small * per_channel(rest, c), np.minimum(known + rest, 1))
        under = as_hwc(cv2.resize(under, (w, h), interpolation=cv2.INTER_LINEAR))
        out = blend(under, out, cv2.GaussianBlur(sharp, (3, 3), 0.6))
    if before is not None:
        *colours, cover = cv2.split(cv2.resize(before, (w, h), interpolation=cv2.INTER_LINEAR))
        out = out * per_channel(1 - cover, c) + as_hwc(cv2.merge(colours))
    return np.maximum(out, 0, out=out)


@dataclass(frozen=True)
class DefocusBlur(Operator):
    """Defocus: out = image * k, k the image of the aperture, a disk or a polygon with as many sides as blades.

    The kernel is anti-aliased, sums to one and is centred; radius in pixels of a frame ``frame`` wide, and so in
    proportion to the focal length in pixels; linear light, borders mirrored.
    Where depth is known and ``layout`` is "depth", the radius at z is that of a thin lens, A |1/z − 1/z_f|, with A such
    that the largest in the frame is ``radius``; layers are composited from far to near. Without depth, or at a constant
    depth, the blur is uniform. Infrared lenses are treated alike.
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
        3.0,
        10.0,
        "largest in the frame; of the disk with the aperture's area",
        low=0.0,
        high=40.0,
        unit="px",
        identity=0.0,
    )
    blades: int = choice(0, 5, 6, 7, 8, doc="blades of the aperture; 0: a disk")
    rotation: float = free(0.0, 1.0, "rotation of the aperture, a fraction of the angle between blades")
    layout: str = choice("depth", "uniform", doc="varying with depth, where depth is known, or uniform")
    focus: float = free(
        -1.0, 2.0, "1/z in focus, from the frame's farthest (0) to its nearest (1); outside of it, nothing is"
    )
    frame: float = free(
        640.0, 640.0, "width of the frame for which the radius is given; 0: this frame's", low=0.0, high=1e5, unit="px",
        default=0.0,
    )  # fmt: skip

    def __call__(self, image: Image, rng: np.random.Generator, scene: Scene) -> Image:
        if self.radius == 0:
            return image.copy()
        radius = in_frame(self.radius, self.frame, image)
        blades = self.blades or None
        inverse = inverse_depth(scene) if self.layout == "depth" else None
        if inverse is not None:
            signed = circle_of_confusion(inverse, self.focus, radius)
            if signed.max() - signed.min() > 0.1:
                return composite(image, signed, blades, self.rotation)
        return convolve(image, aperture_kernel(radius, blades, self.rotation))
