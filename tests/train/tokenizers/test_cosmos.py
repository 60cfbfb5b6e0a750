"""Cosmos' image tokenizers: the Haar patches by hand, the published network's numbers, archives and what is wrong."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from jits import SMALL, cosmos
from safetensors.torch import save_file

from clearfuse.synth.types import UserError
from clearfuse.train.tokenizers import PUBLISHED, Grid, build_tokenizer, find_tokenizer, grid_of
from clearfuse.train.tokenizers import cosmos as module
from clearfuse.train.tokenizers.cosmos import Patches, Pixels, Widths, build_decoder, build_encoder, haar
from clearfuse.train.weights.torchscript import read_archive


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PUBLISHED", SMALL)


def picture(height: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_haar_patches_by_hand() -> None:
    block = torch.tensor([[1.0, 3, 5, 7], [2, 4, 6, 0], [9, 8, 1, 1], [7, 6, 1, 1]])
    mean = torch.tensor([[2.5, 4.5], [7.5, 1.0]])
    down = torch.tensor([[-0.5, 1.5], [1.0, 0.0]])  # the upper row less the lower
    across = torch.tensor([[-1.0, 1.0], [0.5, 0.0]])  # the left column less the right
    both = torch.tensor([[0.0, -2.0], [0.0, 0.0]])
    once = haar(block[None, None])
    assert torch.equal(once, torch.stack([mean, down, across, both])[None])
    twice = Patches()(block[None, None])
    assert twice.shape == (1, 16, 1, 1)
    # All bands' means, then their differences: 4 × mean = 2.5 + 4.5 + 7.5 + 1 and so on.
    assert twice.flatten()[:5].tolist() == [3.875, 0.5, 0.125, -0.5, (2.5 + 4.5 - 7.5 - 1.0) / 4]


def test_haar_patches_lose_nothing() -> None:
    image = picture(24, 36)
    patches = Patches()(image)
    assert patches.shape == (1, 48, 6, 9)
    torch.testing.assert_close(Pixels()(patches), image, atol=1e-6, rtol=0)
    torch.testing.assert_close(16 * patches.square().sum(), image.square().sum())
    flat = Patches()(torch.full((1, 3, 8, 8), 0.25))
    assert (flat[:, :3] == 0.25).all() and (flat[:, 3:] == 0).all()


NUMBERS = {
    8: (
        [-0.49956, 0.49647, 0.50288, 0.64573, -0.27536, -0.44452],
        [-0.07618, -0.08127, 0.45194, -0.0515, -0.00506, -0.08479],
    ),
    16: (
        [-0.03403, 0.10972, 0.21219, -0.0052, -0.08282, -0.02607],
        [0.20129, 0.0166, 1.69008, -0.00071, -0.0631, -0.30219],
    ),
}
"""f -> six of the latents and six of the pixels, evenly apart."""


def ruled(network: torch.nn.Module) -> None:
    """Weights by a rule: sines, each of a size that keeps activations near one."""
    for name, parameter in sorted(network.named_parameters()):
        turns = torch.arange(parameter.numel(), dtype=torch.float64) * 1.7 + len(name)
        size = 0.1 if parameter.ndim == 1 else (2 / parameter[0].numel()) ** 0.5
        start = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        parameter.data = (start + size * torch.sin(turns)).float().view(parameter.shape)


@pytest.mark.parametrize("f", [8, 16])
@torch.no_grad()
def test_the_published_network_s_numbers(f: int) -> None:
    """Those of github.com/NVIDIA/Cosmos-Tokenizer at 3584ae7, of a network of 32 channels, for the same weights."""
    encoder, decoder = build_encoder(f, Widths(channels=32)), build_decoder(f, Widths(channels=32))
    ruled(encoder)
    ruled(decoder)
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(48.0), indexing="ij")
    image = torch.stack([torch.sin(x / 5 + y / 7), torch.cos(x / 3 - y / 4), torch.sin(x * y / 50)])[None]
    z = encoder(image)
    back = decoder(z)
    expected_z, expected_back = NUMBERS[f]
    assert z.shape == (1, 16, 32 // f, 48 // f) and back.shape == image.shape
    torch.testing.assert_close(z.flatten()[:: z.numel() // 6][:6], torch.tensor(expected_z), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(back.flatten()[::800][:6], torch.tensor(expected_back), atol=1e-4, rtol=1e-4)


def test_the_published_sizes() -> None:
    """Of the published files: 62.5 and 91.5 MB in bf16, code and names among them."""
    with torch.device("meta"):
        counts = [
            sum(each.numel() for each in build(f, Widths()).parameters())
            for f in (8, 16)
            for build in (build_encoder, build_decoder)
        ]
    assert counts == [31_153_824, 45_635_648, 33_513_632, 47_995_456]


@pytest.mark.parametrize(("name", "f"), [("cosmos", 8), ("cosmos-ci16x16", 16)])
@torch.no_grad()
def test_it_is_the_traced_one(tmp_path: Path, name: str, f: int) -> None:
    encoder, decoder = cosmos(tmp_path, f, dtype=torch.float32)
    found = find_tokenizer(f"{name}={tmp_path}")
    tokenizer = found.tokenizer
    assert grid_of(name) == Grid(f, 16) == Grid(tokenizer.f, tokenizer.z)
    assert [path.name for path in found.files] == ["decoder.jit", "encoder.jit"] and found.digest
    image = picture(2 * f, 3 * f)
    latents = tokenizer.encode(image)
    torch.testing.assert_close(latents, encoder(image)[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        tokenizer.decode(latents, (2 * f, 3 * f)), decoder(encoder(image)[0]), atol=1e-4, rtol=1e-4
    )
    for size in [(f + 1, 2 * f - 3), (1, 5)]:
        latents = tokenizer.encode(picture(*size))
        assert latents.shape == (1, 16, -(-size[0] // f), -(-size[1] // f))
        assert tokenizer.decode(latents, size).shape == (1, 3, *size)


def test_it_is_nobodys_parameter(tmp_path: Path) -> None:
    cosmos(tmp_path)
    tokenizer = build_tokenizer(f"cosmos={tmp_path}")
    assert not list(tokenizer.parameters()) and not tokenizer.state_dict()


@torch.no_grad()
def test_of_bf16_files_it_computes_in_float32(tmp_path: Path) -> None:
    encoder, _ = cosmos(tmp_path)
    tokenizer = build_tokenizer(f"cosmos={tmp_path}")
    image = picture(16, 24)
    torch.testing.assert_close(tokenizer.encode(image), encoder.float()(image)[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        tokenizer.encode(image), encoder.bfloat16()(image.bfloat16())[0].float(), atol=0.2, rtol=0.1
    )


@pytest.mark.slow
def test_what_is_wrong_with_a_folder_is_one_line(tmp_path: Path) -> None:
    def said() -> str:
        with pytest.raises(UserError) as error:
            build_tokenizer(f"cosmos={tmp_path}")
        assert "\n" not in str(error.value)
        return str(error.value)

    cosmos(tmp_path, 16)
    what = "2 entries too many, such as encoder.down.1.downsample.conv"
    assert f"{tmp_path}/encoder.jit: not a checkpoint of Cosmos' encoder of f = 8: {what}" in said()
    cosmos(tmp_path)
    shutil.copy(tmp_path / "encoder.jit", tmp_path / "decoder.jit")
    assert "decoder.jit: not a checkpoint of Cosmos' decoder of f = 8: " in said()
    name, state = "encoder.conv_in.weight", read_archive(tmp_path / "encoder.jit")
    save_file(state | {name: torch.full_like(state[name], float("nan"))}, tmp_path / "encoder.safetensors")
    assert f"encoder.safetensors: {name} holds a number that is NaN" in said()
    save_file(state | {"encoder.patcher.wavelets": torch.ones(2)}, tmp_path / "encoder.safetensors")
    assert "encoder.safetensors: encoder.patcher.wavelets is not that of the Haar transform" in said()
    (tmp_path / "encoder.safetensors").unlink()
    (tmp_path / "decoder.jit").write_bytes(b"nothing")
    assert "decoder.jit: is no TorchScript archive whose tensors can be read: File is not a zip file" in said()
    (tmp_path / "decoder.jit").unlink()
    assert said() == f"--tokenizer cosmos={tmp_path}: decoder.jit is missing in {tmp_path}"


def test_both_are_pinned() -> None:
    assert PUBLISHED["cosmos"].repo.endswith("/Cosmos-0.1-Tokenizer-CI8x8")
    assert PUBLISHED["cosmos"].revision == "d40d39fcebcb48197a5fc80d881a7f027ad79bc4"
    assert PUBLISHED["cosmos"].files == PUBLISHED["cosmos-ci16x16"].files == ("encoder.jit", "decoder.jit")
