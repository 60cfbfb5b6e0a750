"""OmniGen of diffusers, changed by LoRA: the network of DiTFuse. Its sizes, and what they cost."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.dataclasses import dataclass

from clearfuse.synth.files.schema import STRICT
from clearfuse.train.models.base import Layers, Size
from clearfuse.train.models.layers import cells_along

Factors = tuple[Annotated[float, Field(gt=0)], ...]


@dataclass(frozen=True, config=STRICT)
class OmniGenConfig:
    """Hyperparameters; the defaults are those of ``ditfuse``. The sizes are the base's, whatever they are given as."""

    flow: ClassVar[bool] = True
    """It is of a flow alone."""
    tile: ClassVar[int] = 1024
    """Side of the tiles of larger images, pixels: what OmniGen was trained at."""

    rank: Annotated[int, Field(ge=0, le=1024)] = 8
    """Of LoRA; 0: none, the base as it is."""
    alpha: Annotated[float, Field(gt=0)] = 8.0
    """LoRA's change is B A times alpha / rank."""
    mlp: bool = False
    """Change the blocks' MLPs too."""
    bits: Literal[4, 16] = 16
    """Of a weight of the base on a GPU; 4 (QLoRA) is counted by train info alone."""
    latent_channels: Size = 4
    text_width: Literal[1] = 1
    """A prompt is numbers of tokens: see ``sequence.A``."""
    patch: Size = 2
    width: Size = 3072
    heads: Size = 32
    value_heads: Size = 32
    """Heads of keys and values."""
    hidden: Size = 8192
    """Hidden width of the MLPs."""
    depth: Layers = 32
    vocabulary: Annotated[int, Field(ge=1, le=1 << 24)] = 32064
    positions: Size = 192
    """Patches along the largest side of a picture."""
    time_width: Size = 256
    """Sinusoids of the time."""
    rope_base: Annotated[int, Field(gt=1)] = 10_000
    context: Annotated[int, Field(ge=1)] = 131_072
    """The longest sequence."""
    short_context: Annotated[int, Field(ge=1)] = 4096
    """Sequences up to this length have RoPE's ``short_factors``, longer ones its ``long_factors``."""
    short_factors: Factors = ()
    """By the dimension of half a head; none: 1 each."""
    long_factors: Factors = ()
    norm_eps: Annotated[float, Field(gt=0)] = 1e-5

    def __post_init__(self) -> None:
        if self.width % (2 * self.heads) or self.heads % self.value_heads:
            raise ValueError(
                f"width {self.width} must be a multiple of 2 × heads ({2 * self.heads}), and heads of value_heads "
                f"({self.value_heads})"
            )
        half = self.width // self.heads // 2
        for factors in (self.short_factors, self.long_factors):
            if len(factors) not in (0, half):
                raise ValueError(f"RoPE has {half} factors, a half of a head's width, not {len(factors)}")


class RopeScaling(BaseModel):
    """RoPE's factors in a base's config.json."""

    model_config = ConfigDict(strict=True)

    short_factor: list[float]
    long_factor: list[float]


class OmniGenFile(BaseModel):
    """What ``config.json`` of ``OmniGenTransformer2DModel`` says; the defaults are those of the class."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)

    kind: Annotated[Literal["OmniGenTransformer2DModel"], Field(alias="_class_name")]
    in_channels: Size = 4
    patch_size: Size = 2
    hidden_size: Size = 3072
    num_attention_heads: Size = 32
    num_key_value_heads: Size = 32
    intermediate_size: Size = 8192
    num_layers: Layers = 32
    vocab_size: Annotated[int, Field(ge=1, le=1 << 24)] = 32064
    pos_embed_max_size: Size = 192
    time_step_dim: Size = 256
    rope_base: Annotated[int, Field(gt=1)] = 10_000
    max_position_embeddings: Annotated[int, Field(ge=1)] = 131_072
    original_max_position_embeddings: Annotated[int, Field(ge=1)] = 4096
    rope_scaling: RopeScaling
    rms_norm_eps: Annotated[float, Field(gt=0)] = 1e-5
    flip_sin_to_cos: Literal[True] = True
    downscale_freq_shift: Literal[0] = 0
    timestep_activation_fn: Literal["silu"] = "silu"

    def sizes(self) -> dict[str, Any]:
        """The fields of ``OmniGenConfig`` that are the base's."""
        scaling = self.rope_scaling
        factors = {"short_factors": tuple(scaling.short_factor), "long_factors": tuple(scaling.long_factor)}
        return {ours: getattr(self, theirs) for ours, theirs in NAMES.items()} | factors


