"""Prompts as OmniGen reads them: numbers of tokens, with the places of the two images among them.

Source: ``OmniGenMultiModalProcessor`` of diffusers for what stands around a prompt; the frame of DiTFuse's published
prompts (its repository's ``prompt.md``) for what stands around the images. Shapes: b prompts, m numbers of the longest.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clearfuse.train.models.omnigen.sequence import WITHOUT, A, B
from clearfuse.train.text.base import INVISIBLE, TRAILING, TextEncoder
from clearfuse.train.weights.source import VOCABULARY, Published

PUBLISHED = Published("Shitao/OmniGen-v1-diffusers", None, "tokenizer", files=(VOCABULARY,), licence="MIT")

BEFORE = "<|user|>\nGenerate an image according to the following instructions\n"
BEHIND = "<|end|>\n<|assistant|>\n<|diffusion|>"
PLACE = re.compile(r"<\|image_([12])\|>")
BEGINNING = 1
"""The token that the vocabulary puts before each text."""

FRAME = (
    "This is the first image <img><|image_1|></img>, and this is the second image <img><|image_2|></img>. "
    "Please generate the image based on the following requirements: "
)
IMAGES_ALONE = "<img><|image_1|></img> <img><|image_2|></img>"
"""The prompt of a sample that has lost its own, as diffusers asks for the images alone."""
NOTHING = "<cfg>"
"""The prompt of a sample that has lost its images too, as OmniGen's training data have it."""

TAGS = re.compile(r"\s*\[(?:FUSION|CONTROL|SEG)\]\.?\s*(?:<[A-Z+-]+>\.?\s*)?", re.IGNORECASE)
"""What published prompts begin with: the category, and a task or a step of brightness or contrast."""

CHARACTERS = 1024
"""Of a prompt, which is cut there."""


class OmniGenTokens(TextEncoder):
    """Numbers of tokens, not embeddings, which are the network's own: width 1.

    Of each prompt first the numbers with images, then ``WITHOUT``, then those without: which of the two are read is
    known where images are dropped. There is nothing to cache, so that it counts as an encoder that learns.
    """

    width = 1
    limit = 2 * (4 * CHARACTERS + 256)
    trainable = True
    here: Float[Tensor, " 0"]

    def __init__(self, vocabulary: Any) -> None:
        """vocabulary: of the library tokenizers."""
        super().__init__()
        self._vocabulary = vocabulary
        self.register_buffer("here", torch.zeros(0), persistent=False)

    def forward(self, prompts: Sequence[str]) -> tuple[Float[Tensor, "b m 1"], Bool[Tensor, "b m"]]:
        """As ``TextEncoder.forward``, but upper and lower case stay: the vocabulary tells them apart."""
        return self.encode([plain(prompt) for prompt in prompts])

    def encode(self, prompts: Sequence[str]) -> tuple[Float[Tensor, "b m 1"], Bool[Tensor, "b m"]]:
        """The numbers, padded behind; float32 holds all of them exactly."""
        rows = [torch.tensor(self.numbers(prompt), dtype=torch.float32) for prompt in prompts]
        text = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)[..., None]
        mask = torch.arange(text.shape[1])[None] < torch.tensor([len(row) for row in rows])[:, None]
        return text.to(self.here.device), mask.to(self.here.device)

    def numbers(self, prompt: str) -> list[int]:
        """Of a prompt with images, ``WITHOUT``, and without."""
        prompt = prompt[:CHARACTERS]
        tags = TAGS.match(prompt)
        said, request = (" ".join(tags[0].upper().split()) + " ", prompt[tags.end() :]) if tags else ("", prompt)
        end = "." if request else ""
        both = f"{said}{FRAME}{request}{end}" if prompt else IMAGES_ALONE
        return [*self.tokens(both), WITHOUT, *self.tokens(f"{said}{request}{end}" if prompt else NOTHING)]

    def tokens(self, text: str) -> list[int]:
        """The tokens of a whole prompt, ``A`` and ``B`` at the places of the images ``<|image_1|>``, ``<|image_2|>``.

        The texts between the images are read one by one, as diffusers reads them.
        """
        out: list[int] = []
        for i, part in enumerate(PLACE.split(f"{BEFORE}{text}{BEHIND}")):
            if i % 2:
                out.append(A if part == "1" else B)
            else:
                ids = self._vocabulary.encode(part).ids
                out += ids[1:] if i and ids[:1] == [BEGINNING] else ids
        return out

    def is_cut(self, prompt: str) -> bool:
        """Whether a prompt is longer than ``CHARACTERS``."""
        return len(plain(prompt)) > CHARACTERS


def plain(prompt: str) -> str:
    """As ``normalise``, but upper and lower case stay, and no image has a place in it."""
    words = INVISIBLE.sub("", unicodedata.normalize("NFC", PLACE.sub("", prompt))).split()
    return " ".join(words).rstrip(TRAILING)


class OneToken:
    """Stands for a vocabulary, to count what a prompt costs: one token for four characters."""

    def encode(self, text: str) -> Any:
        """An object with ``ids``."""
        from types import SimpleNamespace

        return SimpleNamespace(ids=[BEGINNING] * (1 + len(text) // 4))
