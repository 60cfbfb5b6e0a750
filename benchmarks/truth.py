"""Quality of the weight-free ground truth on real pairs, beside published results and OpenCV's Mertens fusion.

    python benchmarks/truth.py [--data DIR]

DIR contains vif/VIFB, mff/Lytro, mff/NYU-D-100 and mef/MEFB. Targets are this project's requirements; published figures
are those of the toolboxes.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from clearfuse.synth.datasets.find import find_all
from clearfuse.synth.datasets.manifest import load_manifest
from clearfuse.synth.datasets.read import CleanPair, read_pair
from clearfuse.synth.fusers import FUSERS
from clearfuse.synth.types import Task
from clearfuse.train.metrics import evaluate

SHARED = Path(os.environ.get("CLEARFUSE_SHARED", Path(__file__).resolve().parent.parent.parent / "shared"))
PSNR_CAP = 60.0
"""Upper limit in dB, since files may be identical."""


def pairs(name: str, folder: Path, task: Task) -> Iterator[CleanPair]:
    """The pairs of a data set whose images have equal size."""
    for ref in find_all(load_manifest(name), str(folder), task).pairs:
        pair = read_pair(ref)
        if pair.a.shape[:2] == pair.b.shape[:2]:
            yield pair


def mertens(pair: CleanPair) -> np.ndarray:
    """OpenCV's exposure fusion with its defaults."""
    stack = [np.ascontiguousarray(np.broadcast_to(x[..., ::-1], (*x.shape[:2], 3))) for x in (pair.a, pair.b)]
    fused = cv2.createMergeMertens().process(stack)[..., ::-1]
    return np.clip(fused * 255 + 0.5, 0, 255).astype(np.uint8)


def line(what: str, value: float, bar: float, beside: str = "") -> None:
    """One row of the table."""
    print(f"{what:<34}{value:>9.4f}{bar:>9.4g}  {'yes' if value >= bar else 'NO':<5}{beside}", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=SHARED / "data")
    data: Path = parser.parse_args().data
    fuse = FUSERS["pyramid"]()
    print(f"{'':<34}{'ours':>9}{'bar':>9}  met")
    for name, at, task, bar, best in (
        ("vifb", "vif/VIFB", "vif", 0.689, "best published there 0.658"),
        ("lytro", "mff/Lytro", "mff", 0.7615, "MFIF-GAN 0.758"),
    ):
        scores = [
            evaluate(fuse(pair.a, pair.b, task), pair.a, pair.b, metrics=["Qabf"])["Qabf"]
            for pair in pairs(name, data / at, task)
        ]
        line(f"{name}: mean Qabf of {len(scores)}", float(np.mean(scores)), bar, best)
    against = [
        evaluate(fuse(pair.a, pair.b, "mff"), pair.a, pair.b, pair.gt, ["PSNR", "SSIM"])
        for pair in pairs("nyud", data / "mff/NYU-D-100", "mff")
    ]
    psnr = [min(each["PSNR"], PSNR_CAP) for each in against]
    line(f"nyud: median PSNR of {len(psnr)}", float(np.median(psnr)), 53.45)
    line("nyud: worst PSNR", min(psnr), 45)
    line("nyud: median SSIM", float(np.median([each["SSIM"] for each in against])), 0.998)
    rows: list[tuple[dict[str, float], dict[str, float]]] = []
    for pair in pairs("mefb", data / "mef/MEFB", "mef"):
        both = [
            evaluate(fused, pair.a, pair.b, metrics=["Qabf", "MEF-SSIM"])
            for fused in (fuse(pair.a, pair.b, "mef"), mertens(pair))
        ]
        rows.append((both[0], both[1]))
    for name in ("Qabf", "MEF-SSIM"):
        ours, theirs = (float(np.mean([row[k][name] for row in rows])) for k in (0, 1))
        line(f"mefb: mean {name} of {len(rows)}", ours, theirs, "OpenCV's Mertens")


if __name__ == "__main__":
    main()
