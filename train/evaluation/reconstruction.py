"""Reconstruction quality of tokenizers: PSNR, SSIM and time over a set of images, as in MMAIF's table 1."""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from clearfuse.synth.datasets.find import builtin_pairs, find_all, own_task
from clearfuse.synth.datasets.manifest import load_manifest
from clearfuse.synth.datasets.read import read_pair
from clearfuse.synth.datasets.select import Match, folders, with_match
from clearfuse.synth.execute.tasks import limit_threads
from clearfuse.synth.shards.sample import read_samples
from clearfuse.synth.types import BadPair, PairRef, UserError
from clearfuse.train.data.batch import to_tensor
from clearfuse.train.data.find import find_local_shards
from clearfuse.train.device import find_device, keep_freed_memory
from clearfuse.train.evaluation.samples import count_samples, spread
from clearfuse.train.metrics import evaluate
from clearfuse.train.tokenizers import NAMES, Tokenizer, find_tokenizer

Progress = Callable[[int, int], None]

PAPER = {"flux": (33.41, 0.9227), "asymmetric": (33.10, 0.9201), "cosmos": (34.02, 0.9367)}
"""(PSNR, SSIM) in MMAIF's table 1, over SICE and LLVIP."""

MAX_PSNR = 100.0
"""PSNR in dB of a lossless reconstruction, so that a mean stays finite."""

SCENES = 8


@dataclass(frozen=True)
class TokenizerRow:
    """A tokenizer's means over the images. f, z: see ``Tokenizer``; encode, decode: milliseconds per image."""

    name: str
    f: int
    z: int
    psnr: float
    ssim: float
    encode: float
    decode: float


@dataclass(frozen=True)
class Table:
    """The tokenizers, compared on the same images. pictures: their number; megapixels: mean per image."""

    rows: tuple[TokenizerRow, ...]
    pictures: int
    megapixels: float
    device: str


def reconstruct(
    names: Sequence[str],
    *,
    data: Sequence[str] = (),
    shards: Sequence[str] = (),
    match: Match = None,
    limit: int | None = None,
    crop: int | None = None,
    device: str | None = None,
    progress: Progress = lambda done, total: None,
) -> Table:
    """Encode and decode the clean images of data sets (``NAME=DIR``) and shards; without any, of built-in scenes.

    match: patterns of names in your own folders. limit: number of pairs, spread evenly over all. crop: side of a centre
    crop in pixels. Raises UserError before work begins.
    """
    limit_threads()
    where = find_device(device)
    keep_freed_memory(where)
    sources = _sources(data, shards, limit, match)
    loaded = {name: find_tokenizer(name).tokenizer.to(where) for name in dict.fromkeys(names or ("dct",))}
    results: dict[str, list[tuple[float, ...]]] = {name: [] for name in loaded}
    areas: list[float] = []
    total = 2 * sum(count for count, _ in sources)
    for image in (image for _, images in sources for image in images()):
        image = _centre_crop(image, crop)
        areas.append(image.shape[0] * image.shape[1] / 1e6)
        for name, tokenizer in loaded.items():
            if not results[name]:
                _reconstruct(tokenizer, image, where)  # warm-up
            output, *times = _reconstruct(tokenizer, image, where)
            scores = evaluate(output, image, image, image, metrics=["PSNR", "SSIM"])
            results[name].append((min(scores["PSNR"], MAX_PSNR), scores["SSIM"], *times))
        progress(len(areas), total)
    means = {name: [statistics.fmean(column) for column in zip(*rows, strict=True)] for name, rows in results.items()}
    rows = (TokenizerRow(name, tokenizer.f, tokenizer.z, *means[name]) for name, tokenizer in loaded.items())
    return Table(tuple(rows), len(areas), statistics.fmean(areas), where.type)


Images = Callable[[], Iterator[UInt8[np.ndarray, "h w 3"]]]


