"""What the pages claim stands in docs/claims.toml, with what shows it."""

from __future__ import annotations

import sys
from datetime import date

import pytest
from pydantic import ValidationError

from conftest import ROOT

sys.path.insert(0, str(ROOT / "docs"))

import claims


def test_every_claim_stands_in_its_page_and_is_shown() -> None:
    assert list(claims.faults()) == []


@pytest.mark.parametrize(
    ("line", "said", "unshown"),
    [
        ("It takes 0.4 s on one core.", [], 1),
        ("It takes 0.4 s on one core.", ["takes 0.4 s on"], 0),
        ("It takes 0.4\ns on one core.", ["takes 0.4 s on"], 0),
        ("23.3 dB, 12% and 4.5 GB", ["12%"], 2),
        ("```sh\nsynth build  # 32 s\n```\n", [], 1),
        ("```text\nbuilt in 32 s\n```\n", [], 0),
        ("version 0.2.0, 40 samples, 5 shards, 17 sm, f8, 0.4 s²", [], 0),
    ],
)
def test_a_number_with_a_unit_is_claimed_or_stated(line: str, said: list[str], unshown: int) -> None:
    assert len(list(claims.unshown(line, said))) == unshown


@pytest.mark.parametrize(
    "shown",
    [{}, {"command": "train info mmaif-fm"}, {"test": "tests/a.py::test_a", "figure": "1 s"}],
    ids=["nothing", "no figure", "both"],
)
def test_a_claim_has_a_test_or_a_figure(shown: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="a claim has a test, or else a command with figure, date and machine"):
        claims.Claim.model_validate({"page": "README.md", "text": "as fast as light", **shown})


def test_what_is_gone_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = [
        claims.Claim(page="README.md", text="fuses by itself at night", test="tests/test_claims.py::test_night"),
        claims.Claim(
            page="README.md", text="# ClearFuse", command="python benchmarks/night.py", figure="1",
            date=date(2026, 11, 30), machine="moon",
        ),
    ]  # fmt: skip
    told = claims.claims().model_copy(update={"claim": gone, "stated": {"README.md": ["at noon"]}})
    monkeypatch.setattr(claims, "claims", lambda: told)
    monkeypatch.setattr(claims, "pages", list)
    assert list(claims.faults()) == [
        "README.md does not say: fuses by itself at night",
        "README.md: no such test: tests/test_claims.py::test_night",
        "README.md: unknown machine 'moon'",
        "README.md: no such script: benchmarks/night.py",
        "README.md does not say: at noon",
    ]
