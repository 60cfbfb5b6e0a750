"""Pretrained tokenizers: each class against a direct call, any size, and error messages for folders."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from vaes import MADE, saved, tiny

from clearfuse.synth.types import UserError
from clearfuse.train.tokenizers import (
    GRIDS,
    PUBLISHED,
    TINY,
    Grid,
    autoencoder,
    build_tokenizer,
    find_tokenizer,
    grid_of,
)
from clearfuse.train.tokenizers.frozen import FrozenTokenizer
from clearfuse.train.tokenizers.taef2 import Taef2
from clearfuse.train.weights import source as sources

pytestmark = pytest.mark.slow  # diffusers takes seconds to import


def picture(height: int, width: int) -> torch.Tensor:
    rng = torch.Generator().manual_seed(0)
    return torch.rand(1, 3, height, width, generator=rng) * 2 - 1


@pytest.mark.parametrize("name", MADE)
@torch.no_grad()
def test_a_class_behind_the_protocol_is_its_own_call(tmp_path: Path, name: str) -> None:
    make, f, z = MADE[name]
    found = find_tokenizer(str(saved(tmp_path / "vae", make)))
    tokenizer = found.tokenizer
    assert isinstance(tokenizer, FrozenTokenizer) and (tokenizer.f, tokenizer.z) == (f, z)
    assert found.reference == str(tmp_path / "vae") and found.digest and len(found.files) == 2
    for size in [(2 * f, 3 * f), (f + 1, 2 * f - 3), (1, 5)]:
        latents = tokenizer.encode(picture(*size))
        assert latents.shape == (1, z, -(-size[0] // f), -(-size[1] // f)) and latents.dtype == torch.float32
        assert tokenizer.decode(latents, size).shape == (1, 3, *size)
    image = picture(2 * f, 2 * f)
    (network,) = tokenizer.networks
    given = image[:, :, None] if name == "cosmos" else image
    answer = network.encode(given)  # type: ignore[operator]
    raw = next(x for x in (answer.get("latents"), answer.get("latent"), answer.get("latent_dist")) if x is not None)
    raw = raw.mode() if hasattr(raw, "mode") and not isinstance(raw, torch.Tensor) else raw
    back = network.decode(raw).sample  # type: ignore[operator]
    latents = tokenizer.encode(image)
    expected = raw[:, :, 0] if name == "cosmos" else raw
    torch.testing.assert_close(latents * tokenizer.scale + tokenizer.shift, expected, atol=1e-5, rtol=1e-5)
    decoded = tokenizer.decode(latents, (2 * f, 2 * f))
    torch.testing.assert_close(decoded, back[:, :, 0] if name == "cosmos" else back, atol=1e-5, rtol=1e-5)


def test_sizes_come_from_the_config(tmp_path: Path) -> None:
    flux, cosmos, two = (
        build_tokenizer(str(saved(tmp_path / name, MADE[name][0]))) for name in ("kl", "cosmos", "flux2")
    )
    assert (
        isinstance(flux, FrozenTokenizer) and isinstance(cosmos, FrozenTokenizer) and isinstance(two, FrozenTokenizer)
    )
    assert float(flux.shift[0]) == pytest.approx(0.1159) and float(flux.scale[0]) == pytest.approx(1 / 0.3611)
    assert float(cosmos.shift[1]) == pytest.approx(0.19125476) and float(cosmos.scale[1]) == pytest.approx(0.85245121)
    assert float(two.shift[0]) == 0 and float(two.scale[0]) == pytest.approx(1, abs=1e-3)


def test_a_frozen_network_is_nobodys_parameter(tmp_path: Path) -> None:
    tokenizer = build_tokenizer(str(saved(tmp_path / "vae", tiny)))
    owner = nn.ModuleDict({"tokenizer": tokenizer, "own": nn.Linear(2, 2)})
    assert set(owner.state_dict()) == {"own.weight", "own.bias"} and len(list(owner.parameters())) == 2
    assert copy.deepcopy(owner)["tokenizer"] is tokenizer
    owner.train()
    assert isinstance(tokenizer, FrozenTokenizer) and not tokenizer.networks[0].training
    latents = torch.zeros(1, 16, 2, 2, requires_grad=True)
    tokenizer.decode(latents, (16, 16)).sum().backward()
    assert latents.grad is not None and latents.grad.abs().max() > 0
    with torch.autocast("cpu", torch.bfloat16):
        inside = tokenizer.encode(picture(16, 16))
    assert torch.equal(inside, tokenizer.encode(picture(16, 16)))


def published(folder: Path, name: str, suffix: str = ".safetensors") -> Path:
    """The two files of a random network in its authors' layout."""
    folder.mkdir()
    network = Taef2() if TINY[name].own else saved_tiny(TINY[name].z)
    for part in ("encoder", "decoder"):
        state = {
            key if TINY[name].own else f"{int(key.split('.')[1]) + (part == 'decoder')}.{key.split('.', 2)[2]}": value
            for key, value in getattr(network, part).state_dict().items()
        }
        path = folder / f"{name}_{part}{suffix}"
        save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    return folder


