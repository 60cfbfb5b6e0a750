"""What a model is: the names and settings of its parts, as data, and the parts built from it.

The trainer and the pipeline see the parts only through ``Assembly``: they know no model, tokenizer or objective by
name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from clearfuse.synth.files.schema import validate
from clearfuse.synth.tables import plugins_of
from clearfuse.synth.types import SCHEMA, UserError
from clearfuse.train import text as texts
from clearfuse.train import tokenizers
from clearfuse.train.data.guesses import GUESSES
from clearfuse.train.models import MODELS, build_model, find_model
from clearfuse.train.models.base import Inputs, Latent, Prediction, Semantics
from clearfuse.train.objectives import OBJECTIVES, Objective
from clearfuse.train.objectives.base import Pair, Predict, guide, guide_twice
from clearfuse.train.objectives.noise import Rng
from clearfuse.train.objectives.pixels import PIXEL_LOSSES
from clearfuse.train.semantics import LoadedSemantics, blank_semantics, find_semantics
from clearfuse.train.weights import base as bases
from clearfuse.train.weights.source import named


@dataclass(frozen=True)
class Design:
    """All that decides what a model's weights mean."""

    model: str  # a name in MODELS, with ``config`` of its kind
    config: Any
    tokenizer: str  # a reference: see ``clearfuse.train.tokenizers``
    text: str  # a reference: see ``clearfuse.train.text``
    objective: Objective
    guess: str = "none"  # a name in GUESSES
    semantics: str = "none"  # a reference: see ``clearfuse.train.semantics``
    questions: tuple[str, ...] = ()  # that it is asked, if it is a language model
    base: str = bases.NONE  # a reference: see ``clearfuse.train.weights.base``

    def to_json(self) -> dict[str, Any]:
        """The object that ``pipeline.json`` holds."""
        return {
            "schema": SCHEMA,
            "model": self.model,
            "config": dataclasses.asdict(self.config),
            "tokenizer": self.tokenizer,
            "text": self.text,
            "guess": self.guess,
            "semantics": self.semantics,
            "questions": list(self.questions),
            "base": self.base,
            "objective": dataclasses.asdict(self.objective),
            **({"plugins": found} if (found := self.plugins()) else {}),
        }

    def plugins(self) -> list[dict[str, Any]]:
        """The records of the plugins that it has parts of."""
        terms = [*self.objective.pixels] if self.objective.pixel else []
        return plugins_of((MODELS, [self.model]), (OBJECTIVES, [self.objective.kind]), (PIXEL_LOSSES, terms))


@dataclass(frozen=True)
class Parts:
    """Where this machine has what a design only refers to.

    tokenizer, text, semantics, base: references in place of the design's. text_cache: a folder where a frozen prompt
    encoder's embeddings stay.
    """

    tokenizer: str | None = None
    text: str | None = None
    semantics: str | None = None
    base: str | None = None
    text_cache: Path | None = None


AS_DESIGNED = Parts()
"""All parts where the design says."""


class FoundParts(NamedTuple):
    """A design's tokenizer, encoders and base, and how each is found again."""

    tokenizer: tokenizers.LoadedTokenizer
    text: texts.LoadedText
    semantics: LoadedSemantics
    base: bases.LoadedBase


def find_parts(design: Design, parts: Parts, rng: torch.Generator) -> FoundParts:
    """The parts of a design, where this machine has them. rng: for encoders that learn."""
    return FoundParts(
        tokenizers.find_tokenizer(parts.tokenizer or design.tokenizer),
        texts.find_text(parts.text or design.text, rng, parts.text_cache),
        find_semantics(parts.semantics or design.semantics, design.questions, rng),
        bases.find_base(parts.base or design.base, find_model(design.model).base),
    )


