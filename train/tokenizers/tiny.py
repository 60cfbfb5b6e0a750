"""The tiny autoencoders of the TAESD family, in any of the file layouts they are published in.

That of diffusers (config.json and safetensors); two files ``NAME_encoder`` and ``NAME_decoder``, as safetensors or as
.pth, from which only tensors are read; and for taef2 a single ``taef2.safetensors``. They are trained on scaled
latents: shift 0, and scale 1 except for taef2, whose scale is measured on real pairs (see docs/log.md).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clearfuse.synth.files.checkpoints import check_weights, read_state
from clearfuse.synth.types import UserError, reason_of
from clearfuse.train.tokenizers import autoencoder
from clearfuse.train.tokenizers.frozen import FrozenTokenizer
from clearfuse.train.tokenizers.taef2 import CHANNELS, Block, Taef2
from clearfuse.train.weights.source import Published

F = 8
SUFFIXES = (".safetensors", ".pth")
LAYER = re.compile(r"(encoder|decoder)\.layers\.(\d+)\.(.+)\Z")


@dataclass(frozen=True)
class Tiny:
    """A member of the family. z: latent channels; own: whether it needs the network of ``taef2``, which diffusers
    lacks.

    scale: the root mean square of its latents over real pairs, if no config has it.
    """

    published: Published
    z: int
    own: bool = False
    scale: float = 1.0


def load_tiny(folder: Path, name: str, tiny: Tiny, where: str) -> FrozenTokenizer:
    """Load the tokenizer of a folder. where: prefix of the UserError if files are missing or do not fit."""
    if _has_diffusers_layout(folder, tiny):
        return autoencoder.load_autoencoder(folder, where)
    network = _network(tiny)
    _fill(network, _states(folder, name, where), not tiny.own, where)
    return _wrap(network, tiny)


def blank_tiny(tiny: Tiny) -> FrozenTokenizer:
    """The tokenizer with its weights as they are made."""
    return _wrap(_network(tiny), tiny)


def _network(tiny: Tiny) -> Any:
    if tiny.own:
        return Taef2()
    from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny

    return AutoencoderTiny(latent_channels=tiny.z)


def _wrap(network: Any, tiny: Tiny) -> FrozenTokenizer:
    if not tiny.own:
        return autoencoder.wrap(network, autoencoder.kinds()[type(network).__name__])
    return FrozenTokenizer(
        [network], network.encode, network.decode, f=F, shift=[0.0] * CHANNELS,
        scale=[tiny.scale] * CHANNELS,
        layout=torch.channels_last, blocks=(Block,),
    )  # fmt: skip


def patterns(folder: Path, name: str, tiny: Tiny) -> Sequence[str]:
    """The names or patterns of the folder's files that the tokenizer consists of."""
    return autoencoder.FILES if _has_diffusers_layout(folder, tiny) else [path.name for path in files_of(folder, name)]


def _has_diffusers_layout(folder: Path, tiny: Tiny) -> bool:
    return not tiny.own and (folder / autoencoder.CONFIG).is_file()


def files_of(folder: Path, name: str) -> list[Path]:
    """The files of a published layout: a single one, or encoder and decoder; [] if there are none."""
    for suffix in SUFFIXES:
        pair = [folder / f"{name}_{part}{suffix}" for part in ("encoder", "decoder")]
        if all(path.is_file() for path in pair):
            return pair
    single = folder / f"{name}.safetensors"
    return [single] if single.is_file() else []


def _states(folder: Path, name: str, where: str) -> dict[str, dict[str, Tensor]]:
    """The published state dicts of encoder and decoder, with the names of their ``nn.Sequential``."""
    paths = files_of(folder, name)
    if not paths:
        layouts = (
            f"{autoencoder.CONFIG} and *.safetensors, or {name}_encoder and {name}_decoder ({', '.join(SUFFIXES)})"
        )
        raise UserError(f"{where}: no {layouts} in {folder}")
    states = [read_state(path) for path in paths]
    for path, state in zip(paths, states, strict=True):
        check_weights(state, path)
    if len(states) == 2:
        return dict(zip(("encoder", "decoder"), states, strict=True))
    # A single file has diffusers' names, where the decoder's first module, the clamp, is not numbered.
    parts: dict[str, dict[str, Tensor]] = {"encoder": {}, "decoder": {}}
    for key, tensor in states[0].items():
        match = LAYER.match(key)
        if match is None:
            raise UserError(f"{where}: {paths[0]}: holds no tiny autoencoder: {key}")
        part, number, rest = match.groups()
        parts[part][f"{int(number) + (part == 'decoder')}.{rest}"] = tensor
    return parts


def _fill(network: nn.Module, states: dict[str, dict[str, Tensor]], diffusers: bool, where: str) -> None:
    """Load the published states strictly, renamed for the networks of diffusers."""
    renamed: dict[str, Tensor] = {}
    for part, state in states.items():
        for key, tensor in state.items():
            number, _, rest = key.partition(".")
            if diffusers and number.isdecimal():
                key = f"layers.{int(number) - (part == 'decoder')}.{rest}"
            renamed[f"{part}.{key}"] = tensor.float()
    try:
        network.load_state_dict(renamed, strict=True)
    except RuntimeError as error:
        raise UserError(f"{where}: weights of another network: {reason_of(error)}") from None