def saved_tiny(z: int) -> nn.Module:
    from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny

    return AutoencoderTiny(latent_channels=z)


@pytest.mark.parametrize(("name", "suffix"), [("taesd", ".safetensors"), ("taef2", ".safetensors"), ("taef2", ".pth")])
def test_the_layouts_of_the_tiny_ones(tmp_path: Path, name: str, suffix: str) -> None:
    folder = published(tmp_path / "tae", name, suffix)
    by_name, by_folder = find_tokenizer(f"{name}={folder}"), find_tokenizer(str(folder))
    assert by_name.reference == f"{name}={folder}" and by_folder.reference == str(folder)
    assert by_name.digest == by_folder.digest and [path.name for path in by_name.files] == [
        f"{name}_decoder{suffix}", f"{name}_encoder{suffix}",
    ]  # fmt: skip
    image = picture(33, 20)
    assert torch.equal(by_name.tokenizer.encode(image), by_folder.tokenizer.encode(image))
    assert by_name.tokenizer.decode(by_name.tokenizer.encode(image), (33, 20)).shape == image.shape
    path = folder / f"{name}_decoder{suffix}"
    if suffix == ".safetensors":
        state = load_file(path)
        save_file(dict(list(state.items())[1:]), path)
        with pytest.raises(UserError, match=f"--tokenizer {name}=.*weights of another network.*Missing key"):
            build_tokenizer(f"{name}={folder}")
        last = list(state)[-1]
        save_file(state | {last: state[last].int()}, path)
        with pytest.raises(UserError, match=f"{path}: {last} is of type int32"):
            build_tokenizer(f"{name}={folder}")
    published(tmp_path / "other", "taef1")
    (tmp_path / "other/taef1_encoder.safetensors").rename(folder / "taef1_encoder.safetensors")
    (tmp_path / "other/taef1_decoder.safetensors").rename(folder / "taef1_decoder.safetensors")
    with pytest.raises(UserError, match=r"holds .*; say which: --tokenizer .*="):
        build_tokenizer(str(folder))


def test_taef2_in_one_file_is_the_same(tmp_path: Path) -> None:
    folder = published(tmp_path / "tae", "taef2")
    whole = {}
    for part in ("encoder", "decoder"):
        for key, value in load_file(folder / f"taef2_{part}.safetensors").items():
            number, rest = key.split(".", 1)
            whole[f"{part}.layers.{int(number) - (part == 'decoder')}.{rest}"] = value
    (tmp_path / "hub").mkdir()
    save_file(whole, tmp_path / "hub/taef2.safetensors")
    one, two = build_tokenizer(f"taef2={folder}"), build_tokenizer(f"taef2={tmp_path / 'hub'}")
    assert torch.equal(one.encode(picture(16, 24)), two.encode(picture(16, 24)))
    save_file({"strange": torch.zeros(1)}, tmp_path / "hub/taef2.safetensors")
    with pytest.raises(UserError, match=r"holds no tiny autoencoder: strange"):
        build_tokenizer(f"taef2={tmp_path / 'hub'}")


