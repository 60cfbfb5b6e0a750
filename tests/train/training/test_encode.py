"""Shards of latents: the same losses as from images, the same bytes for any workers, checks of a run's settings."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import vaes
from made import made_shards
from t5s import t5
from tiny import SMALL

from clearfuse.synth.review.inspection import inspect
from clearfuse.synth.review.verify import verify
from clearfuse.synth.shards.sample import read_samples
from clearfuse.synth.types import UserError, WorkIncomplete
from clearfuse.train.data.batch import Batch, UnreadableSample, stack_images
from clearfuse.train.data.corpus import index
from clearfuse.train.data.loader import batches
from clearfuse.train.data.order import RankBatches
from clearfuse.train.designs.design import Assembly, Design
from clearfuse.train.designs.presets import PRESETS
from clearfuse.train.models import RestorerConfig
from clearfuse.train.objectives.noise import Draws
from clearfuse.train.objectives.regression import Regression
from clearfuse.train.runs.options import RunOptions
from clearfuse.train.runs.settings import Settings
from clearfuse.train.semantics import find_semantics
from clearfuse.train.training.cache import cache
from clearfuse.train.training.inputs import samples_of
from clearfuse.train.training.loss import batch_loss
from clearfuse.train.training.trainer import fit
from conftest import Ran

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``shards`` to cache; ``vae`` (like Flux's) and ``t5``, small and with random weights."""
    root = tmp_path_factory.mktemp("made")
    made_shards(root)
    vaes.saved(root / "vae", vaes.kl)
    t5(root / "t5")
    return root


@pytest.fixture(autouse=True)
def _presets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clearfuse.train.data.corpus.HELD_OUT", 0.3)
    for name, preset in SMALL.items():
        monkeypatch.setitem(PRESETS, name, preset)
    pixels = replace(SMALL["small-guess"].design, objective=replace(SMALL["small-guess"].design.objective, pixel=0.1))
    monkeypatch.setitem(PRESETS, "small-pixels", replace(SMALL["small-guess"], design=pixels))
    objective = Regression(measure="log")
    restorer = Design("restorer", RestorerConfig(width=8, heads=2, depth=1), "pixels", "bytes", objective, "pyramid")
    monkeypatch.setitem(PRESETS, "small-restorer", replace(SMALL["small-guess"], design=restorer))
    dropped = replace(SMALL["small-fm"].design, objective=replace(SMALL["small-fm"].design.objective, drop=0.5))
    monkeypatch.setitem(PRESETS, "small-drop", replace(SMALL["small-fm"], design=dropped))


def clip(folder: Path) -> Path:
    """A small CLIP with random weights."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    sizes = {"hidden_size": 128, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    CLIPVisionModel(CLIPVisionConfig(**sizes, image_size=32, patch_size=16)).save_pretrained(folder)
    says = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(says))
    return folder


def settings(made: Path, preset: str = "small-pixels", **changed: Any) -> Settings:
    sets = [f'tokenizer="{made / "vae"}"', f'text="{made / "t5"}"']
    return Settings.of(preset, changed.pop("seed", 0), sets, **{"crop": 64, "ratios": "4:3,1:1", "batch": 2, **changed})


def losses(paths: list[str], chosen: Settings, count: int) -> tuple[list[Batch], list[float]]:
    """The first batches of a run and their losses."""
    assembly = Assembly(chosen.design(), torch.Generator().manual_seed(3), adapt=True)
    samples = samples_of(chosen, assembly, index(paths), {}, training=True)
    found = [batch for batch in batches(samples, RankBatches(0, count, chosen.batch)) if isinstance(batch, Batch)]
    assert len(found) == count
    rng = [Draws.of("noise", 0, batch.positions) for batch in found]
    pairs = zip(found, rng, strict=True)
    return found, [float(batch_loss(assembly, batch, draws, CPU).total.detach()) for batch, draws in pairs]


@pytest.mark.parametrize(("preset", "repeats"), [("small-pixels", 1), ("small-drop", 1), ("small-pixels", 2)])
def test_losses_are_those_of_the_pictures(
    made: Path, tmp_path: Path, preset: str, repeats: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within 1e-3 over the cached epochs; after these the crops repeat, with new prompt dropping."""
    monkeypatch.setattr("clearfuse.train.data.order.GAP", 1)
    chosen, shards = settings(made, preset, repeats=repeats), [str(made / "shards/vif")]
    cache(shards, str(tmp_path / "cache"), chosen, epochs=2, executor="serial")
    count = len(index(shards).train)
    pictures, one = losses(shards, chosen, count)
    latents, other = losses([str(tmp_path / "cache")], chosen, 2 * count)
    # Batches of two: with repeats the second crop of a sample comes beside the first of the next one.
    same = count if repeats == 1 else count - 1
    assert same >= 2 and one[:same] == pytest.approx(other[:same], rel=1e-3, abs=1e-5)
    for picture, latent in zip(pictures[:same], latents, strict=False):
        assert not picture.latents and {"a", "b", "gt"} <= latent.latents.keys() and "a" not in latent.images
        assert (picture.prompts, picture.names) == (latent.prompts, latent.names)
        assert (picture.positions, picture.tasks, picture.operators) == (
            latent.positions,
            latent.tasks,
            latent.operators,
        )
        assert latent.embeddings is not None and len(latent.embeddings[0]) == 2
    assert (preset == "small-drop") == any(not prompt for batch in latents for prompt in batch.prompts)
    again = [batch for batch in latents[count:] if batch.names == latents[0].names]
    assert all(batch.prompts == latents[0].prompts or preset == "small-drop" for batch in again)


