"""Shards of ours in the layout of others: that of the MMAIF authors' training code.

WebDataset tars ``0000.tar``, ``0001.tar`` ... of at most a gibibyte, a sample's members ``info.json``, ``gt.jpg``,
``m1_clean.jpg``, ``m2_clean.jpg``, ``m1_degraded.jpg`` and ``m2_degraded.jpg``. Theirs also hold a tokenizer's latents
and the embedding of the instruction (``encoded_*.npy``), which their own encoding makes.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from clearfuse.synth.files.folders import new_folder
from clearfuse.synth.files.storage import local
from clearfuse.synth.seeds import content_key
from clearfuse.synth.shards.find import Shards, find_shards
from clearfuse.synth.shards.sample import Sample, read_samples
from clearfuse.synth.shards.tar import write_shard
from clearfuse.synth.types import UserError, unknown

FORMATS = ("mmaif",)
QUALITY = 75
"""Of the authors' JPEGs: Pillow's default."""
MOST_BYTES = 1 << 30
"""Of a tar's members."""
LONGEST_KEY = 60

Progress = Callable[[int, int], None]
Packed = tuple[str, dict[str, bytes]]


@dataclass(frozen=True)
class Exported:
    """What was written: samples and tars."""

    samples: int
    shards: int


def export(
    paths: Sequence[str],
    out: str,
    layout: str,
    *,
    quality: int = QUALITY,
    most_bytes: int = MOST_BYTES,
    progress: Progress = lambda done, total: None,
) -> Exported:
    """Write the samples of shards to the new folder ``out``, which is there whole or not at all.

    layout: one of ``FORMATS``. quality: of the JPEGs, 1 to 100; pictures lose by it, the clean ones too. most_bytes: of
    a tar. Raises UserError for wrong arguments, and for samples that have no degraded images or no ground truth.
    """
    if layout not in FORMATS:
        raise unknown("format", layout, FORMATS)
    if not 1 <= quality <= 100:
        raise UserError(f"--quality {quality}: must be in [1, 100]")
    target = local(out, "--out")
    shards, _ = find_shards(paths)
    try:
        with new_folder(target) as folder:
            packed = _Peekable(_packed(shards, quality, progress))
            count = 0
            while packed.head is not None:
                write_shard(folder / f"{count:04d}.tar", _of_one_tar(packed, most_bytes))
                count += 1
            if not count:
                raise UserError(f"{', '.join(paths)}: no samples to export")
    except ValueError as error:
        raise UserError(f"{error}; see synth verify") from None
    return Exported(packed.taken, count)


class _Peekable:
    """Samples with a look at the next one, None at the end, and a count of those taken."""

    def __init__(self, items: Iterator[Packed]) -> None:
        self._items = items
        self.head = next(items, None)
        self.taken = 0

    def take(self) -> Packed:
        """The next one."""
        head = self.head
        assert head is not None
        self.head = next(self._items, None)
        self.taken += 1
        return head


def _of_one_tar(packed: _Peekable, most: int) -> Iterator[Packed]:
    """The samples that fit into a tar, one at least; a key never follows itself, or readers make one sample of two."""
    size, last = 0, ""
    while (head := packed.head) is not None:
        key, members = head
        size += sum(map(len, members.values()))
        if last and (size > most or key == last):
            return
        last = key
        yield packed.take()


def _packed(shards: Shards, quality: int, progress: Progress) -> Iterator[Packed]:
    for done, shard in enumerate(shards):
        progress(done, len(shards))
        for sample in read_samples(shard):
            yield key_of(sample), members_of(sample, quality)
    progress(len(shards), len(shards))


def key_of(sample: Sample) -> str:
    """The pair's name in the characters of a key: as theirs, the same for every variant of a pair."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", f"{sample.meta.dataset}_{sample.meta.pair}")
    return name if len(name) <= LONGEST_KEY else f"{name[:LONGEST_KEY]}-{content_key(name)[:8]}"


def members_of(sample: Sample, quality: int) -> dict[str, bytes]:
    """The members of a sample, by name. Raises UserError where it lacks one."""
    meta, images = sample.meta, sample.images
    if meta.lean or meta.real:
        why = "is lean: it has no degraded images" if meta.lean else "is a real pair: it has no ground truth"
        raise UserError(f"sample {sample.key}: {why}; --format mmaif needs both")
    height, width = images["gt"].shape[:2]
    info = {
        "degrations": [step.op.rpartition(":")[2].replace("_", " ") for step in meta.steps],
        "instruction": sample.prompt,
        "H": width,
        "W": height,
        "steps": [{"op": step.op, "target": step.target} for step in meta.steps],
    }
    pictures = {"m1_clean": "clean_a", "m2_clean": "clean_b", "m1_degraded": "a", "m2_degraded": "b", "gt": "gt"}
    members = {"info.json": json.dumps(info, ensure_ascii=False).encode()}
    return members | {f"{name}.jpg": as_jpeg(images[of], quality) for name, of in pictures.items()}


def as_jpeg(image: np.ndarray, quality: int) -> bytes:
    """A JPEG of three channels, as Pillow writes it."""
    from PIL import Image

    data = io.BytesIO()
    Image.fromarray(np.repeat(image, 3, 2) if image.shape[2] == 1 else image).save(data, "JPEG", quality=quality)
    return data.getvalue()