class Assembly(nn.Module):
    """A design's parts. Its state dict holds what is trained: the network and, where they learn, the encoders.

    ``found``: how tokenizer and encoders are found again. The design names them so that they are found from anywhere,
    and of the hub at the commit that is loaded, unless ``parts`` says where they are. ``notes``: what the network noted
    of the latest batch.
    """

    def __init__(
        self,
        design: Design,
        rng: torch.Generator,
        parts: Parts = AS_DESIGNED,
        adapt: bool = False,
        blank: bool = False,
        check: Callable[[nn.Module], None] | None = None,
    ) -> None:
        """adapt: give the network the tokenizer's channels and the prompts' width, whatever its config has. blank: make
        the parts without weights, on torch's device ``meta``, to count what they cost. check: see ``build_model``."""
        super().__init__()
        self.found = _blank_parts(design) if blank else find_parts(design, parts, rng)
        tokenizer, text, semantics, base = self.found
        if parts.tokenizer is not None:
            grid = tokenizers.Grid(tokenizer.tokenizer.f, tokenizer.tokenizer.z)
            check_latents(design.tokenizer, parts.tokenizer, grid)
        named_so = dataclasses.replace(
            design, tokenizer=tokenizer.reference, text=text.reference, semantics=semantics.reference
        )
        width = 0 if semantics.encoder is None else semantics.encoder.width
        named_so = dataclasses.replace(named_so, config=based_config(design, base))
        self.design = dataclasses.replace(
            design,
            config=adapted_config(named_so, tokenizer.tokenizer.z, text.encoder.width, width, adapt),
            tokenizer=design.tokenizer if parts.tokenizer else tokenizer.reference,
            text=design.text if parts.text else text.reference,
            semantics=design.semantics if parts.semantics else semantics.reference,
            base=design.base if parts.base else base.reference,
        )
        self.objective: Objective = design.objective
        self.tokenizer = tokenizer.tokenizer
        self.guess = GUESSES[design.guess]
        if getattr(design.config, "guess", False) != (self.guess is not None):
            raise UserError(f"the design's guess is '{design.guess}', and its network's config says otherwise")
        self.text = text.encoder
        self.semantics = semantics.encoder
        if blank:
            with torch.device("meta"):
                self.network = find_model(design.model).network(self.design.config)
        else:
            tensors = None if base.folder is None else base.tensors
            self.network = build_model(design.model, self.design.config, rng, tensors, check)
        self.one_length = False
        self.notes: Mapping[str, Tensor] = {}

    @property
    def has_dial(self) -> bool:
        """Whether the network can be asked to remove a share of a degradation."""
        return getattr(self.design.config, "dial", False)

    def compile_for(self, network_compiler: Callable[[nn.Module], None]) -> None:
        """Compile the network. All prompts then have one length and a mask: a graph belongs to a shape."""
        self.one_length = True
        network_compiler(self.network)

    def trained(self) -> dict[str, nn.Parameter]:
        """What learns, by name."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}

    def encode(self, images: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b z h w"]:
        """Latents of images in [−1, 1]."""
        with torch.no_grad():
            return self.tokenizer.encode(images)

    def bind(
        self,
        pair: Pair,
        prompts: Sequence[str],
        *,
        embeddings: tuple[Float[Tensor, "b m e"], Bool[Tensor, "b m"]] | None = None,
        guess: Latent | None = None,
        semantics: Semantics | None = None,
        present: Bool[Tensor, "b 2"] | None = None,
        strength: Float[Tensor, " b"] | None = None,
    ) -> Predict:
        """The network with all of its inputs but a flow's bound to it, as an objective calls it: see ``Inputs``.

        embeddings: of the prompts, with their mask, where they are at hand. strength: left out for a network without a
        dial.
        """
        text, mask = self.text(prompts) if embeddings is None else (embeddings[0].float(), embeddings[1])
        if self.one_length:
            more = self.text.limit - text.shape[1]
            text, real = F.pad(text, (0, 0, 0, more)), F.pad(mask, (0, more))
        else:
            # Where no prompt is padded, as for one image, attention needs no mask, and is faster without.
            real = None if bool(mask.all()) else mask
        bound = Inputs(
            pair,
            (text, real),
            guess=guess,
            semantics=semantics,
            present=present,
            strength=strength if self.has_dial else None,
        )

        def predict(z_t: Tensor | None, t: Tensor | None) -> Prediction:
            prediction = self.network(dataclasses.replace(bound, z_t=z_t, t=t))
            self.notes = prediction.notes
            return prediction

        return predict

    @torch.inference_mode()
    def fuse(
        self,
        a: Float[Tensor, "b 3 H W"],
        b: Float[Tensor, "b 3 H W"],
        prompts: Sequence[str],
        rng: Rng,
        objective: Objective | None = None,
        guess: Float[Tensor, "b 3 H W"] | None = None,
        semantics: Semantics | None = None,
        strength: Float[Tensor, " b"] | None = None,
    ) -> Float[Tensor, "b 3 H W"]:
        """Fused images; values may leave [−1, 1]. objective: another way to sample; guess: the design's; semantics: of
        the whole pictures, if the design has any; strength: see ``Inputs``.

        Under guidance the network is asked under the prompts and under empty ones, and without images too where the
        images have a scale of their own.
        """
        pair = self.encode(a), self.encode(b)
        z_guess = None if guess is None else self.encode(guess)
        way = objective or self.objective
        given = {"guess": z_guess, "semantics": semantics, "strength": strength}
        predict = self.bind(pair, prompts, **given)
        if way.guidance_images != 1:
            nothing = torch.zeros(len(prompts), 2, dtype=torch.bool, device=pair[0].device)
            alone = self.bind(pair, [""] * len(prompts), **given)
            none = self.bind(pair, [""] * len(prompts), present=nothing, **given)
            predict = guide_twice(predict, alone, none, way.guidance_images, way.guidance)
        elif way.guidance != 1:
            predict = guide(predict, self.bind(pair, [""] * len(prompts), **given), way.guidance)
        latent = way.sample(predict, pair, rng)
        return self.tokenizer.decode(latent.float(), (a.shape[2], a.shape[3]))


def _blank_parts(design: Design) -> FoundParts:
    with torch.device("meta"):
        tokenizer, text = tokenizers.blank_tokenizer(design.tokenizer), texts.blank_text(design.text)
        semantics = blank_semantics(design.semantics)
    return FoundParts(
        tokenizers.LoadedTokenizer(tokenizer, design.tokenizer),
        texts.LoadedText(text, design.text),
        LoadedSemantics(semantics, design.semantics),
        bases.LoadedBase(design.base),
    )


def based_config(design: Design, base: bases.LoadedBase) -> Any:
    """The network's config with the sizes of its base, which nobody can change."""
    family, name = find_model(design.model), base.reference
    sizes = bases.sizes_of(name, family.base) if base.folder is None else bases.sizes_in(base.folder, family.base, name)
    return (
        validate(type(design.config), dataclasses.asdict(design.config) | sizes, f"--base {name}")
        if sizes
        else design.config
    )


