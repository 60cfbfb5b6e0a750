"""A competitor's table: another method on the very samples that our models are scored on.

    python examples/other_method.py shards/vif-test out
    cat out/report/report.md                                  # and report.tex, report.html with pictures, report.csv

Any program can take the place of ``fuse``: it reads out/inputs/TASK/{a,b}/KEY.png and writes out/results/TASK/KEY.png.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np

from clearfuse.synth.cli.app import app as synth
from clearfuse.train.cli.app import app as train


def fuse(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The brighter of both at each pixel."""
    return np.maximum(a, b)


def compare(shards: str, out: Path) -> Path:
    """The report's folder: ours beside "Brighter"."""
    synth(["extract", shards, "--out", str(out / "inputs")], standalone_mode=False)
    for a in sorted((out / "inputs").glob("*/a/*.png")):
        result = out / "results" / a.parts[-3] / a.name
        result.parent.mkdir(parents=True, exist_ok=True)
        b = a.parent.parent / "b" / a.name
        cv2.imwrite(str(result), fuse(cv2.imread(str(a)), cv2.imread(str(b))))
    report = out / "report"
    options = ["--results", f"Brighter={out / 'results'}", "--metrics", "PSNR,SSIM,VIF", "--out", str(report)]
    train(["eval", shards, "--fuser", "none", *options], standalone_mode=False)
    return report


if __name__ == "__main__":
    print((compare(sys.argv[1], Path(sys.argv[2])) / "report.md").read_text())
