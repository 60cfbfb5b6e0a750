"""Real pictures with a network's relative inverse depth, where they are on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from clearfuse.synth.depth.inverse import metric
from clearfuse.synth.depth.metres import USUAL_FAR

SETS = {"MSRS": "test/vi", "RoadScene": "crop_LR_visible", "LLVIP": "visible/*", "M3FD": "Vis"}


def real_maps(shared: Path, name: str, most: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pictures that no network of ours was trained on, with a network's map of each in metres."""
    maps = shared / "data" / "depth" / name
    found = sorted((shared / "data/vif" / name).glob(f"{SETS[name]}/*"))
    found = [path for path in found if (maps / f"{path.stem}.png").is_file()]
    for path in found[-30 :: max(min(len(found), 30) // most, 1)]:
        read = cv2.imread(str(path))
        inverse = cv2.imread(str(maps / f"{path.stem}.png"), cv2.IMREAD_UNCHANGED)
        assert read is not None and inverse is not None
        scale = 320 / read.shape[1]
        image = cv2.resize(
            np.ascontiguousarray(read[..., ::-1]), None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA
        )
        yield image, metric(inverse.astype(np.float32), image, USUAL_FAR)
