"""Depth Anything: a tiny random network from a folder, through the whole pipeline, without hub and torchvision."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from clearfuse.synth.depth import anything as depth_anything
from clearfuse.synth.depth.anything import inverse_depths, locate, network_size
from clearfuse.synth.depth.base import DepthInput
from clearfuse.synth.depth.choice import parse_depth
from clearfuse.synth.depth.inverse import metric
from clearfuse.synth.seeds import generator
from clearfuse.synth.types import UserError


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a network of the class, with four layers and random weights."""
    import torch
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

    torch.manual_seed(0)
    backbone: Any = Dinov2Config(
        hidden_size=24, num_hidden_layers=4, num_attention_heads=2, image_size=28, reshape_hidden_states=False,
        out_features=["stage1", "stage2", "stage3", "stage4"], apply_layernorm=True,
    )  # fmt: skip
    config = DepthAnythingConfig(
        backbone_config=backbone, reassemble_hidden_size=24, neck_hidden_sizes=[4, 8, 8, 8], fusion_hidden_size=8,
        head_hidden_size=4,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("network")
    DepthAnythingForDepthEstimation(config).save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def small_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shorter side is 42 instead of 518."""
    monkeypatch.setattr(depth_anything, "SIDE", 42)


def picture(height: int = 60, width: int = 90, channels: int = 3) -> np.ndarray:
    return generator(2).integers(0, 256, (height, width, channels), dtype=np.uint8)


@pytest.mark.parametrize(
    ("size", "expected"), [((480, 640), (518, 686)), ((1024, 1280), (518, 644)), ((1000, 300), (1722, 518))]
)
def test_the_ratio_is_kept_in_patches(
    monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], expected: tuple[int, int]
) -> None:
    monkeypatch.setattr(depth_anything, "SIDE", 518)
    assert network_size(*size) == expected


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 4])
def test_a_batch_of_sizes_and_grey_is_what_each_is_alone(
    network: Path, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(depth_anything, "batch_size", lambda device: count)
    pictures = [picture(), picture(50, 50, 1), picture(60, 90)]
    together = inverse_depths(pictures, str(network))
    assert [each.shape for each in together] == [(42, 56), (42, 42), (42, 56)]
    for one, alone in zip(together, pictures, strict=True):
        assert one.dtype == np.float32 and np.isfinite(one).all()
        np.testing.assert_array_equal(one, inverse_depths([alone], str(network))[0], "whatever else is in the batch")


@pytest.mark.slow
def test_the_input_is_normalised_code_values(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    model: Any = depth_anything.load_depth_network(str(network))
    forward: Callable[..., Any] = model.forward
    monkeypatch.setattr(model, "forward", lambda pixel_values: seen.append(pixel_values) or forward(pixel_values))
    inverse_depths([np.full((42, 42, 3), (255, 0, 51), np.uint8)], str(network))
    expected = (np.array([1, 0, 0.2]) - depth_anything.MEAN) / depth_anything.DEVIATION
    np.testing.assert_allclose(seen[0][0, :, 20, 20].numpy(), expected, atol=1e-5)


@pytest.mark.slow
def test_the_source_gives_metres_along_the_edges(network: Path) -> None:
    source = parse_depth(f"depth-anything={network}", has_true=False)
    assert source.name == "depth-anything" and source.weights is not None and len(source.weights) == 16
    image = picture(120, 160)
    metres = source.estimate(DepthInput("any", image, None, 200.0))
    assert metres.shape == (120, 160) and metres.dtype == np.float32 and (metres > 0).all()
    np.testing.assert_array_equal(metres, source.estimate(DepthInput("other", image, None, 200.0)))


def test_a_coarse_map_takes_the_pictures_edges() -> None:
    """An edge in the image at column 61 of 160, in the map at column 60: the metres follow the image."""
    image = np.full((120, 160, 3), 60, np.uint8)
    image[:, 61:] = 190
    inverse = np.full((30, 40), 0.1, np.float32)
    inverse[:, 15:] = 1.0
    metres = metric(inverse, image, 100.0)[60]
    slope = np.abs(np.diff(np.log(metres)))
    assert slope.argmax() == 60 and metres[50] > 20 * metres[70]


@pytest.mark.slow
def test_other_weights_have_another_digest(network: Path, tmp_path: Path) -> None:
    other = shutil.copytree(network, tmp_path / "other")
    before = depth_anything.weights_digest(other)
    assert before == depth_anything.weights_digest(network)
    weights = bytearray((other / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (other / "model.safetensors").write_bytes(weights)
    assert depth_anything.weights_digest(other) != before


@pytest.mark.slow
def test_what_is_no_network_is_one_line(network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"no config\.json and \*\.safetensors in it"):
        locate(str(tmp_path))
    bad = shutil.copytree(network, tmp_path / "bad")
    (bad / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match="not a Depth Anything network"):
        inverse_depths([picture()], str(bad))
    state = load_file(network / "model.safetensors")
    name = next(name for name in state if name.startswith("neck"))
    for changed, what in (
        ({name: state[name] * float("nan")}, f"{bad}/model.safetensors: {name} holds a number that is NaN"),
        ({name: state[name].int()}, f"{bad}/model.safetensors: {name} is of type int32"),
    ):
        save_file(state | changed, bad / "model.safetensors", {"format": "pt"})
        with pytest.raises(UserError, match=what):
            inverse_depths([picture()], str(bad))
    save_file({n: x for n, x in state.items() if n != name}, bad / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=f"1 weights missing, such as {name}"):
        inverse_depths([picture()], str(bad))
    settings = json.loads((network / "config.json").read_text())
    other = shutil.copytree(network, tmp_path / "t5")
    (other / "config.json").write_text(json.dumps(settings | {"fusion_hidden_size": 16}))
    with pytest.raises(UserError, match="not a Depth Anything network"):
        inverse_depths([picture()], str(other))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="neither a folder nor a hub id"):
        locate(str(tmp_path / "absent/er/still"))


def test_offline_it_says_what_to_put_where(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def offline(*_: Any, **__: Any) -> str:
        raise LocalEntryNotFoundError("no connection")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    monkeypatch.setattr(depth_anything, "on_disk", lambda: None)
    with pytest.raises(UserError, match=r"model\.safetensors and give their folder: --depth depth-anything=DIR"):
        locate(None)


@pytest.mark.slow
def test_auto_takes_it_where_it_is_on_disk(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(depth_anything, "on_disk", lambda: network)
    assert parse_depth("auto", has_true=False).name == "depth-anything"
    assert parse_depth("auto", has_true=True).name == "true"
    assert locate(None) == network
