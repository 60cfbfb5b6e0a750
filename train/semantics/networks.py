"""Networks of transformers as encoders of pictures, frozen: vision-language models and vision encoders.

A vision-language model is asked a question about each picture: its tokens are the last hidden states of the language
model over the picture's tokens and the question's. A vision encoder's are its last hidden states; it takes no question.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from jaxtyping import Float, UInt8
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from torch import Tensor

from clearfuse.synth.files.checkpoints import check_weights
from clearfuse.synth.tables import Table
from clearfuse.synth.types import UserError, reason_of
from clearfuse.train.semantics.base import SemanticEncoder, View
from clearfuse.train.weights.frozen import Frozen
from clearfuse.train.weights.source import CONFIG, read_config, read_vocabulary

PREPROCESSOR = "preprocessor_config.json"
FILES = (CONFIG, PREPROCESSOR, "model*.safetensors*")
"""The files of a vision encoder; a vision-language model needs ``VOCABULARY`` too."""

QUESTION = "what is the weather in this picture, how does it impair the picture, and what can be seen?"
"""What is asked where the user asks nothing else."""


def _blip2(network: Any, pixels: Tensor, ids: Tensor) -> Tensor:
    out = network(pixel_values=pixels, input_ids=ids, attention_mask=torch.ones_like(ids), output_hidden_states=True)
    return out.language_model_outputs.hidden_states[-1]


def _idefics(network: Any, pixels: Tensor, ids: Tensor) -> Tensor:
    out = network(pixel_values=pixels[:, None], input_ids=ids, output_hidden_states=True)
    return out.hidden_states[-1]


def _vision(network: Any, pixels: Tensor, ids: Tensor | None) -> Tensor:
    return network(pixel_values=pixels).last_hidden_state


def _blip2_prompt(config: Any, encode: Callable[[str], list[int]], question: str) -> list[int]:
    return [config.image_token_index] * config.num_query_tokens + encode(f"Question: {question} Answer:")


def _idefics_prompt(config: Any, encode: Callable[[str], list[int]], question: str) -> list[int]:
    vision = config.vision_config
    count = (vision.image_size // vision.patch_size) ** 2 // config.scale_factor**2
    start, end = "<|im_start|>User:<fake_token_around_image><global-img>", "<fake_token_around_image>"
    return [
        *encode(start), *([config.image_token_id] * count), *encode(f"{end}{question}<end_of_utterance>\nAssistant:"),
    ]  # fmt: skip


def _positive(values: tuple[float, ...]) -> tuple[float, ...]:
    if min(values) <= 0:
        raise ValueError(f"must be above 0, not {min(values)}")
    return values


@dataclass(frozen=True)
class Kind:
    """A class of transformers: its name, how its tokens are had, and the prompt of a language model."""

    name: str
    tokens: Callable[..., Tensor] = _vision
    prompt: Callable[[Any, Callable[[str], list[int]], str], list[int]] | None = None


KINDS: Table[Kind] = Table(
    "encoder",
    {
        "blip-2": Kind("Blip2ForConditionalGeneration", _blip2, _blip2_prompt),
        "smolvlm": Kind("SmolVLMForConditionalGeneration", _idefics, _idefics_prompt),
        "clip": Kind("CLIPVisionModel"),
        "siglip": Kind("SiglipVisionModel"),
        "dinov2": Kind("Dinov2Model"),
        "dinov3_vit": Kind("DINOv3ViTModel"),
    },
)
"""By the ``model_type`` of config.json."""


class SquareSize(BaseModel):
    """A size of pictures."""

    model_config = ConfigDict(strict=True)

    height: Annotated[int, Field(ge=1, le=4096)]


Three = tuple[float, float, float]


class Preprocessor(BaseModel):
    """What ``preprocessor_config.json`` says, of which only this is read."""

    model_config = ConfigDict(strict=True)

    image_mean: Three
    """Of the code values in [0, 1], by channel."""
    image_std: Annotated[Three, AfterValidator(_positive)]
    crop_size: SquareSize | Annotated[int, Field(ge=1, le=4096)] | None = None
    """Of the pictures that the network sees; null: the size that it was made for."""


@dataclass(frozen=True)
class Preparation:
    """(x − mean) / deviation of views in [0, 1], of ``side`` × ``side`` pixels."""

    side: int
    mean: Three
    deviation: Three

    def __call__(self, views: UInt8[Tensor, "n 3 side side"]) -> Float[Tensor, "n 3 side side"]:
        """What the network sees."""
        mean, deviation = (
            torch.tensor(each, device=views.device)[:, None, None] for each in (self.mean, self.deviation)
        )
        return (views.float() / 255 - mean) / deviation


class NetworkSemantics(Frozen, SemanticEncoder):
    """A network of one of ``KINDS``. On a CPU pictures are encoded one by one, so that no number depends on others."""

    trainable = False

    def __init__(
        self, network: Any, kind: Kind, width: int, preparation: Preparation, prompts: Sequence[Sequence[int]]
    ) -> None:
        super().__init__(network)
        self.kind, self.width, self.preparation = kind, width, preparation
        self.prompts = [torch.tensor(prompt) for prompt in prompts]
        self.view = View(preparation.side)

    @torch.no_grad()
    def encode(self, views: UInt8[Tensor, "n 3 side side"]) -> Float[Tensor, "n s k"]:
        """Tokens, float32; those of several questions are averaged one by one, over the questions that have them."""
        (network,) = self.networks
        with torch.autocast(views.device.type, enabled=False):
            if next(network.parameters()).dtype != self.dtype:
                network.to(self.dtype)
            pixels = self.preparation(views).to(self.dtype)
            parts = pixels.split(len(pixels) if views.is_cuda else 1)
            return torch.cat([self._tokens(network, part) for part in parts]).float()

    def _tokens(self, network: Any, pixels: Tensor) -> Tensor:
        if self.kind.prompt is None:
            return self.kind.tokens(network, pixels, None)
        answers = [
            self.kind.tokens(network, pixels, ids.to(pixels.device).expand(len(pixels), -1)) for ids in self.prompts
        ]
        longest = max(answer.shape[1] for answer in answers)
        padded = [torch.nn.functional.pad(answer, (0, 0, 0, longest - answer.shape[1])) for answer in answers]
        places = torch.arange(longest, device=pixels.device)
        counts = torch.stack([places < answer.shape[1] for answer in answers]).sum(0)
        return torch.stack(padded).sum(0) / counts[:, None]


def kind_of(folder: Path, where: str) -> tuple[Kind, Any]:
    """The kind of a folder's network, and its config. Raises UserError, ``where`` first, where none fits."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # transformers raises exceptions of various types
        raise UserError(f"{where}: {CONFIG} in {folder} can't be read: {reason_of(error)}") from None
    kind = KINDS.get(_vision_type(config.model_type))
    if kind is None:
        raise UserError(f"{where}: is a network of type '{config.model_type}': allowed: {', '.join(KINDS)}")
    if kind is KINDS["blip-2"] and config.text_config.model_type != "opt":
        raise UserError(f"{where}: its language model is '{config.text_config.model_type}', must be 'opt'")
    return kind, config


