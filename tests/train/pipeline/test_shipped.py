"""The models that ship: they load by name and by default, are small, have a card, and are taken where none is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clearfuse.synth.files.resources import resource_dir
from clearfuse.synth.scenes import scene_pair
from clearfuse.synth.types import UserError
from clearfuse.train.pipeline.fusion import FusionPipeline
from clearfuse.train.pipeline.shipped import DEFAULT, SHIPPED, default_model, shipped_folder
from conftest import Ran, save, textured

pytestmark = pytest.mark.slow

Train = Callable[..., Ran]


def test_all_of_them_are_small_and_have_a_card() -> None:
    files = list(resource_dir("models").rglob("*.safetensors"))
    assert sum(path.stat().st_size for path in files) < 40 * 1024**2
    for name in SHIPPED:
        folder = shipped_folder(name)
        assert folder is not None and (folder / "model.safetensors").stat().st_size <= 20 * 10**6
        card = (folder / "README.md").read_text()
        assert all(heading in card for heading in ("## Data", "## Training", "## Scores", "## Limits", "## Terms"))
        pipeline = FusionPipeline.from_pretrained(name)
        assert sum(parameter.numel() for parameter in pipeline.assembly.parameters()) <= 10e6
    assert shipped_folder("small") == shipped_folder("clearfuse-small") and shipped_folder("other") is None


def test_a_degraded_scene_gains_from_the_default_model_and_a_clean_one_stays() -> None:
    """A scene it never saw: nearer to the truth than the pyramid of the degraded pair, and 35 dB from it if clean."""
    from clearfuse.synth.fusers import PyramidFuser
    from clearfuse.synth.samples.chain import degrade

    scene, pyramid, pipeline = scene_pair("vif", 12345), PyramidFuser(), FusionPipeline.from_pretrained()
    truth = pyramid(scene.a, scene.b, "vif").astype(float)

    def error(image: np.ndarray) -> float:
        return float(np.mean((image - truth) ** 2))

    for operator, prompt, most in (
        ("gaussian_noise", "remove the noise", 0.85),
        ("low_exposure", "brighten the dark visible image", 0.5),
    ):
        degraded = degrade(scene.a, operator, severity=0.7, seed=3)
        fused = pipeline(degraded, scene.b, task="vif", prompt=prompt)
        assert error(fused) < most * error(pyramid(degraded, scene.b, "vif")), operator
    assert error(pipeline(scene.a, scene.b, task="vif")) < 255**2 * 10**-3.5


def test_the_default_is_the_only_run_else_the_shipped_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert default_model() == DEFAULT
    for name in ("one", "two"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "model.safetensors").touch()
        if name == "one":
            assert default_model() == "runs/one"
    with pytest.raises(UserError, match=r"one, .*two"):
        default_model()


def test_fuse_without_a_model_or_a_task(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    a, b = save(tmp_path / "vis.png", textured(1)), save(tmp_path / "ir.png", textured(2, channels=1))
    ran = train("fuse", a, b, "-o", "out.png")
    assert (ran.code, ran.out) == (0, "fused 1 pair into out.png\n"), ran.err
    assert "task: vif, as one picture is in colour, the other grey; else --task mef or mff" in ran.err
    assert f"model: {DEFAULT}, {SHIPPED[DEFAULT]}; another by --model" in ran.err
    swapped = train("fuse", b, a, "-o", "swapped.png")
    assert swapped.code == 0 and "the second picture is taken first" in swapped.err
    np.testing.assert_array_equal(*(np.asarray(Image.open(name)) for name in ("out.png", "swapped.png")))
