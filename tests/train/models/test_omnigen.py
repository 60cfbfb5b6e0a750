"""OmniGen with LoRA: its inputs and outputs are diffusers', its base stays, its costs are those counted."""

from __future__ import annotations

import copy
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from omnigens import TINY, transformer, vocabulary
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from clearfuse.synth.types import UserError
from clearfuse.train.data.batch import to_tensor
from clearfuse.train.models import build_model
from clearfuse.train.models.base import Inputs
from clearfuse.train.models.omnigen.config import flops, parameters
from clearfuse.train.models.omnigen.sequence import WITHOUT, A, B, chosen, lay_out
from clearfuse.train.text.omnigen import OmniGenTokens

pytest.importorskip("peft", reason="needs clearfuse[lora]")

HEIGHT, WIDTH = 32, 48
TOKENS = (HEIGHT // 16) * (WIDTH // 16)
NARROW = replace(TINY, width=64, hidden=96, short_factors=(), long_factors=())


def processor() -> Any:
    """diffusers' processor without torchvision, whose transform of a picture stands below."""
    from diffusers.pipelines.omnigen.processor_omnigen import (
        OmniGenCollator,
        OmniGenMultiModalProcessor,
        crop_image,
    )
    from transformers import PreTrainedTokenizerFast

    made: Any = OmniGenMultiModalProcessor.__new__(OmniGenMultiModalProcessor)
    made.text_tokenizer = PreTrainedTokenizerFast(tokenizer_object=vocabulary(), unk_token="<unk>", bos_token="<s>")
    made.max_image_size = 1024
    made.collator = OmniGenCollator(hidden_size=TINY.width)

    def process(image: Image.Image) -> torch.Tensor:
        pixels = np.asarray(crop_image(image, 1024))
        return (torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255 - 0.5) / 0.5

    made.process_image = process
    return made


PROMPTS = ["remove the haze", "fuse the two images and remove the haze in this second image", "fuse"]
FRAMED = [
    "This is the first image <img><|image_1|></img>, and this is the second image <img><|image_2|></img>. "
    f"Please generate the image based on the following requirements: {prompt}."
    for prompt in PROMPTS
]


def pictures() -> list[list[np.ndarray]]:
    rng = np.random.default_rng(0)
    return [[rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8) for _ in range(2)] for _ in PROMPTS]


def theirs(order: list[int]) -> dict[str, Any]:
    """diffusers' inputs of the prompts in an order: with all, then without anything, then with the images alone."""
    images = [[Image.fromarray(picture) for picture in pictures()[i]] for i in order]
    framed = [FRAMED[i] for i in order]
    return processor()(framed, images, height=HEIGHT, width=WIDTH, negative_prompt="<cfg>", use_img_cfg=True)


def ours(order: list[int]) -> tuple[list[str], list[bool]]:
    """The same prompts and whether there are images, as this package has them."""
    n = len(order)
    return [*(PROMPTS[i] for i in order), *[""] * (2 * n)], [*[True] * n, *[False] * n, *[True] * n]


@pytest.mark.parametrize("order", [[0, 1, 2], [1], [2, 0]])
def test_inputs_are_those_of_diffusers_processor(order: list[int]) -> None:
    """Tokens, the images' places, positions, who sees whom, and the pictures' numbers."""
    expected, encoder = theirs(order), OmniGenTokens(vocabulary())
    prompts, present = ours(order)
    text, mask = encoder(prompts)
    rows = [[int(n) for n in row[real, 0]] for row, real in zip(text, mask, strict=True)]
    found = lay_out([chosen(row, there) for row, there in zip(rows, present, strict=True)], TOKENS)
    assert torch.equal(found.ids, expected["input_ids"])
    assert torch.equal(found.positions, expected["position_ids"])
    assert torch.equal(found.allowed, expected["attention_mask"].bool())
    assert found.places == expected["input_image_sizes"]
    given = [to_tensor([picture])[0] for i in order for picture in pictures()[i]]
    for mine, other in zip(given, expected["input_pixel_values"], strict=False):
        torch.testing.assert_close(mine, other[0], rtol=0, atol=1e-6)


