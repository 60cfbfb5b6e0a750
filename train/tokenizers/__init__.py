"""Tokenizers: images to the latents that models work on, and back.

``dct`` needs no weights; ``TINY`` and ``PUBLISHED`` are networks by name, and ``GRIDS`` has their f and z. Any other
autoencoder of diffusers whose class is in ``autoencoder.kinds`` can be given by hub id or folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clearfuse.synth.types import UserError
from clearfuse.train.tokenizers import autoencoder, cosmos, tiny
from clearfuse.train.tokenizers.base import Grid, Tokenizer, pad_to
from clearfuse.train.tokenizers.dct import DCT, dct_matrix, dct_scale
from clearfuse.train.tokenizers.pixels import Pixels
from clearfuse.train.tokenizers.tiny import Tiny
from clearfuse.train.weights.source import Published, Source, digest_of, find_source, named

TINY: dict[str, Tiny] = {
    "taesd": Tiny(Published("madebyollin/taesd", "614f76814bbe30edbe2e627ace1c2234c81a2c0e", licence="MIT"), 4),
    "taesd3": Tiny(Published("madebyollin/taesd3", "d58dcaccd2b36fcb7a6b9e93c1cc507acab5a778", licence="MIT"), 16),
    "taef1": Tiny(Published("madebyollin/taef1", "b1b2d00e9e440cfbf3dedb34266864da86016ceb", licence="MIT"), 16),
    "taef2": Tiny(Published("madebyollin/taef2", None, files=("taef2.safetensors",), licence="MIT"), 32, True, 0.8),
}
"""The tiny autoencoders for the latents of Stable Diffusion, Stable Diffusion 3, FLUX.1 and FLUX.2."""

_FLUX = Published("black-forest-labs/FLUX.1-schnell", "741f7c3ce8b383c54771c7003378a50191e9efe9", "vae")
PUBLISHED: dict[str, Published] = {
    **{name: one.published for name, one in TINY.items()},
    "flux": _FLUX,
    "omnigen": Published("Shitao/OmniGen-v1-diffusers", None, "vae", licence="MIT"),
    "asymmetric": Published(
        "cross-attention/asymmetric-autoencoder-kl-x-1-5", "8a721838bf5546eb21c954b66f37f531632b5737",
        files=(autoencoder.CONFIG, autoencoder.BIN),
    ),
    "cosmos": Published(
        "nvidia/Cosmos-0.1-Tokenizer-CI8x8", "d40d39fcebcb48197a5fc80d881a7f027ad79bc4", files=cosmos.FILES
    ),
    "cosmos-ci16x16": Published(
        "nvidia/Cosmos-0.1-Tokenizer-CI16x16", "28c7999802c1cb9c2dd093572e9f8a8e1c10979f", files=cosmos.FILES
    ),
}  # fmt: skip
"""Where ``revision`` is None, no commit is known: the newest one is used, reported and recorded."""

OWN: dict[str, type[Tokenizer]] = {"dct": DCT, "pixels": Pixels}
"""Those without weights."""

NAMES = (*OWN, *PUBLISHED)

GRIDS: dict[str, Grid] = {
    **{name: Grid(one.f, one.z) for name, one in OWN.items()},
    **{name: Grid(tiny.F, one.z) for name, one in TINY.items()},
    "flux": Grid(8, 16),
    "omnigen": Grid(8, 4),
    "asymmetric": Grid(8, 4),
    "cosmos": Grid(8, cosmos.PUBLISHED.z),
    "cosmos-ci16x16": Grid(16, cosmos.PUBLISHED.z),
}
"""f and z of the named tokenizers."""


@dataclass(frozen=True)
class LoadedTokenizer:
    """A loaded tokenizer. reference: how to find it again; files: its files; digest: their hash, if local."""

    tokenizer: Tokenizer
    reference: str
    files: tuple[Path, ...] = ()
    digest: str | None = None


def find_tokenizer(reference: str) -> LoadedTokenizer:
    """Load the tokenizer of a reference: one of ``NAMES``, or see ``clearfuse.train.weights.source``.

    Raises UserError, one line, if there is no such tokenizer, or its files are missing or do not fit.
    """
    if reference in OWN:
        return LoadedTokenizer(OWN[reference](), reference)
    source = find_source("tokenizer", reference, PUBLISHED, extra=tuple(OWN), files=autoencoder.FILES)
    where = f"--tokenizer {reference}"
    tokenizer, patterns = _loaded(source, where)
    files = tuple(source.paths(patterns))
    return LoadedTokenizer(tokenizer, source.reference, files, digest_of(files) if source.local else None)


def _loaded(source: Source, where: str) -> tuple[Tokenizer, Sequence[str]]:
    if source.name in PUBLISHED and PUBLISHED[source.name].files == cosmos.FILES:
        tokenizer = cosmos.load_cosmos(source.folder, GRIDS[source.name].f, where)
        return tokenizer, [path.name for path in cosmos.files_of(source.folder)]
    name = source.name if source.name in TINY else _tiny_in(source, where)
    if name is None:
        # One published network has no safetensors. Only tensors are read from its .bin, and no other .bin is read.
        legacy = source.name == "asymmetric" and not source.paths(autoencoder.FILES[1:])
        patterns = (autoencoder.CONFIG, autoencoder.BIN) if legacy else autoencoder.FILES
        return autoencoder.load_autoencoder(source.folder, where, legacy), patterns
    tokenizer = tiny.load_tiny(source.folder, name, TINY[name], where)
    return tokenizer, tiny.patterns(source.folder, name, TINY[name])


def _tiny_in(source: Source, where: str) -> str | None:
    """The name of the tiny autoencoder whose published files are in a folder without name and config, or None."""
    if source.name is not None or (source.folder / autoencoder.CONFIG).is_file():
        return None
    found = [name for name in TINY if tiny.files_of(source.folder, name)]
    if len(found) > 1:
        folder = source.folder
        raise UserError(f"{where}: holds {', '.join(found)}; say which: --tokenizer {found[0]}={folder}")
    return found[0] if found else None


KNOWN: dict[str, dict[str, Any]] = {
    "flux": {"_class_name": "AutoencoderKL", "block_out_channels": [128, 256, 512, 512], "layers_per_block": 2,
             "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4,
             "latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False},
    "omnigen": {"_class_name": "AutoencoderKL", "block_out_channels": [128, 256, 512, 512], "layers_per_block": 2,
                "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4,
                "latent_channels": 4, "scaling_factor": 0.13025},
    "asymmetric": {"_class_name": "AsymmetricAutoencoderKL", "latent_channels": 4,
                   "down_block_types": ["DownEncoderBlock2D"] * 4, "down_block_out_channels": [128, 256, 512, 512],
                   "layers_per_down_block": 2, "up_block_types": ["UpDecoderBlock2D"] * 4,
                   "up_block_out_channels": [192, 384, 768, 768], "layers_per_up_block": 3},
}  # fmt: skip
"""Configs of named autoencoders, as published: what they cost is counted without a download."""


def blank_tokenizer(reference: str) -> Tokenizer:
    """The tokenizer of a reference with its weights as they are made, to count what it costs: none are read.

    Raises UserError as ``grid_of``.
    """
    name, where = named(reference, NAMES), f"--tokenizer {reference}"
    if name in OWN:
        return OWN[name]()
    if name in TINY:
        return tiny.blank_tiny(TINY[name])
    if name is not None and PUBLISHED[name].files == cosmos.FILES:
        return cosmos.blank_cosmos(GRIDS[name].f)
    if name in KNOWN:
        return autoencoder.blank_autoencoder(KNOWN[name])
    source = find_source("tokenizer", reference, PUBLISHED, extra=tuple(OWN), files=(autoencoder.CONFIG,))
    tiny_name = _tiny_in(source, where)
    if tiny_name is not None:
        return tiny.blank_tiny(TINY[tiny_name])
    return autoencoder.blank_autoencoder(autoencoder.config_of(source.folder, where))


def grid_of(reference: str) -> Grid:
    """The grid of a reference: from the table for a name, else from the config of the folder or repository.

    No weights are read. Raises UserError, one line, if there is no such tokenizer.
    """
    where = f"--tokenizer {reference}"
    name, folder = named(reference, NAMES), reference.partition("=")[2]
    if name is not None:
        has_config = name in PUBLISHED and autoencoder.CONFIG in PUBLISHED[name].files
        if not (has_config and folder and (Path(folder) / autoencoder.CONFIG).is_file()):
            return GRIDS[name]
    source = find_source("tokenizer", reference, PUBLISHED, extra=tuple(OWN), files=(autoencoder.CONFIG,))
    tiny_name = _tiny_in(source, where)
    return GRIDS[tiny_name] if tiny_name else autoencoder.grid(source.folder, where)


def build_tokenizer(reference: str) -> Tokenizer:
    """The tokenizer of a reference; see ``find_tokenizer``."""
    return find_tokenizer(reference).tokenizer


__all__ = [
    "GRIDS",
    "NAMES",
    "PUBLISHED",
    "TINY",
    "Grid",
    "LoadedTokenizer",
    "Tokenizer",
    "blank_tokenizer",
    "build_tokenizer",
    "dct_matrix",
    "dct_scale",
    "find_tokenizer",
    "grid_of",
    "pad_to",
]  # fmt: skip
