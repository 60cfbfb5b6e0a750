"""DiTFuse on a tiny random OmniGen in a folder: adapters alone learn, are saved, resumed, merged and shared."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made import made_shards
from omnigens import TINY, changes, omnigen

from clearfuse.synth.types import UserError
from clearfuse.train.designs.design import Parts
from clearfuse.train.pipeline.adapters import design_of_adapters, read_adapters
from clearfuse.train.pipeline.fusion import FusionPipeline
from clearfuse.train.runs.options import RunOptions
from clearfuse.train.runs.settings import Settings
from clearfuse.train.training import checkpoint
from clearfuse.train.training.trainer import Fitted, fit
from clearfuse.train.weights.tensors import read_tensors, write_tensors
from conftest import Ran, save, textured

pytest.importorskip("peft", reason="needs clearfuse[lora]")
PAIR = textured(1, 40, 56), textured(2, 40, 56, channels=1)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_shards(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return omnigen(tmp_path_factory.mktemp("base") / "omnigen")


@pytest.fixture(scope="module")
def first(shards: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 20 steps."""
    out = tmp_path_factory.mktemp("first") / "run"
    run(shards, base, out)
    return out


def run(shards: Path, base: Path, out: Path, *sets: str, **changed: Any) -> Fitted:
    notes, options = changed.pop("notes", []), changed.pop("options", {})
    given = {"steps": 20, "hold_out": 2, "crop": 32, "batch": 2, "accumulate": 1, "lr": 1e-2, "warmup": 1, "ema": 0.5}
    more = ("objective.steps=2", 'schedule.ratios="1:1"', *sets)
    settings = Settings.of("ditfuse", sets=[*changes(base), *more], **(given | changed))
    how = RunOptions(validate_every=10, checkpoint_every=10, trackers=("none",), **options)
    return fit([str(shards / "vif")], str(out), settings, run_options=how, note=notes.append, device="cpu")


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.slow
def test_adapters_alone_learn_and_are_saved(shards: Path, base: Path, tmp_path: Path) -> None:
    before, notes = bytes_of(base), list[str]()
    run(shards, base, tmp_path / "run", "schedule.ema=0.5", notes=notes)
    losses = [
        line["loss"]
        for line in map(json.loads, (tmp_path / "run/log.jsonl").read_text().splitlines())
        if line["kind"] == "train"
    ]
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5]), losses
    assert any(note.startswith("LoRA of rank 8 on a base that stays: 32,768 of ") for note in notes)
    assert bytes_of(base) == before, "bit for bit"
    weights = read_tensors(tmp_path / "run/model.safetensors")[0]
    assert len(weights) == 2 * 4 * 2 and all(".lora_" in name for name in weights)
    held = read_tensors(checkpoint.found(tmp_path / "run/checkpoints")[-1] / "rank-000.safetensors")[0]
    assert len(held) == 4 * len(weights) and all(".lora_" in name for name in held)
    size = (base / "transformer/diffusion_pytorch_model.safetensors").stat().st_size
    assert (tmp_path / "run/model.safetensors").stat().st_size < 0.01 * size
    design = json.loads((tmp_path / "run/pipeline.json").read_text())
    assert design["base"] == str(base / "transformer") and design["digests"]["base"]
    assert (design["config"]["width"], design["config"]["short_factors"]) == (TINY.width, list(TINY.short_factors))


@pytest.mark.slow
def test_a_run_resumes_to_the_same_numbers(shards: Path, base: Path, first: Path, tmp_path: Path) -> None:
    shutil.copytree(first, tmp_path / "run")
    shutil.rmtree(checkpoint.found(tmp_path / "run/checkpoints")[-1])
    (tmp_path / "run/model.safetensors").unlink()
    run(shards, base, tmp_path / "run")
    one, two = (
        read_tensors(checkpoint.found(out / "checkpoints")[-1] / "rank-000.safetensors")[0]
        for out in (first, tmp_path / "run")
    )
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    assert (first / "log.jsonl").read_bytes() == (tmp_path / "run/log.jsonl").read_bytes()


@pytest.mark.slow
def test_a_model_is_loaded_merged_and_embedded(base: Path, first: Path, tmp_path: Path) -> None:
    """Each gives the same picture: the merged one without another base, and to 1e-5 the same latents."""
    pipeline = FusionPipeline.from_pretrained(first)
    fused = pipeline(*PAIR, task="vif", prompt="[FUSION]. <MULTI-MODALITIES>. remove the haze")
    assert fused.shape == PAIR[0].shape
    other = FusionPipeline.from_pretrained(first)(*PAIR, task="vif", prompt="fuse the two images")
    assert not np.array_equal(other, fused), "the prompt shows"
    pipeline.save_pretrained(tmp_path / "whole", embed=True)
    pipeline.save_pretrained(tmp_path / "merged", merge=True)
    base.rename(tmp_path / "moved")
    try:
        parts = Parts(tokenizer=f"omnigen={tmp_path / 'moved/vae'}", text=f"omnigen={tmp_path / 'moved/tokenizer'}")
        whole = FusionPipeline.from_pretrained(tmp_path / "whole")
        merged = FusionPipeline.from_pretrained(tmp_path / "merged", parts=parts)
        again = whole(*PAIR, task="vif", prompt="[FUSION]. <MULTI-MODALITIES>. remove the haze")
        np.testing.assert_array_equal(again, fused)
        near = merged(*PAIR, task="vif", prompt="[FUSION]. <MULTI-MODALITIES>. remove the haze")
        assert np.abs(near.astype(int) - fused).max() <= 1
        assert merged.design.config.rank == 0 and not merged.assembly.state_dict()
        with pytest.raises(UserError, match="the model has no adapters to merge into a base"):
            merged.save_pretrained(tmp_path / "twice", merge=True)
        with pytest.raises(UserError, match="no such folder"):
            FusionPipeline.from_pretrained(first)
    finally:
        (tmp_path / "moved").rename(base)


