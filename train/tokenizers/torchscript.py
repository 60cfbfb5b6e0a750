"""Cosmos' image tokenizers, which are published as TorchScript: code, so they are run by explicit consent alone.

Source: nvidia/Cosmos-0.1-Tokenizer-CI8x8 and -CI16x16 on the Hugging Face hub, ``encoder.jit`` and ``decoder.jit``.
Their latents are used as they come: they publish no scale.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clearfuse.synth.types import UserError
from clearfuse.train.tokenizers.frozen import FrozenTokenizer
from clearfuse.train.weights.source import Source

Z = 16
FILES = ("encoder.jit", "decoder.jit")
SHA256 = re.compile(r"[0-9a-f]{64}\Z")


def load_torchscript(source: Source, f: int, hashes: Sequence[str], where: str) -> FrozenTokenizer:
    """The tokenizer of a folder with both files, whose sha256 the user gave. Raises UserError where one differs.

    f: pixels along a side of a cell, which the files do not say.
    """
    if len(hashes) != 2 or not all(SHA256.match(each) for each in hashes):
        found = ",".join(_sha256(source.folder / name) for name in FILES if (source.folder / name).is_file())
        raise UserError(
            f"{where}: TorchScript is code that would run on this machine; if you trust it, pin both files by their "
            f"sha256: --torchscript ENCODER,DECODER (here {found or 'there are none: ' + ' and '.join(FILES)})"
        )
    return _tokenizer([_module(source.folder / name, pin, where) for name, pin in zip(FILES, hashes, strict=True)], f)


def _module(path: Path, pin: str, where: str) -> Any:
    if not path.is_file():
        raise UserError(f"{where}: {path.name} is missing in {path.parent}")
    if (found := _sha256(path)) != pin:
        raise UserError(f"{where}: {path.name} is not the pinned file: sha256 {found}, not {pin}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that TorchScript is deprecated
            return torch.jit.load(str(path), map_location="cpu").float()
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{where}: {path.name}: not TorchScript: {str(error).strip().splitlines()[0]}") from None


def _tokenizer(modules: Sequence[Any], f: int) -> FrozenTokenizer:
    encoder, decoder = modules

    def first(found: Any) -> Tensor:
        return found if isinstance(found, Tensor) else found[0]

    def encode(images: Tensor) -> Tensor:
        return first(encoder(images))

    def decode(raw: Tensor) -> Tensor:
        return first(decoder(raw))

    return FrozenTokenizer(modules, encode, decode, f=f, shift=[0.0] * Z, scale=[1.0] * Z)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