def _vision_type(name: str) -> str:
    """The type whose class reads it: a vision encoder may be saved alone."""
    return name.removesuffix("_vision_model")


def width_of(config: Any) -> int:
    """The width of the tokens of a network of a config."""
    for part in ("text_config", "vision_config"):
        own = getattr(config, part, None)
        if own is not None and (part == "text_config") == (KINDS[_vision_type(config.model_type)].prompt is not None):
            return int(own.hidden_size)
    return int(config.hidden_size)


def load_network(folder: Path, where: str, questions: Sequence[str]) -> NetworkSemantics:
    """The encoder of a folder with ``FILES``. Raises UserError, ``where`` first, if one is missing or does not fit."""
    import transformers

    kind, config = kind_of(folder, where)
    if kind.prompt is None and questions:
        raise UserError(f"--question: {where.removeprefix('--semantics ')} is no language model, and is asked nothing")
    vision = getattr(config, "vision_config", config)
    says = read_config(Preprocessor, folder, where, PREPROCESSOR)
    crop = says.crop_size.height if isinstance(says.crop_size, SquareSize) else says.crop_size
    preparation = Preparation(crop or int(vision.image_size), says.image_mean, says.image_std)
    prompts: list[list[int]] = []
    if kind.prompt is not None:
        vocabulary = read_vocabulary(folder, where)
        prompts = [
            kind.prompt(config, lambda text: vocabulary.encode(text).ids, one) for one in questions or (QUESTION,)
        ]
    try:
        network, report = getattr(transformers, kind.name).from_pretrained(
            folder, dtype=torch.bfloat16, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except Exception as error:  # transformers and safetensors raise exceptions of various types
        raise UserError(f"{where}: can't be loaded from {folder}: {reason_of(error)}") from None
    if missing := sorted(report["missing_keys"]):
        raise UserError(f"{where}: {len(missing)} weights are missing in {folder}, such as {missing[0]}")
    check_weights(network.state_dict(), folder, dict.fromkeys(network.state_dict(), torch.bfloat16))
    return NetworkSemantics(network, kind, width_of(config), preparation, prompts)
