"""Clothing and the parts of a body, with the temperature of each."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from clearfuse.synth.scenes.rendering.faces import Face, Points, Real, Rgb, Upright, srgb, tinted

TOPS = tuple(
    srgb(c)
    for c in (
        0x2B3A55, 0x7A2E2A, 0x3F4A3C, 0xA08A62, 0x7C8086, 0x24262B, 0xB9A88E, 0x4C6A8A, 0x8A4434, 0xC8C4BA, 0x4B4658,
        0x1C2028, 0x33383C, 0xB89A3A,
    )
)  # fmt: skip
SHIRTS = tuple(srgb(c) for c in (0xD8D6D0, 0xB8C4D4, 0x8A9AA8, 0x2C3038, 0x7A3A36, 0x5A6A58, 0xC8B8A0))
TROUSERS = tuple(srgb(c) for c in (0x26282E, 0x2F3E5C, 0x4A4237, 0x5B5A56, 0x1D2430, 0x8A7B62, 0x3E5070))
SKINS = tuple(srgb(c) for c in (0xD9A888, 0xC08A68, 0x8A5A40, 0xE3BCA0, 0x5E3E2C))
HAIRS = tuple(srgb(c) for c in (0x1B1512, 0x3B281B, 0x5B4028, 0x8A6E48, 0x2A2A2C, 0x8A8A86))
SHOES = tuple(srgb(c) for c in (0x1E1B1A, 0x2C2620, 0xB8B6B0, 0x4A3424))

SKIN = 306.5
"""Kelvin of skin beneath clothes; what is seen lies between it and the air."""

WARMTH = {
    "face": 0.70, "neck": 0.66, "hand": 0.52, "bare": 0.54, "hair": 0.5, "coat": 0.26, "jacket": 0.31, "hoodie": 0.33,
    "shirt": 0.47, "trousers": 0.41, "shoe": 0.2, "bag": 0.1, "hat": 0.28,
}  # fmt: skip
"""The share of the way from the air's temperature to the skin's.

Of clothes I_a / (I_a + I_cl), resistances in series, with I_a = 0.4 clo of the moving air before them (ISO 9920): 0.45
clo for a shirt, 0.6 trousers, 0.9 jackets, 1.1 a coat. Bare skin is cooler than under clothes, hands more than a face.
"""


@dataclass
class Body:
    """A person in the making. side: 1 facing right, -1 left. excess: kelvin of the skin above the air."""

    plane: Upright
    scale: Real
    side: Real
    excess: Real
    faces: list[Face] = field(default_factory=list)
    features: list[Face] = field(default_factory=list)

    def part(
        self, points: Points, colour: Rgb, kind: str, *, warm: Real = 1.0, material: str = "folds", small: bool = False
    ) -> None:
        """Add a polygon. kind: a key of ``WARMTH``. warm: factor on its share. small: a feature, not in the shadow."""
        scaled = np.asarray(points, np.float64) * np.array([self.side * self.scale, self.scale])
        warmth = self.excess * WARMTH[kind] * warm
        face = self.plane.face(scaled, colour, warmth=warmth, material=material)
        (self.features if small else self.faces).append(face)


@dataclass(frozen=True)
class Outfit:
    """Colours and kinds of the clothes. top: coat, jacket, hoodie or shirt. hem: height of its lower edge in metres."""

    top: str
    colour: Rgb
    shirt: Rgb
    legs: Rgb
    skin: Rgb
    hair: Rgb
    shoe: Rgb
    hem: Real
    skirt: bool
    shorts: bool
    bare_arms: bool
    open: bool
    long_hair: bool
    hat: bool
    bag: str
    width: Real


def _pick(colours: tuple[Rgb, ...], share: float) -> Rgb:
    return colours[int(share * len(colours))]


def outfit(rng: np.random.Generator, air: float) -> Outfit:
    """Clothes for the weather: the warmer the air, the lighter they are."""
    u = rng.random(16).tolist()
    mild = float(np.clip((air - 282) / 14, 0, 1))
    top = "shirt" if u[0] < 0.1 + 0.6 * mild else ("coat" if u[1] < 0.3 else "jacket" if u[1] < 0.72 else "hoodie")
    woman = u[2] < 0.5
    skirt = woman and u[3] < 0.22
    hem = 0.62 if top == "coat" else 0.84 - 0.04 * u[4]
    return Outfit(
        top,
        tinted(_pick(SHIRTS if top == "shirt" else TOPS, u[5]), 0.8 + 0.35 * u[6]),
        _pick(SHIRTS, u[7]),
        tinted(_pick(TROUSERS, u[8]), 0.85 + 0.3 * u[6]),
        _pick(SKINS, u[9]),
        _pick(HAIRS, u[10]),
        _pick(SHOES, u[11]),
        hem,
        skirt,
        not skirt and u[3] > 1 - 0.25 * mild,
        top == "shirt" and u[12] < 0.65,
        top in ("coat", "jacket") and u[12] < 0.45,
        woman and u[13] < 0.7,
        u[13] > 0.87,
        "backpack" if u[14] < 0.2 else "shoulder" if u[14] < 0.38 else "",
        (0.9 if woman else 1.0) * (0.94 + 0.16 * u[15]),
    )


def smooth(points: Points, rounds: int = 2) -> np.ndarray:
    """A closed outline with its corners cut (Chaikin 1974)."""
    p = np.asarray(points, np.float64)
    for _ in range(rounds):
        following = np.roll(p, -1, axis=0)
        p = np.stack([0.75 * p + 0.25 * following, 0.25 * p + 0.75 * following], 1).reshape(-1, 2)
    return p
