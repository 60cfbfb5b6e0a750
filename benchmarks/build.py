"""Time of a build, relative to decoding its inputs and encoding its outputs only, and speed-up by a second worker.

Without start-up: each figure is the difference between a build of all pairs and one of a few. The targets, at most 1.5
times that minimum and at least 1.8 times faster with two workers, are for WebP; PNG and JPEG XL are shown as well.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import cv2
from PIL import Image

from clearfuse.synth.builder.run import build
from clearfuse.synth.datasets.read import read_image
from clearfuse.synth.scenes import scene_pair
from clearfuse.synth.shards.codecs import CODECS
from clearfuse.synth.shards.sample import encode_sample, read_samples
from clearfuse.synth.types import UserError

FEW, PAIRS = 4, 28
VARIANTS = {(640, 480): 14, (1280, 1024): 4}
"""Samples per pair, so that a build takes a minute."""


def make_pairs(folder: Path, width: int, height: int) -> dict[int, str]:
    """Clean pairs on disk as PNG; returns the value of --data for a few and for all of them."""
    for number in range(PAIRS):
        pair = scene_pair("vif", number, (width, height))
        for count in (FEW, PAIRS):
            if number < count:
                for name, image in (("a", pair.a), ("b", pair.b[..., 0])):
                    (folder / f"{count}/{name}").mkdir(parents=True, exist_ok=True)
                    Image.fromarray(image).save(folder / f"{count}/{name}/{number}.png", compress_level=1)
    return {count: f"folder={folder / f'{count}/a'},{folder / f'{count}/b'}" for count in (FEW, PAIRS)}


def timed(folder: Path, data: str, workers: int, variants: int, codec: str) -> tuple[float, int]:
    """Seconds of a build, and its samples."""
    began = time.perf_counter()
    build(
        "vif", data=[data], out=str(folder), n="3", variants=variants, workers=workers, shard_size=8, max_rejects=0.0,
        codec=codec,
    )  # fmt: skip
    spent = time.perf_counter() - began
    return spent, sum(1 for shard in folder.glob("*.tar") for _ in read_samples(shard))


def rate(root: Path, data: dict[int, str], workers: int, variants: int, codec: str) -> tuple[float, int]:
    """Seconds per sample without start-up, and the samples of the larger build."""
    name = f"{codec}-{workers}"
    few, fewer = timed(root / f"{name}-few", data[FEW], workers, variants, codec)
    spent, count = timed(root / name, data[PAIRS], workers, variants, codec)
    return (spent - few) / (count - fewer), count


def floor(folder: Path, source: Path, codec: str) -> float:
    """Seconds per sample for decoding the sources and encoding the members only."""
    spent, count = 0.0, 0
    for shard in sorted(folder.glob("*.tar")):
        for sample in read_samples(shard):
            began = time.perf_counter()
            for name in ("a", "b"):
                read_image(str(source / name / f"{sample.meta.pair}.png"))
            encode_sample(sample, CODECS[codec])
            spent += time.perf_counter() - began
            count += 1
    return spent / count


def main() -> None:
    """Print the table."""
    cv2.setNumThreads(1)
    heads = ("codec", "samples", "floor ms", "1 worker ms", "over floor", "2 workers ms", "speed-up")
    print(f"{'size':>12}" + "".join(f"{head:>13}" for head in heads))
    for (width, height), variants in VARIANTS.items():
        with tempfile.TemporaryDirectory() as name:
            root = Path(name)
            data = make_pairs(root, width, height)
            for codec in CODECS:
                some = variants if codec == "webp" else max(variants // 4, 1)
                try:
                    one, count = rate(root, data, 1, some, codec)
                    two, _ = rate(root, data, 2, some, codec)
                except UserError as error:
                    print(f"{f'{width}x{height}':>12}{codec:>13}  {error}")
                    continue
                least = floor(root / f"{codec}-1", root / str(PAIRS), codec)
                figures = (f"{1e3 * least:.0f}", f"{1e3 * one:.0f}", f"{one / least:.2f}", f"{1e3 * two:.0f}")
                cells = (codec, str(count), *figures, f"{one / two:.2f}")
                print(f"{f'{width}x{height}':>12}" + "".join(f"{cell:>13}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