def published(folder: Path, first: Path) -> Path:
    """Adapters in the form of DiTFuse's: of OmniGen's own layers, of which one has queries, keys and values."""
    given = read_tensors(first / "model.safetensors")[0]
    tensors: dict[str, torch.Tensor] = {}
    for number in range(TINY.depth):
        at, to = f"network.base.layers.{number}.self_attn", f"base_model.model.llm.layers.{number}.self_attn"
        layer = {side: f".lora_{side}.default.weight" for side in "AB"}
        tensors[f"{to}.qkv_proj.lora_A.weight"] = given[f"{at}.to_q{layer['A']}"]
        tensors[f"{to}.qkv_proj.lora_B.weight"] = torch.cat([given[f"{at}.to_{x}{layer['B']}"] for x in "qkv"])
        for side in "AB":
            tensors[f"{to}.o_proj.lora_{side}.weight"] = given[f"{at}.to_out.0{layer[side]}"]
    write_tensors(folder / "lora/adapter_model.safetensors", tensors, {"format": "pt"})
    config = {"peft_type": "LORA", "r": 8, "lora_alpha": 8, "target_modules": ["qkv_proj", "o_proj"]}
    (folder / "lora/adapter_config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.slow
def test_published_adapters_are_a_model_and_a_start(shards: Path, base: Path, first: Path, tmp_path: Path) -> None:
    folder = published(tmp_path / "ditfuse", first)
    design = design_of_adapters(folder / "lora")
    assert (design.config.rank, design.config.alpha, design.config.mlp) == (8, 8.0, False)
    found = read_adapters(folder / "lora", TINY)
    expected = read_tensors(first / "model.safetensors")[0]
    assert found.keys() == expected.keys()
    a = found["network.base.layers.0.self_attn.to_q.lora_A.default.weight"]
    for name, tensor in found.items():
        assert torch.equal(tensor, expected[name] if ".lora_B." in name or "to_out" in name else found[name])
    for x in "qkv":
        assert torch.equal(found[f"network.base.layers.0.self_attn.to_{x}.lora_A.default.weight"], a)
    parts = Parts(
        base=str(base / "transformer"), tokenizer=f"omnigen={base / 'vae'}", text=f"omnigen={base / 'tokenizer'}"
    )
    pipeline = FusionPipeline.from_pretrained(folder, parts=parts)
    assert pipeline.assembly.state_dict().keys() == expected.keys()
    notes: list[str] = []
    run(shards, base, tmp_path / "run", init=str(folder), steps=1, notes=notes)
    assert notes[0] == f"16 of 16 tensors are those of {folder}"


@pytest.mark.slow
def test_it_is_fitted_fused_and_merged_as_typed(
    shards: Path, base: Path, train: Callable[..., Ran], tmp_path: Path
) -> None:
    """``--base`` of a whole folder: its transformer, autoencoder and vocabulary."""
    ran = train(
        "fit", shards / "vif", "--preset", "ditfuse", "--base", base, "--out", tmp_path / "run", "--steps", "2",
        "--batch", "1", "--accumulate", "1", "--crop", "32", "--device", "cpu", "--hold-out", "1", "--workers", "0",
        "--set", "objective.steps=2", "--set", "config.mlp=true", "--set", "config.rank=2",
    )  # fmt: skip
    assert ran.code == 0 and "LoRA of rank 2 on a base that stays" in ran.err, ran.err
    for name, picture in zip("ab", PAIR, strict=True):
        save(tmp_path / f"{name}.png", picture)
    ran = train("export", tmp_path / "run", "--merge", "--out", tmp_path / "merged")
    assert ran.code == 0, ran.err
    assert {path.name for path in (tmp_path / "merged").iterdir()} == {"base", "model.safetensors", "pipeline.json"}
    for model in ("run", "merged"):
        fuse = ("fuse", tmp_path / "a.png", tmp_path / "b.png", "-o", tmp_path / f"{model}.png", "--device", "cpu")
        ran = train(*fuse, "--task", "vif", "--model", tmp_path / model, "--prompt", "remove the haze")
        assert ran.code == 0, ran.err
    ran = train("export", tmp_path / "run", "--merge", "--out", tmp_path / "merged")
    assert ran.code == 2 and ran.error.endswith("merged: must be a new or an empty folder")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sets", "changed", "message"),
    [
        ([], {"options": {"sharded": True}}, "--sharded: not with 'ditfuse': the weights of a group must all learn"),
        ([], {"lora": 4}, "--lora 4: this preset trains LoRA already; its rank is --set config.rank=4"),
        (["config.rank=0"], {}, "config.rank 0: leaves nothing to learn"),
        (["config.bits=4"], {}, "config.bits 4: a base of 4 bits (QLoRA) takes bitsandbytes on a GPU"),
        (['base="none"'], {}, "the network changes a base: --base NAME, ID or DIR; by name omnigen"),
        (['base="nowhere/at/all/x"'], {}, "--base nowhere/at/all/x: "),
    ],
)
def test_what_can_not_be_is_refused(
    shards: Path, base: Path, tmp_path: Path, sets: list[str], changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError) as error:
        run(shards, base, tmp_path / "run", *sets, **changed)
    assert str(error.value).startswith(message) and "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()
