"""LoRA: low-rank changes of linear layers, beside their weights, which stay (Hu et al., arXiv 2106.09685).

W x + (α / r) B A x, with α = r, A Gaussian with variance 1 / r and B 0 at first, so that the model is what it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class LoRALinear(nn.Linear):
    """A linear layer with a change of low rank; ``adapt`` makes it of a plain one, whose weights keep their names.

    lora_a: (r, inputs); lora_b: (outputs, r).
    """

    DECAYED = ("lora_a", "lora_b")
    lora_a: nn.Parameter
    lora_b: nn.Parameter

    def forward(self, x: Float[Tensor, "*b k"]) -> Float[Tensor, "*b d"]:  # type: ignore[override]
        """Apply the layer and its change."""
        return super().forward(x) + F.linear(F.linear(x, self.lora_a), self.lora_b)


def adapt(network: nn.Module, rank: int, rng: torch.Generator) -> int:
    """Give every linear layer of a network a change of this rank, freeze all else; the number of layers.

    Layers with fewer inputs or outputs than the rank stay as they are.
    """
    layers = [module for module in network.modules() if isinstance(module, nn.Linear) and _wide(module, rank)]
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    for layer in layers:
        layer.__class__ = LoRALinear
        made = cast(LoRALinear, layer)
        a = torch.randn(rank, made.in_features, generator=rng) / rank**0.5
        made.lora_a = nn.Parameter(a.to(made.weight))
        made.lora_b = nn.Parameter(made.weight.new_zeros(made.out_features, rank))
    return len(layers)


def _wide(layer: nn.Linear, rank: int) -> bool:
    """Whether a layer is larger than its change. Routers, whose class calls them otherwise, are not."""
    return min(layer.in_features, layer.out_features) > rank and type(layer).forward is nn.Linear.forward


@torch.no_grad()
def merged(root: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of ``root`` with each change added to its layer's weight: that of a model without LoRA."""
    out = {name: tensor for name, tensor in state.items() if not name.endswith(("lora_a", "lora_b"))}
    for name, module in root.named_modules():
        if isinstance(module, LoRALinear):
            out[f"{name}.weight"] = state[f"{name}.weight"] + state[f"{name}.lora_b"] @ state[f"{name}.lora_a"]
    return out
