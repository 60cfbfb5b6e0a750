"""The interface and the DCT: lossless, any size, latents of about unit scale."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clearfuse.synth.scenes import scene_pair
from clearfuse.synth.types import UserError
from clearfuse.train.tokenizers import build_tokenizer, dct_matrix, pad_to
from conftest import textured


def picture(height: int, width: int) -> torch.Tensor:
    image = textured(3, max(width, 16), max(height, 16))[:height, :width]
    return torch.from_numpy(image.astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None]


@pytest.mark.parametrize("size", [(64, 64), (65, 95), (8, 120), (7, 9), (3, 2), (1, 1), (1, 40)])
def test_any_size_comes_back_in_its_size(size: tuple[int, int]) -> None:
    tokenizer, image = build_tokenizer("dct"), picture(*size)
    latents = tokenizer.encode(image)
    assert latents.shape == (1, tokenizer.z, -(-size[0] // tokenizer.f), -(-size[1] // tokenizer.f))
    assert tokenizer.decode(latents, size).shape == image.shape


@pytest.mark.parametrize("size", [(64, 64), (65, 95), (7, 9), (3, 2), (1, 1)])
def test_dct_is_lossless(size: tuple[int, int]) -> None:
    tokenizer, image = build_tokenizer("dct"), picture(*size)
    torch.testing.assert_close(tokenizer.decode(tokenizer.encode(image), size), image, atol=1e-5, rtol=0)


def test_dct_is_its_formula() -> None:
    """A coefficient against the double sum, and conservation of energy."""
    matrix = dct_matrix(8)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(8), atol=1e-6, rtol=0)
    tokenizer, image = build_tokenizer("dct"), picture(16, 16)
    raw = (tokenizer.encode(image) * tokenizer.scale).double()
    x = np.arange(8)
    basis = np.outer(np.cos(np.pi * (2 * x + 1) * 3 / 16), np.cos(np.pi * (2 * x + 1) * 5 / 16)) / 4
    expected = (image[0, 1, 8:, :8].double().numpy() * basis).sum()
    assert float(raw[0, 64 + 3 * 8 + 5, 1, 0]) == pytest.approx(expected, abs=1e-5)
    assert float(raw.square().sum()) == pytest.approx(float(image.double().square().sum()), rel=1e-5)


@pytest.mark.slow
def test_dct_latents_of_scenes_have_about_unit_size() -> None:
    images = [image for seed in (1, 2) for pair in [scene_pair("mff", seed, (256, 192))] for image in (pair.a, pair.b)]
    batch = torch.from_numpy(np.stack(images).astype(np.float32) / 127.5 - 1).permute(0, 3, 1, 2)
    rms = build_tokenizer("dct").encode(batch).square().mean((0, 2, 3)).sqrt()
    assert 0.5 < float(rms.median()) < 2 and float(rms.min()) > 0.1 and float(rms.max()) < 6


def test_padding_reflects() -> None:
    row = torch.arange(5.0).view(1, 1, 1, 5)
    assert pad_to(row, 8)[0, 0, 0].tolist() == [0, 1, 2, 3, 4, 3, 2, 1]
    assert pad_to(row, 8).shape == (1, 1, 8, 8)
    assert pad_to(row[..., :2], 8)[0, 0, 3].tolist() == [0, 1, 0, 1, 0, 1, 0, 1]
    assert pad_to(torch.zeros(1, 1, 8, 16), 8).shape == (1, 1, 8, 16)


def test_an_unknown_tokenizer_names_what_is_there() -> None:
    with pytest.raises(UserError, match=r"unknown tokenizer 'dtc': did you mean 'dct'.*allowed: asymmetric, cosmos"):
        build_tokenizer("dtc")
