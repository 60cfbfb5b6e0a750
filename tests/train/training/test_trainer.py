"""The trainer: learns, resumes bit for bit after a kill, refuses other settings, stops at non-finite steps."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from made import made_shards
from tiny import SMALL

from clearfuse.synth.files.folders import LOCK
from clearfuse.synth.files.schema import check_options
from clearfuse.synth.fusers import PyramidFuser
from clearfuse.synth.types import UserError, WorkIncomplete
from clearfuse.train.designs.presets import PRESETS
from clearfuse.train.pipeline.fusion import FusionPipeline
from clearfuse.train.runs.compare import read_runs, to_json, to_text
from clearfuse.train.runs.folder import run_folder, the_only_run
from clearfuse.train.runs.options import RunOptions
from clearfuse.train.runs.page import page
from clearfuse.train.runs.record import RunRecord, RunSettings
from clearfuse.train.runs.settings import Settings
from clearfuse.train.training import checkpoint, optim, parallel
from clearfuse.train.training.progress import Pace, Report
from clearfuse.train.training.trainer import Fitted, fit
from clearfuse.train.training.validation import Scores, Validator
from clearfuse.train.weights.tensors import read_tensors
from conftest import Ran, textured


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_shards(tmp_path_factory.mktemp("made"))


@pytest.fixture(autouse=True)
def _presets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, preset in SMALL.items():
        monkeypatch.setitem(PRESETS, name, preset)


WAYS = ("on_nan", "keep", "workers", "validate_every", "checkpoint_every")


def run(shards: Path, out: Path, preset: str = "small", **changed: object) -> Fitted:
    given = {name: changed.pop(name) for name in WAYS if name in changed}
    run_options = RunOptions(**{"validate_every": 3, "checkpoint_every": 2, **given})  # type: ignore[arg-type]
    more = {name: changed.pop(name) for name in ("overwrite", "progress", "note") if name in changed}
    paths = [str(shards / "vif"), str(shards / "mef")]
    return fit(paths, str(out), Settings.of(preset, **changed), run_options=run_options, **more)  # type: ignore[arg-type]


def tensors(out: Path) -> dict[str, torch.Tensor]:
    return read_tensors(checkpoint.found(out / "checkpoints")[-1] / "rank-000.safetensors")[0]


def forget(out: Path) -> None:
    """Remove the checkpoints after step 2, as if the run had been killed before them."""
    for path in checkpoint.found(out / "checkpoints"):
        if path.name > "step-0000002":
            shutil.rmtree(path)


def same(one: Path, other: Path) -> None:
    assert (one / "log.jsonl").read_bytes() == (other / "log.jsonl").read_bytes()
    a, b = tensors(one), tensors(other)
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    models = [read_tensors(path / "model.safetensors")[0] for path in (one, other)]
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["small", "small-guess", "small-fm", "small-i2sb"])
def test_a_run_leaves_its_record_its_log_and_its_model(shards: Path, tmp_path: Path, preset: str) -> None:
    done = run(shards, tmp_path / "run", preset)
    assert done.step == done.steps == 6 and done.loss is not None
    lines = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "train"] == [1, 2, 3, 4, 5, 6]
    said = {"loss", "error", "balance", "least_load", "most_load", "lr", "grad_norm"}
    said |= {"pixel"} if preset == "small-i2sb" else set()
    assert all(said <= line.keys() for line in lines if line["kind"] == "train")
    kept = sorted(path.name for path in (tmp_path / "run/checkpoints").iterdir())
    assert kept[-1] == "step-0000006" and 2 <= len(kept) <= 3  # the best may be an earlier one
    assert list((tmp_path / "run/tensorboard").glob("events.out.tfevents.*"))
    fused = FusionPipeline.from_pretrained(tmp_path / "run")(textured(1), textured(2), task="vif")
    assert fused.shape == (128, 160, 3)


@pytest.mark.slow
def test_what_a_kill_left_goes_when_the_run_begins_again(shards: Path, tmp_path: Path) -> None:
    """A kill between a checkpoint's rename and its tidying, after the last step too; halves of all files."""
    out, folder = tmp_path / "run", tmp_path / "run/checkpoints"
    run(shards, out, keep=1)
    kept = {path.name for path in folder.iterdir()}
    for name in ("step-0000001", ".tmp-step-0000004", ".tmp-0badcafe-step-0000001"):
        shutil.copytree(folder / "step-0000006", folder / name)
    (out / "samples").mkdir(exist_ok=True)
    for name in (".tmp-9-deadbeef-model.safetensors", "samples/.tmp-9-deadbeef-step-0000001.png"):
        (out / name).touch()
    run(shards, out, keep=1)
    assert {path.name for path in folder.iterdir()} == kept
    assert not list(out.rglob(".tmp-*"))


