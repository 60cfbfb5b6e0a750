"""The tiny autoencoders of the TAESD family, in any of the layouts they are published in.

Of diffusers (config.json and safetensors); as two files ``NAME_encoder`` and ``NAME_decoder``, safetensors or a .pth
of which the tensors alone are read; and taef2 as one ``taef2.safetensors``. They are trained on latents that are
scaled already: shift 0, and scale 1 but for taef2's, as measured over real pairs (see docs/log.md).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clearfuse.synth.files.checkpoints import read_state
from clearfuse.synth.types import UserError
from clearfuse.train.tokenizers import autoencoder
from clearfuse.train.tokenizers.frozen import FrozenTokenizer
from clearfuse.train.tokenizers.taef2 import CHANNELS, Taef2
from clearfuse.train.weights.source import Published

F = 8
SUFFIXES = (".safetensors", ".pth")
LAYER = re.compile(r"(encoder|decoder)\.layers\.(\d+)\.(.+)\Z")


@dataclass(frozen=True)
class Tiny:
    """A member of the family. z: latent channels; own: whether it is of a layout that diffusers lacks.

    scale: the root mean square of its latents over real pairs, where no config says it.
    """

    published: Published
    z: int
    own: bool = False
    scale: float = 1.0


def load_tiny(folder: Path, name: str, one: Tiny, where: str) -> FrozenTokenizer:
    """The tokenizer of a folder. where: begins the UserError that says which files are missing or do not fit."""
    if _as_diffusers_has_it(folder, one):
        return autoencoder.load_autoencoder(folder, where)
    network: Any
    if one.own:
        network = Taef2()
    else:
        from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny

        network = AutoencoderTiny(latent_channels=one.z)
    _fill(network, _states(folder, name, where), not one.own, where)
    if not one.own:
        return autoencoder.wrap(network, autoencoder.kinds()[type(network).__name__])
    return FrozenTokenizer(
        [network], network.encode, network.decode, f=F, shift=[0.0] * CHANNELS,
        scale=[one.scale] * CHANNELS,
        layout=torch.channels_last,
    )  # fmt: skip


def patterns(folder: Path, name: str, one: Tiny) -> Sequence[str]:
    """Which files of the folder make the tokenizer."""
    return autoencoder.FILES if _as_diffusers_has_it(folder, one) else [path.name for path in files_of(folder, name)]


def _as_diffusers_has_it(folder: Path, one: Tiny) -> bool:
    return not one.own and (folder / autoencoder.CONFIG).is_file()


def files_of(folder: Path, name: str) -> list[Path]:
    """The files of a published layout: one, or encoder and decoder; [] where they are not there."""
    for suffix in SUFFIXES:
        pair = [folder / f"{name}_{part}{suffix}" for part in ("encoder", "decoder")]
        if all(path.is_file() for path in pair):
            return pair
    whole = folder / f"{name}.safetensors"
    return [whole] if whole.is_file() else []


def _states(folder: Path, name: str, where: str) -> dict[str, dict[str, Tensor]]:
    """The published state dicts of encoder and decoder, names as in their ``nn.Sequential``."""
    paths = files_of(folder, name)
    if not paths:
        layouts = (
            f"{autoencoder.CONFIG} and *.safetensors, or {name}_encoder and {name}_decoder ({', '.join(SUFFIXES)})"
        )
        raise UserError(f"{where}: no {layouts} in {folder}")
    if len(paths) == 2:
        return dict(zip(("encoder", "decoder"), map(read_state, paths), strict=True))
    # One file has diffusers' names, whose decoder does not count the clamp that is its first module.
    parts: dict[str, dict[str, Tensor]] = {"encoder": {}, "decoder": {}}
    for key, tensor in read_state(paths[0]).items():
        match = LAYER.match(key)
        if match is None:
            raise UserError(f"{where}: {paths[0]}: holds no tiny autoencoder: {key}")
        part, number, rest = match.groups()
        parts[part][f"{int(number) + (part == 'decoder')}.{rest}"] = tensor
    return parts


def _fill(network: nn.Module, states: dict[str, dict[str, Tensor]], diffusers: bool, where: str) -> None:
    """Load the published states strictly; diffusers' module is named its own way."""
    named: dict[str, Tensor] = {}
    for part, state in states.items():
        for key, tensor in state.items():
            number, _, rest = key.partition(".")
            if diffusers and number.isdecimal():
                key = f"layers.{int(number) - (part == 'decoder')}.{rest}"
            named[f"{part}.{key}"] = tensor.float()
    try:
        network.load_state_dict(named, strict=True)
    except RuntimeError as error:
        raise UserError(f"{where}: weights of another network: {' '.join(str(error).split())[:200]}") from None
