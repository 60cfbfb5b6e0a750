"""AdamW with and without the cautious mask: steps to the same loss, with the same samples, noise and initial weights.

    python benchmarks/cautious.py [--preset tiny-reg] [--steps 400] [--batch 4] [--shards DIR]

Two runs with the same schedule. The training loss is averaged over 50 steps; the result is the first step at which the
cautious run reaches the final loss of AdamW. Without ``--shards``: built-in scenes, VIF, one to three degradations.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

from clearfuse.synth.builder.run import build
from clearfuse.train.runs.logs import LOG
from clearfuse.train.runs.options import RunOptions
from clearfuse.train.runs.settings import Settings
from clearfuse.train.training.trainer import fit

OVER = 50


def curve(shards: str, out: Path, settings: Settings) -> tuple[np.ndarray, float | None]:
    """The mean training loss over the last steps, at each step, and the lowest validation loss."""
    done = fit(
        [shards],
        str(out),
        settings,
        run_options=RunOptions(validate_every=100, checkpoint_every=10**6, trackers=("none",)),
    )
    lines = [json.loads(line) for line in (out / LOG).read_text().splitlines()]
    losses = np.array([line["error"] for line in lines if line["kind"] == "train"])
    return np.convolve(losses, np.ones(OVER) / OVER, "valid"), done.validation


def main() -> None:
    """Print both final losses and the step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="tiny-reg")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--shards")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        shards = args.shards or f"{folder}/shards"
        if not args.shards:
            build("vif", out=shards, n="1-3", variants=2)
        settings = Settings.of(args.preset, steps=args.steps, batch=args.batch)
        found = {
            name: curve(shards, Path(folder) / name, settings.model_copy(update={"cautious": name == "cautious"}))
            for name in ("adamw", "cautious")
        }
    for name, (losses, validation) in found.items():
        print(f"{name:<10} training loss {losses[-1]:.4f} at the end, lowest validation loss {validation}")
    end = found["adamw"][0][-1]
    there = np.flatnonzero(found["cautious"][0] <= end)
    if len(there):
        step = int(there[0]) + OVER
        print(f"the cautious run is there after {step} of {args.steps} steps ({step / args.steps:.2f})")
    else:
        print("the cautious run does not get there")


if __name__ == "__main__":
    main()