NAMES = {
    "latent_channels": "in_channels",
    "patch": "patch_size",
    "width": "hidden_size",
    "heads": "num_attention_heads",
    "value_heads": "num_key_value_heads",
    "hidden": "intermediate_size",
    "depth": "num_layers",
    "vocabulary": "vocab_size",
    "positions": "pos_embed_max_size",
    "time_width": "time_step_dim",
    "rope_base": "rope_base",
    "context": "max_position_embeddings",
    "short_context": "original_max_position_embeddings",
    "norm_eps": "rms_norm_eps",
}
"""What diffusers calls the fields of ``OmniGenConfig``."""


def diffusers_config(config: OmniGenConfig) -> dict[str, Any]:
    """The arguments of ``OmniGenTransformer2DModel``."""
    ones = (1.0,) * (config.width // config.heads // 2)
    scaling = {
        "short_factor": list(config.short_factors or ones),
        "long_factor": list(config.long_factors or ones),
        "type": "su",
    }
    # The padding token: attention never sees it.
    given = {theirs: getattr(config, ours) for ours, theirs in NAMES.items()}
    return given | {"rope_scaling": scaling, "pad_token_id": 0}


def parameters(config: OmniGenConfig) -> int:
    """All parameters, the adapters' too, without the libraries that make them."""
    d, f, r = config.width, config.hidden, config.rank
    kv = d // config.heads * config.value_heads
    block = 2 * d * d + 2 * d * kv + 3 * d * f + 2 * d
    block += r * (6 * d + 2 * kv + (2 * d + 3 * f if config.mlp else 0))
    patch = config.latent_channels * config.patch**2
    ends = 2 * (patch + 1) * d + (d + 1) * patch + config.vocabulary * d + d
    return config.depth * block + ends + 2 * (config.time_width + d + 2) * d + 2 * (d + 1) * d


NF4_BITS = 4 + 8 / 64 + 32 / (64 * 256)
"""Of a weight in QLoRA: 4 of NF4, its block of 64's scale in 8, and 32 for each 256 of these scales (Dettmers et al.,
arXiv 2305.14314, section 3)."""


def spared(config: OmniGenConfig) -> int:
    """Bytes that QLoRA spares a base in bf16: of the blocks' matrices, of which one at a time is brought to bf16."""
    d, f = config.width, config.hidden
    matrices = config.depth * (2 * d * d + 2 * d * (d // config.heads * config.value_heads) + 3 * d * f)
    return int(matrices * (2 - NF4_BITS / 8)) - 2 * d * 2 * f


def inactive(config: OmniGenConfig) -> int:
    """Parameters that a token does not use: none."""
    return 0


def _tokens(config: OmniGenConfig, height: int, width: int, text_tokens: int) -> tuple[int, int]:
    """Tokens of an image, and of the sequence: prompt, two images, time, target."""
    image = cells_along(height, config.patch) * cells_along(width, config.patch)
    return image, 3 * image + text_tokens + 1


def activations(config: OmniGenConfig, height: int, width: int, text_tokens: int) -> int:
    """Peak number of values in a block: the residual, the norm's, the MLP's three hidden ones; and attention's mask."""
    tokens = _tokens(config, height, width, text_tokens)[1]
    return tokens * (3 * config.width + 4 * config.hidden) + tokens * tokens


def flops(config: OmniGenConfig, height: int, width: int, text_tokens: int) -> int:
    """2 × MAC of one forward pass on latents of height × width: matrices, adapters, attention's 2 l² d."""
    d, f, r = config.width, config.hidden, config.rank
    image, tokens = _tokens(config, height, width, text_tokens)
    kv = d // config.heads * config.value_heads
    block = tokens * (2 * d * d + 2 * d * kv + 3 * d * f) + 2 * tokens * tokens * d
    block += tokens * r * (6 * d + 2 * kv + (2 * d + 3 * f if config.mlp else 0))
    patch = config.latent_channels * config.patch**2
    ends = 4 * image * patch * d + 2 * (config.time_width * d + d * d) + 2 * d * d
    return 2 * (config.depth * block + ends)
