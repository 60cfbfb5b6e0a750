"""Shards of latents, as ``train cache`` writes them, read back: what a sample's members are, and for which runs.

A sample of a cache holds ``json`` and, to train on, a member ``0.safetensors``, ``1.safetensors`` … for each of its
drawn crops: latents in fp16, or the pictures as uint8 where they are the latents, the prompt's embedding, what a frozen
encoder says of the whole pictures, the clean pair as uint8 where a loss asks for it. A held-out one holds
``held.safetensors``: the pictures in place of latents and the prompt's embedding, so that validation is that of the
shards themselves.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from clearfuse.synth.shards.records import LATENTS
from clearfuse.synth.shards.sample import read_latent_meta
from clearfuse.synth.types import HELD, Category, UserError
from clearfuse.train.data.corpus import BEFORE, SamplePlace
from clearfuse.train.data.reader import Reader

LATENT, IMAGE, TEXT, EMPTY, SEMANTICS = "latent.", "image.", "text", "empty", "semantics"
"""Names of the tensors of a member; the first two are beginnings."""


@dataclass(frozen=True)
class CachedSample:
    """One sample as the cache has it: see ``clearfuse.train.data.batch.Item``."""

    identity: tuple[Any, ...]
    task: str
    operators: tuple[str, ...]
    prompt: str
    images: Mapping[str, np.ndarray]
    latents: Mapping[str, Tensor]
    text: Tensor | None
    empty: Tensor | None
    category: Category
    semantics: Tensor | None


def decode_cached(reader: Reader, place: SamplePlace, epoch: int | None, wanted: Sequence[str]) -> CachedSample:
    """The crop that an epoch has, the drawn ones in turn; None: that of a held-out sample. wanted: which images.

    Raises ValueError that names what is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    meta = read_latent_meta(place.key, reader.members(place, lambda name: name == "json"))
    crops = meta.cached.variants
    number = 0 if epoch is None else epoch % len(crops)
    name = f"{HELD if epoch is None else number}{LATENTS}"
    data = reader.members(place, lambda member: member == name).get(name)
    if data is None:
        raise ValueError(f"member {name} is missing")
    if zlib.crc32(data) != crops[number].crc32:
        raise ValueError(f"{name} is damaged: its checksum is another")
    try:
        tensors = load(data)
    except SafetensorError as error:
        raise ValueError(f"{name}: {error}") from None
    return CachedSample(
        (meta.dataset, meta.pair, meta.variant),
        meta.task,
        crops[number].marks,
        crops[number].prompt,
        {key: tensors[IMAGE + key].numpy() for key in wanted if IMAGE + key in tensors},
        {key.removeprefix(LATENT): one for key, one in tensors.items() if key.startswith(LATENT)},
        tensors.get(TEXT),
        tensors.get(EMPTY),
        meta.category,
        tensors.get(SEMANTICS),
    )


REMEDY = {
    **{name: f"--{name} {{}}" for name in ("crop", "ratios", "seed", "tokenizer", "text", "semantics")},
    **{name: f"--set schedule.{name}={{}}" for name in ("repeats", "plain", "rephrase")},
}
"""The option that brings a run to what a cache was made with."""


def check_fits(made: Mapping[str, Any], wanted: Mapping[str, Any], where: str) -> None:
    """Raise UserError, naming the setting, where a run can't use latents that were made with others than it wants.

    Both as ``caching.made_of`` has them. What the cache holds beyond what is wanted does not matter.
    """
    made = {**BEFORE, **made}
    for name, now in wanted.items():
        before = made.get(name)
        if _suits(name, before, now):
            continue
        held, asked = (_said(value) for value in (before, now))
        remedy = REMEDY[name].format(held) + ", or " if name in REMEDY and before is not None else ""
        raise UserError(f"{where}: was cached with {name} {held}, this run has {asked}: {remedy}cache the shards again")


def _suits(name: str, before: Any, now: Any) -> bool:
    if name in ("clean", "text", "prompts", "semantics", "questions", "views") and not now:
        return True
    if isinstance(before, dict) and before.get("digest") and isinstance(now, dict) and now["digest"]:
        return before["digest"] == now["digest"]
    return before == now


def _said(value: Any) -> str:
    if isinstance(value, dict):
        return str(value["reference"])
    if isinstance(value, list):
        return "; ".join(value) or "none"
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)
