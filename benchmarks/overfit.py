"""Whether the tiny presets can overfit eight samples: PSNR of their fused images over the steps.

    python benchmarks/overfit.py [--presets tiny-reg,tiny-fm] [--steps 400] [--every 100] [--set A.B=C ...]
    python benchmarks/overfit.py --tokenizer taesd3=DIR ...

Eight built-in scenes of 128 × 128, degraded once each; the trainer fits them and validates on the same samples. The
targets are 35 dB for tiny-reg and 28 dB for tiny-fm, within ten minutes on a CPU. With a lossy tokenizer the target is
its upper bound, the PSNR of the reconstructed ground truth: printed are the model's distance from it, and its PSNR
against the reconstructed ground truth.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import tempfile
import time
from pathlib import Path

import cv2
import torch
from PIL import Image
from torch import Tensor

from clearfuse.synth.builder.run import build
from clearfuse.synth.scenes import scene_pair
from clearfuse.train.data.batch import Batch
from clearfuse.train.data.corpus import index
from clearfuse.train.data.loader import batches
from clearfuse.train.data.samples import Samples
from clearfuse.train.pipeline.fusion import FusionPipeline
from clearfuse.train.runs.options import RunOptions
from clearfuse.train.runs.settings import Settings
from clearfuse.train.tokenizers.frozen import FrozenTokenizer
from clearfuse.train.training.trainer import fit

BARS = {"tiny-reg": 35.0, "tiny-fm": 28.0}
SAMPLES, SIDE = 8, 128


def eight(folder: Path) -> Path:
    """Shards of eight samples, to train and to validate on."""
    for number in range(2 * SAMPLES):  # part of a user's own folders is assigned to other splits
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


def psnr_of(images: Tensor, truth: Tensor) -> Tensor:
    """10 log10(4 / MSE) of each image: the range [−1, 1] has length 2."""
    return 10 * torch.log10(4 / (images - truth).square().mean((1, 2, 3)).clamp(min=1e-10))


def coded_once() -> None:
    """Cache the latents of frozen tokenizers, since the eight samples recur at every step."""
    kept: dict[bytes, Tensor] = {}
    encode = FrozenTokenizer.encode

    def remembered(self: FrozenTokenizer, images: Tensor) -> Tensor:
        names = [hashlib.blake2b(image.numpy().tobytes(), digest_size=16).digest() for image in images]
        for name, image in zip(names, images, strict=True):
            if name not in kept:
                kept[name] = encode(self, image[None])[0].clone()
        return torch.stack([kept[name] for name in names])

    FrozenTokenizer.encode = remembered


@torch.inference_mode()
def against_the_ceiling(run: str, shards: Path) -> str:
    """Mean PSNR of the reconstructed ground truth, of the fused images, and of these against the reconstruction."""
    assembly = FusionPipeline.from_pretrained(run).assembly
    data = Samples(index([str(shards)]), side=SIDE, training=False, guess=assembly.design.guess)
    (batch,) = batches(data, [range(len(data))])
    assert isinstance(batch, Batch)
    coded = assembly.tokenizer.decode(assembly.encode(batch.gt), (SIDE, SIDE)).clamp(-1, 1)
    fused = assembly.fuse(batch.a, batch.b, batch.prompts, torch.Generator().manual_seed(0), guess=batch.guess)
    pairs = {"ceiling": (coded, batch.gt), "model": (fused, batch.gt), "model to the ceiling's": (fused, coded)}
    means = {name: float(psnr_of(one.clamp(-1, 1), other).mean()) for name, (one, other) in pairs.items()}
    return ", ".join(f"{name} {mean:.2f} dB" for name, mean in means.items())


def main() -> None:
    """Print a line per validation, and a line per preset."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", default=",".join(BARS))
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--every", type=int, default=100)
    parser.add_argument("--set", action="append", default=[], dest="sets")
    parser.add_argument("--tokenizer", help="the tokenizer; default: the presets'")
    asked = parser.parse_args()
    coded_once()
    sets = [*asked.sets, *([f"tokenizer={asked.tokenizer}"] if asked.tokenizer else [])]
    with tempfile.TemporaryDirectory() as folder:
        shards = eight(Path(folder))
        for preset in asked.presets.split(","):
            settings = Settings.of(
                preset, sets=sets, steps=asked.steps, crop=SIDE, batch=SAMPLES, plain=0.0, rephrase=0.0
            )
            began, wall = time.process_time(), time.perf_counter()
            done = fit(
                [str(shards)], f"{folder}/{preset}", settings, note=lambda line: print(f"  {line}", flush=True),
                run_options=RunOptions(validate_every=asked.every, checkpoint_every=asked.steps, trackers=("none",)),
                device="cpu",
            )  # fmt: skip
            spent = f"{time.process_time() - began:.0f} s of processor time, {time.perf_counter() - wall:.0f} s in all"
            assert done.psnr is not None
            bar = None if asked.tokenizer else BARS.get(preset)
            said = "" if bar is None else f", bar {bar:.0f}: {'reached' if done.psnr > bar else 'missed'}"
            print(f"{preset}: {done.psnr:.2f} dB after {done.steps} steps{said}; {spent}", flush=True)
            if asked.tokenizer:
                print(f"  {against_the_ceiling(done.out, shards)}", flush=True)


if __name__ == "__main__":
    main()
