"""A guess from the picture alone: where ground, walls and sky usually are in it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Float64

from clearfuse.synth.depth.base import DepthInput, DepthSource
from clearfuse.synth.depth.focus import split_by_focus
from clearfuse.synth.depth.metres import (
    FOV,
    USUAL_FAR,
    Metres,
    Picture,
    downsample,
    fade_into_sky,
    guided,
    ray_length,
    sky_mask,
)

CAMERA, SIDES, STANDING = 1.5, 4.0, 20.0
"""Metres of a view with a horizon: the camera's height, the way to the sides, and to what stands ahead.

Fitted to maps of a network on MSRS and RoadScene: the error of the logarithm is flat about them (``docs/log.md``)."""

PLANE = (5.0, 15.0)
"""Metres to a plane at the foot and at the top of a view without a horizon: from above, a room, by night.

A plane's inverse depth is linear in the row."""

SHARPNESS = 3
"""Exponent of the smooth least of the three distances: the corners between ground and walls are rounded."""


@dataclass(frozen=True)
class Prior(DepthSource):
    """``prior``; of two focus distances with their near and far side told apart."""

    name: ClassVar[str] = "prior"
    help: ClassVar[str] = "no weights: a street's ground, sides and sky where there is sky, else a tilted plane; coarse"
    better: ClassVar[str | None] = "--depth depth-anything (fetched once, 99 MB)"

    @classmethod
    def automatic(cls, has_true: bool) -> DepthSource | None:
        """Always: it is the last in the table."""
        return cls()

    def estimate(self, pair: DepthInput) -> Metres:
        """The guess, scaled with the pair's far end."""
        metres = prior(pair.image, pair.far)
        return metres if pair.focused is None else split_by_focus(metres, *pair.focused)


def prior(image: Picture, far: float = USUAL_FAR) -> Metres:
    """A coarse estimate of metres along the ray from one image, without weights.

    Where the image has sky (``sky_mask``), which is at infinity, it has a horizon: the ground is a plane below it, and
    what stands is as far as its foot, at most ``STANDING`` ahead and nearer towards the sides. So distance never falls
    towards the horizon, and is one value above it. Without sky it may be a view from above or a room as well as a
    street: a tilted plane, ``PLANE``. A guided filter (He et al., TPAMI 2013) aligns log z with the image's edges,
    which gives a thing in front about the depth of its foot. All is scaled by far/``USUAL_FAR``.
    """
    sky = sky_mask(image)
    rows, cols = downsample(image).shape[:2]
    log_z = np.log(layout(sky, rows, cols) * (far / USUAL_FAR)).astype(np.float32)
    laid = np.clip(guided(log_z, image, max(2, max(rows, cols) // 20), 1e-2), log_z.min(), log_z.max())
    return fade_into_sky(ray_length(np.exp(laid)), sky, image)


def layout(sky: Bool[np.ndarray, "h w"], rows: int, cols: int) -> Float64[np.ndarray, "rows cols"]:
    """z of the usual place, for a picture whose sky is known: a ``street`` where it has sky, else a ``plane``."""
    return street(rows, cols, _horizon(sky)) if sky.any() else plane(rows, cols)


def _horizon(sky: np.ndarray) -> float:
    """The horizon's row as a share of the height: 0.42, or further down, to 0.6, below the sky of most columns."""
    foot = sky.sum(axis=0) / sky.shape[0]
    return float(np.clip(np.percentile(foot, 90) + 0.02, 0.42, 0.6))


def street(rows: int, cols: int, horizon: float) -> Float64[np.ndarray, "rows cols"]:
    """z of ground, sides and what stands ahead, seen from ``CAMERA`` above the ground; horizon: a share of the rows.

    The ground is at z = h f/(y − y₀), a side at z = s f/|x − x₀|, a front at ``STANDING``; the smooth least of them.
    """
    f = cols / 2 / math.tan(math.radians(FOV) / 2)
    below = np.maximum(np.arange(rows) + 0.5 - horizon * rows, 0)[:, None] / (CAMERA * f)
    aside = np.abs(np.arange(cols) + 0.5 - cols / 2)[None, :] / (SIDES * f)
    return (below**SHARPNESS + aside**SHARPNESS + STANDING**-SHARPNESS) ** (-1 / SHARPNESS)


def plane(rows: int, cols: int) -> Float64[np.ndarray, "rows cols"]:
    """z of a tilted plane, ``PLANE`` metres at the foot and at the top: 1/z is linear in the row."""
    down = (np.arange(rows) + 0.5) / rows
    return np.repeat((1 / (down / PLANE[0] + (1 - down) / PLANE[1]))[:, None], cols, axis=1)
