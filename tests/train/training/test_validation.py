"""Validation: means by task and degradation, independent of the world size, and images."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made import made_shards
from tiny import SMALL

from clearfuse.train.data.batch import Batch
from clearfuse.train.data.corpus import index
from clearfuse.train.data.loader import batches
from clearfuse.train.data.samples import Samples
from clearfuse.train.designs.design import AS_DESIGNED, Assembly
from clearfuse.train.designs.presets import PRESETS
from clearfuse.train.objectives.noise import Draws
from clearfuse.train.runs.options import RunOptions
from clearfuse.train.runs.settings import Settings
from clearfuse.train.training.loss import batch_loss
from clearfuse.train.training.progress import Report
from clearfuse.train.training.ranks import Ranks
from clearfuse.train.training.trainer import fit
from clearfuse.train.training.validation import Scores, Validator, balance_of, draws_pictures

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_shards(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def samples(shards: Path) -> Samples:
    corpus = index([str(shards / "vif"), str(shards / "mef")])
    return Samples(replace(corpus, held_out=corpus.train), side=32, training=False)


@pytest.fixture(scope="module")
def assembly() -> Assembly:
    made = Assembly(SMALL["small"].design, torch.Generator().manual_seed(0), AS_DESIGNED)
    for weight in made.network.parameters():
        weight.data += 0.02 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    return made.eval()


@dataclass(frozen=True)
class Told(Ranks):
    """One of two ranks, with recorded messages of the other."""

    others: list[Any] = field(default_factory=list)

    def gather(self, value: Any) -> list[Any]:
        self.others.append(json.loads(json.dumps(value)))
        return self.others[::-1]


@pytest.mark.slow
def test_means_are_those_of_the_samples(samples: Samples, assembly: Assembly) -> None:
    scores = Validator(samples, 3, Ranks(CPU)).score(assembly)
    assert scores is not None
    errors: dict[str, list[float]] = {}
    shares: dict[str, list[list[float]]] = {}
    for place in range(len(samples)):
        batch = next(batches(samples, [[place]]))
        assert isinstance(batch, Batch)
        with torch.inference_mode():
            loss = batch_loss(assembly, batch, Draws.of("validation", 0, [place]), CPU)
        for name in ("all", batch.tasks[0], *batch.operators[0]):
            errors.setdefault(name, []).append(float(loss.terms["error"]))
            shares.setdefault(name, []).append(loss.notes["expert"][0].tolist())
    assert {"vif", "mef"} < errors.keys() and len(errors) > 4
    for name, found in errors.items():
        end = "" if name == "all" else f"/{name}"
        assert scores.values[f"error{end}"] == pytest.approx(np.mean(found), rel=1e-5)
        assert name == "all" or scores.values[f"samples{end}"] == len(found)
        experts = [scores.values[f"expert-{number}{end}"] for number in range(4)]
        assert experts == pytest.approx(np.mean(shares[name], 0), abs=1e-6) and sum(experts) == pytest.approx(1)
    assert scores.psnr == scores.values["PSNR"] and 5 < scores.psnr < 60 and 0 < scores.values["SSIM"] < 1
    tasks = [scores.values[f"PSNR/{task}"] * scores.values[f"samples/{task}"] for task in ("vif", "mef")]
    assert sum(tasks) == pytest.approx(scores.psnr * len(samples))
    assert scores.values["loss"] == scores.loss and scores.picture is None
    layers = [name for name in scores.values if name.startswith("entropy/")]
    assert layers == ["entropy/layer-0", "entropy/layer-1"]
    assert all(0 < scores.values[name] <= 1 for name in layers)


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["small", "small-fm"])
def test_any_number_of_processes_finds_the_same(samples: Samples, preset: str) -> None:
    assembly = Assembly(SMALL[preset].design, torch.Generator().manual_seed(0), AS_DESIGNED).eval()
    alone = Validator(samples, 3, Ranks(CPU)).score(assembly, draw=True)
    said: list[Any] = []
    Validator(samples, 3, Told(CPU, 1, 2, said)).score(assembly, draw=True)
    both = Validator(samples, 3, Told(CPU, 0, 2, said)).score(assembly, draw=True)
    assert alone is not None and both is not None and isinstance(both, Scores)
    assert json.dumps(both.values) == json.dumps(alone.values)
    assert both.picture is not None and alone.picture is not None and (both.picture == alone.picture).all()
    assert both.picture.shape[1] > 4 * 32 and both.picture.std() > 20


@pytest.mark.slow
def test_a_flows_noise_is_of_the_sample_not_of_its_batch(samples: Samples) -> None:
    assembly = Assembly(SMALL["small-fm"].design, torch.Generator().manual_seed(0), AS_DESIGNED).eval()
    scores = [Validator(samples, size, Ranks(CPU)).score(assembly) for size in (1, 3)]
    one, three = (found.values for found in scores if found is not None)
    assert one["PSNR"] == pytest.approx(three["PSNR"], abs=1e-3) and one["SSIM"] == pytest.approx(
        three["SSIM"], abs=1e-4
    )


@pytest.mark.slow
def test_nothing_held_out_has_no_scores(samples: Samples, assembly: Assembly) -> None:
    none = samples.places.where(np.zeros(len(samples), np.bool_))
    empty = Samples.__new__(Samples)
    empty.__dict__ |= samples.__dict__ | {"places": none}
    assert Validator(empty, 3, Ranks(CPU)).score(assembly) is None


def test_balance_of_experts() -> None:
    values = balance_of(np.array([[0.25, 0.25, 0.25, 0.25], [1.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0]]))
    assert [values[f"entropy/layer-{n}"] for n in range(3)] == pytest.approx([1.0, 0.0, math.log(2) / math.log(4)])
    assert [values[f"least/layer-{n}"] for n in range(3)] == [0.25, 0.0, 0.0]
    assert [values[f"most/layer-{n}"] for n in range(3)] == [0.25, 1.0, 0.5]


def test_pictures_are_seldom_later_on() -> None:
    assert [n for n in range(1, 60) if draws_pictures(n)] == [*range(1, 21), 30, 40, 50]


@pytest.mark.slow
def test_a_run_shows_what_it_does(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clearfuse.train.data.corpus.HELD_OUT", 0.5)
    monkeypatch.setitem(PRESETS, "small", SMALL["small"])
    told: list[Report] = []
    run_options = RunOptions(validate_every=1, trackers=("none",))
    paths = [str(shards / "vif"), str(shards / "mef")]
    fit(paths, str(tmp_path / "run"), Settings.of("small", steps=2), run_options=run_options, progress=told.append)
    lines = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert [(line["step"], line["kind"]) for line in lines] == [(n, k) for n in (1, 2) for k in ("train", "validation")]
    assert {"loss", "error", "PSNR", "SSIM", "error/vif", "samples/mef", "entropy/layer-1"} < lines[-1].keys()
    assert len(list((tmp_path / "run/samples").iterdir())) == 2 and not (tmp_path / "run/tensorboard").exists()
    assert [report.step for report in told] == [0, 1, 2] and told[2].loss == lines[2]["loss"]
    assert told[1].samples == 4 and told[1].lr == lines[0]["lr"] and 0 <= told[1].waited <= told[1].seconds
