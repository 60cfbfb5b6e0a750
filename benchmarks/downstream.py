"""A tiny detector trained on fused built-in scenes, scored on ground truth and on what degraded pairs are fused to.

    python benchmarks/downstream.py --out downstream-work

It exits with 1 unless the ground truth scores higher than the fusion of the degraded pairs. The same command goes on
where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path


def main() -> None:
    """Fit, evaluate and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("downstream-work"))
    parser.add_argument("--scenes", type=int, default=240, help="to train on")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--limit", type=int, default=100, help="scenes to score on")
    parser.add_argument("--workers", default="2")
    given = parser.parse_args()
    net, report = given.out / "net", given.out / "report"
    train = [sys.executable, "-m", "clearfuse", "train", "downstream"]
    more = ["--workers", given.workers, "--device", "cpu"]
    if not (net / "downstream.json").is_file():
        fit = ["--kind", "detection", "--limit", str(given.scenes), "--steps", str(given.steps), "--out", str(net)]
        subprocess.run([*train, "fit", *fit, *more], check=True)
    methods = [word for name in ("a", "b", "pyramid", "gt") for word in ("--method", name)]
    degraded = ["--recipe", "vif", "--n", "2", "--limit", str(given.limit), "--out", str(report)]
    subprocess.run([*train, "eval", str(net), *methods, *degraded, *more], check=True)
    found = json.loads((report / "report.json").read_bytes())["methods"]
    print((report / "report.md").read_text())
    gain = found["gt"]["AP50"] - found["pyramid"]["AP50"]
    print(f"AP50 of the ground truth over the fusion of the degraded pairs: {100 * gain:+.2f} points")
    sys.exit(0 if gain > 0 and found["gt"]["AP"] > found["pyramid"]["AP"] else 1)


if __name__ == "__main__":
    main()
