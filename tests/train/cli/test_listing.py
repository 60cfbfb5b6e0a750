"""``train list``: every table, a line each; and what every command line says of itself."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from clearfuse.synth.version import __version__
from clearfuse.train import tokenizers
from clearfuse.train.cli import speed
from clearfuse.train.cli.listing import KINDS
from clearfuse.train.designs.presets import PRESETS, describe
from clearfuse.train.metrics import METRICS
from clearfuse.train.models import MODELS
from clearfuse.train.objectives.samplers import SAMPLERS
from clearfuse.train.runs.settings import Settings
from conftest import ROOT, Ran


@pytest.mark.parametrize("kind", [pytest.param(k, marks=[pytest.mark.slow] * (k == "presets")) for k in KINDS])
def test_list_says_a_line_each(train: Callable[..., Ran], kind: str) -> None:
    entries = json.loads(train("list", kind, "--json").out)
    lines = train("list", kind).out.splitlines()
    assert [line.split()[0] for line in lines] == list(entries) and all(entries.values())
    known = {
        "presets": PRESETS,
        "families": MODELS,
        "metrics": METRICS,
        "samplers": SAMPLERS,
        "tokenizers": tokenizers.NAMES,
    }
    assert set(known.get(kind, entries)) == set(entries)


def test_list_refuses_an_unknown_kind(train: Callable[..., Ran]) -> None:
    ran = train("list", "preset")
    assert ran.code == 2 and "unknown kind 'preset': did you mean 'presets'?" in ran.error


@pytest.mark.slow
def test_presets_are_timed_by_their_flops(train: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "SIDE", 64)
    monkeypatch.setattr(speed, "RUNS", 1)
    found = speed.measure_speed("cpu")
    assert found.device == "cpu" and 1e9 < found.rate < 1e14
    shown = speed.Speed("cpu", 1e12)
    assert shown.times("tiny-reg").startswith("0.074 s a picture, ")  # 0.074 TFLOP
    assert shown.times("tiny-fm").startswith("0.36 s a picture, ")  # 0.073, five calls
    settings = Settings.of("mmaif-fm")
    crops = settings.batch * settings.accumulate
    work = describe("mmaif-fm", (settings.crop, settings.crop))["flops"] * crops * (3 + settings.recompute) / 1e12
    assert shown.times("mmaif-fm").endswith(f" {work:.2g} s a step of {crops} crops of {settings.crop}")
    monkeypatch.setattr(speed, "measure_speed", lambda device: shown)
    monkeypatch.setitem(KINDS, "presets", lambda: {"tiny-reg": "small", "mmaif-fm": "large"})
    ran = train("list", "presets", "--time", "--json")
    assert "from clearfuse-small measured here (1000 GFLOP/s)" in ran.err
    assert json.loads(ran.out)["tiny-reg"] == f"small; {shown.times('tiny-reg')}"


def test_times_are_of_presets(train: Callable[..., Ran]) -> None:
    assert "--time: is of presets, not of metrics" in train("list", "metrics", "--time").error
    assert "--device: goes with --time" in train("list", "presets", "--device", "cpu").error


def test_one_version_everywhere(synth: Callable[..., Ran], train: Callable[..., Ran]) -> None:
    assert synth("--version").out == train("--version").out == f"{__version__}\n"
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_completion_is_offered(synth: Callable[..., Ran], train: Callable[..., Ran]) -> None:
    assert all("--install-completion" in run("--help").out for run in (synth, train))
