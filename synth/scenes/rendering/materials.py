"""Materials: tileable textures with mip levels, generated once per process from fixed seeds.

A texture multiplies a face's albedo; its mean is about one. It has one channel, or three where the hue varies;
the weathering has two.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import cv2
import numpy as np

from clearfuse.synth.scenes.rendering.imaging import repeated
from clearfuse.synth.seeds import generator, seed_of

TILE = 512
"""Side of a tile in pixels, a power of two, so that the mip levels tile too."""


@cache
def _white() -> np.ndarray:
    """The spectrum of a white noise, of which every noise is a filtered and shifted copy."""
    rng = generator(seed_of("material", "white"))
    return np.fft.rfft2(rng.standard_normal((TILE, TILE), dtype=np.float32))


def spectral_noise(rng: np.random.Generator, slope: float, stretch: tuple[float, float] = (1, 1), low: float = 1.0):
    """Tileable Gaussian noise with the amplitude spectrum 1/f^slope, of mean 0 and standard deviation 1.

    stretch: elongation of its features in x and in y. low: below it, in cycles per tile, the spectrum is flat.
    """
    fx = np.fft.rfftfreq(TILE, 1 / TILE).astype(np.float32) * np.float32(stretch[0])
    fy = np.fft.fftfreq(TILE, 1 / TILE).astype(np.float32)[:, None] * np.float32(stretch[1])
    f = np.maximum(np.sqrt(fx**2 + fy**2), np.float32(low))
    # Not cv2.pow(f, -slope): for -0.5 it refines the processor's own estimate of 1/√f, which differs by its maker.
    gain = 1 / cv2.pow(f, slope)
    gain[0, 0] = 0
    noise = np.fft.irfft2(_white() * gain, (TILE, TILE))
    dy, dx = rng.integers(0, TILE, 2)
    # Mirrored half of the time, so that noises of one slope are not all shifts of each other.
    noise = np.roll(noise[:: 1 - 2 * int(dy % 2), :: 1 - 2 * int(dx % 2)], (dy, dx), (0, 1))
    return noise / noise.std()


def _cells(rng: np.random.Generator, rows: int, cols: int, joint: float, shift: bool, spread: float):
    """A pattern of rows x cols cells: the tone of each cell, and the mask of the joints. shift: a running bond."""
    y, x = np.meshgrid(np.arange(TILE) * rows / TILE, np.arange(TILE) * cols / TILE, indexing="ij")
    row = np.floor(y).astype(int)
    x = (x + 0.5 * (row % 2)) % cols if shift else x
    tone = 1 + spread * rng.standard_normal((rows, cols)).clip(-2, 2)
    fy, fx = y % 1, x % 1
    width, height = TILE / cols, TILE / rows
    edge = np.minimum(np.minimum(fx, 1 - fx) * width, np.minimum(fy, 1 - fy) * height)
    mask = np.clip(1.0 + joint - edge, 0, 1)
    return tone[row % rows, np.floor(x).astype(int) % cols].astype(np.float32), mask.astype(np.float32)


def _rgb(mono: np.ndarray, hue: np.ndarray, tint: tuple[float, float, float]) -> np.ndarray:
    """A tone with a second noise that shifts the colour towards ``tint``."""
    return mono[..., None] * (1 + hue[..., None] * np.asarray(tint, np.float32))


def _asphalt(rng: np.random.Generator) -> np.ndarray:
    grain = cv2.GaussianBlur(rng.standard_normal((TILE, TILE), dtype=np.float32), (0, 0), 0.8)
    stones = (grain > 1.15) * 0.35 - (grain < -1.2) * 0.2
    tone = 1 + 0.16 * spectral_noise(rng, 1.0) + 0.16 * grain + stones.astype(np.float32)
    crack = np.abs(spectral_noise(rng, 1.6))
    return tone - 0.45 * np.clip(1 - crack / 0.02, 0, 1) * (spectral_noise(rng, 2.0) > 0.6)


def _paving(rng: np.random.Generator) -> np.ndarray:
    tone, joint = _cells(rng, 8, 8, 1.4, False, 0.09)
    return tone * (1 + 0.07 * spectral_noise(rng, 0.7)) * (1 - 0.55 * joint)


def _cobble(rng: np.random.Generator) -> np.ndarray:
    tone, joint = _cells(rng, 26, 22, 1.6, True, 0.16)
    return tone * (1 + 0.1 * spectral_noise(rng, 0.6)) * (1 - 0.6 * joint)


def _brick(rng: np.random.Generator) -> np.ndarray:
    tone, joint = _cells(rng, 52, 16, 0.9, True, 0.17)
    hue, _ = _cells(rng, 52, 16, 0.9, True, 0.12)
    brick = _rgb(tone * (1 + 0.1 * spectral_noise(rng, 0.6)), hue - 1, (0.2, -0.3, -0.6))
    mortar = np.array([1.15, 1.5, 1.7], np.float32) * (1 + 0.08 * spectral_noise(rng, 0.3)[..., None])
    return brick + (mortar - brick) * joint[..., None]


def _block(rng: np.random.Generator) -> np.ndarray:
    tone, joint = _cells(rng, 10, 6, 1.2, True, 0.07)
    return tone * (1 + 0.09 * spectral_noise(rng, 0.8)) * (1 - 0.4 * joint)


def _plaster(rng: np.random.Generator) -> np.ndarray:
    streaks = spectral_noise(rng, 1.3, (1, 6))
    grain = cv2.GaussianBlur(rng.standard_normal((TILE, TILE), dtype=np.float32), (0, 0), 0.9)
    return 1 + 0.055 * spectral_noise(rng, 1.1) + 0.035 * streaks + 0.05 * grain


def _paint(rng: np.random.Generator) -> np.ndarray:
    return 1 + 0.022 * spectral_noise(rng, 1.1) + 0.02 * spectral_noise(rng, 0.35)


def _grass(rng: np.random.Generator) -> np.ndarray:
    blades = spectral_noise(rng, 0.45, (1, 2.5), 12)
    clumps = spectral_noise(rng, 1.1)
    tone = np.clip(1 + 0.34 * blades + 0.2 * clumps, 0.2, 2.2)
    return _rgb(tone, 0.6 * spectral_noise(rng, 1.0) + 0.5 * spectral_noise(rng, 0.3, (1, 2), 20), (0.22, 0.05, 0.02))


def _hedge(rng: np.random.Generator) -> np.ndarray:
    leaves = cv2.GaussianBlur(rng.standard_normal((TILE, TILE), dtype=np.float32), (0, 0), 3.0) * 10
    tone = np.clip(0.95 + 0.32 * leaves + 0.22 * spectral_noise(rng, 1.2), 0.12, 2.4)
    return _rgb(tone, spectral_noise(rng, 0.8), (0.16, 0.05, 0.0))


def _soil(rng: np.random.Generator) -> np.ndarray:
    stones = cv2.GaussianBlur(rng.standard_normal((TILE, TILE), dtype=np.float32), (0, 0), 1.8) * 6
    return np.clip(1 + 0.25 * stones + 0.15 * spectral_noise(rng, 1.2), 0.25, 2.2)


def _wood(rng: np.random.Generator) -> np.ndarray:
    tone, joint = _cells(rng, 32, 3, 0.6, True, 0.11)
    hue, _ = _cells(rng, 32, 3, 0.6, True, 0.2)
    rings = np.sin(9 * spectral_noise(rng, 1.5, (9, 1)) + np.linspace(0, 2 * np.pi, TILE, dtype=np.float32)[:, None])
    grain = 1 + 0.09 * rings + 0.1 * spectral_noise(rng, 0.7, (14, 1))
    return _rgb(tone * grain * (1 - 0.55 * joint), hue - 1, (0.15, -0.1, -0.3))


def _timber(rng: np.random.Generator) -> np.ndarray:
    """A single piece of wood, with the grain along x."""
    rings = np.sin(7 * spectral_noise(rng, 1.6, (10, 1)))
    return 1 + 0.1 * rings + 0.12 * spectral_noise(rng, 0.7, (14, 1)) + 0.05 * spectral_noise(rng, 1.2)


def _fabric(rng: np.random.Generator) -> np.ndarray:
    y, x = np.mgrid[0:TILE, 0:TILE].astype(np.float32) * (2 * np.pi / 4)
    weave = 0.5 * (np.sin(x) * np.cos(y))
    return 1 + 0.07 * weave + 0.09 * spectral_noise(rng, 0.5) + 0.13 * spectral_noise(rng, 1.6, (1, 2))


def _shingle(rng: np.random.Generator) -> np.ndarray:
    tone, joint = _cells(rng, 20, 18, 1.0, True, 0.13)
    ramp = (np.arange(TILE, dtype=np.float32)[:, None] * 20 / TILE) % 1
    return tone * (0.82 + 0.3 * ramp) * (1 + 0.08 * spectral_noise(rng, 0.7)) * (1 - 0.45 * joint)


def _rug(rng: np.random.Generator) -> np.ndarray:
    y, x = np.mgrid[0:TILE, 0:TILE].astype(np.float32) / TILE
    diamonds = np.sin(2 * np.pi * 4 * (x + y)) * np.sin(2 * np.pi * 4 * (x - y))
    bands = np.sin(2 * np.pi * 2 * y)
    tone = 1 + 0.22 * np.tanh(4 * diamonds) + 0.13 * np.tanh(4 * bands)
    return _rgb(tone * (1 + 0.12 * spectral_noise(rng, 0.2)), 0.8 * np.tanh(4 * bands * diamonds), (0.1, 0.3, 0.5))


def _wallpaper(rng: np.random.Generator) -> np.ndarray:
    x = np.arange(TILE, dtype=np.float32)[None, :] / TILE
    stripes = np.tanh(5 * np.sin(2 * np.pi * 16 * x))
    return 1 + 0.05 * stripes + 0.02 * spectral_noise(rng, 0.9) + 0.015 * spectral_noise(rng, 0.2)


def _panel(rng: np.random.Generator) -> np.ndarray:
    tone, joint = _cells(rng, 4, 3, 1.3, False, 0.035)
    return tone * (1 + 0.03 * spectral_noise(rng, 1.0, (1, 4))) * (1 - 0.4 * joint)


def _grain(rng: np.random.Generator) -> np.ndarray:
    """What every surface has at the least: 1/f in amplitude, so 1/f² in power, as albedo in natural images has."""
    return 1 + 0.055 * spectral_noise(rng, 1.0)


def _weathering(rng: np.random.Generator) -> np.ndarray:
    """Dirt, wear and damp over metres: two channels, the factor on the albedo and the temperature's variation.

    The temperature varies more smoothly, since heat spreads in a wall; dark places are warmer by a third of it.
    """
    tone = 0.075 * spectral_noise(rng, 1.25) + 0.03 * spectral_noise(rng, 1.2, (1, 5))
    heat = spectral_noise(rng, 1.9) - tone / tone.std() / 3
    return np.stack([1 + tone, 1 + 0.2 * heat], -1)


def _noise(rng: np.random.Generator) -> np.ndarray:
    return 1 + 0.2 * spectral_noise(rng, 1.5)


def _folds(rng: np.random.Generator) -> np.ndarray:
    return 1 + 0.17 * spectral_noise(rng, 1.7, (1, 2.4), 3) + 0.05 * spectral_noise(rng, 0.5)


def _bark(rng: np.random.Generator) -> np.ndarray:
    return np.clip(1 + 0.3 * spectral_noise(rng, 0.8, (1, 7)), 0.3, 2)


MATERIALS: dict[str, tuple[Callable[[np.random.Generator], np.ndarray], float]] = {
    "asphalt": (_asphalt, 4.0),
    "paving": (_paving, 4.0),
    "cobble": (_cobble, 4.0),
    "brick": (_brick, 4.0),
    "block": (_block, 4.0),
    "plaster": (_plaster, 5.0),
    "paint": (_paint, 4.0),
    "panel": (_panel, 6.0),
    "grass": (_grass, 3.5),
    "hedge": (_hedge, 2.6),
    "soil": (_soil, 2.5),
    "wood": (_wood, 4.0),
    "timber": (_timber, 1.6),
    "fabric": (_fabric, 1.3),
    "shingle": (_shingle, 5.0),
    "rug": (_rug, 1.6),
    "wallpaper": (_wallpaper, 3.0),
    "noise": (_noise, 31.0),
    "grain": (_grain, 1.5),
    "weathering": (_weathering, 37.0),
    "folds": (_folds, 1.1),
    "bark": (_bark, 1.2),
}
"""The function that generates each material, and the size of its tile in metres."""


@cache
def mip_levels(name: str) -> tuple[np.ndarray, ...]:
    """A material's mip levels: its tile, halved by area averaging down to 4 pixels."""
    tile = np.clip(MATERIALS[name][0](generator(seed_of("material", name))), 0.03, 4).astype(np.float32)
    levels = [tile / tile.mean()]
    while levels[-1].shape[0] > 4:
        side = levels[-1].shape[0] // 2
        levels.append(cv2.resize(levels[-1], (side, side), interpolation=cv2.INTER_AREA))
    for level in levels:
        level.setflags(write=False)
    return tuple(levels)


