"""Training samples and batches. Shapes: b samples, H, W sides of the crop, h, w of its latents, z latent channels,
m tokens of the longest prompt, e width of their embedding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from clearfuse.synth.types import Category


@dataclass(frozen=True)
class Item:
    """A training sample. operators: the names of its degradations; identity: seeds its random numbers.

    images: uint8 (H, W, 3) of the same size, and ``views`` of both whole degraded pictures, one below the other, where
    an encoder is trained on them. From a cache of latents instead latents (z, h, w), and of frozen encoders text
    (m, e), the embedding of the prompt, empty, that of the empty prompt, and semantics (s, k). strength: share in
    [0, 1] of what the prompt asks to remove that the ground truth is free of.
    """

    position: int
    name: str
    identity: tuple[Any, ...]
    task: str
    operators: tuple[str, ...]
    prompt: str
    images: Mapping[str, np.ndarray] = field(default_factory=dict[str, np.ndarray])
    latents: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    text: Tensor | None = None
    empty: Tensor | None = None
    category: Category = "fusion"
    semantics: Tensor | None = None
    strength: float = 1.0


@dataclass(frozen=True)
class Batch:
    """A batch of degraded pairs with their ground truth and prompts; grey images have three equal channels.

    images: ``a``, ``b``, ``gt``, ``guess``, ``clean_a``, ``clean_b`` as uint8; the properties of these names scale them
    to [−1, 1]; ``views``: see ``Item``. latents: of a, b, gt and guess in place of images, from a cache of latents;
    embeddings: of the prompts, and their mask; semantics: of the whole pictures, and their mask. positions: in the run,
    or among the held-out samples; operators: degradations of each sample; categories: what its prompt asks for;
    strength: see ``Item``.
    """

    images: Mapping[str, UInt8[Tensor, "b 3 H W"]]
    prompts: list[str]
    names: list[str]
    positions: list[int]
    tasks: list[str]
    operators: list[tuple[str, ...]]
    latents: Mapping[str, Float[Tensor, "b z h w"]] = field(default_factory=dict[str, Tensor])
    embeddings: tuple[Float[Tensor, "b m e"], Bool[Tensor, "b m"]] | None = None
    categories: list[Category] = field(default_factory=list["Category"])
    semantics: tuple[Float[Tensor, "b s k"], Bool[Tensor, "b s"]] | None = None
    strength: Float[Tensor, " b"] | None = None

    @property
    def a(self) -> Float[Tensor, "b 3 H W"]:
        """Degraded, in [−1, 1]."""
        return to_unit(self.images["a"])

    @property
    def b(self) -> Float[Tensor, "b 3 H W"]:
        """Degraded, in [−1, 1]."""
        return to_unit(self.images["b"])

    @property
    def gt(self) -> Float[Tensor, "b 3 H W"]:
        """The ground truth in [−1, 1]."""
        return to_unit(self.images["gt"])

    @property
    def guess(self) -> Float[Tensor, "b 3 H W"] | None:
        """The guess in [−1, 1], if the design has one."""
        return to_unit(self.images["guess"]) if "guess" in self.images else None

    @property
    def clean_a(self) -> Float[Tensor, "b 3 H W"] | None:
        """The clean a in [−1, 1], if the loss uses it."""
        return to_unit(self.images["clean_a"]) if "clean_a" in self.images else None

    @property
    def clean_b(self) -> Float[Tensor, "b 3 H W"] | None:
        """The clean b in [−1, 1], if the loss uses it."""
        return to_unit(self.images["clean_b"]) if "clean_b" in self.images else None

    def to(self, device: torch.device) -> Batch:
        """Move the batch to a device; images are moved as uint8 and converted to float there."""

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=True)

        return self._map(move)

    def pin_memory(self) -> Batch:
        """Copy the batch to pinned memory; called by the data loader."""
        return self._map(Tensor.pin_memory)

    def _map(self, function: Any) -> Batch:
        images = {name: function(image) for name, image in self.images.items()}
        latents = {name: function(latent) for name, latent in self.latents.items()}
        text, semantics = (
            None if pair is None else (function(pair[0]), function(pair[1]))
            for pair in (self.embeddings, self.semantics)
        )
        strength = None if self.strength is None else function(self.strength)
        return replace(self, images=images, latents=latents, embeddings=text, semantics=semantics, strength=strength)


@dataclass(frozen=True)
class UnreadableSample:
    """Stands for a sample that could not be read. Exceptions would lose their type between processes."""

    reason: str


def stack_images(images: Sequence[np.ndarray]) -> UInt8[Tensor, "b 3 H W"]:
    """Stack uint8 ``(H, W, 3)`` images to a tensor."""
    return torch.from_numpy(np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2)))


def to_unit(images: UInt8[Tensor, "b 3 H W"]) -> Float[Tensor, "b 3 H W"]:
    """Scale code values 0..255 to [−1, 1]."""
    return images.float() / 127.5 - 1


def to_tensor(images: Sequence[np.ndarray]) -> Float[Tensor, "b 3 H W"]:
    """Stack ``(H, W, 3)`` images, uint8 or float32 in [0, 1], to a tensor in [−1, 1]."""
    if images[0].dtype == np.float32:
        return torch.from_numpy(np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2))) * 2 - 1
    return to_unit(stack_images(images))


def collate(items: Sequence[Item | UnreadableSample]) -> Batch | UnreadableSample:
    """Make a batch; if a sample could not be read, return the first such one instead."""
    readable: list[Item] = []
    for item in items:
        if isinstance(item, UnreadableSample):
            return item
        readable.append(item)
    texts = [item.text for item in readable if item.text is not None]
    semantics = [item.semantics for item in readable if item.semantics is not None]
    return Batch(
        {name: stack_images([item.images[name] for item in readable]) for name in readable[0].images},
        [item.prompt for item in readable],
        [item.name for item in readable],
        [item.position for item in readable],
        [item.task for item in readable],
        [item.operators for item in readable],
        {name: torch.stack([item.latents[name] for item in readable]) for name in readable[0].latents},
        pad_embeddings(texts) if texts else None,
        [item.category for item in readable],
        pad_embeddings(semantics) if semantics else None,
        torch.tensor([item.strength for item in readable]),
    )


def pad_embeddings(rows: Sequence[Float[Tensor, "_ e"]]) -> tuple[Float[Tensor, "b m e"], Bool[Tensor, "b m"]]:
    """Pad embeddings with 0 to the longest prompt; the mask is False where a token is padding."""
    text = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
    lengths = torch.tensor([len(row) for row in rows])
    return text, torch.arange(text.shape[1])[None] < lengths[:, None]
