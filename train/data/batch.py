"""Samples as a model takes them, and batches of them. Shapes: b samples, H and W the sides of the crop, h and w of its
latents, z channels of these, m tokens of the longest prompt, e their width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor


@dataclass(frozen=True)
class Item:
    """One sample as a model sees it. operators: the operators of its steps; identity: what its draws are seeded by.

    images: uint8 (H, W, 3), of one size; of a cache instead latents (z, h, w) and, where the prompt encoder does not
    learn, text (m, e): of the prompt, and, as ``empty``, of none.
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


@dataclass(frozen=True)
class Batch:
    """Degraded pairs and their ground truth, grey as three equal channels, with what to say of them.

    images: as stored; ``a``, ``b``, ``gt``, ``prior``, ``clean_a`` and ``clean_b`` are of them, in [−1, 1]. latents: of
    a, b, gt and prior, in their stead where they come from a cache; embeddings: of the prompts, with their mask.
    positions: in the run, or among the held-out samples; operators: the operators of each sample's steps.
    """

    images: Mapping[str, UInt8[Tensor, "b 3 H W"]]
    prompts: list[str]
    names: list[str]
    positions: list[int]
    tasks: list[str]
    operators: list[tuple[str, ...]]
    latents: Mapping[str, Float[Tensor, "b z h w"]] = field(default_factory=dict[str, Tensor])
    embeddings: tuple[Float[Tensor, "b m e"], Bool[Tensor, "b m"]] | None = None

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
    def prior(self) -> Float[Tensor, "b 3 H W"] | None:
        """The prior in [−1, 1], where the design has one."""
        return to_unit(self.images["prior"]) if "prior" in self.images else None

    @property
    def clean_a(self) -> Float[Tensor, "b 3 H W"] | None:
        """a as it was before, where a loss asks for it."""
        return to_unit(self.images["clean_a"]) if "clean_a" in self.images else None

    @property
    def clean_b(self) -> Float[Tensor, "b 3 H W"] | None:
        """b as it was before, where a loss asks for it."""
        return to_unit(self.images["clean_b"]) if "clean_b" in self.images else None

    def to(self, device: torch.device) -> Batch:
        """The batch there: bytes travel, and become numbers where they are used."""

        def there(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=True)

        return self._each(there)

    def pin_memory(self) -> Batch:
        """The batch in memory that a GPU copies from; the loader calls it."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Any) -> Batch:
        images, latents = ({name: change(one) for name, one in all_.items()} for all_ in (self.images, self.latents))
        text = None if self.embeddings is None else (change(self.embeddings[0]), change(self.embeddings[1]))
        return replace(self, images=images, latents=latents, embeddings=text)


@dataclass(frozen=True)
class Broken:
    """A sample that could not be read, and why: an exception would lose its type between processes."""

    reason: str


def stacked(images: Sequence[np.ndarray]) -> UInt8[Tensor, "b 3 H W"]:
    """uint8 ``(H, W, 3)`` in one tensor."""
    return torch.from_numpy(np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2)))


def to_unit(images: UInt8[Tensor, "b 3 H W"]) -> Float[Tensor, "b 3 H W"]:
    """Code values to [−1, 1]."""
    return images.float() / 127.5 - 1


def to_tensor(images: Sequence[np.ndarray]) -> Float[Tensor, "b 3 H W"]:
    """uint8 ``(H, W, 3)`` to [−1, 1]."""
    return to_unit(stacked(images))


def collate(items: Sequence[Item | Broken]) -> Batch | Broken:
    """One batch; the first sample that could not be read in its stead."""
    good: list[Item] = []
    for item in items:
        if isinstance(item, Broken):
            return item
        good.append(item)
    texts = [item.text for item in good if item.text is not None]
    return Batch(
        {name: stacked([item.images[name] for item in good]) for name in good[0].images},
        [item.prompt for item in good],
        [item.name for item in good],
        [item.position for item in good],
        [item.task for item in good],
        [item.operators for item in good],
        {name: torch.stack([item.latents[name] for item in good]) for name in good[0].latents},
        padded(texts) if texts else None,
    )


def padded(rows: Sequence[Float[Tensor, "_ e"]]) -> tuple[Float[Tensor, "b m e"], Bool[Tensor, "b m"]]:
    """Embeddings padded with 0 to the longest prompt; the mask is False where a token is padding."""
    text = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
    lengths = torch.tensor([len(row) for row in rows])
    return text, torch.arange(text.shape[1])[None] < lengths[:, None]
