"""Encoders of whole pictures: the learned one, and networks of transformers, tiny and random, saved to folders."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch import Tensor

from clearfuse.synth.types import UserError
from clearfuse.train import semantics
from clearfuse.train.semantics import NAMES, PUBLISHED, WIDTHS, View, find_semantics, view_of, width_of
from clearfuse.train.semantics.learned import DARKEST, LEAST, USUAL, log_contrast, log_relative
from conftest import textured

MEAN, DEVIATION = [0.48, 0.46, 0.41], [0.27, 0.26, 0.28]
WORDS = ["<image>", "question", "answer", ":", "?", "what", "is", "the", "weather", "scene"]


def preprocessor(folder: Path, **more: Any) -> Path:
    says = {"image_mean": MEAN, "image_std": DEVIATION, "do_resize": True, **more}
    (folder / "preprocessor_config.json").write_text(json.dumps(says))
    return folder


def blip2(folder: Path) -> Path:
    from transformers import Blip2Config, Blip2ForConditionalGeneration, OPTConfig

    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = OPTConfig(vocab_size=16, hidden_size=24, ffn_dim=32, num_hidden_layers=2, num_attention_heads=2,
                     max_position_embeddings=64, word_embed_proj_dim=24)  # fmt: skip
    config = Blip2Config(
        vision_config={**sizes, "image_size": 28, "patch_size": 14},
        qformer_config={**sizes, "vocab_size": 16, "encoder_hidden_size": 16},
        text_config=text.to_dict(), num_query_tokens=4, image_token_index=0,
    )  # fmt: skip
    torch.manual_seed(0)
    Blip2ForConditionalGeneration(config).save_pretrained(folder)
    vocabulary(folder)
    return preprocessor(folder, size={"height": 28, "width": 28})


def clip(folder: Path) -> Path:
    from transformers import CLIPVisionConfig, CLIPVisionModel

    config = CLIPVisionConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
                              image_size=32, patch_size=8)  # fmt: skip
    torch.manual_seed(0)
    CLIPVisionModel(config).save_pretrained(folder)
    return preprocessor(folder, crop_size={"height": 32, "width": 32})


def vocabulary(folder: Path) -> None:
    words = Tokenizer(WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="scene"))
    words.pre_tokenizer = Whitespace()
    words.save(str(folder / "tokenizer.json"))


def smolvlm(folder: Path) -> Path:
    from transformers import SmolVLMConfig, SmolVLMForConditionalGeneration

    sizes = {"intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = SmolVLMConfig(
        vision_config={**sizes, "hidden_size": 16, "image_size": 32, "patch_size": 8},
        text_config={**sizes, "model_type": "llama", "hidden_size": 20, "num_key_value_heads": 2, "vocab_size": 16,
                     "pad_token_id": 0},
        scale_factor=2, image_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    SmolVLMForConditionalGeneration(config).save_pretrained(folder)
    vocabulary(folder)
    return preprocessor(folder, size={"longest_edge": 2048})


def siglip(folder: Path) -> Path:
    from transformers import SiglipVisionConfig, SiglipVisionModel

    config = SiglipVisionConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
                                image_size=32, patch_size=16)  # fmt: skip
    torch.manual_seed(0)
    SiglipVisionModel(config).save_pretrained(folder)
    return preprocessor(folder, size={"height": 32, "width": 32})


def dinov2(folder: Path) -> Path:
    from transformers import Dinov2Config, Dinov2Model

    config = Dinov2Config(hidden_size=12, num_hidden_layers=2, num_attention_heads=2, image_size=70, patch_size=14)
    torch.manual_seed(0)
    Dinov2Model(config).save_pretrained(folder)
    return preprocessor(folder, crop_size={"height": 28, "width": 28})


Last = Callable[[Any], torch.nn.Module]
MADE: dict[str, tuple[Callable[[Path], Path], int, int, Last]] = {
    "blip2": (blip2, 24, 0, lambda network: network.language_model.model.decoder.final_layer_norm),
    "smolvlm": (smolvlm, 20, 0, lambda network: network.model.text_model.norm),
    "clip": (clip, 16, 17, lambda network: network.encoder.layers[-1]),
    "siglip": (siglip, 16, 4, lambda network: network.post_layernorm),
    "dinov2": (dinov2, 12, 5, lambda network: network.layernorm),
}
"""How it is made, the width of its tokens, how many there are, where no question decides that, and its last layer."""


def views_of(encoder: Any, count: int = 2) -> Tensor:
    pictures = [np.concatenate([encoder.view(textured(i + j)) for j in (0, 50)]) for i in range(count)]
    return torch.from_numpy(np.stack(pictures).transpose(0, 3, 1, 2).copy())


def load(folder: Path, *questions: str) -> Any:
    found = find_semantics(str(folder), questions, torch.Generator())
    assert found.encoder is not None and found.digest and found.reference == str(folder.resolve())
    return found.encoder


@pytest.mark.parametrize("name", MADE)
def test_a_network_of_a_folder_says_its_last_hidden_states(name: str, tmp_path: Path) -> None:
    make, width, count, last = MADE[name]
    encoder = load(make(tmp_path))
    assert width_of(str(tmp_path)) == encoder.width == width and not encoder.trainable and view_of(encoder) is None
    (network,) = encoder.networks
    seen: list[Tensor] = []
    last(network).register_forward_hook(
        lambda module, args, out: seen.append(out[0] if isinstance(out, tuple) else out)
    )
    views = views_of(encoder)
    tokens, mask = encoder(views, ["vif", "vif"])
    assert mask is None and tokens.dtype == torch.float32 and tokens.isfinite().all()
    torch.testing.assert_close(tokens, torch.cat(seen).float())
    assert tokens.shape[::2] == (2, width) and (not count or tokens.shape[1] == count)
    torch.testing.assert_close(load(tmp_path)(views, ["vif", "vif"])[0], tokens, atol=0, rtol=0)
    assert not list(encoder.parameters()) and not encoder.state_dict()


def test_what_it_is_shown_is_normalised_as_its_folder_says(tmp_path: Path) -> None:
    encoder = load(clip(tmp_path))
    views = views_of(encoder)[:, :, :32]
    wanted = (views.float() / 255 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(DEVIATION)[:, None, None]
    torch.testing.assert_close(encoder.preparation(views), wanted)
    assert encoder.view == View(32)


def test_a_question_changes_what_a_language_model_says_and_several_are_averaged(tmp_path: Path) -> None:
    """Token by token, over the questions that have it; a picture's tokens come before its question's."""
    blip2(tmp_path)
    short, long = "what is the weather?", "what is the scene, what is the weather?"
    one, other, both = (load(tmp_path, *asked) for asked in ((short,), (long,), (short, long)))
    views = views_of(one)
    a, b, mean = (encoder(views, ["vif"] * 2)[0] for encoder in (one, other, both))
    extra = b.shape[1] - a.shape[1]
    assert extra > 0 and mean.shape == b.shape
    torch.testing.assert_close(mean[:, : a.shape[1]], (a + b[:, : a.shape[1]]) / 2, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(mean[:, a.shape[1] :], b[:, a.shape[1] :], atol=1e-5, rtol=1e-5)
    assert one.prompts[0][:4].tolist() == [0] * 4
    torch.testing.assert_close(a[:, :4], b[:, :4])  # of what comes before, a causal model says the same
    with pytest.raises(UserError, match="is no language model, and is asked nothing"):
        load(clip(tmp_path / "clip"), short)
    with pytest.raises(UserError, match="--question: 'learned' is no language model"):
        find_semantics("learned", [short], torch.Generator())


def test_of_two_visible_pictures_both_are_told() -> None:
    encoder = find_semantics("learned", (), torch.Generator().manual_seed(0)).encoder
    assert encoder is not None
    views = views_of(encoder, 3)
    tokens, mask = encoder(views, ["vif", "mef", "mff"])
    alone, none = encoder(views[:1], ["vif"])
    assert none is None and mask is not None and tokens.shape[1] == 2 * alone.shape[1]
    assert mask.sum(1).tolist() == [alone.shape[1], 2 * alone.shape[1], 2 * alone.shape[1]]
    torch.testing.assert_close(tokens[:1, : alone.shape[1]], alone)
    swapped = views[1:2].roll(views.shape[2] // 2, 2)
    torch.testing.assert_close(encoder(swapped, ["mef"])[0], tokens[1:2].roll(alone.shape[1], 1))
    with pytest.raises(UserError, match="unknown task 'vfi'"):
        encoder(views, ["vfi"] * 3)


def test_a_view_shows_all_of_a_picture_and_parts_of_it_at_full_resolution() -> None:
    picture = np.zeros((90, 200, 3), np.uint8)
    picture[:, 100:] = 200
    view = View(16, 4)(picture)
    assert view.shape == (80, 16, 3) and View(16, 4).rows == 80
    assert (view[:16, :6] == 0).all() and (view[:16, 10:] == 200).all(), "all of it, smaller"
    fine = np.random.default_rng(0).integers(0, 256, (90, 200, 3), np.uint8)
    patches = View(16, 4)(fine)[16:].reshape(4, 16, 16, 3)
    windows = np.lib.stride_tricks.sliding_window_view(fine, (16, 16), (0, 1)).transpose(0, 1, 3, 4, 2)
    assert all((windows == patch).all((2, 3, 4)).sum() == 1 for patch in patches)
    for size in ((1, 1), (7, 300)):
        assert View(16, 4)(fine[: size[0], : size[1], :1]).shape == (80, 16, 3), "any size, grey"


def test_the_learned_one_learns_and_is_of_its_seed() -> None:
    one, same, other = (
        find_semantics("learned", (), torch.Generator().manual_seed(seed)).encoder for seed in (0, 0, 1)
    )
    assert one is not None and same is not None and other is not None and one.trainable and view_of(one) == one.view
    views = views_of(one)
    first = one(views, ["vif"] * 2)[0]
    assert torch.equal(first, same(views, ["vif"] * 2)[0]) and not torch.equal(first, other(views, ["vif"] * 2)[0])
    hazy = (0.5 * views.float() + 100).to(torch.uint8)
    assert (one(hazy, ["vif"] * 2)[0] - first).square().mean() > 1e-3, "pictures are told apart before it has learned"
    first.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in one.parameters())


def test_what_it_learns_of_is_the_same_at_another_exposure() -> None:
    """But where codes are rounded, or as dark as noise; haze, which lowers contrast, is not the same."""
    views = 40 + torch.rand(2, 3, 80, 16, generator=torch.Generator().manual_seed(0)) * 80
    bright, hazy = (log_relative(x.to(torch.uint8)) for x in (2 * views + DARKEST, 0.5 * views + 80))
    plain = log_relative(views.to(torch.uint8))
    assert (bright - plain).abs().max() < 0.03 < 0.1 < (hazy - plain).abs().mean()
    torch.testing.assert_close(plain.mean((1, 2, 3)), torch.zeros(2), atol=1e-5, rtol=0)
    assert log_relative(torch.zeros(1, 3, 8, 4, dtype=torch.uint8)).abs().max() < 1e-6, "black is grey as any"


def test_contrast_is_the_logarithm_of_the_deviation_in_each_quarter() -> None:
    maps = torch.zeros(1, 2, 8, 8)
    maps[0, 0, :4, 4:] = 0.4 * torch.tensor([1.0, -1.0]).repeat(8).view(4, 4)  # the upper right quarter
    maps[0, 1] = 7.0  # however bright
    found, none = log_contrast(maps), math.log(LEAST / USUAL)
    wanted = torch.tensor([[[none, math.log(0.4 / USUAL)], [none, none]], [[none, none], [none, none]]])
    torch.testing.assert_close(found[0], wanted, atol=1e-4, rtol=1e-4)
    noise = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    hazy = log_contrast(0.5 * noise + 3)
    torch.testing.assert_close(hazy, log_contrast(noise) - math.log(2), atol=1e-4, rtol=0)  # whatever the scene


def test_what_is_wrong_with_a_folder_is_one_line(tmp_path: Path) -> None:
    folder = clip(tmp_path / "clip")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(UserError, match=r"^--semantics .*preprocessor_config.json is missing in"):
        load(folder)
    preprocessor(folder, image_std=[0.1, 0.0, 0.1])
    with pytest.raises(UserError, match="image_std"):
        load(folder)
    preprocessor(folder)
    (folder / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match="can't be loaded from"):
        load(folder)
    (folder / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UserError, match="is a network of type 'bert': allowed: blip-2, smolvlm, clip"):
        load(folder)
    with pytest.raises(UserError, match="unknown semantics 'dinov': did you mean 'dinov3'"):
        find_semantics("dinov", (), torch.Generator())


def test_the_table_has_the_width_of_every_name() -> None:
    assert WIDTHS.keys() == PUBLISHED.keys() and (*semantics.OWN, *PUBLISHED) == NAMES
    assert width_of("none") == 0 and width_of("blip2") == 2560
