"""The one sequence of tokens that OmniGen reads: a prompt with two images in it, the time, the target.

Source: ``OmniGenMultiModalProcessor`` of diffusers. Shapes: b batch, c tokens before the time's, g of an image,
l = c + 1 + g of the sequence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

A, B, WITHOUT = -1, -2, -3
"""In a prompt's numbers: where a's tokens stand, where b's, and what comes before the prompt without images. All other
numbers are tokens of the base's vocabulary."""


@dataclass(frozen=True)
class TokenSequence:
    """A batch as the base takes it, as ``OmniGenMultiModalProcessor`` of diffusers makes it.

    ids: tokens, padded in front, 0 where an image's stand. positions: of each token, from the sample's first. allowed:
    which token (row) sees which: causal but within an image, and the target sees all. places: by sample the first
    token of each image and the one behind its last.
    """

    ids: Int[Tensor, "b c"]
    positions: Int[Tensor, "b l"]
    allowed: Bool[Tensor, "b l l"]
    places: dict[int, list[list[int]]]


PADDING = 2
"""The token that diffusers pads with."""


def lay_out(prompts: Sequence[Sequence[int]], tokens: int, device: torch.device | None = None) -> TokenSequence:
    """The sequences of prompts in which ``A`` and ``B`` stand for the images. tokens: g of each image and the target.

    Source: ``OmniGenCollator`` of diffusers, whose tensors these are.
    """
    rows: list[list[int]] = []
    spans: list[list[list[int]]] = []
    for prompt in prompts:
        row, own = list[int](), list[list[int]]()
        for number in prompt:
            if number in (A, B):
                own.append([len(row), len(row) + tokens])
                row += [0] * tokens
            else:
                row.append(number)
        rows.append(row)
        spans.append(own)
    before = max(map(len, rows))
    pads = [before - len(row) for row in rows]
    ids = torch.tensor([[PADDING] * pad + row for pad, row in zip(pads, rows, strict=True)], device=device)
    places = {
        i: [[start + pad, end + pad] for start, end in own]
        for i, (pad, own) in enumerate(zip(pads, spans, strict=True))
        if own
    }
    at = torch.arange(before + 1 + tokens, device=device)
    pad = torch.tensor(pads, device=device)[:, None]
    positions = (at - pad).clamp(min=0)
    sees = (at[None] <= at[:, None]) | (at > before)[:, None]
    allowed = (sees & (at >= pad)[:, None]) | (at < pad)[..., None]
    for i, own in places.items():
        for start, end in own:
            allowed[i, start:end, start:end] = True
    return TokenSequence(ids, positions, allowed, places)


def chosen(prompt: Sequence[int], present: bool) -> list[int]:
    """The numbers of a prompt that are read where the images are there, or where they are not."""
    at = prompt.index(WITHOUT)
    return list(prompt[:at] if present else prompt[at + 1 :])
