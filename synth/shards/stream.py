"""Shards for other people's loops: a pipeline of webdataset, which is a data set of torch too."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from clearfuse.synth.files import storage
from clearfuse.synth.shards.find import find_shards
from clearfuse.synth.shards.sample import Sample, decode_sample
from clearfuse.synth.shards.tar import read_shard
from clearfuse.synth.types import UserError

if TYPE_CHECKING:
    from webdataset.compat import WebDataset

Degrade = Callable[[Sample], Sample]


def open_shards(
    urls: str | Sequence[str],
    *,
    tensors: bool = False,
    names: Sequence[str] | None = None,
    shuffle: int = 0,
    seed: int = 0,
    degrade: Degrade | None = None,
) -> WebDataset:
    """The samples of shards, decoded, as a pipeline of webdataset: ``.map``, ``.shuffle``, ``.batched``, … go on it.

        for sample in open_shards("shards/vif"):
            sample["a"], sample["gt"], sample["prompt"], sample["meta"].steps

    urls: folders of shards, shards, patterns, or URLs of these, as every command takes them. Each sample is a dict:
    the images that it holds (a, b, clean_a, clean_b, gt) as uint8 ``(h, w, c)``; ``depth``, float32 metres
    ``(h, w)``, NaN where unknown; ``prompt``; ``meta``, a ``SampleMeta``; ``__key__`` and ``__url__``.
    tensors: images as float32 tensors ``(3, h, w)`` in [0, 1], depth as one. names: these images alone. shuffle: size
    of the buffer out of which samples are drawn, shards in a drawn order, by ``seed``; 0: as they lie.
    degrade: what is done to each sample first, such as an ``OnTheFly`` to those of lean shards.

    Shards are dealt out to the ranks of torch.distributed and to the workers of a DataLoader: have as many. Raises
    UserError where there are none; a damaged sample is a ValueError that names it as it is read.
    """
    from webdataset.compat import FluidInterface
    from webdataset.filters import detshuffle
    from webdataset.pipeline import DataPipeline
    from webdataset.shardlists import SimpleShardList, split_by_node, split_by_worker

    # As webdataset's own WebDataset is made.
    class Shards(DataPipeline, FluidInterface):  # pyright: ignore[reportIncompatibleMethodOverride]
        pass

    if shuffle < 0:
        raise UserError(f"shuffle = {shuffle}: must be 0 or more")
    found, _ = find_shards([urls] if isinstance(urls, str) else list(urls), whole=False)
    order = np.random.default_rng(seed).permutation(len(found)) if shuffle else range(len(found))
    stages: list[Any] = [
        SimpleShardList([str(found[int(at)]) for at in order]),
        split_by_node,
        split_by_worker,
        _Reader(tensors, None if names is None else tuple(names), degrade),
    ]
    if shuffle:
        stages.append(detshuffle(shuffle, seed=seed))
    return Shards(*stages)  # type: ignore[return-value]


class _Reader:
    """The stage that reads and decodes; an object, since workers get it pickled."""

    def __init__(self, tensors: bool, names: tuple[str, ...] | None, degrade: Degrade | None) -> None:
        self.tensors, self.names, self.degrade = tensors, names, degrade

    def __call__(self, shards: Iterable[dict[str, str]]) -> Iterator[dict[str, Any]]:
        for shard in shards:
            with storage.fetched(storage.locate(shard["url"])) as file:
                for key, members in read_shard(file):
                    sample = decode_sample(key, members, self.names if self.degrade is None else None)
                    yield {"__key__": key, "__url__": shard["url"], **self._fields(sample)}

    def _fields(self, sample: Sample) -> dict[str, Any]:
        sample = sample if self.degrade is None else self.degrade(sample)
        images = {name: sample.images[name] for name in self.names or sample.images}
        metres = sample.metres()
        if metres is None:
            metres = np.full(next(iter(images.values())).shape[:2], np.nan, np.float32)
        found: dict[str, Any] = {**images, "depth": metres}
        if self.tensors:
            found = {name: _tensor(one) for name, one in found.items()}
        return {**found, "prompt": sample.prompt, "meta": sample.meta}


def _tensor(array: np.ndarray) -> Any:
    """An image as float32 (3, h, w) in [0, 1], grey in three equal channels; depth as it is."""
    import torch

    if array.ndim == 2:
        return torch.from_numpy(array)
    three = np.broadcast_to(array, (*array.shape[:2], 3))
    return torch.from_numpy(np.ascontiguousarray(three.transpose(2, 0, 1))).float() / 255
