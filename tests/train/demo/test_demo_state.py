"""A link holds the state of the page, and nonsense in one is refused in a line."""

from __future__ import annotations

from urllib.parse import parse_qsl

import pytest

from clearfuse.synth.types import UserError
from clearfuse.train.demo.state import State, from_query, language_of, operators_of

MODELS = ("clearfuse-small", "pyramid")


@pytest.mark.parametrize(
    "state",
    [
        State("vif", 3, {"haze": 0.7, "jpeg": 0.25}, "清除可见光图像中的雾 & fuse=100 %", "pyramid", "zh"),
        State("mef", 32, {}, "", "clearfuse-small", "en", 0.35),
        State("auto", None, {"ir_stripes": 1.0}, "", "pyramid", "en"),
    ],
)
def test_a_link_restores_the_state(state: State) -> None:
    assert from_query(dict(parse_qsl(state.to_query())), MODELS) == state


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"task": "vfi", "scene": "1"}, "did you mean 'vif'"),
        ({"scene": "33"}, "1 to 32"),
        ({"scene": "-1"}, "must be a number"),
        ({"degradations": "hase"}, "did you mean 'haze'"),
        ({"task": "mef", "scene": "1", "degradations": "ir_stripes"}, "degradation of mef"),
        ({"degradations": "haze", "severities": "1.5"}, r"in \[0, 1\]"),
        ({"degradations": "haze", "severities": "nan"}, r"in \[0, 1\]"),
        ({"degradations": "haze", "severities": "much"}, "must be a number"),
        ({"degradations": "haze,rain", "severities": "1"}, "one for each"),
        ({"degradations": "haze,haze"}, "one for each"),
        ({"model": "/etc/passwd"}, "model of this page"),
        ({"strength": "2"}, r"strength = 2: must be in \[0, 1\]"),
        ({"strength": "half"}, "strength = half: must be a number"),
        ({"language": "fr"}, "allowed: en, zh"),
        ({"prompt": "x" * 1001}, "at most 1000"),
    ],
)
def test_what_a_link_must_not_say(query: dict[str, str], said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        from_query(query, MODELS)
    assert "\n" not in str(caught.value)


def test_other_parameters_are_not_looked_at() -> None:
    assert from_query({"__theme": "dark"}, MODELS) == State(model="clearfuse-small")


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("de, en;q=0.5, zh;q=0.9", "zh"),
        ("de", "en"),
        ("", "en"),
        ("zh;q=x,en", "en"),
    ],
)
def test_the_browser_s_language(accepted: str, language: str) -> None:
    assert language_of(accepted) == language


def test_infrared_faults_are_of_infrared_alone() -> None:
    assert "ir_stripes" in operators_of("vif")
    assert "ir_stripes" not in operators_of("mff")