def test_what_is_wrong_with_a_folder_is_one_line(tmp_path: Path) -> None:
    def said(reference: str) -> str:
        with pytest.raises(UserError) as error:
            build_tokenizer(reference)
        assert "\n" not in str(error.value)
        return str(error.value)

    folder = saved(tmp_path / "vae", tiny)
    config = json.loads((folder / "config.json").read_text())
    weights = folder / "diffusion_pytorch_model.safetensors"
    state = load_file(weights)
    save_file(dict(list(state.items())[1:]), weights)
    assert "do not fit its config.json: 1 missing, such as" in said(str(folder))
    save_file(state | {"more": torch.zeros(1)}, weights)
    assert "1 too many, such as more" in said(str(folder))
    last = list(state)[-1]
    for bad, what in (
        (state[last] * float("nan"), "holds a number that is NaN"),
        (state[last].int(), "is of type int32"),
    ):
        save_file(state | {last: bad}, weights)
        assert said(str(folder)).startswith(f"{weights}: {last} {what}")
    weights.write_bytes(b"nothing")
    assert said(str(folder)) == f"{weights}: not a checkpoint that can be read"
    weights.rename(folder / "diffusion_pytorch_model.bin")
    assert "AutoencoderTiny can't be loaded from" in said(str(folder)), "no pickle"
    (folder / "config.json").write_text(json.dumps(config | {"_class_name": "UNet2DModel"}))
    assert "is of the class 'UNet2DModel'; allowed: AsymmetricAutoencoderKL, AutoencoderDC, AutoencoderKL," in said(
        str(folder)
    )
    (folder / "config.json").write_text("{")
    assert "config.json: not valid JSON: EOF while parsing" in said(str(folder))
    for changed, fault in (
        ({"latent_channels": "4"}, "latent_channels = '4': must be a whole number"),
        ({"encoder_block_out_channels": [10**9]}, "encoder_block_out_channels.0 = 1000000000: must be at most 65536"),
        ({"scaling_factor": 0}, "scaling_factor = 0: must be above 0"),
    ):
        (folder / "config.json").write_text(json.dumps(config | changed))
        assert f"config.json: {fault}" in said(str(folder))
    (tmp_path / "empty").mkdir()
    assert "config.json is missing" in said(str(tmp_path / "empty"))
    assert "no config.json and" in said(f"taesd={tmp_path / 'empty'}") and "taesd_encoder" in said(
        f"taesd={tmp_path / 'empty'}"
    )
    assert "no such folder" in said("./nowhere") and "no such folder: nowhere" in said("taesd=nowhere")
    assert "unknown tokenizer 'taes': did you mean 'taesd'" in said("taes=nowhere")


def test_from_the_hub_at_a_pinned_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, dict[str, object]]] = []
    commit = tmp_path / "0123abc"
    saved(commit / "vae", tiny)
    saved(commit, tiny)

    def download(repo: str, **options: object) -> str:
        asked.append((repo, options))
        if repo == "lab/gone" or (options["local_files_only"] and repo != "black-forest-labs/FLUX.1-schnell"):
            raise OSError("You are offline\nand more")
        return str(commit)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert find_tokenizer("flux").reference == "flux@0123abc", "a cache of another commit than the pinned one"
    assert asked[0][1]["revision"] == PUBLISHED["flux"].revision and len(asked) == 1
    assert asked[0][1]["allow_patterns"] == ["vae/config.json", "vae/diffusion_pytorch_model*.safetensors*"]
    assert find_tokenizer("flux@main").reference == "flux@0123abc" and asked[-1][1]["revision"] == "main"
    found = find_tokenizer("lab/vaes/vae@v1")
    assert found.reference == "lab/vaes/vae@0123abc" and found.digest is None
    assert asked[-1][0] == "lab/vaes" and asked[-1][1]["revision"] == "v1"
    assert find_tokenizer("lab/vaes").reference == "lab/vaes@0123abc"
    with pytest.raises(UserError) as error:
        find_tokenizer("lab/gone/vae")
    assert str(error.value) == (
        "--tokenizer lab/gone/vae: lab/gone cannot be fetched (You are offline and more); download vae/config.json, "
        "vae/diffusion_pytorch_model*.safetensors* from https://huggingface.co/lab/gone and give their folder: "
        "--tokenizer DIR"
    )
    with pytest.raises(UserError, match=r"taesd3 cannot be fetched|has no config.json"):
        monkeypatch.setattr("huggingface_hub.snapshot_download", lambda repo, **_: str(tmp_path))
        find_tokenizer("taesd3")


def test_published_revisions_are_commits() -> None:
    assert {name for name, one in PUBLISHED.items() if one.revision is None} == {"omnigen", "taef2"}
    assert all(one.revision is None or re.fullmatch("[0-9a-f]{40}", one.revision) for one in PUBLISHED.values())
    assert GRIDS.keys() == {"dct", "pixels", *PUBLISHED}
    assert isinstance(sources.Published("a/b", None), sources.Published)


def test_the_one_that_was_published_before_safetensors(tmp_path: Path) -> None:
    """Its tensors are read from the .bin of its name; no other .bin is read, and no code in one is run."""
    folder = tmp_path / "vae"
    network = MADE["asymmetric"][0]()
    network.save_pretrained(folder, safe_serialization=False)
    assert sorted(path.name for path in folder.iterdir()) == [autoencoder.CONFIG, autoencoder.BIN]
    found = find_tokenizer(f"asymmetric={folder}")
    assert [path.name for path in found.files] == [autoencoder.CONFIG, autoencoder.BIN] and found.digest
    image = picture(16, 24)
    with torch.no_grad():
        direct = network.encode(image).latent_dist.mode()
    torch.testing.assert_close(found.tokenizer.encode(image) * found.tokenizer.scale, direct, atol=1e-5, rtol=1e-5)
    with pytest.raises(UserError, match="AsymmetricAutoencoderKL can't be loaded"):
        find_tokenizer(str(folder))
    ran = tmp_path / "ran"

    class Code:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (ran,)

    torch.save({"x": Code()}, folder / autoencoder.BIN)
    with pytest.raises(UserError, match=r"diffusion_pytorch_model\.bin: holds more than tensors") as error:
        find_tokenizer(f"asymmetric={folder}")
    assert "\n" not in str(error.value) and not ran.exists()


