"""The interface of prompt encoders. Shapes: b prompts, m tokens of the longest, e width."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from jaxtyping import Bool, Float
from torch import Tensor, nn

INVISIBLE = re.compile("[\u200b\u2060\ufeff]")
"""Zero-width space, word joiner and byte order mark, which Unicode does not count as white space."""

TRAILING = " .,;:!?…。．，、；：！？"
"""What a prompt may end in without meaning another thing."""


def normalise(prompt: str) -> str:
    """A prompt as encoders see it: composed (NFC), in lower case, white space single, no punctuation at the end.

    Prompts that differ in these alone ask for the same.
    """
    words = INVISIBLE.sub("", unicodedata.normalize("NFC", prompt)).lower().split()
    return " ".join(words).rstrip(TRAILING)


class TextEncoder(nn.Module):
    """Base class: maps prompts to (embedding, mask).

    width: of the embedding; limit: tokens of the longest prompt; trainable: whether its parameters are trained with the
    model.
    """

    width: int
    limit: int
    trainable: bool

    def forward(self, prompts: Sequence[str]) -> tuple[Float[Tensor, "b m e"], Bool[Tensor, "b m"]]:
        """Embeddings of the normalised prompts, padded to the longest; the mask is False where a token is padding."""
        return self.encode([normalise(prompt) for prompt in prompts])

    def encode(self, prompts: Sequence[str]) -> tuple[Float[Tensor, "b m e"], Bool[Tensor, "b m"]]:
        """As ``forward``, of prompts that are normalised."""
        raise TypeError(f"{type(self).__name__} defines no encode")

    def is_cut(self, prompt: str) -> bool:
        """Whether a prompt, once normalised, has more than ``limit`` tokens, of which the rest is not read."""
        raise TypeError(f"{type(self).__name__} defines no is_cut")

    def has_unknown(self, prompt: str) -> bool:
        """Whether a prompt has characters that the encoder has no token for, as Chinese for T5: they all look alike."""
        return False