def adapted_config(design: Design, z: int, width: int, semantics_width: int, adapt: bool = False) -> Any:
    """The network's config, which has the tokenizer's z channels and the widths of prompts and semantics.

    adapt: give it them. Raises UserError where they do not fit.
    """
    config = design.config
    takes = hasattr(config, "semantics_width")
    if semantics_width and not takes:
        raise UserError(f"the design's semantics are '{design.semantics}': networks of '{design.model}' take none")
    if adapt:
        fitted = {"latent_channels": z, "text_width": width} | ({"semantics_width": semantics_width} if takes else {})
        return validate(type(config), dataclasses.asdict(config) | fitted, f"a network of '{design.model}'")
    if takes and config.semantics_width != semantics_width:
        given = f"semantics '{design.semantics}' has tokens of width {semantics_width}"
        raise UserError(f"the design's {given}, its network's config.semantics_width is {config.semantics_width}")
    if config.latent_channels != z:
        given = f"tokenizer '{design.tokenizer}' makes {z} latent channels"
        raise UserError(f"the design's {given}, its network's config.latent_channels is {config.latent_channels}")
    if config.text_width != width:
        given = f"text encoder '{design.text}' makes embeddings of width {width}"
        raise UserError(f"the design's {given}, its network's config.text_width is {config.text_width}")
    return config


def check_latents(own: str, given: str, grid: tokenizers.Grid) -> None:
    """Raises UserError where a tokenizer that stands in for a model's own surely makes other latents.

    own, given: references; grid: the given one's. By name, and else by f and z where the own is a name; two folders
    are told apart by their digests (``pipeline.check_parts``).
    """
    names = [named(each, tokenizers.NAMES) for each in (own, given)]
    if names[0] is None:
        return
    if names[1] is not None and names[0] != names[1]:
        raise UserError(f"--tokenizer {given}: the model knows the latents of '{own}', not of '{names[1]}'")
    if grid != (known := tokenizers.GRIDS[names[0]]):
        theirs, ours = (f"f = {each.f} and z = {each.z}" for each in (grid, known))
        raise UserError(f"--tokenizer {given}: makes latents of {theirs}; those of the model's '{own}' have {ours}")
