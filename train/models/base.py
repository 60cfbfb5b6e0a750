"""What every model family gives: one prediction, and one row of the table of families."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True)
class Prediction:
    """What a network returns.

    latent: the predicted latent; what it stands for (clean latent, velocity) is the objective's to say.
    balance: the load-balancing loss, mean over the layers: 1 where all experts work alike, 0 without experts.
    load: the share of the routed tokens that each expert of each layer received; a row sums to 1.
    """

    latent: Float[Tensor, "b z h w"]
    balance: Float[Tensor, ""]
    load: Float[Tensor, "layers experts"]


@dataclass(frozen=True)
class Family:
    """A model family: its config, its network, and its costs by formula.

    network(config): a module with ``forward(z_a, z_b, z_t, t, text, text_mask, prior) -> Prediction``; z_t and t are
    None in a regression, text_mask where no prompt is padded, prior where the config has none. inactive(config):
    parameters that a token does not use. flops(config, h, w, text_tokens): 2 × MAC of one call on one image with
    latents of h × w. activations(config, h, w, text_tokens): about how many values live at once at most in that call.
    """

    config: type
    network: Callable[[Any], nn.Module]
    inactive: Callable[[Any], int]
    flops: Callable[[Any, int, int, int], int]
    activations: Callable[[Any, int, int, int], int]
