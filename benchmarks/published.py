"""The profile ``vifb`` against the table that the toolbox publishes, metric by metric.

    python benchmarks/published.py [--vifb DIR]

DIR holds ``input/{VI,IR}``, ``output/fused_images`` and ``published_metrics.csv``. Relative errors: the median, the
largest, the share within 2e-4; SwinFusion and YDTR apart, whose stored pictures are not the ones that were measured.
"""

from __future__ import annotations

import argparse
import csv
import os
from collections import defaultdict
from pathlib import Path

import numpy as np
from PIL import Image

from train.metrics import evaluate

SHARED = Path(os.environ.get("CLEARFUSE_SHARED", Path(__file__).resolve().parent.parent.parent / "shared"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vifb", type=Path, default=SHARED / "data" / "vif" / "VIFB")
    root: Path = parser.parse_args().vifb
    with (root / "published_metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    names = [name for name in rows[0] if name not in ("image", "method")]
    errors: dict[tuple[str, bool], list[float]] = defaultdict(list)
    for row in rows:
        stem = f"{row['image']}_{row['method']}"
        fused = np.asarray(Image.open(root / "output" / "fused_images" / f"{stem}.jpg"))
        sources = (np.asarray(Image.open(root / "input" / side / f"{row['image']}.jpg")) for side in ("VI", "IR"))
        found = evaluate(fused, *sources, metrics=names, profile="vifb")
        for name in names:
            remade = row["method"] in ("SwinFusion", "YDTR")
            errors[name, remade].append(abs(found[name] / float(row[name]) - 1))
    print(f"{'metric':<20} {'median':>8} {'largest':>8} {'within 2e-4':>12} {'of':>4} {'remade: median':>15}")
    for name in names:
        kept, other = np.array(errors[name, False]), np.array(errors[name, True])
        share = f"{np.mean(kept <= 2e-4):.1%}"
        figures = f"{np.median(kept):>8.1e} {kept.max():>8.1e} {share:>12} {len(kept):>4} {np.median(other):>15.1e}"
        print(f"{name:<20} {figures}")


if __name__ == "__main__":
    main()
