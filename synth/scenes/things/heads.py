"""Heads of people, from the side, the front and the back."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from clearfuse.synth.scenes.rendering.faces import arc, srgb, tinted
from clearfuse.synth.scenes.things.clothing import Body, Outfit, smooth


def head_side(body: Body, wear: Outfit, at: np.ndarray) -> None:
    """A head in profile with nose, ear and hair; ``at``: offset of the neck from where it is at rest."""
    skin, hair = wear.skin, wear.hair
    if wear.top != "shirt":
        collar = [(-0.085, 1.44), (-0.075, 1.515), (0.0, 1.5), (0.05, 1.465), (0.055, 1.43), (-0.03, 1.42)]
        body.part(smooth(np.array(collar) + at, 1), tinted(wear.colour, 0.75), wear.top, warm=1.2)
    if wear.long_hair:
        fall = [(0.0, 1.74), (-0.1, 1.7), (-0.125, 1.55), (-0.115, 1.38), (-0.05, 1.36), (-0.015, 1.5), (-0.01, 1.62)]
        body.part(smooth(np.array(fall) + at), tinted(hair, 0.8), "hair", warm=0.8, material="bark")
    profile = [
        (-0.07, 1.52), (-0.095, 1.62), (-0.08, 1.72), (0.0, 1.755), (0.07, 1.725), (0.082, 1.665), (0.083, 1.645),
        (0.105, 1.612), (0.085, 1.60), (0.088, 1.575), (0.078, 1.565), (0.082, 1.535), (0.055, 1.517), (0.0, 1.545),
    ]  # fmt: skip
    body.part(smooth(np.array(profile) + at), skin, "face", material="grain")
    if wear.hat:
        crown = [(-0.105, 1.64), (-0.1, 1.73), (-0.02, 1.785), (0.06, 1.76), (0.095, 1.685)]
        body.part(smooth(np.array(crown) + at, 1), tinted(wear.colour, 0.7), "hat")
    else:
        cap = [
            (-0.06, 1.53), (-0.105, 1.58), (-0.11, 1.68), (-0.07, 1.755), (0.02, 1.785), (0.085, 1.735), (0.08, 1.70),
            (0.03, 1.715), (-0.005, 1.66), (-0.012, 1.62), (-0.03, 1.61),
        ]  # fmt: skip
        body.part(smooth(np.array(cap) + at, 1), hair, "hair", material="bark")
    body.part(arc(-0.008 + at[0], 1.625 + at[1], 0.016, 0.03, n=10), tinted(skin, 0.8), "face", small=True)
    body.part(arc(0.062 + at[0], 1.645 + at[1], 0.012, 0.007, n=8), srgb(0x241A16), "face", small=True)
    body.part(arc(0.062 + at[0], 1.667 + at[1], 0.02, 0.006, n=8), tinted(hair, 0.9), "face", small=True)
    body.part(arc(0.078 + at[0], 1.568 + at[1], 0.014, 0.005, n=8), tinted(skin, 0.5), "face", small=True)


def head_front(body: Body, wear: Outfit, back: bool, x: float) -> None:
    """A head from the front, with a face, or from the back."""
    skin, hair = wear.skin, wear.hair
    shape = [(0.0, 1.755), (0.05, 1.745), (0.078, 1.7), (0.08, 1.635), (0.068, 1.565), (0.038, 1.525), (0.0, 1.518)]
    head = np.array([*shape, *((-a, b) for a, b in shape[-2:0:-1])]) + np.array([x, 0.0])
    neck = [(-0.054, 1.57), (0.054, 1.57), (0.056, 1.49), (0.03, 1.465), (-0.03, 1.465), (-0.056, 1.49)]
    long = [(-0.095, 1.68), (-0.115, 1.55), (-0.12, 1.39), (0.12, 1.39), (0.115, 1.55), (0.095, 1.68), (0.0, 1.77)]
    if wear.long_hair and not back:
        body.part(smooth(np.array(long) + np.array([x, 0.0])), tinted(hair, 0.75), "hair", warm=0.8, material="bark")
    body.part(np.array(neck) + np.array([x, 0.0]), tinted(skin, 0.72), "neck", material="grain")
    for sign in (-1, 1):
        body.part(arc(sign * 0.08 + x, 1.63, 0.014, 0.03, n=10), tinted(skin, 0.85), "face", warm=0.8, material="grain")
    body.part(smooth(head), skin, "face", material="grain")
    if back:
        nape = [(0.0, 1.785), (0.06, 1.77), (0.094, 1.7), (0.09, 1.6), (0.055, 1.54), (0.0, 1.53)]
        scalp = long if wear.long_hair else nape + [(-a, b) for a, b in nape[-2:0:-1]]
        body.part(smooth(np.array(scalp) + np.array([x, 0.0]), 2), hair, "hair", material="bark")
    else:
        _face(body, wear, x)
        fringe = [
            (-0.088, 1.62), (-0.095, 1.7), (-0.06, 1.775), (0.02, 1.79), (0.075, 1.765), (0.095, 1.7), (0.086, 1.62),
            (0.076, 1.68), (0.045, 1.72), (-0.02, 1.705), (-0.07, 1.685),
        ]  # fmt: skip
        body.part(smooth(np.array(fringe) + np.array([x, 0.0]), 1), hair, "hair", material="bark")
    if wear.hat:
        dome = [(-0.1, 1.67), (-0.1, 1.73), (-0.05, 1.795), (0.05, 1.795), (0.1, 1.73), (0.1, 1.67)]
        body.part(smooth(np.array(dome) + np.array([x, 0.0]), 1), tinted(wear.colour, 0.7), "hat")


def _face(body: Body, wear: Outfit, x: float) -> None:
    """Eyes in their shaded sockets, brows, nose and mouth."""
    add: Callable[..., None] = body.part
    skin = wear.skin
    for sign in (-1, 1):
        add(arc(sign * 0.033 + x, 1.648, 0.022, 0.012, n=10), tinted(skin, 0.8), "face", small=True, material="grain")
        add(arc(sign * 0.033 + x, 1.645, 0.011, 0.0055, n=8), srgb(0x2A1E1A), "face", small=True, material="grain")
        add(arc(sign * 0.034 + x, 1.668, 0.022, 0.005, n=8), tinted(wear.hair, 0.9), "face", small=True)
    nose = [(-0.006 + x, 1.65), (0.006 + x, 1.65), (0.017 + x, 1.603), (0.0 + x, 1.596), (-0.017 + x, 1.603)]
    add(nose, tinted(skin, 0.88), "face", warm=0.85, small=True, material="grain")
    mouth = tinted((skin[0], skin[1] * 0.75, skin[2] * 0.75), 0.62)
    add(arc(x, 1.565, 0.026, 0.007, n=10), mouth, "face", small=True, material="grain")
