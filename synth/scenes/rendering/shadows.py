"""Shadows on level ground: cast by the sun, and contact shadows, where an object blocks the light of the sky."""

from __future__ import annotations

import math

import cv2
import numpy as np

from clearfuse.synth.scenes.rendering.faces import Real
from clearfuse.synth.scenes.rendering.renderer import Frame, Stain
from clearfuse.synth.scenes.rendering.view import NEAR, clip_near, fixed_point

_TURN = np.linspace(0, 2 * np.pi, 20, endpoint=False)
_RING = np.stack([np.cos(_TURN), np.sin(_TURN)], -1)


def cast_shadow(frame: Frame, contours: list[np.ndarray]) -> None:
    """Cast the sun's shadow of polygons in world coordinates, each ``(k, 3)``, on the ground."""
    frame.stains += [Stain(contour, True, 0) for contour in contours]


def ground_contact(frame: Frame, x: Real, z: Real, rx: Real, rz: Real, heading: Real = 0.0, dark: Real = 0.35) -> None:
    """Add a contact shadow, an ellipse on the ground that darkens all light. rx, rz: metres; dark: remaining light."""
    c, s = math.cos(heading), math.sin(heading)
    turned = _RING @ np.array([[rx * c, rx * s], [-rz * s, rz * c]])
    for grow, level in ((1.35, dark * 0.35 + 0.65), (1.1, dark * 0.7 + 0.3), (0.85, dark)):
        contour = np.zeros((len(_RING), 3))
        contour[:, ::2] = turned * grow + (x, z)
        frame.stains.append(Stain(contour, False, level))


def soften(frame: Frame) -> None:
    """Render and blur the shadows; penumbrae are one or two thousandths of the image's width.

    A shadow falls at p - s (p_y / s_y), s the direction to the sun.
    """
    view, shape = frame.view, frame.sunlit.shape
    sunlit, contact = np.full(shape, 255, np.uint8), np.full(shape, 255, np.uint8)
    if frame.stains:
        s = np.array(frame.light.sun_from, float)
        flat = np.concatenate([stain.contour for stain in frame.stains])
        sizes = np.array([len(stain.contour) for stain in frame.stains])
        starts = np.cumsum(sizes) - sizes
        falls = np.repeat([stain.sun for stain in frame.stains], sizes)
        camera = view.to_camera(flat - s[None, :] * (falls * np.maximum(flat[:, 1], 0) / s[1])[:, None])
        cut = (np.minimum.reduceat(camera[:, 2], starts) < NEAR).tolist()
        pixel = fixed_point(view.pixels(np.where(camera[:, 2:] < NEAR, (0.0, 0.0, NEAR), camera)))
        for stain, start, size, behind in zip(frame.stains, starts.tolist(), sizes.tolist(), cut, strict=True):
            points = pixel[start : start + size]
            if behind:
                whole = clip_near(camera[start : start + size])
                if len(whole) < 3:
                    continue
                points = fixed_point(view.pixels(whole))
            cv2.fillPoly(sunlit if stain.sun else contact, [points], 255 * stain.level, cv2.LINE_8, 4)
        frame.stains.clear()
    sigma = max(view.width / 500, 0.4)
    frame.sunlit = cv2.GaussianBlur(sunlit, (0, 0), sigma).astype(np.float32) * np.float32(1 / 255)
    frame.contact = cv2.GaussianBlur(contact, (0, 0), sigma * 1.6).astype(np.float32) * np.float32(1 / 255)
