"""A build against the floor of decoding its inputs and encoding its outputs alone, and two workers against one."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import cv2
from PIL import Image

from synth.builder import build
from synth.codecs import CODECS
from synth.pairs import read_image
from synth.scenes import scene_pair
from synth.shards import encode_sample, read_samples

PAIRS = 24
SIZES = ((640, 480), (1280, 1024))


def make_pairs(folder: Path, width: int, height: int) -> str:
    """Clean pairs on disk as PNG; returns the value of --data."""
    for number in range(PAIRS):
        pair = scene_pair("vif", number, (width, height))
        for name, image in (("a", pair.a), ("b", pair.b[..., 0])):
            (folder / name).mkdir(exist_ok=True)
            Image.fromarray(image).save(folder / name / f"{number}.png", compress_level=1)
    return f"folder={folder / 'a'},{folder / 'b'}"


def timed(folder: Path, data: str, workers: int) -> float:
    """Seconds of a build with everything warm."""
    began = time.perf_counter()
    build("vif", data=[data], out=str(folder), n="3", variants=4, workers=workers, shard_size=8, max_rejects=0.0)
    return time.perf_counter() - began


def floor(folder: Path, source: Path) -> float:
    """Seconds to decode the sources of each sample and encode its members, and nothing else."""
    spent = 0.0
    for shard in sorted(folder.glob("*.tar")):
        for sample in read_samples(shard):
            began = time.perf_counter()
            for name in ("a", "b"):
                read_image(str(source / name / f"{sample.meta['pair']}.png"))
            encode_sample(sample, CODECS["webp"])
            spent += time.perf_counter() - began
    return spent


def main() -> None:
    """Print the table."""
    cv2.setNumThreads(1)
    heads = ("samples", "floor s", "1 worker s", "over floor", "2 workers s", "speed-up")
    print(f"{'size':>12}" + "".join(f"{head:>13}" for head in heads))
    for width, height in SIZES:
        with tempfile.TemporaryDirectory() as name:
            root = Path(name)
            data = make_pairs(root, width, height)
            one = timed(root / "one", data, 1)
            two = timed(root / "two", data, 2)
            least = floor(root / "one", root)
            count = sum(1 for shard in (root / "one").glob("*.tar") for _ in read_samples(shard))
            figures = (f"{least:.1f}", f"{one:.1f}", f"{one / least:.2f}", f"{two:.1f}", f"{one / two:.2f}")
            print(f"{f'{width}x{height}':>12}{count:>13}" + "".join(f"{figure:>13}" for figure in figures))


if __name__ == "__main__":
    main()
