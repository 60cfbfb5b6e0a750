"""The counted memory of a training step, beside what a run takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from made import made_shards
from tiny import small
from torch._subclasses.fake_tensor import FakeTensorMode

from clearfuse.train import tokenizers
from clearfuse.train.designs.design import Design
from clearfuse.train.designs.presets import PRESETS, Preset
from clearfuse.train.designs.schedule import Schedule
from clearfuse.train.models.omnigen.config import parameters, spared
from clearfuse.train.runs.options import RunOptions
from clearfuse.train.runs.settings import Settings
from clearfuse.train.text import blank_text
from clearfuse.train.tokenizers import cosmos
from clearfuse.train.tokenizers.frozen import FrozenTokenizer
from clearfuse.train.training import trainer
from clearfuse.train.training.memory import TrainingMemory, _fake, training_memory

SIDE, BATCH = 96, 32


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_shards(tmp_path_factory.mktemp("made"))


def design(flow: bool, guess: bool, text: str) -> Design:
    """Wide enough for its tensors to outweigh what every process has."""
    made = small(flow, guess)
    config = replace(made.config, width=128, expert_width=128, lora=32, text_width=128 if text == "bytes" else 0)
    return replace(made, config=config, text=text)


@pytest.mark.slow
def test_a_paper_s_preset_fed_with_the_pyramid_says_so(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule = Schedule(crop=32, ratios="1:1", batch=2, accumulate=1, steps=1, recompute=False)
    lines: list[str] = []
    for paper in (True, False):
        monkeypatch.setitem(PRESETS, "like", Preset("for tests", small(), schedule, paper=paper))
        trainer.fit(
            [str(shards / "vif")], str(tmp_path / str(paper)), Settings.of("like"),
            run_options=RunOptions(trackers=("none",)), device="cpu", note=lines.append,
        )  # fmt: skip
    assert [line for line in lines if "pyramid" in line] == [
        "2 of 2 shards have ground truth by the pyramid fuser, the paper's is SwinFusion's and DeFuse's: "
        "synth build --fuser paper"
    ]


def peak_of(shards: Path, out: Path, schedule: Schedule, of: Design, monkeypatch: pytest.MonkeyPatch) -> int:
    """The most that a run's tensors take at once, by torch's profiler, which sees each allocation."""
    monkeypatch.setitem(PRESETS, "measured", Preset("for tests", of, schedule))
    monkeypatch.setattr(trainer._Run, "_validate", lambda *args: None)  # it has other batches
    with torch.profiler.profile(profile_memory=True) as profiled:
        options = RunOptions(trackers=("none",))
        trainer.fit([str(shards / "vif")], str(out), Settings.of("measured"), run_options=options, device="cpu")
    live = peak = 0
    results: Any = profiled.profiler
    for event in results.kineto_results.events():
        if event.name() == "[memory]":
            live += event.nbytes()
            peak = max(peak, live)
    return peak


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flow", "guess", "text", "pixel", "recompute", "accumulate"),
    [
        (False, False, "none", 0.0, False, 1),
        (True, True, "bytes", 0.1, False, 2),
        (False, False, "none", 0.0, True, 2),
    ],
)
def test_a_run_takes_what_was_counted_to_a_fifth(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    flow: bool, guess: bool, text: str, pixel: float, recompute: bool, accumulate: int,
) -> None:  # fmt: skip
    schedule = Schedule(
        crop=SIDE, ratios="1:1", batch=BATCH, accumulate=accumulate, steps=2, warmup=1, recompute=recompute
    )
    made = design(flow, guess, text)
    made = replace(made, objective=replace(made.objective, pixel=pixel))
    counted = training_memory(
        made, batch=BATCH, size=(SIDE, SIDE), recompute=recompute, accumulate=accumulate, cuda=False, bf16=False
    )
    assert counted.peak == pytest.approx(peak_of(shards, tmp_path / "run", schedule, made, monkeypatch), rel=0.2)
    assert text == "bytes" or counted.activations > 0.3 * counted.peak, "little but weights was compared"


@pytest.mark.slow
def test_recomputation_trades_activations_and_the_pixel_loss_and_frozen_parts_count() -> None:
    own = design(False, False, "none")
    tiny = replace(own, tokenizer="taesd3", config=replace(own.config, latent_channels=16))
    lossy = replace(tiny, objective=replace(tiny.objective, pixel=0.1))

    def count(of: Design, recompute: bool = False) -> TrainingMemory:
        return training_memory(of, batch=64, size=(256, 256), recompute=recompute)

    plain, less = count(own), count(own, recompute=True)
    assert less.activations < 0.9 * plain.activations and less.weights == plain.weights == plain.gradients
    plain, pixel = count(tiny), count(lossy)
    assert pixel.activations > plain.activations + 2 * 64 * 64 * 256 * 256, "the decoder's activations, in bf16"
    assert plain.frozen == 2 * sum(each.numel() for each in _taesd3()), "bf16"
    assert count(lossy, recompute=True).activations < 0.8 * pixel.activations


def _taesd3() -> list[torch.Tensor]:
    from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny

    with torch.device("meta"):
        return list(AutoencoderTiny(latent_channels=16).state_dict().values())


def test_an_encoder_s_weights_are_counted_without_reading_them() -> None:
    """Flan-T5's encoders have 1,223,527,424 (XL) and 4,762,310,656 (XXL) parameters."""
    counts = [sum(each.numel() for each in blank_text(name).networks[0].parameters()) for name in ("t5-xl", "t5-xxl")]  # type: ignore[union-attr]
    assert counts == [1_223_527_424, 4_762_310_656]


