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


class BytesEncoder(TextEncoder):
    """A small trainable encoder of bytes: no vocabulary, no download, any language.

    Bytes are embedded, mixed with their neighbours by two convolutions, averaged by eights, and the means, with
    learned positions, go through two transformer blocks. At most 512 bytes, 64 tokens; what lies beyond is cut.
    """

    POOL = 8
    TOKENS = 64
    trainable = True

    def __init__(self, width: int = 128, heads: int = 4, depth: int = 2) -> None:
        super().__init__()
        self.width = width
        self.embed = nn.Embedding(256 + 2, width)
        self.mix = nn.ModuleList(nn.Conv1d(width, width, 5, padding=2) for _ in range(2))
        self.positions = nn.Embedding(self.TOKENS, width)
        self.blocks = nn.ModuleList(TextBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def initialise(self, rng: torch.Generator) -> None:
        """Set all parameters from the generator."""
        initialise(self, rng)

    def forward(self, prompts: Sequence[str]) -> tuple[Float[Tensor, "b m e"], Bool[Tensor, "b m"]]:
        """Embeddings of the prompts, and where they are no padding; each is the same beside any other prompt."""
        codes = to_bytes(prompts, self.POOL * self.TOKENS, self.POOL).to(self.embed.weight.device)
        real = (codes > 0)[..., None]
        x = self.embed(codes) * real
        for conv in self.mix:
            x = x + F.silu(rearrange(conv(rearrange(x, "b s e -> b e s")), "b e s -> b s e")) * real
        counts = rearrange(real, "b (m p) one -> b m p one", p=self.POOL).sum(2)
        x = rearrange(x, "b (m p) e -> b m p e", p=self.POOL).sum(2) / counts.clamp(min=1)
        x = x + self.positions.weight[: x.shape[1]]
        mask = counts[..., 0] > 0
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
