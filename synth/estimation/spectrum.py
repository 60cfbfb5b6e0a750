"""Statistics of a picture's power spectrum: what blur, resampling and noise leave by frequency and direction."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32

TILE = 64
"""Side of a tile in pixels: longer than the longest motion blur."""
MOST_TILES = 400
RINGS, SECTORS = 12, 8
"""Bins of the plane of frequencies by radius and by direction."""
FINE = 24
"""Bins by radius alone."""
LAGS = 30
"""Longest displacement in pixels that the cepstrum is asked about."""
FLOOR = 1e-7
"""Power below which a frequency is empty: a hundredth of what rounding to 8 bits leaves (1/12/255² = 1.3e-6)."""

_FY, _FX = np.meshgrid(np.fft.fftfreq(TILE), np.fft.rfftfreq(TILE), indexing="ij")
_RADIUS = np.hypot(_FX, _FY)
_ANGLE = np.mod(np.arctan2(_FY, _FX), np.pi)
_WINDOW = np.outer(np.hanning(TILE), np.hanning(TILE)).astype(np.float32)


def _means(index: np.ndarray, count: int) -> np.ndarray:
    """The matrix that averages the plane's points by bin; points of index −1 are in none."""
    flat = index.ravel()
    out = np.zeros((flat.size, count), np.float32)
    inside = flat >= 0
    out[np.flatnonzero(inside), flat[inside]] = 1
    return out / np.maximum(out.sum(0), 1)


def _rings(count: int, edge: float) -> np.ndarray:
    index = np.floor(_RADIUS / edge * count).astype(int)
    return np.where((index < count) & (_RADIUS > 0), index, -1)


_SECTOR = np.floor(np.mod(_ANGLE + np.pi / SECTORS / 2, np.pi) / np.pi * SECTORS).astype(int) % SECTORS
_POLAR = _means(np.where(_rings(RINGS, 0.5) >= 0, _rings(RINGS, 0.5) * SECTORS + _SECTOR, -1), RINGS * SECTORS)
_FINE = _means(_rings(FINE, 0.7072), FINE)
_LINE = np.arange(16) * 2 + 1
"""Frequencies along one axis, in cycles a tile, at which the power on the axis is compared with that beside it."""


def _lag_bins() -> np.ndarray:
    y, x = np.meshgrid(np.fft.fftfreq(TILE) * TILE, np.arange(TILE // 2 + 1), indexing="ij")
    index = np.round(np.hypot(x, y)).astype(int)
    return np.where((index >= 2) & (index <= LAGS), index - 2, -1)


_LAG = _lag_bins()


def spectrum_statistics(grey: Float32[np.ndarray, "h w"]) -> list[float]:
    """Log power by radius and direction, by radius in busy and in flat tiles, along the axes, and the cepstrum.

    Welch's method (1967) on tiles of 64 × 64 with a Hann window. The cepstrum, the transform of the log spectrum, has
    minima at the extent of a motion blur (Cannon, IEEE TASSP 1976). Directions are given twice: as they are, and turned
    so that the one with the least fine detail comes first, since a blur may have any.
    """
    tiles = _tiles(grey)
    power = np.abs(np.fft.rfft2((tiles - tiles.mean((1, 2), keepdims=True)) * _WINDOW)) ** 2 / (_WINDOW**2).sum()
    flat = np.log(power.reshape(len(tiles), -1) + FLOOR).astype(np.float32)
    typical, total = flat.mean(0), np.log(power.reshape(len(tiles), -1).mean(0) + FLOOR).astype(np.float32)
    polar = (typical @ _POLAR).reshape(RINGS, SECTORS)
    fine = polar[RINGS // 3 :].mean(0)
    turned = np.roll(polar, -int(fine.argmin()), axis=1)
    busy = np.argsort(flat.mean(1), kind="stable")
    tenth = max(1, len(tiles) // 10)
    radial = [each @ _FINE for each in (typical, total, flat[busy[-tenth:]].mean(0), flat[busy[:tenth]].mean(0))]
    plane = typical.reshape(power.shape[1:])
    along_x = plane[0, _LINE] - 0.5 * (plane[2, _LINE] + plane[-2, _LINE])
    along_y = plane[_LINE, 0] - plane[_LINE, 2]
    cepstrum = np.fft.irfft2(plane - plane.mean(), s=(TILE, TILE))[:, : TILE // 2 + 1]
    least = [float(cepstrum[lag == _LAG].min()) for lag in range(LAGS - 1)]
    relative = turned - turned.mean(1, keepdims=True)
    parts = [polar.ravel(), relative.ravel(), *radial, np.diff(radial[0]), along_x, along_y]
    return [*np.concatenate(parts).astype(float).tolist(), *(10 * x for x in least)]


def _tiles(grey: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "n t t"]:
    """Tiles that overlap by half, at most ``MOST_TILES``, evenly from all. A side under a tile is mirrored."""
    h, w = grey.shape
    if min(h, w) < TILE:
        grey = np.pad(
            grey, ((0, max(0, TILE - h)), (0, max(0, TILE - w))), "symmetric" if min(h, w) * 2 >= TILE else "wrap"
        )
    views = np.lib.stride_tricks.sliding_window_view(grey, (TILE, TILE))[:: TILE // 2, :: TILE // 2]
    rows, columns = views.shape[:2]
    step = max(1, -(-rows * columns // MOST_TILES))
    chosen = np.arange(0, rows * columns, step)
    return np.ascontiguousarray(views[chosen // columns, chosen % columns])