@pytest.mark.slow
def test_the_weights_before_training_are_the_mean_of_both_images(shards: Path, tmp_path: Path) -> None:
    run(shards, tmp_path / "run", steps=1, lr=1e-12)
    a, b = textured(1), textured(2)
    fused = FusionPipeline.from_pretrained(tmp_path / "run")(a, b, task="vif")
    assert abs(fused.astype(float) - (a.astype(float) + b) / 2).max() <= 0.51


@pytest.mark.slow
def test_the_weights_before_training_are_the_guess(shards: Path, tmp_path: Path) -> None:
    run(shards, tmp_path / "run", "small-guess", steps=1, lr=1e-12, hold_out=2)
    lines = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    (scores,) = [line for line in lines if line["kind"] == "validation"]
    assert scores["PSNR-guess"] == pytest.approx(scores["PSNR"], abs=0.2)
    a, b = textured(1), textured(2, channels=1)
    fused = FusionPipeline.from_pretrained(tmp_path / "run")(a, b, task="vif")
    assert abs(fused.astype(int) - PyramidFuser()(a, b, "vif")).max() <= 1


@pytest.mark.slow
def test_the_loss_falls(shards: Path, tmp_path: Path) -> None:
    run(shards, tmp_path / "run", steps=60, lr=3e-3, validate_every=60, checkpoint_every=60)
    losses = [
        json.loads(line)["error"] for line in (tmp_path / "run/log.jsonl").read_text().splitlines() if "lr" in line
    ]
    assert sum(losses[-15:]) < 0.8 * sum(losses[:15])


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_stopped_and_resumed_is_the_same_run(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    run(shards, tmp_path / "whole", optimizer=optimizer)

    def dies(folder: Path, state: checkpoint.Training, *more: object) -> Path:
        if state.step == 4:
            raise MemoryError("killed here")
        return kept(folder, state, *more)  # type: ignore[arg-type]

    kept = checkpoint.save
    monkeypatch.setattr(checkpoint, "save", dies)
    with pytest.raises(MemoryError):
        run(shards, tmp_path / "cut", optimizer=optimizer)
    monkeypatch.setattr(checkpoint, "save", kept)
    with (tmp_path / "cut/log.jsonl").open("a") as file:
        file.write('{"step": 5, "kind": "tr')  # a line that the kill cut short
    assert run(shards, tmp_path / "cut", optimizer=optimizer).step == 6
    same(tmp_path / "whole", tmp_path / "cut")
    assert run(shards, tmp_path / "cut", optimizer=optimizer).step == 6  # done is done
    same(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.slow
def test_another_preset_setting_or_data_is_named(shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(shards, out, steps=2)
    for changed, said in (
        ({"preset": "small-fm", "steps": 2}, "a run with accumulate 2, not 1"),
        ({"steps": 2, "lr": 0.5}, "a run with lr 0.001, not 0.5"),
        ({"steps": 1}, "a run with steps 2, not 1"),
        ({"steps": 2, "seed": 4}, "a run with seed 0, not 4"),
    ):
        with pytest.raises(UserError) as error:
            run(shards, out, **changed)  # type: ignore[arg-type]
        assert str(error.value).startswith(f"{out}: {said}; go on with ")
    with pytest.raises(UserError, match="a run on other shards"):
        fit([str(shards / "mef")], str(out), Settings.of("small", steps=2))
    before = tensors(out)
    assert run(shards, out, "small-fm", steps=2, overwrite=True).step == 2
    assert tensors(out).keys() != before.keys()


@pytest.mark.slow
def test_a_checkpoint_of_another_model_is_named(shards: Path, tmp_path: Path) -> None:
    run(shards, tmp_path / "reg", steps=2)
    run(shards, tmp_path / "fm", "small-fm", steps=2)
    name = "checkpoints/step-0000002"
    shutil.rmtree(tmp_path / "fm" / name)
    shutil.copytree(tmp_path / "reg" / name, tmp_path / "fm" / name)
    with pytest.raises(UserError, match=r"step-0000002: holds the weights of another model"):
        run(shards, tmp_path / "fm", "small-fm", steps=2)
    (tmp_path / "reg" / name / "rank-000.safetensors").write_bytes(b"cut short")
    with pytest.raises(UserError, match=r"rank-000\.safetensors: is no whole safetensors file"):
        run(shards, tmp_path / "reg", steps=2)
    (tmp_path / "reg" / name / "state.json").write_text("{")
    with pytest.raises(UserError, match=r"state\.json: not valid JSON: EOF while parsing"):
        run(shards, tmp_path / "reg", steps=2)


def test_a_foreign_folder_is_left_alone(shards: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(UserError, match=r"holds other files and no run\.json"):
            run(shards, tmp_path / "mine", overwrite=overwrite)
    with pytest.raises(UserError, match="is a file, must be a folder"):
        run(shards, tmp_path / "mine/notes.txt")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_a_folder_is_one_run_s_at_a_time_and_what_a_kill_left_is_removed(tmp_path: Path) -> None:
    """A kill before the run's record exists, and while a model is written."""
    folder, record = tmp_path / "run", RunRecord(schema=1, settings=RunSettings(), shards=[])  # type: ignore[call-arg]
    folder.mkdir()
    (folder / ".tmp-1-00000000-run.json").touch()
    with run_folder(folder, record, overwrite=False):
        said = r"another run is writing to .*: wait for it, or use another --out"
        with pytest.raises(UserError, match=said), run_folder(folder, record, overwrite=True):
            pass
        (folder / ".tmp-1-00000000-model.safetensors").touch()
    with run_folder(folder, record, overwrite=False):
        assert {path.name for path in folder.iterdir()} - {LOCK} == {"run.json"}


@pytest.mark.slow
@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_what_is_not_finite_stops_before_the_step(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    out = tmp_path / "run"
    run(shards, out, steps=4)
    forget(out)
    before = tensors(out)
    if what == "loss":
        monkeypatch.setattr(
            "clearfuse.train.objectives.regression.errors", lambda x, y, w: (x - y).square().sum((1, 2, 3)) / 0
        )
    else:
        monkeypatch.setattr("clearfuse.train.training.optim.grad_norm", lambda parameters: torch.tensor(float("nan")))
    with pytest.raises(WorkIncomplete) as error:
        run(shards, out, steps=4)
    said = {"loss": "the loss is inf", "gradient": "the gradients' norm is nan"}[what]
    assert str(error.value) == (
        f"step 2: {said}; its samples are in {out / 'nonfinite.jsonl'}; the last checkpoint, step-0000002, is whole"
    )
    named = json.loads((out / "nonfinite.jsonl").read_text())
    assert named["step"] == 2 and all(".tar 0000" in name for name in named["samples"])
    after = tensors(out)
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.slow
def test_a_step_that_is_not_finite_may_be_passed_over(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The third step changes only the step count; too many skipped steps in a row end the run."""
    out, calls = tmp_path / "run", [0]
    norm_of = optim.grad_norm

    def broken(parameters: object) -> torch.Tensor:
        calls[0] += 1
        norm = norm_of(parameters)  # type: ignore[arg-type]
        return norm * float("nan") if calls[0] == 3 or calls[0] > 6 else norm

    monkeypatch.setattr("clearfuse.train.training.optim.grad_norm", broken)
    assert run(shards, out, steps=6, on_nan="skip", keep=9).step == 6
    held = {path.name: json.loads((path / "state.json").read_text()) for path in checkpoint.found(out / "checkpoints")}
    assert held["step-0000006"]["updates"] == 5 and held["step-0000006"]["skipped"] == 0
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines() if "lr" in line]
    assert ["grad_norm" in line for line in lines] == [True, True, False, True, True, True]
    assert [json.loads(line)["step"] for line in (out / "nonfinite.jsonl").read_text().splitlines()] == [2]
    with pytest.raises(WorkIncomplete, match=r"step 9: the gradients' norm is nan, the 10th in a row; its samples are"):
        run(shards, tmp_path / "many", steps=40, on_nan="skip")
    with pytest.raises(UserError, match="unknown on_nan 'sikp': did you mean 'skip'\\? allowed: skip, stop"):
        check_options(RunOptions, {"on_nan": "sikp"})


@pytest.mark.slow
def test_a_full_disk_leaves_the_last_checkpoint_whole(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(tensors: object, path: Path, metadata: object) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    out = tmp_path / "run"
    run(shards, out, steps=4)
    forget(out)
    monkeypatch.setattr("clearfuse.train.weights.tensors.save_file", full)
    with pytest.raises(WorkIncomplete, match=r"can't be written: .*No space left"):
        run(shards, out, steps=4)
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["step-0000002"]
    assert not list(out.glob(".tmp-*"))


@pytest.mark.slow
def test_nothing_held_out_still_leaves_a_model(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clearfuse.train.data.corpus.HELD_OUT", 0.0)
    done = run(shards, tmp_path / "run", steps=2)
    assert done.validation is None and (tmp_path / "run/model.safetensors").is_file()


@pytest.mark.slow
def test_the_end_says_the_psnr_of_the_best_validation(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the last one is worse, and when nothing is left to do."""

    def worse(self: Validator, *given: Any, **more: Any) -> Scores:
        scores = score(self, *given, **more)
        assert scores is not None
        losses.append(scores.loss + len(losses))
        told = {"loss": losses[-1], "PSNR": 30.0 - len(losses)}
        return replace(scores, loss=losses[-1], psnr=told["PSNR"], values={**scores.values, **told})

    score, losses = Validator.score, list[float]()
    monkeypatch.setattr(Validator, "score", worse)
    out = tmp_path / "run"
    done = run(shards, out, steps=6, hold_out=2)
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    seen = [line for line in lines if line["kind"] == "validation"]
    best = min(seen, key=lambda line: line["loss"])
    assert (best["step"], best["PSNR"], seen[-1]["PSNR"]) == (3, 29.0, 28.0)
    for end in (done, run(shards, out, steps=6, hold_out=2)):
        assert (end.validation, end.psnr) == (best["loss"], best["PSNR"])
        assert f"PSNR of that validation {best['PSNR']:.2f} dB" in end.line()
    (row,) = to_json(read_runs([str(out)]))["runs"]
    assert (row["validation_step"], row["PSNR"], row["SSIM"]) == (best["step"], best["PSNR"], best["SSIM"])
    assert json.loads((out / "run.json").read_text())["settings"]["hold_out"] == 2
    with pytest.raises(UserError, match=r"a run with hold_out 2\.?0?, not None"):
        run(shards, out, steps=6)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_before_the_first_validation_leaves_a_model(shards: Path, tmp_path: Path, number: int) -> None:
    out = tmp_path / "run"

    def stop(report: Report) -> None:
        if report.step == 1:
            os.kill(os.getpid(), number)

    with pytest.raises(KeyboardInterrupt) if number == signal.SIGINT else nullcontext():
        run(shards, out, steps=6, validate_every=6, checkpoint_every=6, hold_out=2, progress=stop)
    assert read_tensors(out / "model.safetensors")[1]["step"] == "2"
    assert FusionPipeline.from_pretrained(out)(textured(1), textured(2), task="vif").shape == (128, 160, 3)
    assert run(shards, out, steps=6, validate_every=6, checkpoint_every=6, hold_out=2).step == 6
    assert read_tensors(out / "model.safetensors")[1]["step"] == "6"


@pytest.mark.slow
def test_losses_that_are_logarithms_are_said_in_decibels(shards: Path, tmp_path: Path) -> None:
    """-24 dB where the logged natural logarithm is -5.5: the mean over samples of 10 log10(MSE + 0.001)."""
    out, notes, reports = tmp_path / "run", list[str](), list[Report]()
    sets = ["objective.measure='log'"]
    done = run(shards, out, steps=2, sets=sets, hold_out=2, note=notes.append, progress=reports.append)
    assert done.validation is not None and done.validation < 0
    said = f"{10 / math.log(10) * done.validation:.4g} dB"
    assert f"lowest validation loss {said}, PSNR" in done.line()
    assert any(f"validation loss {said}, PSNR" in line for line in notes)
    pace = Pace()
    pace.add(reports[-1])
    assert re.match(r"loss -\d+\.\d+ dB, lr ", pace.line())
    (one,) = read_runs([str(out)])
    assert to_json([one])["runs"][0]["validation"] == pytest.approx(10 / math.log(10) * done.validation)
    assert f"{said} at " in to_text([one]) and "Validation loss (dB)" in page([one])


def test_settings_are_checked() -> None:
    for changed, said in (
        ({"hold_out": 1.5}, "--hold-out 1.5: must be a share of the pairs below 1, or a whole number of them"),
        ({"hold_out": -1}, "--hold-out -1: must be in [0, 1e+09)"),
        ({"steps": 0}, "--steps 0: must be in [1, 1000000000]"),
        ({"steps": 2.5}, "--steps 2.5: must be a whole number"),
        ({"lr": -1.0}, "--lr -1: must be above 0"),
        ({"lr": float("nan")}, "--lr nan: must be a finite number"),
        ({"crop": 0}, "--crop 0: must be in [1, 65536]"),
    ):
        with pytest.raises(UserError) as error:
            Settings.of("small", **changed)  # type: ignore[arg-type]
        assert str(error.value) == said


def test_single_values_of_a_preset_can_be_set() -> None:
    settings = Settings.of("small-fm", sets=["objective.pixel=0.1", "objective.times=logit-normal", "schedule.ema=0.5"])
    assert (settings.design().objective.pixel, settings.ema, settings.steps) == (0.1, 0.5, 6)
    assert settings.design().objective.times == "logit-normal" and settings.set is not None and len(settings.set) == 2
    assert Settings.of("small-fm", sets=["config.depth=3"]).design().config.depth == 3
    assert Settings.of("small-fm").set is None
    assert Settings.of("small-fm", sets=["schedule.repeats=3", "schedule.batch=4"], batch=6).repeats == 3
    for item, said in (
        ("objective.pixl=1", "unknown setting 'objective.pixl': did you mean 'objective.pixel'?"),
        ("objective.pixel=much", "--set objective.pixel=much: objective.pixel = 'much': must be a number"),
        ("objective.pixel=nan", "--set objective.pixel=nan: objective.pixel = nan: must be a finite number"),
        ("objective.source=c", "--set objective.source=c: objective: unknown source 'c': allowed:"),
        ("objective.sampler=eular", "--set objective.sampler=eular: objective: unknown sampler 'eular': did you mean"),
        ("schedule.emma=1", "unknown setting 'schedule.emma': did you mean 'schedule.ema'? allowed: "),
        ("schedule.ema=2.0", "--set schedule: ema = 2.0: must be in [0, 1)"),
        ("schedule.ema=nan", "--set schedule: ema = nan: must be a finite number"),
        ("schedule.warmup=-5", "--set schedule: warmup = -5: must be in [0, 1000000000]"),
        ("schedule.repeats=0", "--set schedule: repeats = 0: must be in [1, 65536]"),
        ("schedule.cautious=1", "--set schedule: cautious = 1: must be true or false"),
        ("schedule=1", "unknown setting 'schedule': "),
        ("pixel=1", "unknown setting 'pixel': "),
        ("schema=3", "unknown setting 'schema': "),
        ("model.depth=1", "--set model.depth=1: 'model' has no settings; allowed: config, objective, schedule"),
        ("depth", "--set depth: must be key=value, such as objective.pixel=0.1"),
    ):
        with pytest.raises(UserError) as error:
            Settings.of("small-fm", sets=[item])
        assert str(error.value).startswith(said), error.value


@pytest.mark.slow
def test_a_set_value_is_in_the_run_and_in_the_model(shards: Path, tmp_path: Path) -> None:
    settings = Settings.of("small", sets=["objective.pixel=0.5"], steps=1)
    fit([str(shards / "vif")], str(tmp_path / "run"), settings)
    assert FusionPipeline.from_pretrained(tmp_path / "run").design.objective.pixel == 0.5
    assert "pixel" in json.loads((tmp_path / "run/log.jsonl").read_text().splitlines()[0])
    with pytest.raises(UserError, match=r"a run with set \['objective.pixel=0.5'\], not None"):
        run(shards, tmp_path / "run", steps=1)
    settings = Settings.of("small", sets=["config.latent_channels=16"], steps=1)
    with pytest.raises(UserError, match="tokenizer 'dct' makes 192 latent channels, its network's"):
        fit([str(shards / "vif")], str(tmp_path / "other"), settings)


def test_the_only_run(tmp_path: Path) -> None:
    assert the_only_run(tmp_path) is None
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").touch()
        if name == "one":
            assert the_only_run(tmp_path) == tmp_path / "one"
    with pytest.raises(UserError, match=r"one, .*two"):
        the_only_run(tmp_path)


@pytest.mark.slow
def test_fit_from_the_command_line(train, shards: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    out = tmp_path / "run"
    options = ["--preset", "small", "--steps", "4", "--workers", "1", "--validate-every", "2", "--out", out]
    ran: Ran = train("fit", shards / "vif", *options, "--json")
    assert ran.code == 0 and json.loads(ran.out)["step"] == 4, ran.err
    ran = train("fit", shards / "vif", *options)
    assert ran.code == 0 and ran.out.startswith(f"{out}: step 4 of 4")
    mistakes = [
        ([shards / "vif", "--preset", "tiny-rge"], 2, "unknown preset 'tiny-rge': did you mean 'tiny-reg'?"),
        ([shards / "vif", "--preset", "mmaif-fm", "--tokenizer", "cosmo"], 2, "did you mean 'cosmos'?"),
        ([tmp_path / "none"], 2, "none: no such file or folder"),
        ([tmp_path], 2, "no shards in this folder"),
        ([shards / "vif", "--preset", "small-fm", "--out", out], 2, "a run with accumulate 2, not 1"),
        ([shards / "vif", "--batch", "0"], 2, "--batch 0: must be in [1, 65536]"),
        ([shards / "vif", "--workers", "-1"], 2, "--workers -1: must be at least 0"),
        ([shards / "vif", "--tracker", "wandbb"], 2, "unknown tracker 'wandbb': did you mean 'wandb'?"),
        ([shards / "vif", "--validate-every", "0"], 2, "--validate-every 0: must be at least 1"),
        ([shards / "vif", "--cuda-graphs", "--sharded"], 2, "--cuda-graphs: not with --sharded"),
        ([shards / "vif", "--cuda-graphs", "--device", "cpu"], 2, "--cuda-graphs: needs a CUDA device, not cpu"),
    ]
    for arguments, code, said in mistakes:
        ran = train("fit", *arguments)
        assert (ran.code, said in ran.error) == (code, True), ran.err


@pytest.mark.parametrize("graphs", [False, True])
def test_gradients_of_graphs_lie_outside_of_them(monkeypatch: pytest.MonkeyPatch, graphs: bool) -> None:
    asked: list[dict[str, object]] = []
    monkeypatch.setattr("torch.nn.Module.compile", lambda self, **how: asked.append(how))
    network = torch.nn.Linear(2, 2)
    parallel.compile_network(network, graphs)
    assert asked == ([{"mode": "reduce-overhead"}] if graphs else [{}])
    assert all((parameter.grad is not None) is graphs for parameter in network.parameters())


@pytest.mark.gpu
def test_cuda_graphs_train_to_the_same_losses(shards: Path, tmp_path: Path) -> None:
    """In separate processes, since the shape checks of the tests can't be compiled."""
    losses: list[list[float]] = []
    for name, more in (("eager", []), ("graphs", ["--cuda-graphs"])):
        options = ["--preset", "tiny-fm", "--steps", "6", "--crop", "64", "--batch", "4", "--accumulate", "2"]
        out = tmp_path / name
        command = [sys.executable, "-m", "clearfuse.train", "fit", shards / "vif", *options, "--out", out, *more]
        subprocess.run(command, check=True)
        lines = map(json.loads, (out / "log.jsonl").read_text().splitlines())
        losses.append([line["loss"] for line in lines if "lr" in line])
    assert losses[1] == pytest.approx(losses[0], rel=1e-2) and len(losses[0]) == 6, "in bf16"


@pytest.mark.slow
def test_a_run_starts_from_another_models_weights(shards: Path, tmp_path: Path) -> None:
    run(shards, tmp_path / "first", steps=4)
    lines: list[str] = []
    first, paths = str(tmp_path / "first"), [str(shards / "vif")]
    fit(paths, str(tmp_path / "second"), Settings.of("small", steps=2, init=first, lr=1e-9), note=lines.append)
    assert any("tensors are those of" in line and "new:" not in line for line in lines)
    before, after = (read_tensors(tmp_path / name / "model.safetensors")[0] for name in ("first", "second"))
    for name in before:
        torch.testing.assert_close(before[name], after[name], atol=1e-6, rtol=0)
    record = RunRecord.model_validate_json((tmp_path / "second/run.json").read_bytes())
    assert (record.settings.init or "").startswith(f"{first} ")
    # The same command goes on; what does not fit is named, and a model of which nothing fits is refused.
    assert fit(paths, str(tmp_path / "second"), Settings.of("small", steps=2, init=first, lr=1e-9)).step == 2
    other = Settings.of("small", steps=1, sets=["config.depth=1"], init=first)
    fit(paths, str(tmp_path / "third"), other, note=lines.append)
    assert any("not used: network.blocks.1." in line for line in lines)
    with pytest.raises(UserError, match="none: no such folder"):
        fit(paths, str(tmp_path / "fourth"), Settings.of("small", steps=1, init=str(tmp_path / "none")))
