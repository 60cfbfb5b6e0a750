"""Masks from fused images, and pairs of another kind: what ``train fuse --mask`` and ``--task other`` write."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from clearfuse.synth.datasets.read import read_image
from clearfuse.synth.samples.control import marked
from clearfuse.synth.seeds import generator
from clearfuse.train.designs.design import Assembly
from clearfuse.train.designs.presets import find_preset
from clearfuse.train.pipeline.fusion import FusionPipeline
from clearfuse.train.pipeline.mask import mask_of
from conftest import Ran, save, textured

Train = Callable[..., Ran]


def test_the_mask_of_a_mark_is_the_mask() -> None:
    """Exact but for the rim of the box, on noise too, and where nothing is marked there is none."""
    plain = textured(1)
    mask = np.zeros(plain.shape[:2], np.bool_)
    mask[30:70, 40:100] = True
    noise = generator(1).normal(0, 6, plain.shape)
    answer = np.clip(marked(plain, mask) + noise, 0, 255).astype(np.uint8)
    found = mask_of(answer, plain)
    assert (found & mask).sum() / (found | mask).sum() > 0.9
    assert mask_of(np.clip(plain + noise, 0, 255).astype(np.uint8), plain).mean() < 0.01


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained ditfuse-tiny."""
    folder = tmp_path_factory.mktemp("model")
    assembly = Assembly(find_preset("ditfuse-tiny").design, torch.Generator().manual_seed(0))
    FusionPipeline(assembly).save_pretrained(folder)
    return folder


def test_fuse_writes_the_mask_beside_the_image_of_the_inputs_size(tmp_path: Path, model: Path, train: Train) -> None:
    for name, channels in (("a", 3), ("b", 1)):
        save(tmp_path / f"{name}.png", textured(1, 72, 40, channels))
    args = [tmp_path / "a.png", tmp_path / "b.png", "-o", tmp_path / "out.png", "--model", model, "--steps", "1"]
    ran = train("fuse", *args, "--task", "other", "--prompt", "segment the car", "--mask")
    assert ran.code == 0, ran.err
    image, mask = (read_image(str(tmp_path / name))[0] for name in ("out.png", "out-mask.png"))
    assert image.shape == (40, 72, 3)
    assert mask.shape[:2] == (40, 72) and set(np.unique(mask)) <= {0, 255}
    ran = train("fuse", *args, "--task", "other", "--mask")
    assert ran.code == 2 and "--mask: is of what a --prompt has marked" in ran.error


def test_both_scales_of_guidance_change_the_image(tmp_path: Path, model: Path) -> None:
    pipeline = FusionPipeline.from_pretrained(model)
    with torch.no_grad():
        for parameter in pipeline.assembly.parameters():
            parameter.add_(0.03 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)))
    a, b = textured(1, 48, 32), textured(2, 48, 32)

    def fused(text: float, images: float) -> np.ndarray:
        return pipeline(a, b, task="mff", prompt="darker", steps=1, guidance=text, guidance_images=images).astype(int)

    base = fused(1.0, 1.0)
    assert np.abs(fused(3.0, 1.0) - base).max() > 0 and np.abs(fused(1.0, 3.0) - base).max() > 0
