"""``train list``: every table, a line each; and what every command line says of itself."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from clearfuse.synth.version import __version__
from clearfuse.train import tokenizers
from clearfuse.train.cli.listing import KINDS
from clearfuse.train.designs.presets import PRESETS
from clearfuse.train.metrics import METRICS
from clearfuse.train.models import MODELS
from clearfuse.train.objectives.samplers import SAMPLERS
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


def test_one_version_everywhere(synth: Callable[..., Ran], train: Callable[..., Ran]) -> None:
    assert synth("--version").out == train("--version").out == f"{__version__}\n"
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_completion_is_offered(synth: Callable[..., Ran], train: Callable[..., Ran]) -> None:
    assert all("--install-completion" in run("--help").out for run in (synth, train))
