"""The interface of a model family: ``Inputs`` and ``Prediction`` of its networks, and ``Family``, its row in the table.

Shapes: b batch, z latent channels, h, w latent grid, m tokens of a prompt, e their width, s of the semantics, k theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Annotated, Any

from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn

Size = Annotated[int, Field(ge=1, le=65536)]
"""Of a network's config: a number of channels, layers, heads or experts, or a width."""
Layers = Annotated[int, Field(ge=1, le=1024)]
"""How many there are one behind the other: each costs time to build, whatever its size."""
Optional = Annotated[int, Field(ge=0, le=65536)]
"""The same of a part that a network may lack: 0 where it does."""


Latent = Float[Tensor, "b z h w"]
Text = tuple[Float[Tensor, "b m e"], Bool[Tensor, "b m"] | None]
"""Embeddings, and their mask: False where a token is padding; None where none is, for the fastest attention kernel."""
Semantics = tuple[Float[Tensor, "b s k"], Bool[Tensor, "b s"] | None]
"""The same of what an encoder says of pictures."""


@dataclass(frozen=True)
class Inputs:
    """What a network is given. A network refuses what it has no use for.

    pair: the degraded latents of a and b. text: the prompts' embeddings, of any number of tokens, 0 included. z_t, t: a
    flow's noisy latent and its time in [0, 1]; None in a regression. guess: the latent of a first estimate of the fused
    image. semantics: what a frozen encoder says of the degraded pictures. present: which of a and b are there, where
    some are not. strength: share in [0, 1] of what the prompt asks to remove that is to be removed; None: all.
    """

    pair: tuple[Latent, Latent]
    text: Text
    _: KW_ONLY
    z_t: Latent | None = None
    t: Float[Tensor, " b"] | None = None
    guess: Latent | None = None
    semantics: Semantics | None = None
    present: Bool[Tensor, "b 2"] | None = None
    strength: Float[Tensor, " b"] | None = None

    def refuse(self, family: str, *names: str) -> None:
        """Raise ValueError where one of these fields is given, which networks of the family take no account of."""
        for name in names:
            if getattr(self, name) is not None:
                raise ValueError(f"the {family} takes no {name}")


@dataclass(frozen=True)
class Prediction:
    """What a network returns.

    latent: the predicted latent; the objective decides what it means (clean latent, velocity).
    balance: the load-balancing loss, mean over the layers: 1 where the load is uniform, 0 without experts.
    load: the fraction of the routed tokens that each expert of each layer received; a row sums to 1.
    notes: what else is to be known of each sample, by name, such as the share of its tokens that each expert received:
    validation takes their means by degradation. They have no gradient.
    """

    latent: Latent
    balance: Float[Tensor, ""]
    load: Float[Tensor, "layers experts"]
    notes: Mapping[str, Float[Tensor, "b _"]] = field(default_factory=dict[str, Tensor])


@dataclass(frozen=True)
class Family:
    """A model family: its config, its network, and formulas for its costs.

    config: has ``latent_channels``, ``text_width`` and ``patch``, the latent cells of a token's side: tiles start, and
    crops end, at its multiples; pictures of other sides are padded. network(config): a module with
    ``forward(inputs) -> Prediction``. inactive(config): the number of parameters that a token does not use.
    flops(config, h, w, text_tokens): 2 × MAC of one forward pass on one image with latents of h × w.
    activations(config, h, w, text_tokens): roughly the peak number of values that this forward pass holds in memory.
    preferences(network): what its weights say of its notes, by note and axis, for the report; None where nothing.
    base: the model of a base's config.json, whose ``sizes()`` are fields of the config, where networks change one; they
    then have ``take(tensors)`` and ``merged()``, and ``config.rank`` is that of their adapters, 0: none.
    parameters(config): the number of all parameters, where another library makes the network.
    """

    config: type
    network: Callable[[Any], nn.Module]
    inactive: Callable[[Any], int]
    flops: Callable[[Any, int, int, int], int]
    activations: Callable[[Any, int, int, int], int]
    preferences: Callable[[nn.Module], Mapping[str, Mapping[str, float]]] | None = None
    base: type | None = None
    parameters: Callable[[Any], int] | None = None
