"""A metric: colourfulness of the fused image.

train eval shards/vif --model small --plugin examples/colourfulness.py --metrics PSNR,Colourfulness
train metrics A B FUSED --plugin examples/colourfulness.py --metrics colourfulness
"""

from __future__ import annotations

import numpy as np

from clearfuse.train.metrics import METRICS, Metric

__version__ = "1.0"


def colourfulness(fused: np.ndarray) -> float:
    """M = √(σ²_rg + σ²_yb) + 0.3 √(μ²_rg + μ²_yb), rg = R − G, yb = (R + G) / 2 − B; 0 where all is grey.

    fused: (h, w, 1 or 3), code values in [0, 255]. Source: Hasler and Süsstrunk, Human Vision and Electronic Imaging
    VIII (2003), eq. 7.
    """
    red, green, blue = np.moveaxis(np.broadcast_to(fused, (*fused.shape[:2], 3)).astype(np.float64), 2, 0)
    rg, yb = red - green, (red + green) / 2 - blue
    return float(np.hypot(rg.std(), yb.std()) + 0.3 * np.hypot(rg.mean(), yb.mean()))


METRICS["Colourfulness"] = Metric(
    "Colourfulness", colourfulness, "higher", "no-reference", "spread and mean of opponent colours", takes="colour"
)