@pytest.mark.slow
@pytest.mark.parametrize("name", tokenizers.NAMES)
def test_every_named_tokenizer_is_made_without_its_weights_and_recomputes(name: str) -> None:
    """Offline; Cosmos has the 31,153,824 and 45,635,648 parameters of its published files."""
    with torch.device("meta"):
        made = tokenizers.blank_tokenizer(name)
    assert (made.f, made.z) == (tokenizers.GRIDS[name].f, tokenizers.GRIDS[name].z)
    made.recompute()
    if not isinstance(made, FrozenTokenizer):
        return
    with FakeTensorMode():
        for part in (made, *(each for network in made.networks for each in network.modules())):
            _fake(part)
        latents = torch.zeros(1, made.z, 4, 4, requires_grad=True)
        images = made.decode(latents, (4 * made.f, 4 * made.f))
        images.sum().backward()
    assert images.shape == (1, 3, 4 * made.f, 4 * made.f) and latents.grad is not None
    if name == "cosmos":
        assert [sum(p.numel() for p in part.parameters()) for part in made.networks] == [31_153_824, 45_635_648]  # type: ignore[union-attr]


def test_recomputation_changes_no_gradient() -> None:
    """Of Cosmos' decoder at a small width, in values."""
    widths = cosmos.Widths(channels=32, multipliers=(1, 1, 1), blocks=1, z=4)
    networks = [cosmos.build_encoder(8, widths), cosmos.build_decoder(8, widths)]
    blocks = (cosmos.Residual, cosmos.Attention, cosmos.Upsample)
    made = FrozenTokenizer(networks, *networks, f=8, shift=[0.0] * 4, scale=[1.0] * 4, blocks=blocks)
    latents = torch.randn(1, 4, 2, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()

    def slope() -> torch.Tensor:
        return torch.autograd.grad(made.decode(latents, (16, 24)).square().sum(), latents)[0]

    plain = slope()
    made.recompute()
    assert torch.equal(slope(), plain) and plain.abs().max() > 0
    with torch.no_grad():
        assert not made.decode(latents, (16, 24)).requires_grad


@pytest.mark.slow
def test_ditfuse_at_full_size_is_counted_without_its_weights() -> None:
    """LoRA on 3.76 billion weights in bf16: the base and the tokenizer, and of what learns five times float32."""
    pytest.importorskip("peft", reason="needs clearfuse[lora]")
    design = PRESETS["ditfuse"].design
    config = design.config
    lora = training_memory(design, batch=1, size=(512, 512), recompute=True)
    learned = config.depth * config.rank * 4 * 2 * config.width
    assert lora.weights == lora.ema == lora.gradients == 4 * learned and lora.optimizer >= 2 * lora.weights
    base = parameters(config) - learned + config.positions**2 * config.width
    assert 2 * base < lora.frozen < 2 * base + 2 * 100_000_000, "with the autoencoder, of 84 million"
    assert lora.frozen < lora.peak < 12 * 2**30
    small = training_memory(replace(design, config=replace(config, bits=4)), batch=1, size=(512, 512), recompute=True)
    assert lora.peak - small.peak == lora.frozen - small.frozen == spared(config) > 4.5 * 2**30
