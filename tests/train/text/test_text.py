"""Prompt encoders: masks, padding, length, seeds."""

from __future__ import annotations

import pytest
import torch

from clearfuse.synth.types import UserError
from clearfuse.train.text import BytesEncoder, build_text, hashed_grams, to_bytes
from clearfuse.train.text.base import normalise

PROMPTS = ["fix the noise", "", "Edit out the snow from this scene, and fix the noise in this photo.", "去除雾"]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", ["bytes", "none"])
def test_an_embedding_with_its_mask(name: str) -> None:
    encoder = build_text(name, seeded())
    text, mask = encoder(PROMPTS)
    assert text.shape == (4, mask.shape[1], encoder.width) and mask.dtype == torch.bool
    assert text.isfinite().all()
    assert encoder.trainable == any(p.requires_grad for p in encoder.parameters())  # type: ignore[attr-defined]


@torch.no_grad()
def test_bytes_of_a_prompt_are_the_same_beside_any_other() -> None:
    encoder = build_text("bytes", seeded())
    together, mask = encoder(PROMPTS)
    for i, prompt in enumerate(PROMPTS):
        alone, own = encoder([prompt])
        assert own.all() and int(mask[i].sum()) == own.shape[1] == (len(prompt.encode()) + 1 + 7) // 8
        torch.testing.assert_close(together[i, mask[i]], alone[0], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_bytes_tell_prompts_apart_by_their_order_too() -> None:
    encoder = build_text("bytes", seeded())
    first, second, third = (encoder([p])[0] for p in ("rain and haze", "haze and rain", "rain and haze"))
    assert (first - second).abs().max() > 1e-3 and torch.equal(first, third)


@torch.no_grad()
def test_a_prompt_has_64_tokens_at_most() -> None:
    encoder = build_text("bytes", seeded())
    text, mask = encoder(["snow " * 200])
    assert text.shape[1] == BytesEncoder.TOKENS == 64 and mask.all()
    assert torch.equal(text, encoder(["snow " * 300])[0])


def test_bytes_are_utf_8() -> None:
    assert to_bytes(["a", "é"], 512, 4).tolist() == [[1, 99, 0, 0], [1, 0xC3 + 2, 0xA9 + 2, 0]]


def test_the_same_bytes_have_the_same_slot_wherever_they_stand() -> None:
    codes = to_bytes(["haze", "no haze", "gaze"], 512, 8)
    slots = hashed_grams(codes, 4, 1 << 14)
    assert slots[0, 4] == slots[1, 7] > 0 and slots[0, 4] != slots[2, 4]
    assert (slots[:, :3] == 0).all() and (slots[codes == 0] == 0).all() and int(slots.max()) < 1 << 14


def test_slots_are_spread() -> None:
    """20,000 strings in 4,095 slots: the fullest slot is within what a Poisson distribution of mean five allows."""
    codes = torch.arange(20_000)[:, None] // torch.tensor([1, 256, 65_536, 1]) % 256 + 2
    counts = hashed_grams(codes, 4, 4096)[:, -1].bincount(minlength=4096)[1:]
    assert counts.max() < 25 and (counts == 0).float().mean() < 0.05


SAME = {
    "remove the haze": (
        "Remove the haze. ",
        "  remove\tthe\n haze", "REMOVE\u00a0THE\u3000HAZE!?", "\ufeffremove the\u2003haze\u200b ...",
    ),
    "去除雾": ("去除雾。", " 去除雾！\u3000"),
    "enlève l'été à 5.5 mm": ("Enle\u0300ve l'e\u0301te\u0301 à 5.5 mm…",),
    "": (" \n", "?!"),
}  # fmt: skip


@torch.no_grad()
@pytest.mark.parametrize("prompt", SAME)
def test_space_capitals_and_the_end_make_no_difference(prompt: str) -> None:
    encoder = build_text("bytes", seeded())
    for other in SAME[prompt]:
        assert normalise(other) == prompt == normalise(normalise(other))
        assert torch.equal(encoder([other])[0], encoder([prompt])[0])


def test_what_differs_stays_different() -> None:
    prompts = [
        "remove the haze",
        "remove the rain",
        "re-move the haze",
        "remove, the haze",
        "去除雾",
        "去除雨",
        "straße",
        "strasse",
    ]
    assert [normalise(prompt) for prompt in prompts] == prompts


def test_a_prompt_beyond_the_limit_is_said_to_be_cut() -> None:
    encoder = build_text("bytes", seeded())
    assert not encoder.is_cut("a" * 511 + ". ") and encoder.is_cut("a" * 512)
    assert encoder.is_cut("雾" * 171) and not encoder.is_cut("雾" * 170)
    assert not encoder.has_unknown("雾")
    assert not build_text("none", seeded()).is_cut("a" * 5000)


def test_bytes_learn_and_are_drawn_from_the_seed() -> None:
    encoder, twin, other = (build_text("bytes", seeded(seed)) for seed in (0, 0, 1))
    weights = [dict(e.named_parameters()) for e in (encoder, twin, other)]  # type: ignore[attr-defined]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not torch.equal(weights[0]["embed.weight"], weights[2]["embed.weight"])
    encoder(PROMPTS)[0].pow(3).sum().backward()
    assert [name for name, p in weights[0].items() if p.grad is None or not p.grad.abs().max() > 0] == []


def test_none_has_no_tokens() -> None:
    text, mask = build_text("none", seeded())(["a", "b"])
    assert text.shape == (2, 0, 0) and mask.shape == (2, 0)


def test_an_unknown_encoder_names_what_is_there() -> None:
    with pytest.raises(
        UserError, match="unknown text encoder 'byte': did you mean 'bytes'\\? allowed: bytes, none, omnigen, t5-base"
    ):
        build_text("byte", seeded())
