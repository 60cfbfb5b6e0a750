"""MdaIF: fusion and restoration by a semantic prior of the degraded pictures, without a label of their degradation.

Source: MdaIF (arXiv 2511.12525); what it leaves open is decision 0034. The prior's tokens are what an encoder of whole
pictures, such as a vision-language model, says of the degraded ones. Shapes: b batch, c channels, h, w cells of a
level, l all of them in raster order, s tokens of the prior, k their width, d width once embedded, n prototypes.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional as F

from clearfuse.synth.files.schema import STRICT
from clearfuse.train.models.attention import attention
from clearfuse.train.models.base import Inputs, Layers, Optional, Prediction, Size
from clearfuse.train.models.experts import Experts, Router, Routing, dispatch
from clearfuse.train.models.layers import ZeroConv2d, ZeroLinear, initialise
from clearfuse.train.models.mmaif import routed
from clearfuse.train.models.restorer import ConvBlock, Level, blended

MULTIPLE = 32
"""Pixels of a cell of the coarsest level; images are padded to multiples."""
SHARPNESS = 4.0
"""Largest logit of a prototype's activation: σ(±4) = 0.018 and 0.982."""

Sizes = tuple[Size, Size, Size, Size]


@dataclass(frozen=True, config=STRICT)
class MdaIFConfig:
    """Hyperparameters; the encoders are by default those of SegFormer's MiT-B2."""

    patch: ClassVar[int] = MULTIPLE
    """Pixels of a token's side, at whose multiples tiles start."""
    tile: ClassVar[int] = 1024
    """Side of the tiles of larger images, pixels."""

    latent_channels: Literal[3] = 3
    """The network works on pixels."""
    text_width: Literal[0] = 0
    """It takes no prompts."""
    semantics_width: Optional = 2560
    """Width of the tokens of the semantic prior; 0: zeros stand in for it."""
    guess: bool = False
    """An initial estimate of the fused image is given, and the network starts as its copy; else as the visible's."""
    widths: Sizes = (64, 128, 320, 512)
    """Channels of the encoders at 1/4, 1/8, 1/16 and 1/32 of the resolution."""
    depths: tuple[Layers, Layers, Layers, Layers] = (3, 4, 6, 3)
    """Transformer blocks of an encoder at these."""
    heads: Sizes = (1, 2, 5, 8)
    reductions: Sizes = (8, 4, 2, 1)
    """By which the sides of keys and values are reduced in their attention."""
    prior_width: Annotated[Size, Field(multiple_of=4)] = 256
    """Width of the embedded prior."""
    prototypes: Size = 3
    """Degradation prototypes."""
    experts: Size = 4
    active: Size = 2
    """Experts of an image at each level."""
    width: Size = 48
    """Channels of the decoder at half resolution."""
    blocks: Layers = 2
    """Residual blocks of the decoder at each level."""
    output_scale: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Factor of the three output layers, which start at 0: see ``RestorerConfig``."""

    def __post_init__(self) -> None:
        if any(width % heads for width, heads in zip(self.widths, self.heads, strict=True)):
            raise ValueError(f"widths {self.widths} must be multiples of heads {self.heads}, one by one")
        if self.active > self.experts:
            raise ValueError(f"active {self.active} must be 1 to {self.experts}, the number of experts")
        most = min(2 * min(self.widths), self.prior_width)
        if self.prototypes > most:
            raise ValueError(f"prototypes {self.prototypes} must be at most {most}, to be orthonormal")


class CrossAttention(nn.Module):
    """x + W_o softmax(q kᵀ / √c) v: a map's cells attend to the tokens of the prior; W_o starts at 0."""

    def __init__(self, width: int, prior_width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(prior_width, 2 * width)
        self.out = ZeroLinear(width, width)

    def forward(
        self, x: Float[Tensor, "b l c"], tokens: Float[Tensor, "b s d"], mask: Bool[Tensor, "b s"] | None
    ) -> Float[Tensor, "b l c"]:
        """Keeps the shape; tokens where the mask is False are ignored."""
        k, v = self.kv(tokens)[:, None].chunk(2, -1)
        return x + self.out(attention(self.q(self.norm(x))[:, None], k, v, mask)[:, 0])


class SemanticPrior(nn.Module):
    """DSPE: S_embed = LN(MLP(S)), S_prior = S_embed + SA(S_embed), and the part of it on weather and that on the scene.

    width: of S; 0: zeros stand in for S_embed.
    """

    def __init__(self, width: int, prior_width: int) -> None:
        super().__init__()
        self.width = prior_width
        self.mlp = None
        if width:
            self.mlp = nn.Sequential(nn.Linear(width, prior_width), nn.GELU(), nn.Linear(prior_width, prior_width))
        self.norm = nn.LayerNorm(prior_width, eps=1e-6)
        self.qkv = nn.Linear(prior_width, 3 * prior_width)
        self.out = nn.Linear(prior_width, prior_width)
        self.weather = nn.Linear(prior_width, prior_width)
        self.scene = nn.Linear(prior_width, prior_width)

    def forward(
        self, tokens: Float[Tensor, "b s k"], mask: Bool[Tensor, "b s"] | None
    ) -> tuple[Float[Tensor, "b s d"], Float[Tensor, "b s d"], Float[Tensor, "b s d"]]:
        """S_prior, S_weather and S_scene."""
        embedded = tokens.new_zeros(*tokens.shape[:2], self.width) if self.mlp is None else self.mlp(tokens)
        embedded = self.norm(embedded)
        q, k, v = rearrange(self.qkv(embedded), "b s (three n k) -> three b n s k", three=3, n=4).unbind()
        prior = embedded + self.out(rearrange(attention(q, k, v, mask), "b n s k -> b s (n k)"))
        return prior, self.weather(prior), self.scene(prior)


class ChannelAttention(nn.Module):
    """DCAM: F = LN(F_in) ⊙ σ(s W) + F_in, W the prototypes' responses by channel, orthonormal at the start."""

    DECAYED = ()

    def __init__(self, width: int, prototypes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.prototypes = nn.Parameter(torch.zeros(prototypes, width))

    def forward(self, x: Float[Tensor, "b l c"], activations: Float[Tensor, "b n"]) -> Float[Tensor, "b l c"]:
        """Modulate the channels of a map's cells. activations: s of each prototype, in (0, 1)."""
        weights = (activations.to(self.prototypes.dtype) @ self.prototypes).sigmoid()
        return self.norm(x) * weights[:, None] + x


class Activations(nn.Module):
    """s_k = σ(4 cos(S, p_k)) of the prior's mean S; the p stay orthonormal, lest all become one: decision 0057."""

    DECAYED = ()

    def __init__(self, width: int, prototypes: int) -> None:
        super().__init__()
        self.directions = nn.Parameter(torch.zeros(prototypes, width))

    def forward(self, summary: Float[Tensor, "b d"]) -> Float[Tensor, "b n"]:
        """In (0, 1), fp32."""
        with torch.autocast(summary.device.type, enabled=False):
            cosines = F.normalize(summary.float(), dim=-1) @ orthonormal(self.directions.float()).T
            return (SHARPNESS * cosines).sigmoid()


def orthonormal(rows: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """The rows one after the other, less their parts along those before, at length 1 (Gram and Schmidt)."""
    done: list[Tensor] = []
    for row in rows:
        for before in done:
            row = row - (row @ before) * before
        done.append(F.normalize(row, dim=0))
    return torch.stack(done)


class Expert(nn.Sequential):
    """W2 gelu(DW3×3(W1 x)) on maps."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 1),
            nn.Conv2d(outputs, outputs, 3, padding=1, groups=outputs),
            nn.GELU(),
            nn.Conv2d(outputs, outputs, 1),
        )


class Mixture(nn.Module):
    """DMoE of a level: y = W x + Σ w_i expert_i(x) over the experts of an image, which weather and scene have enhanced.

    S_weather enhances the visible half of the features, S_scene both halves; the means of features and S_prior route.
    """

    def __init__(self, width: int, config: MdaIFConfig) -> None:
        super().__init__()
        self.weather = CrossAttention(width, config.prior_width)
        self.scene = CrossAttention(2 * width, config.prior_width)
        self.router = Router(2 * width + config.prior_width, config.experts, config.active)
        self.experts = Experts(Expert(2 * width, width) for _ in range(config.experts))
        self.shared = nn.Conv2d(2 * width, width, 1)

    def forward(
        self,
        x: Float[Tensor, "b l twice"],
        rows: int,
        prior: tuple[Float[Tensor, "b s d"], Float[Tensor, "b s d"], Float[Tensor, "b s d"]],
        mask: Bool[Tensor, "b s"] | None,
    ) -> tuple[Float[Tensor, "b c h w"], Routing]:
        """Fuse the features of both images. rows: of the map, whose cells are in raster order."""
        tokens, weather, scene = prior
        visible, infrared = x.chunk(2, -1)
        enhanced = self.scene(torch.cat([self.weather(visible, weather, mask), infrared], -1), scene, mask)
        choice = self.router(torch.cat([x.mean(1), masked_mean(tokens, mask)], -1))
        maps = rearrange(enhanced, "b (h w) c -> b c h w", h=rows)
        fused = self.shared(maps) + dispatch(maps, choice, self.experts)
        return fused, self.router.routing(choice, len(x), None)


class MdaIF(nn.Module):
    """The network: ``MdaIF(config)(inputs)``."""

    def __init__(self, config: MdaIFConfig) -> None:
        super().__init__()
        self.config = config
        c, d, images = config.widths, config.prior_width, streams(config)
        self.encoders = nn.ModuleList(encoder(config) for _ in range(2))
        self.prior = SemanticPrior(config.semantics_width, d)
        self.activation = Activations(d, config.prototypes)
        self.dcam = nn.ModuleList(ChannelAttention(2 * width, config.prototypes) for width in c)
        self.dmoe = nn.ModuleList(Mixture(width, config) for width in c)
        self.context = nn.Sequential(nn.Linear(d, d), nn.SiLU(), nn.Linear(d, d), nn.SiLU())
        self.stem = nn.Conv2d(4 * images * 3, config.width, 3, padding=1)
        self.up = nn.ModuleList(nn.Conv2d(a, 4 * b, 1) for a, b in zip(c, (config.width, *c[:3]), strict=True))
        self.decoder = nn.ModuleList(
            Level(ConvBlock(width, d) for _ in range(config.blocks)) for width in (config.width, *c[:3])
        )
        self.gain = ZeroConv2d(c[1], images * 3, 3, padding=1)
        self.tone = ZeroLinear(d, 2 * images * 3)
        self.head = ZeroConv2d(config.width, 4 * (images + 3), 3, padding=1)

    def initialise(self, rng: torch.Generator) -> None:
        """Initialise all parameters from the generator: prototypes orthonormal, the others as ``layers.initialise``."""
        initialise(self, rng)
        nn.init.orthogonal_(self.activation.directions, generator=rng)
        for level in self.dcam:
            nn.init.orthogonal_(level.prototypes, generator=rng)

    def forward(self, inputs: Inputs) -> Prediction:
        """The fused image in [−1, 1] of two degraded ones of any size."""
        if inputs.z_t is not None or inputs.t is not None:
            raise ValueError("MdaIF is a regression: it takes neither z_t nor t")
        if self.config.guess != (inputs.guess is not None):
            raise ValueError("a guess must be given if and only if the config has one")
        if bool(self.config.semantics_width) != (inputs.semantics is not None):
            raise ValueError("a semantic prior must be given if and only if the config has a width of it")
        inputs.refuse("MdaIF", "strength", "present")
        height, width = inputs.pair[0].shape[2:]
        a, b, *guess = (self._padded(z) for z in (*inputs.pair, inputs.guess) if z is not None)

        tokens, mask = inputs.semantics or (a.new_zeros(len(a), 1, 1), None)
        prior = self.prior(tokens.to(a.dtype), mask)
        summary = masked_mean(prior[0], mask)
        activations = self.activation(summary)
        levels, statistics = self._fused(a, b, activations, prior, mask)
        context = self.context(summary)

        images = [a, b, *guess] if guess else [b, a]  # of which the last is where the network starts
        fused = self._decoded(levels, context, images)
        notes = {"prototype": activations.detach()}
        balance, load, shares = routed(statistics, fused)
        return Prediction(fused[..., :height, :width], balance, load, notes | shares)

    def _padded(self, z: Tensor) -> Tensor:
        return F.pad(z, (0, -z.shape[3] % MULTIPLE, 0, -z.shape[2] % MULTIPLE), mode="replicate")

    def _fused(
        self, a: Tensor, b: Tensor, activations: Tensor, prior: tuple[Tensor, Tensor, Tensor], mask: Tensor | None
    ) -> tuple[list[Tensor], list[Routing | None]]:
        """The fused features of each level, and how its experts were chosen."""
        levels: list[Tensor] = []
        statistics: list[Routing | None] = []
        encoders: list[Any] = list(self.encoders)
        for i, (dcam, dmoe) in enumerate(zip(self.dcam, self.dmoe, strict=True)):
            a, b = (one.stages[i](x) for one, x in zip(encoders, (a, b), strict=True))
            cells = rearrange(torch.cat([a, b], 1), "b c h w -> b (h w) c")
            fused, routing = dmoe(dcam(cells, activations), a.shape[2], prior, mask)
            levels.append(fused)
            statistics.append(routing)
        return levels, statistics

    def _decoded(self, levels: list[Tensor], context: Tensor, images: list[Tensor]) -> Tensor:
        """Up from the coarsest level, with the pixels themselves at half resolution."""
        pixels = self.stem(F.pixel_unshuffle(torch.cat(images, 1), 2))
        x, gain = levels[3], None
        for i, skip in reversed(list(enumerate((pixels, *levels[:3])))):
            x = self.decoder[i](F.pixel_shuffle(self.up[i](x), 2) + skip, context)
            if i == 2:
                gain = self.gain(x)
        assert gain is not None
        scale = self.config.output_scale
        return blended(scale * self.head(x), scale * gain, scale * self.tone(context), images)


def masked_mean(tokens: Float[Tensor, "b s d"], mask: Bool[Tensor, "b s"] | None) -> Float[Tensor, "b d"]:
    """The mean of the tokens where the mask is True."""
    if mask is None:
        return tokens.mean(1)
    valid = mask[..., None].to(tokens.dtype)
    return (tokens * valid).sum(1) / valid.sum(1).clamp(min=1)


def segformer_config(config: MdaIFConfig) -> Any:
    """The config of transformers' ``SegformerModel``, without dropout, whose generator would be a global one."""
    from transformers.models.segformer.configuration_segformer import SegformerConfig

    return SegformerConfig(
        hidden_sizes=list(config.widths), depths=list(config.depths), num_attention_heads=list(config.heads),
        sr_ratios=list(config.reductions), hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        drop_path_rate=0.0, attn_implementation="sdpa",
    )  # fmt: skip


def encoder(config: MdaIFConfig) -> Any:
    """SegFormer's encoder of one image (Xie et al., arXiv 2105.15203)."""
    from transformers.models.segformer.modeling_segformer import SegformerModel

    return SegformerModel(segformer_config(config))


def preferences(network: nn.Module) -> dict[str, dict[str, float]]:
    """Of each prototype, by modality and level: the mean square response of these channels over that of the level's.

    1 everywhere is no preference.
    """
    assert isinstance(network, MdaIF)
    found: dict[str, dict[str, float]] = {}
    for k in range(network.config.prototypes):
        for level, dcam in enumerate(network.dcam):
            squares = dcam.prototypes[k].detach().float().square()  # type: ignore[union-attr, index]
            for modality, half in zip(("visible", "infrared"), squares.chunk(2), strict=True):
                axis = f"{modality} 1/{4 * 2**level}"
                found.setdefault(f"prototype-{k}", {})[axis] = float(half.mean() / squares.mean())
    return found


def streams(config: MdaIFConfig) -> int:
    """The number of input images: both degraded ones, and the guess."""
    return 2 + config.guess


def inactive(config: MdaIFConfig) -> int:
    """Parameters that an image does not use: the experts it is not sent to."""
    idle = config.experts - config.active
    return idle * sum(3 * c * c + 12 * c for c in config.widths)


def activations(config: MdaIFConfig, height: int, width: int, text_tokens: int) -> int:
    """Peak number of values, roughly: at half resolution a block's input, two intermediates and the skip."""
    return (height // 2) * (width // 2) * 4 * config.width


def flops(config: MdaIFConfig, height: int, width: int, text_tokens: int) -> int:
    """2 × MAC of one forward pass on images of height × width: linear layers, convolutions, attention's products.

    text_tokens: here the tokens of the semantic prior. A linear layer or a convolution takes as many products as it has
    weights at each place that it is applied to.
    """
    with torch.device("meta"):
        network = MdaIF(config)
    cells = -(-height // MULTIPLE) * -(-width // MULTIPLE)
    levels = [cells * 4 ** (3 - level) for level in range(4)]
    tokens, d = text_tokens if config.semantics_width else 1, config.prior_width
    products = 2 * tokens * tokens * d + d * config.prototypes
    for level, count, c, r in zip(range(4), levels, config.widths, config.reductions, strict=True):
        products += 2 * config.depths[level] * 2 * count * (count // r**2) * c  # both encoders
        products += 2 * count * tokens * 3 * c + 2 * c * config.prototypes  # the prior's two attentions, DCAM
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            products += int(module.weight.numel() * _places(name.split("."), levels, tokens, config))
    return 2 * products


def _places(name: list[str], levels: list[int], tokens: int, config: MdaIFConfig) -> float:
    """How often a layer is applied in one forward pass, by the parts of its name. levels: cells of each."""
    match name:
        case ["encoders", _, _, level, *rest]:
            reduced = {"sequence_reduction", "k_proj", "v_proj"} & set(rest)
            return levels[int(level)] / (config.reductions[int(level)] ** 2 if reduced else 1)
        case ["prior", *_] | ["dmoe", _, _, "kv"]:
            return tokens
        case ["context" | "tone", *_] | ["dmoe", _, "router"] | ["decoder", _, _, "modulation"]:
            return 1
        case ["dmoe", level, "experts", *_]:
            return levels[int(level)] * config.active / config.experts
        case ["dmoe" | "up", level, *_]:
            return levels[int(level)]
        case ["decoder", level, *_] if level != "0":
            return levels[int(level) - 1]
        case ["gain"]:
            return levels[1]
        case _:
            assert name[0] in ("stem", "head", "decoder"), name
            return 4 * levels[0]  # at half resolution
