"""What a model is: the names and settings of its parts, as data, and the parts built from it.

The trainer and the pipeline see the parts only through ``Assembly``: they know no model, tokenizer or objective by
name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from synth.types import UserError, check_schema
from train.models import build_model, find_model
from train.models.base import Prediction
from train.objectives import OBJECTIVES, AnyObjective, Objective, Predict, find_objective, guide
from train.priors import find_prior
from train.text import build_text
from train.tokenizers import build_tokenizer

SCHEMA = 1


@dataclass(frozen=True)
class Design:
    """All that decides what a model's weights mean."""

    model: str  # a name in MODELS, with ``config`` of its kind
    config: Any
    tokenizer: str  # a name in TOKENIZERS
    text: str  # a name in TEXTS
    objective: AnyObjective
    prior: str = "none"  # a name in PRIORS

    def to_json(self) -> dict[str, Any]:
        """The object that ``pipeline.json`` holds."""
        kind = next(name for name, cls in OBJECTIVES.items() if type(self.objective) is cls)
        return {
            "schema": SCHEMA,
            "model": self.model,
            "config": dataclasses.asdict(self.config),
            "tokenizer": self.tokenizer,
            "text": self.text,
            "prior": self.prior,
            "objective": {"kind": kind, **dataclasses.asdict(self.objective)},
        }

    @staticmethod
    def from_json(data: Any, where: str) -> Design:
        """The design that ``to_json`` wrote. Raises UserError, naming ``where`` and what is wrong."""
        if not isinstance(data, Mapping):
            raise UserError(f"{where}: must hold an object")
        check_schema(data.get("schema"), where)
        try:
            objective = dict(data["objective"])
            return Design(
                data["model"],
                from_fields(find_model(data["model"]).config, data["config"]),
                data["tokenizer"],
                data["text"],
                from_fields(find_objective(objective.pop("kind")), objective),
                data.get("prior", "none"),
            )
        except KeyError as error:
            raise UserError(f"{where}: {error} is missing") from None
        except (TypeError, ValueError) as error:
            raise UserError(f"{where}: {error}") from None


def from_fields(cls: type, data: Mapping[str, Any]) -> Any:
    """A dataclass from its fields; one that is not there keeps its default. Raises ValueError for an unknown one."""
    fields = {field.name: field for field in dataclasses.fields(cls)}
    for name, value in data.items():
        if name not in fields:
            raise ValueError(f"{cls.__name__} has no '{name}'; allowed: {', '.join(fields)}")
        default = fields[name].default
        number = isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool)
        if type(value) is not type(default) and not number:
            raise ValueError(f"{cls.__name__}.{name} must be of type {type(default).__name__}, not {value!r}")
    return cls(**data)


class Assembly(nn.Module):
    """A design's parts. Its state dict holds what is trained: the network and, where it learns, the prompt encoder."""

    def __init__(self, design: Design, rng: torch.Generator) -> None:
        super().__init__()
        self.design = design
        self.objective: Objective = design.objective
        self.tokenizer = build_tokenizer(design.tokenizer).requires_grad_(False)
        self.prior = find_prior(design.prior)
        if getattr(design.config, "prior", False) != (self.prior is not None):
            raise UserError(f"the design's prior is '{design.prior}', and its network's config says otherwise")
        self.text = build_text(design.text, rng)
        self._check()
        self.network = build_model(design.model, design.config, rng)

    def _check(self) -> None:
        """The network must be as wide as what it is given."""
        config, tokenizer, text = self.design.config, self.tokenizer, self.text
        if config.latent_channels != tokenizer.z:
            given = f"tokenizer '{self.design.tokenizer}' makes {tokenizer.z} latent channels"
            raise UserError(f"the design's {given}, its network's config.latent_channels is {config.latent_channels}")
        if config.text_width != text.width:
            given = f"text encoder '{self.design.text}' makes embeddings of width {text.width}"
            raise UserError(f"the design's {given}, its network's config.text_width is {config.text_width}")

    def trained(self) -> dict[str, nn.Parameter]:
        """What learns, by name."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}

    def encode(self, images: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b z h w"]:
        """Latents of images in [−1, 1]."""
        with torch.no_grad():
            return self.tokenizer.encode(images)

    def bind(
        self,
        z_a: Float[Tensor, "b z h w"],
        z_b: Float[Tensor, "b z h w"],
        prompts: Sequence[str],
        z_prior: Float[Tensor, "b z h w"] | None = None,
    ) -> Predict:
        """The network with the degraded latents, the prompts and the prior bound to it, as an objective calls it."""
        text, mask = self.text(prompts)
        # Where no prompt is padded, as for one image, attention needs no mask, and is faster without.
        real = None if bool(mask.all()) else mask

        def predict(z_t: Tensor | None, t: Tensor | None) -> Prediction:
            return self.network(z_a, z_b, z_t, t, text, real, z_prior)

        return predict

    @torch.inference_mode()
    def fuse(
        self,
        a: Float[Tensor, "b 3 H W"],
        b: Float[Tensor, "b 3 H W"],
        prompts: Sequence[str],
        rng: torch.Generator,
        objective: Objective | None = None,
        prior: Float[Tensor, "b 3 H W"] | None = None,
    ) -> Float[Tensor, "b 3 H W"]:
        """Fused images; values may leave [−1, 1]. objective: another way to sample; prior: the design's.

        Under guidance the network is asked under the prompts and under empty ones.
        """
        z_a, z_b = self.encode(a), self.encode(b)
        z_prior = None if prior is None else self.encode(prior)
        way = objective or self.objective
        predict = self.bind(z_a, z_b, prompts, z_prior)
        if way.guidance != 1:
            predict = guide(predict, self.bind(z_a, z_b, [""] * len(prompts), z_prior), way.guidance)
        latent = way.sample(predict, (z_a, z_b), rng)
        return self.tokenizer.decode(latent.float(), (a.shape[2], a.shape[3]))
