"""``train export``: onnxruntime's image is torch's, at sizes and prompts that the graph was not traced with."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from clearfuse.synth.types import UserError
from clearfuse.train.designs.design import Assembly, Design
from clearfuse.train.designs.file import read_design
from clearfuse.train.models import MMAIFConfig, RestorerConfig
from clearfuse.train.objectives.flow import FlowMatching
from clearfuse.train.objectives.regression import Regression
from clearfuse.train.pipeline.export import export_onnx
from clearfuse.train.pipeline.fusion import FusionPipeline
from clearfuse.train.text import to_bytes
from clearfuse.train.text.base import normalise

pytestmark = pytest.mark.slow

TINY = {"depth": 2, "heads": 2, "expert_width": 16, "shared_width": 16, "lora": 4}
DESIGNS = {
    "restorer": Design(
        *("restorer", RestorerConfig(text_width=128, width=8, blocks=(1, 1, 1), **TINY)),
        *("pixels", "bytes", Regression(), "pyramid"),
    ),
    "mmaif": Design(
        "mmaif",
        MMAIFConfig(latent_channels=192, text_width=0, width=32, **TINY | {"depth": 1}),
        "dct",
        "none",
        Regression(),
    ),
}
SIZES = ((91, 117), (64, 64), (17, 33), (240, 152))
PROMPTS = ("", "Remove the haze, and brighten the visible image.", "去雾并融合", "x" * 600)


def saved(folder: Path, design: Design) -> FusionPipeline:
    """A pipeline of random weights, of which none is 0."""
    assembly, rng = Assembly(design, torch.Generator().manual_seed(0)), torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in assembly.parameters():
            parameter.add_(0.03 * torch.randn(parameter.shape, generator=rng))
    pipeline = FusionPipeline(assembly)
    pipeline.save_pretrained(folder)
    return pipeline


@pytest.mark.parametrize("name", DESIGNS)
def test_onnxruntime_s_image_is_torch_s(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="needs clearfuse[export]")
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs clearfuse[export]")
    pipeline, out = saved(tmp_path / "model", DESIGNS[name]), tmp_path / "model.onnx"
    # As a process of its own: here each call's shapes are checked, which a traced graph would take for conditions.
    command = [sys.executable, "-m", "clearfuse.train", "export", str(tmp_path / "model"), "--out", str(out), "--json"]
    told = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    session = onnxruntime.InferenceSession(out)
    assert told["inputs"] == {one.name: one.shape for one in session.get_inputs()}
    assert told["inputs"]["a"] == [1, 3, "height", "width"]
    design = json.loads(session.get_modelmeta().custom_metadata_map["clearfuse"])
    assert read_design(design, "metadata").design() == pipeline.design
    rng = np.random.default_rng(1)
    for (height, width), prompt in zip(SIZES, PROMPTS, strict=True):
        given = {key: rng.uniform(-1, 1, (1, 3, height, width)).astype(np.float32) for key in ("a", "b", "guess")}
        codes = to_bytes([normalise(prompt)], 512, 1).numpy()
        taken = {key: value for key, value in {**given, "prompt": codes}.items() if key in told["inputs"]}
        guess = torch.from_numpy(given["guess"]) if "guess" in taken else None
        a, b = (torch.from_numpy(given[key]) for key in ("a", "b"))
        expected = pipeline.assembly.fuse(a, b, [prompt], torch.Generator(), guess=guess).clamp(-1, 1).numpy()
        assert np.abs(expected).mean() < 0.9, "not all at the ends"
        np.testing.assert_allclose(session.run(["fused"], taken)[0], expected, atol=1e-3, rtol=0)


def test_what_is_not_exported_is_said_and_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    design = Design(
        *("mmaif", MMAIFConfig(flow=True, latent_channels=192, text_width=128, width=32, **TINY)),
        *("dct", "bytes", FlowMatching(predicts="clean", steps=2)),
    )
    pipeline = saved(tmp_path / "model", design)
    with pytest.raises(UserError, match=r"--out model\.pt: must end in \.onnx"):
        export_onnx(pipeline, "model.pt")
    monkeypatch.setattr("clearfuse.train.pipeline.export.PACKAGES", ())
    with pytest.raises(UserError, match="the model is a flow, which a sampler calls in steps"):
        export_onnx(pipeline, str(tmp_path / "model.onnx"))
    with monkeypatch.context() as patched, pytest.raises(UserError, match="the model is given 'learned' semantics"):
        patched.setattr(pipeline.assembly, "design", replace(DESIGNS["mmaif"], semantics="learned"))
        export_onnx(pipeline, str(tmp_path / "model.onnx"))
    monkeypatch.setattr("clearfuse.train.pipeline.export.PACKAGES", ("no_such_package",))
    with pytest.raises(UserError, match=r"no_such_package is not installed: pip install 'clearfuse\[export\]'"):
        export_onnx(pipeline, str(tmp_path / "model.onnx"))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