@torch.no_grad()
def test_the_network_is_diffusers_on_its_own_inputs() -> None:
    """Adapters of B = 0 change nothing. The longest prompt comes first, whose positions diffusers takes for all."""
    order, rng = [1, 0], torch.Generator().manual_seed(3)
    base, expected = transformer(), theirs([1, 0])
    prompts, present = ours(order)
    z = [torch.randn(len(prompts), 4, HEIGHT // 8, WIDTH // 8, generator=rng) for _ in range(3)]
    t = torch.rand(len(prompts), generator=rng)
    there = torch.tensor(present)
    images = [pair[i : i + 1] for i in range(len(prompts)) if present[i] for pair in z[:2]]
    # diffusers' shapes of the conditions are by sample, and its RoPE that of a sequence of this length.
    out = base(
        hidden_states=z[2], timestep=t, input_ids=expected["input_ids"], input_img_latents=images,
        input_image_sizes=expected["input_image_sizes"], attention_mask=expected["attention_mask"],
        position_ids=expected["position_ids"], return_dict=False,
    )[0]  # fmt: skip
    net = network()
    text, mask = OmniGenTokens(vocabulary())(prompts)
    shown = there[:, None].expand(-1, 2)
    found = net(Inputs((z[0], z[1]), (text, mask), z_t=z[2], t=t, present=shown)).latent
    torch.testing.assert_close(found, out, rtol=1e-5, atol=1e-5)
    assert float(out.std()) > 0.1


def network(config: Any = TINY, drawn: bool = False) -> Any:
    rng = torch.Generator().manual_seed(1)
    made = build_model("omnigen", config, rng, lambda: dict(transformer(config).state_dict()))
    if drawn:
        with torch.no_grad():
            for parameter in made.parameters():
                if parameter.requires_grad:
                    parameter.normal_(0, 0.1, generator=rng)
    return made.eval()


def given(z: int = 4, **fields: Any) -> Inputs:
    rng = torch.Generator().manual_seed(2)
    latents = [torch.randn(2, z, 5, 6, generator=rng) for _ in range(3)]
    rows = [[1, 5, A, 6, B, 7, 8, WITHOUT, 1, 9], [1, A, 6, B, 7, WITHOUT, 1, 9, 9]]
    text = torch.zeros(2, 10, 1)
    for i, row in enumerate(rows):
        text[i, : len(row), 0] = torch.tensor(row).float()
    mask = torch.arange(10)[None] < torch.tensor([[10], [9]])
    made = Inputs((latents[0], latents[1]), (text, mask), z_t=latents[2], t=torch.tensor([0.2, 0.7]))
    return replace(made, **fields)


@torch.no_grad()
def test_every_part_shows_and_a_sample_does_not_depend_on_its_batch() -> None:
    net, whole = network(NARROW, drawn=True), given()
    out = net(whole).latent
    assert out.shape == (2, 4, 5, 6), "of the size of a grid that the patch does not divide"
    z_a, z_b = whole.pair
    for pair in ((z_a + 1, z_b), (z_a, z_b + 1), (z_b, z_a)):
        assert float((net(replace(whole, pair=pair)).latent - out).abs().max()) > 1e-4
    nothing = replace(whole, present=torch.zeros(2, 2, dtype=torch.bool))
    alone = net(nothing).latent
    assert float((alone - out).abs().max()) > 1e-4
    torch.testing.assert_close(net(replace(nothing, pair=(z_b, z_b))).latent, alone)
    assert whole.text[1] is not None and whole.z_t is not None and whole.t is not None
    for i in (0, 1):
        one = slice(i, i + 1)
        own = Inputs((z_a[one], z_b[one]), (whole.text[0][one], whole.text[1][one]), z_t=whole.z_t[one], t=whole.t[one])
        torch.testing.assert_close(net(own).latent, out[one], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_copy_has_its_own_adapters_and_the_same_base() -> None:
    net = network(NARROW)
    other = copy.deepcopy(net)
    names = set(net.state_dict())
    assert names and all(".lora_" in name for name in names) and names == set(other.state_dict())
    assert names == {name for name, parameter in net.named_parameters() if parameter.requires_grad}
    for name, parameter in net.named_parameters():
        assert (dict(other.named_parameters())[name] is parameter) == (name not in names)
    state = {name: torch.ones_like(tensor) for name, tensor in net.state_dict().items()}
    other.load_state_dict(state)
    assert float((other(given()).latent - net(given()).latent).abs().max()) > 1e-4


@pytest.mark.parametrize("mlp", [False, True])
@torch.no_grad()
def test_merged_weights_give_the_same_output(mlp: bool) -> None:
    net = network(replace(NARROW, mlp=mlp, alpha=4.0), drawn=True)
    plain = network(NARROW)
    out = net(given()).latent
    assert float((plain(given()).latent - out).abs().max()) > 1e-2
    merged = transformer(NARROW)
    merged.load_state_dict(net.merged())
    whole = build_model("omnigen", replace(NARROW, rank=0), torch.Generator(), lambda: dict(merged.state_dict()))
    torch.testing.assert_close(whole(given()).latent, out, rtol=0, atol=1e-5)
    assert not whole.state_dict()


@pytest.mark.parametrize("config", [NARROW, replace(NARROW, mlp=True, rank=3), replace(NARROW, rank=0)])
@torch.no_grad()
def test_costs_by_formula_are_those_counted(config: Any) -> None:
    """Of a grid that the patch divides; the counter is blind to attention's kernel on a CPU."""
    net, counter = network(config), FlopCounterMode(display=False)
    assert sum(parameter.numel() for parameter in net.parameters()) == parameters(config)
    rng = torch.Generator().manual_seed(2)
    z = [torch.randn(1, 4, 6, 8, generator=rng) for _ in range(3)]
    text = torch.tensor([1, 5, A, 6, B, 7, WITHOUT, 1]).float()[None, :, None]
    with counter:
        net(Inputs((z[0], z[1]), (text, None), z_t=z[2], t=torch.tensor([0.5])))
    tokens = 3 * 3 * 4 + 4 + 1
    expected, attention = flops(config, 6, 8, 4), config.depth * 4 * tokens**2 * config.width
    assert counter.get_total_flops() in (expected, expected - attention)


def test_without_peft_the_line_that_adds_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UserError, match=r"LoRA of OmniGen needs peft: pip install 'clearfuse\[lora\]'"):
        build_model("omnigen", NARROW, torch.Generator())


def test_what_does_not_fit_is_refused() -> None:
    state = dict(transformer(NARROW).state_dict())
    for config, message in (
        (replace(NARROW, bits=4), "config.bits 4: a base of 4 bits (QLoRA) takes bitsandbytes on a GPU"),
        (replace(NARROW, depth=3), "the base: 8 weights are missing, too many or of another shape, such as layers.2."),
    ):
        with pytest.raises(UserError) as error:
            build_model("omnigen", config, torch.Generator(), lambda: state)
        assert str(error.value).startswith(message)
    with pytest.raises(ValueError, match="is of a flow: it takes z_t and t"):
        network(NARROW)(given(z_t=None))
