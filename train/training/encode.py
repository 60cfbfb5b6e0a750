"""A shard of samples to a shard of latents: what a worker of ``train cache`` does."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from clearfuse.synth.execute.tasks import one_thread, report
from clearfuse.synth.files.jsonstream import dumps
from clearfuse.synth.files.storage import Location
from clearfuse.synth.shards.receipts import SampleFailed, land_shard
from clearfuse.synth.shards.records import LATENTS, LatentCrop, LatentMeta, Latents
from clearfuse.synth.types import HELD, SCHEMA
from clearfuse.train.data.batch import Item, stack_images, to_tensor
from clearfuse.train.data.corpus import Corpus
from clearfuse.train.data.degrade import Degraders
from clearfuse.train.data.latents import EMPTY, IMAGE, LATENT, SEMANTICS, TEXT
from clearfuse.train.data.samples import VIEWS, Samples
from clearfuse.train.designs.design import Design, FoundParts, Parts, find_parts
from clearfuse.train.runs.settings import Settings
from clearfuse.train.training.inputs import multiple_of

ENCODED = ("a", "b", "gt", "guess")
"""The images that a model sees as latents."""


@dataclass(frozen=True)
class Maker:
    """What a worker needs to cache any shard. epochs: drawn crops of a sample."""

    out: Location
    settings: Settings
    design: Design
    parts: Parts
    degraders: Degraders
    epochs: int
    device: str
    record: Mapping[str, Any]
    digest: str


@dataclass(frozen=True)
class CacheTask:
    """A shard to cache: its samples alone."""

    name: str
    number: int
    corpus: Corpus

    @property
    def samples(self) -> int:
        """Samples in it."""
        return len(self.corpus.train) + len(self.corpus.held_out)


@lru_cache(maxsize=1)
def _loaded(design: Design, parts: Parts, device: str) -> FoundParts:
    """The parts on a device, once a process."""
    found = find_parts(design, parts, torch.Generator().manual_seed(0))  # of an encoder that learns nothing is cached
    for module in (found.tokenizer.tokenizer, found.text.encoder, found.semantics.encoder):
        if module is not None:
            module.to(device)
    return found


def cache_shard(maker: Maker, task: CacheTask) -> str | None:
    """Cache one shard: the tar, then its receipt. The failure, or None."""
    with one_thread():
        return land_shard(maker.out / task.name, _Encoder(maker, task).samples(), maker.digest, maker.record)


class _Encoder:
    """The samples of one shard as a cache holds them."""

    def __init__(self, maker: Maker, task: CacheTask) -> None:
        self.maker, self.task = maker, task
        cuda = maker.device == "cuda"
        self.device = f"cuda:{task.number % torch.cuda.device_count()}" if cuda else maker.device
        design = maker.design
        found = _loaded(design, maker.parts, self.device)
        self.tokenizer, self.text, self.semantics = (
            found.tokenizer.tokenizer,
            found.text.encoder,
            found.semantics.encoder,
        )
        self._said: tuple[bytes, Tensor] | None = None  # of the latest pictures: their crops come one after the other
        s = maker.settings
        common: dict[str, Any] = {
            "side": s.crop, "ratios": s.ratios, "repeats": s.repeats,
            "multiple": multiple_of(self.tokenizer.f, design.config.patch),
            "seed": s.seed, "plain": s.plain, "rephrase": s.rephrase, "clean": design.objective.pixel > 0,
            "guess": design.guess, "degrade": maker.degraders,
            "view": None if self.semantics is None else self.semantics.view,
        }  # fmt: skip
        kinds = (("train", task.corpus.train), ("held_out", task.corpus.held_out))
        self.kinds = {
            kind: Samples(task.corpus, training=kind == "train", **common) for kind, places in kinds if len(places)
        }

    def samples(self) -> Iterator[tuple[str, Mapping[str, bytes]]]:
        """(key, members) in the order of the tar that they come from."""
        rows = [
            (int(samples.places.start[row]), kind, row)
            for kind, samples in self.kinds.items()
            for row in range(len(samples))
        ]
        for _, kind, row in sorted(rows):
            key = str(self.kinds[kind].places.key[row])
            report(f"{self.task.name} {key}")
            try:
                yield key, self._members(self.kinds[kind], kind == "held_out", row)
            except Exception as error:  # the shard is not written and is named at the end; others go on
                said = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
                named = said if said.startswith("sample ") else f"sample {key}: {said}"
                raise SampleFailed(named) from error

    def _members(self, samples: Samples, held_out: bool, row: int) -> dict[str, bytes]:
        from safetensors.torch import save

        members: dict[str, bytes] = {}
        variants: list[LatentCrop] = []
        for number in range(1 if held_out else self.maker.epochs):
            item = samples.item(row, number)
            kept = item.images if self.semantics is None or self.semantics.trainable else item.images.keys() - {VIEWS}
            tensors = self._pictures(item, kept) if held_out else self._encoded(item, kept)
            data = save(tensors | self._semantics(item))
            members[f"{HELD if held_out else number}{LATENTS}"] = data
            variants.append(LatentCrop(prompt=item.prompt, marks=tuple(item.operators), crc32=zlib.crc32(data)))
        of = samples.meta(row)
        meta = LatentMeta(
            schema=SCHEMA,
            task=of.task,
            category=of.category,
            dataset=of.dataset,
            pair=of.pair,
            split=of.split,
            crop=of.crop,
            variant=of.variant,
            cached=Latents(held_out=held_out, variants=tuple(variants)),
        )
        return {"json": dumps(meta.model_dump(by_alias=True)), **members}

    def _pictures(self, item: Item, names: Any) -> dict[str, Tensor]:
        return {IMAGE + name: torch.from_numpy(item.images[name]).contiguous() for name in names}

    @torch.no_grad()
    def _encoded(self, item: Item, kept: Collection[str]) -> dict[str, Tensor]:
        """Latents and embeddings in fp16; as they are the clean pair, where a loss asks for it, and where latents are
        the images themselves, all of them.

        A sample's images are encoded together, and no others with them: so the numbers are its own.
        """
        tensors: dict[str, Tensor] = {}
        names = [name for name in ENCODED if name in item.images and not self.tokenizer.identity]
        if names:
            latents = self.tokenizer.encode(to_tensor([item.images[name] for name in names]).to(self.device))
            tensors = {LATENT + name: _half(z) for name, z in zip(names, latents, strict=True)}
        if not self.text.trainable:
            for name, prompt in ((TEXT, item.prompt), (EMPTY, "")):
                text, mask = self.text([prompt])
                tensors[name] = _half(text[0][mask[0]])
        return {**tensors, **self._pictures(item, [name for name in kept if name not in names])}

    @torch.no_grad()
    def _semantics(self, item: Item) -> dict[str, Tensor]:
        """What a frozen encoder says of the whole pictures, in fp16."""
        if self.semantics is None or self.semantics.trainable:
            return {}
        views = item.images[VIEWS]
        if self._said is None or self._said[0] != views.tobytes():
            given = stack_images([views]).to(self.device)
            tokens, mask = self.semantics(given, [item.task])
            self._said = views.tobytes(), _half(tokens[0] if mask is None else tokens[0][mask[0]])
        return {SEMANTICS: self._said[1]}


def _half(numbers: Tensor) -> Tensor:
    """fp16 on the CPU. Raises ValueError where a number is too large for it."""
    half = numbers.to(torch.float16).cpu().contiguous()
    if not torch.isfinite(half).all():
        raise ValueError(f"a number of {float(numbers.abs().max()):g} is beyond fp16")
    return half
