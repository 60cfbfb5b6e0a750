"""The node of ComfyUI, called on tensors as ComfyUI calls it; and the Space's files."""

from __future__ import annotations

import importlib.util
import re
from types import ModuleType

import numpy as np
import pytest
import torch

from clearfuse.synth.fusers import PyramidFuser
from clearfuse.synth.scenes import scene_pair
from conftest import ROOT


@pytest.fixture(scope="module")
def comfy() -> ModuleType:
    """The folder as a module, the way ComfyUI imports a custom node."""
    spec = importlib.util.spec_from_file_location("comfy_node", ROOT / "integrations/comfyui/__init__.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def images() -> tuple[torch.Tensor, torch.Tensor]:
    """A visible and an infrared picture as ComfyUI has them: (1, h, w, 3) in [0, 1]."""
    pair = scene_pair("vif", 3, (96, 64))
    a, b = (torch.from_numpy(np.repeat(x, 3 // x.shape[2], 2))[None].float() / 255 for x in (pair.a, pair.b))
    return a, b


@pytest.mark.slow
def test_the_node_fuses_as_the_pipeline_does(comfy: ModuleType, images: tuple[torch.Tensor, torch.Tensor]) -> None:
    from clearfuse import FusionPipeline

    node = comfy.NODE_CLASS_MAPPINGS["ClearFuse"]
    assert {*comfy.NODE_DISPLAY_NAME_MAPPINGS} == {*comfy.NODE_CLASS_MAPPINGS}
    inputs = node.INPUT_TYPES()
    given = {
        name: kind[1]["default"]
        for name, kind in (inputs["required"] | inputs["optional"]).items()
        if "default" in kind[1]
    }
    a, b = images
    fused = getattr(node(), node.FUNCTION)(a=a, b=b, **given)
    assert len(fused) == len(node.RETURN_TYPES) == len(node.RETURN_NAMES)
    assert fused[0].shape == (1, 64, 96, 3) and fused[0].dtype == torch.float32
    x, y = ((image[0] * 255).round().to(torch.uint8).numpy() for image in images)
    wanted = FusionPipeline.from_pretrained("small")(x, y[..., :1], task="vif")
    assert np.array_equal((fused[0][0] * 255).round().to(torch.uint8).numpy(), wanted)
    assert np.abs(wanted.astype(float) - PyramidFuser()(x, y[..., :1], "vif")).mean() < 20


@pytest.mark.slow
def test_order_and_batches(comfy: ModuleType, images: tuple[torch.Tensor, torch.Tensor]) -> None:
    a, b = images
    node = comfy.ClearFuseNode()
    (one,) = node.fuse(a, b, "auto")
    (turned,) = node.fuse(b, a.repeat(2, 1, 1, 1), "auto", prompt="  ")
    assert torch.equal(turned, one.repeat(2, 1, 1, 1))


@pytest.mark.slow
def test_bad_input_is_one_line(comfy: ModuleType, images: tuple[torch.Tensor, torch.Tensor]) -> None:
    a, b = images
    node = comfy.ClearFuseNode()
    for args, said in (
        ((a, b[:, :32]), "differ in size: 96x64 and 96x32"),
        ((a.repeat(2, 1, 1, 1), b.repeat(3, 1, 1, 1)), "batches of 2 and 3"),
        ((a, b, "vif", "", "no/such/../model"), "no/such"),
    ):
        with pytest.raises(ValueError, match=said) as caught:
            node.fuse(*args)
        assert "\n" not in str(caught.value)


def test_the_space_is_the_page() -> None:
    card = (ROOT / "spaces/README.md").read_text()
    (version,) = re.findall(r"^sdk_version: (\S+)$", card, re.MULTILINE)
    assert int(version.partition(".")[0]) >= 6  # what the extra asks for
    assert "clearfuse[demo]" in (ROOT / "spaces/requirements.txt").read_text()
    source = (ROOT / "spaces/app.py").read_text()
    compile(source, "app.py", "exec")
    assert "demo = build_page()" in source