def test_pixels_are_cached_as_code_values(made: Path, tmp_path: Path) -> None:
    """The losses are those of the pictures bit for bit, at a byte a value."""
    chosen = Settings.of("small-restorer", 0, [f'text="{made / "t5"}"'], crop=64, batch=2)
    shards, out = [str(made / "shards/vif")], str(tmp_path / "cache")
    cache(shards, out, chosen, epochs=2, executor="serial")
    count = len(index(shards).train)
    (first, *_), one = losses(shards, chosen, count)
    (cached, *_), other = losses([out], chosen, count)
    assert one == pytest.approx(other, rel=1e-6) and not cached.latents
    assert first.images.keys() == cached.images.keys() == {"a", "b", "gt", "guess"}
    assert all(torch.equal(first.images[name], cached.images[name]) for name in first.images)


def test_what_a_frozen_encoder_says_of_pictures_is_cached(made: Path, tmp_path: Path) -> None:
    """Tokens of the whole degraded picture, once a picture; a run without them is told what makes them."""
    clip(tmp_path / "clip")
    sets = [f'semantics="{tmp_path / "clip"}"']
    chosen = Settings.of("small-mdaif", 0, sets, crop=64, batch=2)
    shards, out = [str(made / "shards/vif"), str(made / "shards/mef")], str(tmp_path / "cache")
    with pytest.raises(UserError, match=r"holds no semantics of its pictures: train cache .* --semantics .* --out DIR"):
        losses(shards, chosen, 1)
    cache(shards, out, chosen, epochs=2, executor="serial")
    found, one = losses([out], chosen, 6)
    assert all(batch.semantics is not None and "views" not in batch.images for batch in found)
    assert one == pytest.approx(losses([out], chosen, 6)[1], rel=0)
    encoder = find_semantics(str(tmp_path / "clip"), (), torch.Generator()).encoder
    assert encoder is not None
    wholes = {sample.meta.pair: sample for path in shards for sample in read_samples(next(Path(path).glob("*.tar")))}
    checked = 0
    for batch in found:
        assert batch.semantics is not None
        for name, task, tokens, mask in zip(batch.names, batch.tasks, *batch.semantics, strict=True):
            sample = next((s for s in wholes.values() if s.key == name.split()[-1] and s.meta.task == task), None)
            if sample is None:
                continue
            views = np.concatenate([encoder.view(sample.images[which]) for which in ("a", "b")])
            wanted, _ = encoder(stack_images([views]), [task])
            torch.testing.assert_close(tokens[mask].float(), wanted[0], atol=2e-3, rtol=2e-3)
            checked += 1
    assert checked > 2
    fit(
        [out], str(tmp_path / "run"), chosen.model_copy(update={"steps": 2}), run_options=RunOptions(trackers=("none",))
    )
    other = Settings.of("small-mdaif", 0, crop=64, batch=2)
    with pytest.raises(UserError, match="was cached with views none, this run has 64 pixels and 4 patches"):
        losses([out], other, 1)


