"""Folders with small random T5 models and their tokenizers, for the tests of prompts and pipelines."""

from __future__ import annotations

from pathlib import Path

import torch

WORDS = [
    "remove",
    "clear",
    "fix",
    "fuse",
    "the",
    "a",
    "and",
    "haze",
    "snow",
    "noise",
    "rain",
    "from",
    "image",
    "images",
    "in",
    "both",
    "visible",
    "infrared",
]


def t5(folder: Path, seed: int = 0, decoder: bool = False) -> Path:
    """A folder with an encoder of width 16, or with a full T5 including the decoder."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import T5Config, T5EncoderModel, T5ForConditionalGeneration

    vocabulary = {word: i for i, word in enumerate(["<pad>", "</s>", "<unk>", *WORDS])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    words.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])  # type: ignore[assignment]
    config = T5Config(vocab_size=32, d_model=16, d_kv=4, d_ff=16, num_layers=2, num_heads=2)
    network = (T5ForConditionalGeneration if decoder else T5EncoderModel)(config)
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=rng))
    network.save_pretrained(folder)
    words.save(str(folder / "tokenizer.json"))
    return folder
