"""Prompt encoders: from prompts to embeddings that a model joins to its image tokens. ``TEXTS`` is the table.

Letters of the shapes: b prompts, m tokens of the longest, e width, s bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from synth.types import unknown
from train.models.layers import Attention, Place, SwiGLU, initialise

PLAIN = {
    "vif": "fuse the visible and infrared images",
    "mef": "fuse the under-exposed and over-exposed images",
    "mff": "fuse the near-focus and far-focus images",
}


def plain_request(task: str) -> str:
    """What is asked of a model where nobody says more: it stands in for a share of the training prompts too."""
    if task not in PLAIN:
        raise unknown("task", task, PLAIN)
    return PLAIN[task]


class TextEncoder(nn.Module):
    """Prompts to (embedding, mask): what every encoder answers to.

    width: of the embedding; trainable: whether its parameters learn with the model.
    """

    width: int
    trainable: bool

    def forward(self, prompts: Sequence[str]) -> tuple[Float[Tensor, "b m e"], Bool[Tensor, "b m"]]:
        """Embeddings padded to the longest prompt; the mask is False where a token is padding."""
        raise TypeError(f"{type(self).__name__} defines no forward")


def to_bytes(prompts: Sequence[str], limit: int, multiple: int) -> Int64[Tensor, "b s"]:
    """UTF-8 bytes + 2, after a 1 that starts each prompt, padded with 0 to a multiple; cut after ``limit``."""
    rows = [[1, *(byte + 2 for byte in prompt.encode())][:limit] for prompt in prompts]
    longest = max((len(row) for row in rows), default=1)
    length = -(-longest // multiple) * multiple
    return torch.tensor([row + [0] * (length - len(row)) for row in rows], dtype=torch.int64).view(len(rows), length)


def hashed_grams(codes: Int64[Tensor, "b s"], n: int, slots: int) -> Int64[Tensor, "b s"]:
    """A slot for the n bytes that end at each place; 0 where there are fewer or the place is padding.

    The polynomial Σ code_k BASE^k, mixed by a multiplication and a shift, modulo the slots − 1, plus 1.
    """
    value = torch.zeros_like(codes)
    for back in range(n):
        value = value * HASH_BASE + F.pad(codes, (back, 0))[:, : codes.shape[1]]
    value = (value * HASH_MIX) ^ ((value * HASH_MIX) >> 29)
    whole = (codes > 0) & (torch.arange(codes.shape[1], device=codes.device) >= n - 1)
    return (value.remainder(slots - 1) + 1) * whole


HASH_BASE = 1_000_003
HASH_MIX = 0x5851F42D4C957F2D  # Knuth's multiplier, below 2^63; products wrap


class BytesEncoder(TextEncoder):
    """A small trainable encoder of bytes: no vocabulary, no download, any language.

    Each byte of the prompt in lower case is embedded, and with it, by a hash, the 4 and the 6 bytes that end there:
    a word then has numbers of its own from the first step (Pagnoni et al., arXiv 2412.09871, section 3.2.1). Eight
    bytes are averaged to a token, which, with learned positions, goes through two transformer blocks. At most 512
    bytes, 64 tokens; what lies beyond is cut.
    """

    POOL = 8
    TOKENS = 64
    GRAMS = (4, 6)
    SLOTS = 1 << 14
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

    def forward(self, prompts: Sequence[str]) -> tuple[Float[Tensor, "b m e"], Bool[Tensor, "b m"]]:
        """Embeddings of the prompts, and where they are no padding; each is the same beside any other prompt."""
        lower = [prompt.lower() for prompt in prompts]
        codes = to_bytes(lower, self.POOL * self.TOKENS, self.POOL).to(self.embed.weight.device)
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
    """A pre-norm transformer block: attention among a prompt's own tokens, then a SwiGLU."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads, value_residual=False)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = SwiGLU(width, 2 * width)

    def forward(self, x: Float[Tensor, "b m e"], mask: Bool[Tensor, "b m"]) -> Float[Tensor, "b m e"]:
        """Tokens whose mask is False are seen by none."""
        place = Place(1, x.shape[1], None, None, mask)
        x = x + self.attention(self.norm1(x), place, None)[0]
        return x + self.mlp(self.norm2(x))


class NoText(TextEncoder):
    """No prompt at all: zero tokens of zero width."""

    width = 0
    trainable = False
    nothing: Float[Tensor, " 0"]

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("nothing", torch.zeros(0), persistent=False)

    def forward(self, prompts: Sequence[str]) -> tuple[Float[Tensor, "b m e"], Bool[Tensor, "b m"]]:
        """An embedding without tokens, one row a prompt."""
        nothing = self.nothing.new_zeros(len(prompts), 0, 0)
        return nothing, nothing.new_zeros(len(prompts), 0, dtype=torch.bool)


def _bytes(rng: torch.Generator) -> BytesEncoder:
    with torch.device("meta"):
        encoder = BytesEncoder()
    encoder = encoder.to_empty(device="cpu")
    encoder.initialise(rng)
    return encoder


TEXTS: dict[str, Callable[[torch.Generator], TextEncoder]] = {
    "bytes": _bytes,
    "none": lambda rng: NoText(),
}


def build_text(name: str, rng: torch.Generator) -> TextEncoder:
    """The prompt encoder of a name, its parameters, where it has any to draw, drawn from the generator."""
    if name not in TEXTS:
        raise unknown("text encoder", name, TEXTS)
    return TEXTS[name](rng)