@cache
def _atlas(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All mip levels in one image, each with a wrapped border; the columns and the rows where they start."""
    levels = mip_levels(name)
    left, top = np.zeros(len(levels), np.float32), np.zeros(len(levels), np.float32)
    canvas = np.zeros((TILE + 16, TILE + TILE // 2 + 4, *levels[0].shape[2:]), np.float32)
    x = y = 0
    for number, level in enumerate(levels):
        side = level.shape[0]
        canvas[y : y + side + 2, x : x + side + 2] = np.pad(level, ((1, 1), (1, 1), (0, 0))[: level.ndim], "wrap")
        left[number], top[number] = x + 0.5, y + 0.5
        x, y = (TILE + 2, 0) if number == 0 else (x, y + side + 2)
    return canvas, left, top


def sample(name: str, s: np.ndarray, t: np.ndarray, footprint: np.ndarray) -> np.ndarray:
    """The material at plane coordinates s, t in metres, filtered for a footprint in metres per pixel.

    Trilinear (Williams 1983, Pyramidal parametrics): linear within a level and between the two nearest levels.
    """
    atlas, left, top = _atlas(name)
    shape, metres = s.shape, np.float32(1 / MATERIALS[name][1])
    lod = np.log2(np.maximum(footprint.ravel() * (metres * np.float32(TILE)), 1))
    lod = np.minimum(lod, np.float32(len(left) - 1.001))
    level = lod.astype(np.intp)
    u, v = (_folded(x.ravel() * metres) for x in (s, t))
    first = _tap(atlas, left, top, level, u, v)
    blend = lod - level
    blend = blend.astype(np.float32)
    blend = blend if first.ndim == 1 else repeated(blend, first.shape[1])
    first += (_tap(atlas, left, top, level + 1, u, v) - first) * blend
    return first.reshape(*shape, *first.shape[1:])


def weathering(s: np.ndarray, t: np.ndarray) -> np.ndarray:
    """The weathering, ``(n, 2)``, at plane coordinates in metres, unfiltered: its finest features span decimetres."""
    tile, metres = mip_levels("weathering")[0], MATERIALS["weathering"][1]
    maps = np.zeros((2, -(-s.size // ROW), ROW), np.float32)
    for out, at in zip(maps.reshape(2, -1), (s, t), strict=True):
        out[: s.size] = _folded(at * np.float32(1 / metres)) * np.float32(TILE)
    return cv2.remap(tile, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP).reshape(-1, 2)[: s.size]


def _folded(x: np.ndarray) -> np.ndarray:
    return x - np.floor(x)


ROW = 1024
"""Samples per row of the maps for cv2.remap, which takes two-dimensional maps."""


def _tap(
    atlas: np.ndarray, left: np.ndarray, top: np.ndarray, level: np.ndarray, u: np.ndarray, v: np.ndarray
) -> np.ndarray:
    """The value of one level per sample, ``(n,)`` or ``(n, 3)``; u and v in tiles."""
    side = np.take(np.float32(TILE) * np.float32(0.5) ** np.arange(len(left), dtype=np.float32), level)
    n = u.size
    maps = np.zeros((2, -(-max(n, 1) // ROW) * ROW), np.float32)
    for out, at, start in ((maps[0], u, left), (maps[1], v, top)):
        np.multiply(at, side, out=out[:n])
        out[:n] += np.take(start, level)
    part = cv2.remap(atlas, maps[0].reshape(-1, ROW), maps[1].reshape(-1, ROW), cv2.INTER_LINEAR)
    return part.reshape(-1, *atlas.shape[2:])[:n]