def _sources(data: Sequence[str], shards: Sequence[str], limit: int | None, match: Match) -> list[tuple[int, Images]]:
    """(number of pairs, their images) of each data set and shard, ``limit`` pairs spread over them."""
    counts: list[int] = []
    readers: list[Callable[[int], Iterator[tuple[np.ndarray, np.ndarray]]]] = []
    for name, location in folders(with_match(data, match), "--data ").items():
        manifest = load_manifest(name)
        refs = find_all(manifest, location, own_task(manifest)).pairs
        counts.append(len(refs))
        readers.append(_reader(refs))
    for path in find_local_shards(shards):
        counts.append(count_samples(path)[0])
        readers.append(_shard_reader(path))
    if not counts:
        refs = builtin_pairs("vif", "test", SCENES)
        counts, readers = [len(refs)], [_reader(refs)]
    takes = spread(min(limit or sum(counts), sum(counts)), counts)
    return [(take, _in_colour(reader, take)) for take, reader in zip(takes, readers, strict=True) if take]


def _reader(refs: Sequence[PairRef]) -> Callable[[int], Iterator[tuple[np.ndarray, np.ndarray]]]:
    def read(take: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for i in range(take):  # spread over the set: neighbours are often of the same scene
            ref = refs[i * len(refs) // take]
            try:
                pair = read_pair(ref)
            except BadPair as error:
                raise UserError(f"--data {ref.dataset}: {ref.key}: {error}") from None
            yield pair.a, pair.b

    return read


def _shard_reader(path: Any) -> Callable[[int], Iterator[tuple[np.ndarray, np.ndarray]]]:
    def read(take: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for number, sample in enumerate(read_samples(path)):
            if number == take:
                return
            a, b = ("a", "b") if sample.meta.real else ("clean_a", "clean_b")
            yield sample.images[a], sample.images[b]

    return read


def _in_colour(read: Callable[[int], Iterator[tuple[np.ndarray, np.ndarray]]], take: int) -> Images:
    """Both images of each pair, grey ones with three equal channels."""

    def images() -> Iterator[np.ndarray]:
        for pair in read(take):
            for image in pair:
                yield np.repeat(image, 3, 2) if image.shape[2] == 1 else image

    return images


def _centre_crop(image: np.ndarray, side: int | None) -> np.ndarray:
    if side is None:
        return image
    y, x = (max(length - side, 0) // 2 for length in image.shape[:2])
    return np.ascontiguousarray(image[y : y + side, x : x + side])


@torch.inference_mode()
def _reconstruct(tokenizer: Tokenizer, image: np.ndarray, device: torch.device) -> tuple[np.ndarray, float, float]:
    """The reconstruction, uint8, and the milliseconds to encode and to decode."""
    tensor = to_tensor([image]).to(device)
    start = _now(device)
    latents = tokenizer.encode(tensor)
    encoded = _now(device)
    output: Tensor = tokenizer.decode(latents, (tensor.shape[2], tensor.shape[3]))
    end = _now(device)
    codes = ((output[0].clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    return codes, 1e3 * (encoded - start), 1e3 * (end - encoded)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def to_json(table: Table) -> dict[str, Any]:
    """The object that ``train tokenizers --json`` prints; ``paper`` is null where table 1 has no such row."""
    rows = [{**dataclasses.asdict(row), "paper": PAPER.get(row.name.partition("=")[0])} for row in table.rows]
    return {**dataclasses.asdict(table), "rows": rows}


def to_text(table: Table) -> str:
    """The table that ``train tokenizers`` prints."""
    head = ("tokenizer", "f", "z", "PSNR", "SSIM", "encode ms", "decode ms", "paper PSNR", "SSIM")
    lines = [head]
    for row in table.rows:
        paper = PAPER.get(row.name.partition("=")[0])
        psnr = "lossless" if math.isclose(row.psnr, MAX_PSNR) else f"{row.psnr:.2f}"
        times = (f"{row.encode:.1f}", f"{row.decode:.1f}")
        published = (f"{paper[0]:.2f}", f"{paper[1]:.4f}") if paper else ("", "")
        lines.append((row.name, str(row.f), str(row.z), psnr, f"{row.ssim:.4f}", *times, *published))
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    padded = ("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)
    size = f"{table.pictures} pictures of {table.megapixels:.3g} megapixels, on {table.device}"
    return "\n".join([*padded, f"{size}; the paper's figures are over SICE and LLVIP"])


def others(names: Sequence[str]) -> list[str]:
    """The named tokenizers that are not among ``names``."""
    given = {name.partition("=")[0].partition("@")[0] for name in names}
    return [name for name in NAMES if name not in given]
