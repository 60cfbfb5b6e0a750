"""OmniGen of diffusers, changed by LoRA: its weights stay, what learns are the adapters.

Source: Xiao et al., OmniGen, arXiv 2409.11340, as ``OmniGenTransformer2DModel`` of diffusers has it; Hu et al., LoRA,
arXiv 2106.09685, by peft; DiTFuse (Li et al., TPAMI 2025). Shapes: b batch, z latent channels, h, w latent grid, l
tokens of the sequence, d width of a head.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from clearfuse.synth.types import UserError
from clearfuse.train.models.base import Inputs, Prediction
from clearfuse.train.models.layers import cells_along
from clearfuse.train.models.omnigen.config import OmniGenConfig, diffusers_config
from clearfuse.train.models.omnigen.sequence import A, B, chosen, lay_out

ATTENTION, MLP = ("to_q", "to_k", "to_v", "to_out.0"), ("gate_up_proj", "down_proj")
"""The layers of a block that LoRA changes, and those that it changes where it is asked to."""


class Rope(nn.Module):
    """RoPE's cosines and sines as ``OmniGenSuScaledRotaryEmbedding`` of diffusers has them: that one reads the length
    back from the device at each call.

    Angles p / (s_i base^(2 i / d)) with s_i the short or the long factors, times sqrt(1 + ln(c / c_0) / ln c_0), c the
    context and c_0 the short one. Source: Phi-3's long contexts (Ding et al., LongRoPE, arXiv 2402.13753).
    """

    def __init__(self, config: OmniGenConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, x: Tensor, positions: Int[Tensor, "1 l"]) -> tuple[Tensor, Tensor]:
        """Cosines and sines, (l, d), d the width of a head."""
        config, width = self.config, self.config.width // self.config.heads
        factors = config.long_factors if positions.shape[1] > config.short_context else config.short_factors
        scale = torch.tensor(factors or (1.0,) * (width // 2), dtype=torch.float32).to(x.device)
        powers = config.rope_base ** (torch.arange(0, width, 2, device=x.device).float() / width)
        angles = positions[0].float()[:, None] / (scale * powers)
        longer = max(config.context / config.short_context, 1.0)
        gain = math.sqrt(1 + math.log(longer) / math.log(config.short_context))
        both = torch.cat([angles, angles], -1)
        return both.cos() * gain, both.sin() * gain


class OmniGen(nn.Module):
    """The network: ``OmniGen(config)(inputs)``, a base with adapters, which alone are in its state dict.

    A deep copy has adapters of its own and the same base, which is kept as it is stored until it is used: then it is
    bf16 on CUDA and float32 elsewhere. precision: another dtype of the base.
    """

    def __init__(self, config: OmniGenConfig) -> None:
        """Raises UserError where peft is missing."""
        super().__init__()
        from diffusers.models.transformers.transformer_omnigen import OmniGenTransformer2DModel

        self.config = config
        self.precision: torch.dtype | None = None
        self.base: Any = OmniGenTransformer2DModel(**diffusers_config(config)).requires_grad_(False)
        self.base.rope = Rope(config)
        if config.rank:
            _inject(self.base, config)
        self._frozen = {name for name, p in self.named_parameters() if not p.requires_grad}
        self._frozen |= {name for name, _ in self.named_buffers()}
        self.register_state_dict_post_hook(_leave_the_base_out)
        self.register_load_state_dict_post_hook(_miss_no_base)

    def take(self, base: Mapping[str, Tensor]) -> None:
        """Take a base's tensors, by diffusers' names, in place of those that are there.

        Raises UserError where names or shapes do not fit, or the base should have 4 bits.
        """
        if self.config.bits == 4:
            raise UserError(
                "config.bits 4: a base of 4 bits (QLoRA) takes bitsandbytes on a GPU, and is not run here: train info "
                "counts its memory"
            )
        wanted = {name.replace(".base_layer.", "."): name for name in self.base.state_dict() if ".lora_" not in name}
        own = self.base.state_dict()
        faults = [name for name in wanted if name not in base or base[name].shape != own[wanted[name]].shape]
        faults += [name for name in base if name not in wanted]
        if faults:
            raise UserError(
                f"the base: {len(faults)} weights are missing, too many or of another shape, such as {faults[0]}"
            )
        renamed = {wanted[name]: tensor for name, tensor in base.items()}
        self.base.load_state_dict(renamed, strict=False, assign=True)
        self.base.requires_grad_(False)
        for name, parameter in self.base.named_parameters():
            parameter.requires_grad_(".lora_" in name)

    def initialise(self, rng: torch.Generator) -> None:
        """Draw the adapters as DiTFuse does: A of N(0, 1 / rank²), B 0, so that the model is the base at first."""
        for name, parameter in self.base.named_parameters():
            if parameter.requires_grad:
                with torch.no_grad():
                    if ".lora_A." in name:
                        drawn = torch.randn(parameter.shape, generator=rng) / self.config.rank
                        parameter.copy_(drawn)
                    else:
                        parameter.zero_()

    def forward(self, inputs: Inputs) -> Prediction:
        """Predict the velocity from a noisy latent, its time, and a prompt with two images, or without them."""
        inputs.refuse("OmniGen network", "strength", "guess", "semantics")
        z_t, t = inputs.z_t, inputs.t
        if z_t is None or t is None:
            raise ValueError("OmniGen is of a flow: it takes z_t and t")
        self._settle(z_t)
        height, width = z_t.shape[2:]
        p = self.config.patch
        tokens = cells_along(height, p) * cells_along(width, p)
        prompts = self.read(inputs)
        sequence = lay_out(prompts, tokens, z_t.device)
        pair = [self._padded(z) for z in inputs.pair]
        images = [pair[A - n][i : i + 1] for i, prompt in enumerate(prompts) for n in prompt if n in (A, B)]
        (latent,) = self.base(
            hidden_states=self._padded(z_t),
            timestep=t,
            input_ids=sequence.ids,
            input_img_latents=images,
            input_image_sizes=sequence.places,
            attention_mask=sequence.allowed[:, None],
            # diffusers takes the first sample's positions for all. RoPE is relative: those of the longest fit all.
            position_ids=sequence.positions.amax(0, keepdim=True),
            return_dict=False,
        )
        latent = latent[..., :height, :width]
        return Prediction(latent, latent.new_zeros(()), latent.new_zeros(self.config.depth, 0))

    def read(self, inputs: Inputs) -> list[list[int]]:
        """The numbers of each prompt, of those with images or without."""
        text, mask = inputs.text
        kept = text.new_ones(text.shape[:2], dtype=torch.bool) if mask is None else mask
        present = [True] * len(text) if inputs.present is None else inputs.present.any(1).tolist()
        rows = zip(text[..., 0].long().tolist(), kept.tolist(), present, strict=True)
        return [chosen([n for n, keep in zip(row, real, strict=True) if keep], there) for row, real, there in rows]

    def merged(self) -> dict[str, Tensor]:
        """The base's tensors with the adapters' changes added, by diffusers' names: W + alpha / rank B A."""
        state = self.base.state_dict()
        out = {name.replace(".base_layer.", "."): tensor for name, tensor in state.items() if ".lora_" not in name}
        scale = self.config.alpha / max(self.config.rank, 1)
        for name in state:
            if name.endswith(".lora_A.default.weight"):
                layer = name.removesuffix(".lora_A.default.weight")
                change = state[f"{layer}.lora_B.default.weight"].float() @ state[name].float()
                weight = out[f"{layer}.weight"]
                out[f"{layer}.weight"] = (weight.float() + scale * change).to(weight.dtype)
        return out

    def _padded(self, z: Float[Tensor, "b z h w"]) -> Float[Tensor, "b z hp wp"]:
        """Whole patches: where the grid is no multiple, the last row and column are repeated."""
        p = self.config.patch
        return F.pad(z, (0, -z.shape[3] % p, 0, -z.shape[2] % p), mode="replicate")

    def _settle(self, z: Tensor) -> None:
        """Bring the base, which copies share, to the dtype of its device."""
        dtype = self.precision or (torch.bfloat16 if z.is_cuda else torch.float32)
        if self.base.embed_tokens.weight.dtype != dtype:
            for parameter in self.base.parameters():
                if not parameter.requires_grad:
                    parameter.data = parameter.data.to(dtype)
            self.base.patch_embedding.pos_embed = self.base.patch_embedding.pos_embed.to(dtype)

    def __deepcopy__(self, memo: dict[int, Any]) -> OmniGen:
        frozen = (tensor for tensor in (*self.parameters(), *self.buffers()) if not tensor.requires_grad)
        memo.update((id(tensor), tensor) for tensor in frozen)
        made = self.__class__.__new__(self.__class__)
        memo[id(self)] = made
        made.__dict__.update({name: copy.deepcopy(value, memo) for name, value in self.__dict__.items()})
        return made


def _inject(base: nn.Module, config: OmniGenConfig) -> None:
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise UserError("LoRA of OmniGen needs peft: pip install 'clearfuse[lora]'") from None
    layers = [*ATTENTION, *(MLP if config.mlp else ())]
    lora = LoraConfig(r=config.rank, lora_alpha=config.alpha, target_modules=layers, init_lora_weights="gaussian")  # type: ignore[arg-type]
    inject_adapter_in_model(lora, base)


def _leave_the_base_out(module: Any, state: dict[str, Tensor], prefix: str, metadata: Any) -> None:
    for name in module._frozen:
        state.pop(prefix + name, None)


def _miss_no_base(module: Any, keys: Any) -> None:
    ends = tuple(module._frozen)
    keys.missing_keys[:] = [key for key in keys.missing_keys if not key.endswith(ends)]
