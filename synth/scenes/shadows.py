"""Shadows on level ground: what hides the sun, and what stands so close that it hides the sky."""

from __future__ import annotations

import math

import cv2
import numpy as np

from synth.scenes.faces import Real
from synth.scenes.renderer import Frame
from synth.scenes.view import View, clip_near


def cast_shadow(frame: Frame, contours: list[np.ndarray], *, soft: Real = 0.0) -> None:
    """Darken the ground's sunlight where world polygons stand between it and the sun: p - s (p_y / s_y)."""
    s = np.array(frame.light.sun_from, float)
    view = frame.view
    for contour in contours:
        flat = contour - s[None, :] * (np.maximum(contour[:, 1], 0) / s[1])[:, None]
        _stain(frame.sunlit, flat, view, 0)


def ground_contact(frame: Frame, x: Real, z: Real, rx: Real, rz: Real, heading: Real = 0.0, dark: Real = 0.35) -> None:
    """Darken all light in an ellipse on the ground: what a thing standing there hides from the sky."""
    t = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    c, s = math.cos(heading), math.sin(heading)
    for grow, level in ((1.35, dark * 0.35 + 0.65), (1.1, dark * 0.7 + 0.3), (0.85, dark)):
        a, b = rx * grow * np.cos(t), rz * grow * np.sin(t)
        _stain(frame.contact, np.stack([x + a * c - b * s, 0 * t, z + a * s + b * c], -1), frame.view, level)


def _stain(mask: np.ndarray, flat: np.ndarray, view: View, level: Real) -> None:
    camera = clip_near(view.to_camera(flat))
    if len(camera) < 3:
        return
    points = np.rint(view.pixels(camera).clip(-20000, 20000) * 16).astype(np.int32)
    cv2.fillPoly(mask, [points], level, cv2.LINE_8, 4)
