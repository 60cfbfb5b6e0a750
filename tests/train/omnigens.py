"""A folder with a small random OmniGen: transformer/, vae/ and tokenizer/, for the tests of what it is a base of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from vaes import DOWN, UP

from clearfuse.train.models.omnigen.config import OmniGenConfig, diffusers_config

TINY = OmniGenConfig(
    width=256, heads=4, value_heads=4, hidden=2048, depth=2, vocabulary=64, positions=16, time_width=16,
    short_factors=tuple(1 + i / 64 for i in range(32)), long_factors=tuple(1 + i / 8 for i in range(32)),
)  # fmt: skip
"""So wide that adapters of rank 8 are under 1 % of it."""

SPECIAL = ["<|user|>", "<|end|>", "<|assistant|>", "<|diffusion|>", "<img>", "</img>", "<cfg>"]
WORDS = ["This", "is", "the", "first", "second", "image", "and", "this", "fuse", "two", "images", "remove", "haze", "."]


def vocabulary() -> Any:
    """Words and the special tokens of Phi-3's vocabulary; <s> before each text."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    listed = ["<unk>", "<s>", "</s>", *WORDS, *SPECIAL]
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(listed)}, unk_token="<unk>"))
    made.add_special_tokens(SPECIAL)
    made.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])  # type: ignore[assignment]
    return made


def transformer(config: OmniGenConfig = TINY, seed: int = 0) -> Any:
    """The network of diffusers, all its weights drawn from the seed."""
    from diffusers.models.transformers.transformer_omnigen import OmniGenTransformer2DModel

    made = OmniGenTransformer2DModel(**diffusers_config(config)).eval()
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in made.parameters():
            scale = 0.1 if parameter.ndim == 1 else parameter[0].numel() ** -0.5
            parameter.copy_(scale * torch.randn(parameter.shape, generator=rng) + (parameter.ndim == 1))
    return made


def omnigen(folder: Path, config: OmniGenConfig = TINY, seed: int = 0) -> Path:
    """The folder, as a pipeline of diffusers has it."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    torch.manual_seed(seed)
    transformer(config, seed).save_pretrained(folder / "transformer")
    AutoencoderKL(
        down_block_types=DOWN, up_block_types=UP, block_out_channels=(4, 4, 8, 8), layers_per_block=1,
        norm_num_groups=2, latent_channels=4, scaling_factor=0.5,
    ).save_pretrained(folder / "vae")  # fmt: skip
    (folder / "tokenizer").mkdir()
    vocabulary().save(str(folder / "tokenizer/tokenizer.json"))
    return folder


def changes(folder: Path) -> list[str]:
    """What ``train fit --base FOLDER`` changes of a preset's design."""
    return [
        f'base="{folder / "transformer"}"', f'tokenizer="omnigen={folder / "vae"}"',
        f'text="omnigen={folder / "tokenizer"}"',
    ]  # fmt: skip
