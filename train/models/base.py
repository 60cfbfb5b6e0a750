"""The interface of a model family: ``Prediction``, what its networks return, and ``Family``, its row in the table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

Size = Annotated[int, Field(ge=1, le=65536)]
"""Of a network's config: a number of channels, layers, heads or experts, or a width."""
Layers = Annotated[int, Field(ge=1, le=1024)]
"""How many there are one behind the other: each costs time to build, whatever its size."""
Optional = Annotated[int, Field(ge=0, le=65536)]
"""The same of a part that a network may lack: 0 where it does."""


@dataclass(frozen=True)
class Prediction:
    """What a network returns.

    latent: the predicted latent; the objective decides what it means (clean latent, velocity).
    balance: the load-balancing loss, mean over the layers: 1 where the load is uniform, 0 without experts.
    load: the fraction of the routed tokens that each expert of each layer received; a row sums to 1.
    """

    latent: Float[Tensor, "b z h w"]
    balance: Float[Tensor, ""]
    load: Float[Tensor, "layers experts"]


@dataclass(frozen=True)
class Family:
    """A model family: its config, its network, and formulas for its costs.

    network(config): a module with ``forward(z_a, z_b, z_t, t, text, text_mask, prior) -> Prediction``; z_t and t are
    None in a regression, text_mask where no prompt is padded, prior where the config has none. inactive(config): the
    number of parameters that a token does not use. flops(config, h, w, text_tokens): 2 × MAC of one forward pass on one
    image with latents of h × w. activations(config, h, w, text_tokens): roughly the peak number of values that this
    forward pass holds in memory.
    """

    config: type
    network: Callable[[Any], nn.Module]
    inactive: Callable[[Any], int]
    flops: Callable[[Any, int, int, int], int]
    activations: Callable[[Any, int, int, int], int]
