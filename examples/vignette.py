"""An operator: natural vignetting, the fall of light towards the corners of a simple lens.

    synth build --task vif --plugin examples/vignette.py --prompts examples/prompts --recipe examples/vignette.toml
    synth preview --task vif --op vignette --plugin examples/vignette.py --out vignette.png

``synth verify --replay`` of such shards needs the same file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from clearfuse import OPERATORS
from clearfuse.synth.operators.base import Image, Operator, Scene, Stage, severe

__version__ = "1.0"


@dataclass(frozen=True)
class Vignette(Operator):
    """The corners darken by cos⁴.

    E(r) = E(0) · cos⁴(arctan(r / f)), r the distance from the centre and f = (w / 2) / tan(angle / 2), all in pixels: a
    thin lens without an aperture behind it, in linear light.
    """

    name: ClassVar[str] = "vignette"
    stage: ClassVar[Stage] = "optics"
    unclipped: ClassVar[bool] = True
    modalities: ClassVar[frozenset] = frozenset({"visible"})
    source: ClassVar[str] = "the cos⁴ law of illumination, e.g. Hecht, Optics, 5.7.6"

    angle: float = severe(40.0, 100.0, "horizontal field of view", unit="°", low=0.0, high=170.0, identity=0.0)

    def __call__(self, image: Image, rng: np.random.Generator, scene: Scene) -> Image:
        """Takes and returns (h, w, c), values of 0 and more."""
        height, width = image.shape[:2]
        y, x = np.mgrid[:height, :width].astype(np.float32)
        across = math.tan(math.radians(self.angle) / 2) / (width / 2)  # 1 / f
        tangent2 = ((x - (width - 1) / 2) ** 2 + (y - (height - 1) / 2) ** 2) * np.float32(across**2)
        return image * (1 / (1 + tangent2) ** 2)[..., None]  # cos² = 1 / (1 + tan²)


OPERATORS["vignette"] = Vignette
