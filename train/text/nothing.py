"""The encoder of models without prompts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clearfuse.train.text.base import TextEncoder


class NoText(TextEncoder):
    """Encodes each prompt as zero tokens of zero width."""

    width = 0
    limit = 0
    trainable = False
    nothing: Float[Tensor, " 0"]

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("nothing", torch.zeros(0), persistent=False)

    def is_cut(self, prompt: str) -> bool:
        """False: no prompt is read at all."""
        return False

    def encode(self, prompts: Sequence[str]) -> tuple[Float[Tensor, "b m e"], Bool[Tensor, "b m"]]:
        """Empty embeddings and mask, one row per prompt."""
        text = self.nothing.new_zeros(len(prompts), 0, 0)
        return text, text.new_zeros(len(prompts), 0, dtype=torch.bool)
