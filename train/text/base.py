"""The interface of prompt encoders. Shapes: b prompts, m tokens of the longest, e width."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Bool, Float
from torch import Tensor, nn


class TextEncoder(nn.Module):
    """Base class: maps prompts to (embedding, mask).

    width: of the embedding; limit: tokens of the longest prompt; trainable: whether its parameters are trained with the
    model.
    """

    width: int
    limit: int
    trainable: bool

    def forward(self, prompts: Sequence[str]) -> tuple[Float[Tensor, "b m e"], Bool[Tensor, "b m"]]:
        """Embeddings padded to the longest prompt; the mask is False where a token is padding."""
        raise TypeError(f"{type(self).__name__} defines no forward")