def test_the_same_bytes_for_any_executor_and_after_a_kill(made: Path, tmp_path: Path) -> None:
    chosen, shards = settings(made), [str(made / "shards/vif"), str(made / "shards/mef")]
    first = cache(shards, str(tmp_path / "serial"), chosen, executor="serial")
    assert (first.samples, first.shards, first.resumed) == (8, 3, 0)
    cache(shards, str(tmp_path / "two"), chosen, executor="processes", workers=2)
    (tmp_path / "two/vif-train-000001.json").unlink()
    (tmp_path / "two/dataset.json").unlink()
    os.truncate(tmp_path / "two/mef-train-000000.tar", 1000)
    (tmp_path / "two/.tmp-1-0123abcd-vif-train-000001.tar").touch()
    assert cache(shards, str(tmp_path / "two"), chosen, executor="serial").resumed == 1
    names = sorted(path.name for path in (tmp_path / "serial").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "two").iterdir())
    for name in names:
        assert (tmp_path / "serial" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_run_on_latents_is_a_run_on_pictures(made: Path, tmp_path: Path) -> None:
    """Within 1e-3 in the first step; later AdamW amplifies differences of small gradients, and its mask depends on
    signs.
    """
    chosen, shards = settings(made, steps=4), [str(made / "shards/vif")]
    cache(shards, str(tmp_path / "cache"), chosen, epochs=3, executor="serial")
    logs: list[list[dict[str, Any]]] = []
    for name, paths in (("pictures", shards), ("latents", [str(tmp_path / "cache")])):
        fit(paths, str(tmp_path / name), chosen)
        logs.append([json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()])
    for one, other in zip(*logs, strict=True):
        assert one.keys() == other.keys()
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-3 if one["step"] == 1 else 1e-2)


def test_a_run_that_it_does_not_fit_is_told_which_setting(made: Path, tmp_path: Path) -> None:
    chosen, out = settings(made, "small-guess"), str(tmp_path / "cache")
    cache([str(made / "shards/vif")], out, chosen, executor="serial")
    corpus = index([out])
    vaes.saved(tmp_path / "other", vaes.kl, seed=5)
    for changed, said in (
        ({"crop": 48}, "was cached with crop 64, this run has 48: --crop 64, or cache the shards again"),
        ({"ratios": "1:1"}, "was cached with ratios 4:3,1:1, this run has 1:1: --ratios 4:3,1:1, or"),
        ({"seed": 4}, "was cached with seed 0, this run has 4: --seed 0, or"),
        ({"repeats": 2}, "was cached with repeats 1, this run has 2: --set schedule.repeats=1, or"),
        ({"preset": "small"}, "was cached with guess pyramid, this run has none: cache the shards again"),
        ({"preset": "small-pixels"}, "was cached with clean no, this run has yes: cache the shards again"),
    ):
        other = settings(made, **{"preset": "small-guess", **changed})
        assembly = Assembly(other.design(), torch.Generator(), adapt=True)
        with pytest.raises(UserError) as error:
            samples_of(other, assembly, corpus, {}, training=True)
        assert str(error.value).startswith(f"{out}: {said}")
    other = chosen.model_copy(update={"set": [f'tokenizer="{tmp_path / "other"}"', f'text="{made / "t5"}"']})
    with pytest.raises(UserError, match=r"was cached with tokenizer .*vae, this run has .*other: --tokenizer"):
        samples_of(other, Assembly(other.design(), torch.Generator(), adapt=True), corpus, {}, training=True)
    before = replace(corpus, cached={name: value for name, value in (corpus.cached or {}).items() if name != "repeats"})
    samples_of(chosen, Assembly(chosen.design(), torch.Generator(), adapt=True), before, {}, training=True)
    learned = chosen.model_copy(update={"set": [f'tokenizer="{made / "vae"}"']})  # a learned encoder takes the prompts
    samples_of(learned, Assembly(learned.design(), torch.Generator(), adapt=True), corpus, {}, training=True)


