"""Whether the tiny presets can learn eight samples by heart: PSNR of their fused images against the steps.

    python benchmarks/overfit.py [--presets tiny-reg,tiny-fm] [--steps 400] [--every 100] [--set A.B=C ...]

Eight built-in scenes of 128 × 128, degraded once each; the trainer fits them and validates on the very same samples.
The bars are 35 dB for tiny-reg and 28 dB for tiny-fm, within ten minutes on a CPU.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import cv2
from PIL import Image

from synth.builder import build
from synth.scenes import scene_pair
from train.runs import Settings
from train.trainer import fit

BARS = {"tiny-reg": 35.0, "tiny-fm": 28.0}
SAMPLES, SIDE = 8, 128


def eight(folder: Path) -> Path:
    """Shards of eight samples, once to train on and once to validate on."""
    for number in range(2 * SAMPLES):  # of one's own folders a part is held out for other splits
        pair = scene_pair("vif", number, (4 * SIDE, 4 * SIDE))
        for name, image in (("a", pair.a), ("b", pair.b[..., 0])):
            (folder / name).mkdir(exist_ok=True)
            small = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
            Image.fromarray(small).save(folder / name / f"{number}.png")
    out = folder / "shards"
    build(
        "vif", data=[f"folder={folder / 'a'},{folder / 'b'}"], out=str(out), sets=["ratios={'1:1'=1}"], limit=SAMPLES,
        executor="serial", workers=1,
    )  # fmt: skip
    for shard in sorted(out.glob("vif-train-*")):
        shutil.copy(shard, out / shard.name.replace("train", "val"))
    return out


def main() -> None:
    """A line a validation, and a line a preset."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", default=",".join(BARS))
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--every", type=int, default=100)
    parser.add_argument("--set", action="append", default=[], dest="sets")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        shards = eight(Path(folder))
        for preset in asked.presets.split(","):
            settings = Settings.of(
                preset, sets=asked.sets, steps=asked.steps, crop=SIDE, batch=SAMPLES, plain=0.0, rephrase=0.0
            )
            began, wall = time.process_time(), time.perf_counter()
            done = fit(
                [str(shards)], f"{folder}/{preset}", settings, note=lambda line: print(f"  {line}", flush=True),
                validate_every=asked.every, checkpoint_every=asked.steps, device="cpu",
            )  # fmt: skip
            spent = f"{time.process_time() - began:.0f} s of processor time, {time.perf_counter() - wall:.0f} s in all"
            assert done.psnr is not None
            bar = BARS.get(preset)
            said = "" if bar is None else f", bar {bar:.0f}: {'reached' if done.psnr > bar else 'missed'}"
            print(f"{preset}: {done.psnr:.2f} dB after {done.steps} steps{said}; {spent}", flush=True)


if __name__ == "__main__":
    main()