def test_a_grid_is_known_without_weights(tmp_path: Path) -> None:
    for name, (make, f, z) in MADE.items():
        folder = saved(tmp_path / name, make)
        (folder / "diffusion_pytorch_model.safetensors").unlink()
        assert grid_of(str(folder)) == Grid(f, z), name
        assert grid_of(f"flux={folder}") == Grid(f, z), "the files at hand come before the name"
    (tmp_path / "tae").mkdir()
    for part in ("encoder", "decoder"):
        (tmp_path / f"tae/taef2_{part}.pth").touch()
    assert grid_of(str(tmp_path / "tae")) == grid_of("taef2@0123") == grid_of(f"taef2={tmp_path}") == Grid(8, 32)
    assert grid_of("dct") == Grid(8, 192) and grid_of("cosmos-ci16x16").cells(1000, 33) == (63, 3)
    config = json.loads((tmp_path / "kl/config.json").read_text())
    (tmp_path / "kl/config.json").write_text(json.dumps(config | {"latent_channels": 0}))
    with pytest.raises(UserError, match=r"config.json: latent_channels = 0"):
        grid_of(str(tmp_path / "kl"))
    (tmp_path / "kl/config.json").write_text(json.dumps({"_class_name": "AutoencoderKL"}))
    assert grid_of(str(tmp_path / "kl")) == Grid(1, 4), "the class's own"
    with pytest.raises(UserError, match="unknown tokenizer 'flx': did you mean 'flux'"):
        grid_of("flx")


@pytest.mark.parametrize("name", TINY)
@torch.no_grad()
def test_the_real_tiny_ones(shared: Path, name: str) -> None:
    """The tokenizer agrees with a direct call, and reconstructs images."""
    from clearfuse.synth.datasets.read import read_image

    weights = shared / "weights/tae"
    if not weights.is_dir():
        pytest.skip("needs the shared weights")
    tokenizer = build_tokenizer(f"{name}={weights}")
    path = sorted((shared / "data/vif/RoadScene/crop_LR_visible").glob("*.jpg"))[0]
    pixels = read_image(str(path))[0][80:203, 100:221]
    image = torch.from_numpy(pixels.astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
    latents = tokenizer.encode(image)
    back = tokenizer.decode(latents, (123, 121))
    assert back.shape == image.shape and latents.shape == (1, tokenizer.z, 16, 16)
    assert 0.5 < float(latents.square().mean().sqrt()) < 2 and (tokenizer.scale == TINY[name].scale).all()
    assert -10 * np.log10(float(((back.clamp(-1, 1) - image) / 2).square().mean())) > 22
    whole = image[..., :120, :120]
    assert isinstance(tokenizer, FrozenTokenizer)
    direct = tokenizer.networks[0]
    raw = direct.encode(whole)  # type: ignore[operator]
    raw = raw if isinstance(raw, torch.Tensor) else raw.latents
    assert float((tokenizer.encode(whole) * tokenizer.scale - raw).abs().max()) <= 1e-5
    out = direct.decode(raw)  # type: ignore[operator]
    out = out if isinstance(out, torch.Tensor) else out.sample
    assert float((tokenizer.decode(raw / tokenizer.scale, (120, 120)) - out).abs().max()) <= 1e-5


@pytest.mark.gpu
@torch.no_grad()
def test_on_cuda_it_computes_in_bf16(tmp_path: Path) -> None:
    on_cpu, on_gpu = (build_tokenizer(str(saved(tmp_path / name, tiny))) for name in ("a", "b"))
    owner = nn.ModuleDict({"tokenizer": on_gpu}).to("cuda")
    image = picture(40, 56)
    latents = on_gpu.encode(image.cuda())
    assert isinstance(on_gpu, FrozenTokenizer) and on_gpu.dtype == torch.bfloat16 and latents.dtype == torch.float32
    torch.testing.assert_close(latents.cpu(), on_cpu.encode(image), atol=0.05, rtol=0.05)
    owner.to("cpu")
    assert on_gpu.encode(image).device.type == "cpu" and on_gpu.dtype == torch.float32
