"""A byte-level prompt encoder: small, trained with the model, without a download.

Shapes: b prompts, m tokens of the longest, e width, s bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from clearfuse.train.models.experts import SwiGLU
from clearfuse.train.models.layers import Attention, TokenLayout, initialise
from clearfuse.train.text.base import TextEncoder, normalise


def to_bytes(prompts: Sequence[str], limit: int, multiple: int) -> Int64[Tensor, "b s"]:
    """UTF-8 bytes + 2 after a start token 1, truncated to ``limit`` and padded with 0 to a multiple."""
    rows = [[1, *(byte + 2 for byte in prompt.encode())][:limit] for prompt in prompts]
    longest = max((len(row) for row in rows), default=1)
    length = -(-longest // multiple) * multiple
    return torch.tensor([row + [0] * (length - len(row)) for row in rows], dtype=torch.int64).view(len(rows), length)


def hashed_grams(codes: Int64[Tensor, "b s"], n: int, slots: int) -> Int64[Tensor, "b s"]:
    """The hash slot of the n-gram that ends at each position; 0 where the position is padding or has fewer than n
    bytes.

    The polynomial Σ code_k BASE^k, mixed by a multiplication and a shift, modulo slots − 1, plus 1.
    """
    value = torch.zeros_like(codes)
    for lag in range(n):
        value = value * HASH_BASE + F.pad(codes, (lag, 0))[:, : codes.shape[1]]
    value = (value * HASH_MIX) ^ ((value * HASH_MIX) >> 29)
    complete = (codes > 0) & (torch.arange(codes.shape[1], device=codes.device) >= n - 1)
    return (value.remainder(slots - 1) + 1) * complete


HASH_BASE = 1_000_003
HASH_MIX = 0x5851F42D4C957F2D  # Knuth's multiplier, below 2^63; products wrap


class BytesEncoder(TextEncoder):
    """A small trainable encoder of bytes: no vocabulary, no download, any language.

    Each byte of the prompt is embedded together with the hashed 4-gram and 6-gram that end there, which give
    each word an embedding from the first step on (Pagnoni et al., arXiv 2412.09871, section 3.2.1). Eight bytes are
    averaged to a token; with learned positions the tokens pass two transformer blocks. Prompts are truncated to 512
    bytes, 64 tokens.
    """

    POOL = 8
    TOKENS = 64
    GRAMS = (4, 6)
    SLOTS = 1 << 14
    limit = TOKENS
    trainable = True

    def __init__(self, width: int = 128, heads: int = 4, depth: int = 2) -> None:
        super().__init__()
        self.width = width
        self.embed = nn.Embedding(256 + 2, width)
        self.grams = nn.ModuleList(nn.Embedding(self.SLOTS, width) for _ in self.GRAMS)
        self.positions = nn.Embedding(self.TOKENS, width)
        self.blocks = nn.ModuleList(TextBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def initialise(self, rng: torch.Generator) -> None:
        """Set all parameters from the generator."""
        initialise(self, rng)

    def is_cut(self, prompt: str) -> bool:
        """Whether the bytes after the start token are more than ``limit`` tokens have."""
        return 1 + len(normalise(prompt).encode()) > self.POOL * self.TOKENS

    def encode(self, prompts: Sequence[str]) -> tuple[Float[Tensor, "b m e"], Bool[Tensor, "b m"]]:
        """Embeddings and mask; the embedding of a prompt does not depend on the others in the batch."""
        return self.embed_codes(to_bytes(prompts, self.POOL * self.TOKENS, self.POOL).to(self.embed.weight.device))

    def embed_codes(self, codes: Int64[Tensor, "b s"]) -> tuple[Float[Tensor, "b m e"], Bool[Tensor, "b m"]]:
        """As ``encode``, of the prompts' ``to_bytes``."""
        x = self.embed(codes) * (codes > 0)[..., None]
        for n, table in zip(self.GRAMS, self.grams, strict=True):
            slot = hashed_grams(codes, n, self.SLOTS)
            x = x + table(slot) * (slot > 0)[..., None]
        counts = rearrange(codes > 0, "b (m p) -> b m p", p=self.POOL).sum(2)
        x = rearrange(x, "b (m p) e -> b m p e", p=self.POOL).sum(2) / counts.clamp(min=1)[..., None]
        x = x + self.positions.weight[: x.shape[1]]
        mask = counts > 0
        for block in self.blocks:
            x = block(x, mask)
        return self.norm(x), mask


class TextBlock(nn.Module):
    """A pre-norm transformer block: self-attention within a prompt, then a SwiGLU."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads, residual=None)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = SwiGLU(width, 2 * width)

    def forward(self, x: Float[Tensor, "b m e"], mask: Bool[Tensor, "b m"]) -> Float[Tensor, "b m e"]:
        """Apply the block; tokens where the mask is False are not attended to."""
        layout = TokenLayout(1, x.shape[1], None, None, mask)
        x = x + self.attention(self.norm1(x), layout, None)[0]
        return x + self.mlp(self.norm2(x))


def build(rng: torch.Generator) -> BytesEncoder:
    """An encoder on the CPU with its parameters drawn from the generator."""
    with torch.device("meta"):
        encoder = BytesEncoder()
    encoder = encoder.to_empty(device="cpu")
    encoder.initialise(rng)
    return encoder
