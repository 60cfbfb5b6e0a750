"""Tiles: they cover, they blend without seams, and all share one field of noise."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import small
from torch import Tensor

from clearfuse.synth.fusers.pyramid.region import Region
from clearfuse.train.designs.design import Assembly
from clearfuse.train.models.base import Prediction
from clearfuse.train.objectives.flow import FlowMatching
from clearfuse.train.objectives.noise import NoiseField
from clearfuse.train.objectives.samplers import SAMPLERS
from clearfuse.train.pipeline import fusion
from clearfuse.train.pipeline.fusion import FusionPipeline
from clearfuse.train.pipeline.tiles import fuse_tiled, starts
from conftest import textured


@pytest.mark.parametrize("multiple", [1, 4])
@pytest.mark.parametrize(
    ("length", "tile", "overlap"), [(10, 16, 4), (16, 16, 4), (17, 16, 4), (100, 16, 4), (1030, 1024, 128)]
)
def test_tiles_cover_a_side(length: int, tile: int, overlap: int, multiple: int) -> None:
    places = starts(length, tile, overlap, multiple)
    assert places[0] == 0
    assert all(place % multiple == 0 for place in places)
    assert places[-1] + tile >= length and places[-1] < length
    assert all(0 < b - a <= tile - overlap for a, b in itertools.pairwise(places))


def test_tiles_leave_no_seams() -> None:
    a = torch.rand(1, 3, 70, 90, generator=torch.Generator().manual_seed(0))
    whole = fuse_tiled(lambda at: 3 * a[:, :, *at], (70, 90), tile=32, overlap=8)
    torch.testing.assert_close(whole, 3 * a)
    steps = fuse_tiled(lambda at: torch.full_like(a[:, :, *at], at[1].start % 2), (70, 90), tile=32, overlap=8)
    assert steps.diff(dim=3).abs().max() < 0.15, "tiles that differ by one fade over the overlap"


@pytest.mark.parametrize("sampler", [name for name, sampler in SAMPLERS.items() if sampler.path == "flow"])
def test_a_flow_in_tiles_is_the_flow_of_the_whole(sampler: str) -> None:
    """With a network that sees one place at a time nothing but the noise could differ."""
    objective = FlowMatching(sampler=sampler, steps=3)
    pair = torch.rand(2, 1, 3, 40, 56, generator=torch.Generator().manual_seed(1))

    def sample(at: Region) -> Tensor:
        parts = [image[:, :, *at] for image in pair]

        def predict(z_t: Tensor | None, t: Tensor | None) -> Prediction:
            assert z_t is not None and t is not None
            latent = (parts[0] - parts[1]) * (1 - t) - z_t.tanh()
            return Prediction(latent, latent.new_zeros(()), latent.new_zeros(1, 0))

        rng = NoiseField(torch.Generator().manual_seed(7), 40, 56, at[0].start, at[1].start)
        return objective.sample(predict, (parts[0], parts[1]), rng)

    whole = fuse_tiled(sample, (40, 56), tile=64, overlap=8)
    torch.testing.assert_close(fuse_tiled(sample, (40, 56), tile=24, overlap=8), whole)
    torch.testing.assert_close(fuse_tiled(sample, (40, 56), tile=24, overlap=20), whole)


def test_a_pipeline_in_tiles_has_one_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that has learned nothing returns its noise; the mean of two fields would have 0.7 of its deviation."""
    design = replace(small(flow=True), objective=FlowMatching(steps=2))
    design = replace(design, config=replace(design.config, head="plain"))
    pipeline = FusionPipeline(Assembly(design, torch.Generator().manual_seed(0)).eval())
    monkeypatch.setattr(fusion, "OVERLAP", 48)
    a, b = textured(1), textured(2)
    whole, parts = (pipeline(a, b, task="vif", tile=tile).astype(int) for tile in (256, 96))
    assert np.abs(whole - parts).max() <= 1
