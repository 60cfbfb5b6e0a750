"""The table of presets: the paper's counts, and what ``train info`` prints."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import Ran

from train.models import MODELS
from train.objectives import FlowMatching
from train.presets import PRESETS, describe, find_preset

Train = Callable[..., Ran]


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Train:
    """Run ``train`` in this process."""

    def run(*args: str | Path) -> Ran:
        from train.cli import main

        monkeypatch.setattr(sys, "argv", ["train", *map(str, args)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main()
        captured = capsys.readouterr()
        return Ran(int(exit_.value.code or 0), captured.out, captured.err)

    return run


@pytest.mark.parametrize("name", ["mmaif-reg", "mmaif-fm"])
def test_the_paper_s_models_have_its_counts(name: str) -> None:
    info = describe(name)
    assert info["parameters_total"] == pytest.approx(282e6, rel=0.02)
    assert info["parameters_active"] == pytest.approx(185e6, rel=0.02)
    assert info["flops"] == pytest.approx(2.10e12, rel=0.01)
    assert describe(name, (512, 512))["flops"] == pytest.approx(0.42e12, rel=0.02)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_builds_as_its_row_says(name: str) -> None:
    preset = find_preset(name)
    family = MODELS[preset.design.model]
    assert isinstance(preset.design.config, family.config)
    assert preset.design.config.flow == isinstance(preset.design.objective, FlowMatching)
    with torch.device("meta"):
        family.network(preset.design.config)
    assert preset.schedule.crop % 16 == 0 and preset.schedule.warmup < preset.schedule.steps


@pytest.mark.parametrize("name", ["tiny-reg", "tiny-fm"])
def test_the_tiny_presets_need_no_download(name: str) -> None:
    from train.text import build_text
    from train.tokenizers import build_tokenizer

    preset = PRESETS[name]
    assert preset.design.config.latent_channels == build_tokenizer(preset.design.tokenizer).z
    assert preset.design.config.text_width == build_text(preset.design.text, torch.Generator()).width
    assert preset.design.config.width >= 192


def test_info_in_lines_and_as_json(train: Train) -> None:
    ran = train("info", "mmaif-fm")
    assert ran.code == 0
    assert "parameters  282.02 M, active 185.14 M" in ran.out and "2.11 T a call at 1024x1024, 5 a picture" in ran.out
    small = json.loads(train("info", "mmaif-fm", "--size", "512X256", "--json").out)
    assert small.keys() >= {"parameters_total", "parameters_active", "flops", "memory_inference", "memory_training"}
    assert small["size"] == "512x256" and small["flops"] < describe("mmaif-fm")["flops"] / 7


def test_mistakes_are_one_line(train: Train) -> None:
    ran = train("info", "tiny-rg")
    allowed = ", ".join(sorted(PRESETS))
    assert ran.code == 2
    assert ran.error == f"train: error: unknown preset 'tiny-rg': did you mean 'tiny-reg'? allowed: {allowed}"
    for size in ("3", "0x5", "ax5", "5x"):
        ran = train("info", "tiny-reg", "--size", size)
        assert (ran.code, ran.error) == (
            2,
            f"train: error: --size {size}: must be WIDTHxHEIGHT in pixels, such as 1024x1024",
        )