def test_damage_is_named(made: Path, tmp_path: Path) -> None:
    chosen, out = settings(made, "small"), tmp_path / "cache"
    cache([str(made / "shards/vif")], str(out), chosen, executor="serial")
    shard = out / "vif-train-000000.tar"
    whole = shard.read_bytes()
    at = whole.index(b'"latent.a"') + 3000
    assert verify([str(out)]).to_json() == {"ok": True, "samples": 5, "replayed": 0, "cached": 5, "problems": []}
    with pytest.raises(UserError, match=r"sample 000000000: holds latents of train cache, nothing to inspect"):
        inspect([str(out)])
    with pytest.raises(ValueError, match=r"sample 000000000: holds latents of train cache, no images"):
        next(iter(read_samples(shard)))
    shard.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    problems = verify([str(out)]).problems
    assert len(problems) == 2 and "its bytes are not those of its receipt" in problems[0]
    assert problems[1].endswith("0.safetensors is damaged: its checksum is another")
    assembly = Assembly(chosen.design(), torch.Generator(), adapt=True)
    samples = samples_of(chosen, assembly, index([str(out)]), {}, training=True)
    broken = {found.reason for n in range(9) if isinstance(found := samples[n], UnreadableSample)}
    assert len(broken) == 1 and "0.safetensors is damaged: its checksum is another" in next(iter(broken))
    assert next(iter(broken)).startswith(f"{shard}: sample 00000000")
    assert next(iter(broken)).endswith("; delete the shard and run train cache again")
    shard.unlink()
    cache([str(made / "shards/vif")], str(out), chosen, executor="serial")
    assert shard.read_bytes() == whole
    shard.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"vif-train-000000\.tar: not a whole shard"):
        index([str(out)])
    shard.write_bytes(whole)
    with pytest.raises(UserError, match=r"holds latents of train cache, .* does not: give one kind"):
        index([str(out), str(made / "shards/mef")])
    shard.with_suffix(".json").unlink()
    with pytest.raises(UserError, match=r"its receipt vif-train-000000\.json must be beside it"):
        index([str(out)])


def test_from_the_command_line(train: Callable[..., Ran], made: Path, tmp_path: Path) -> None:
    shards, out = tmp_path / "shards", tmp_path / "cache"
    shutil.copytree(made / "shards/vif", shards)
    options = [shards, "--preset", "small", "--crop", "48", "--executor", "serial", "--out", out]
    ran = train("cache", *options, "--json")
    assert ran.code == 0 and json.loads(ran.out)["samples"] == 5, ran.err
    for changed, said in (
        (["--seed", "3"], "holds another build: made.seed was 0, is 3"),
        (["--epochs", "0"], "--epochs 0: must be at least 1"),
        (["--executor", "rya"], "unknown executor 'rya': did you mean 'ray'?"),
    ):
        ran = train("cache", *options, *changed)
        assert ran.code == 2 and said in ran.error, ran.err
    assert train("cache", *options, "--seed", "3", "--overwrite").code == 0
    ran = train("cache", out, "--preset", "small", "--out", tmp_path / "again")
    assert ran.code == 2 and "holds latents already" in ran.error
    data = bytearray((shards / "vif-train-000001.tar").read_bytes())
    start = data.index(b"RIFF")
    data[start : start + 100] = bytes(100)
    (shards / "vif-train-000001.tar").write_bytes(data)
    ran = train("cache", *options, "--overwrite")
    assert ran.code == 1 and "1 of 2 shards failed: vif-train-000001.tar: " in ran.error
    assert "vif-train-000001.tar: sample 000000003: a does not decode" in ran.error
    assert not (out / "dataset.json").exists() and (out / "vif-train-000000.json").exists()


def test_a_full_disk_names_the_shard(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, samples: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("clearfuse.synth.shards.receipts.write_shard", full)
    with pytest.raises(WorkIncomplete, match=r"vif-train-000000\.tar: cannot be written: No space left"):
        cache([str(made / "shards/vif")], str(tmp_path / "cache"), settings(made, "small"), executor="serial")
