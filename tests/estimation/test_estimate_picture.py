"""``synth estimate``: what it finds, says and writes; ``train fuse --prompt auto`` is tested with the pipeline."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from clearfuse.synth.estimation import network as networks
from clearfuse.synth.estimation.estimate import Estimate, Finding, estimate
from clearfuse.synth.estimation.network import Network, load_network
from clearfuse.synth.estimation.prompt import found_of_pair, write_prompt
from clearfuse.synth.estimation.targets import NAMES, main_range, severity_of, told_of, trained_for, value_at
from clearfuse.synth.operators import OPERATORS
from clearfuse.synth.samples.chain import degrade
from clearfuse.synth.scenes import scene_pair
from clearfuse.synth.types import MODALITIES
from conftest import Ran, save

Synth = Callable[..., Ran]


@pytest.fixture(scope="module")
def pair() -> tuple[np.ndarray, np.ndarray]:
    scene = scene_pair("vif", 70001, (480, 360))
    return scene.a, scene.b


def test_the_weights_are_small_and_of_these_operators() -> None:
    from safetensors import safe_open

    assert networks.WEIGHTS.stat().st_size <= 3_000_000
    with safe_open(networks.WEIGHTS, "np") as file:
        recorded = file.metadata()
    assert recorded == trained_for(), "ranges changed: train again, models/estimation/README.md"
    assert all(np.isfinite(value).all() for value in load_network().tensors.values())


def test_every_operator_of_one_picture_can_be_told() -> None:
    assert set(OPERATORS) - set(NAMES) == {"misregistration", "ghosting"}
    assert set(told_of("visible")) | set(told_of("infrared")) == set(NAMES)
    assert not {"haze", "rain", "snow", "low_exposure"} & set(told_of("infrared"))


@pytest.mark.parametrize("name", NAMES)
def test_severity_is_the_inverse_of_the_range(name: str) -> None:
    key, declared = main_range(name)
    for t in (0.0, 0.3, 1.0):
        assert severity_of(name, {key: declared.at(t)}) == pytest.approx(t, abs=0.2 if declared.integer else 1e-4)
        assert value_at(name, t) == pytest.approx(float(declared.at(t)), rel=0.2 if declared.integer else 1e-3)
    assert (
        declared.low <= value_at(name, -0.5) <= declared.high and declared.low <= value_at(name, 1.5) <= declared.high
    )


def test_two_units_by_hand() -> None:
    """A picture at one centre: its unit is 1, the other exp(−d²/(n · width)); then weights, bias, Platt's sigmoid."""
    k = len(NAMES)
    tensors = {
        "mean": np.ones(2),
        "scale": np.full(2, 2.0),
        "axes": np.eye(2),
        "centres": np.array([[0.0, 0.0], [3.0, 0.0]]),
    }
    tensors |= {"presence": np.tile([[0.5], [1.0]], k), "presence_bias": np.full(k, 0.1), "slope": np.full(k, 6.0)}
    tensors |= {"severity": np.tile([[0.2], [2.0]], k), "severity_bias": np.full(k, 0.3), "offset": np.full(k, -3.0)}
    tensors |= {"spread": np.full(k, 0.07)}
    tensors = {name: value.astype(np.float32) for name, value in tensors.items()}
    said = Network(tensors)(np.array([[1.0, 1.0]], np.float32))
    far = np.exp(-9 / (2 * networks.WIDTH))
    logit = 6 * (0.1 + 0.5 + far) - 3
    np.testing.assert_allclose(said.presence, 1 / (1 + np.exp(-logit)), rtol=1e-6)
    np.testing.assert_allclose(said.severity, min(0.3 + 0.2 + 2 * far, 1.5), rtol=1e-6)
    np.testing.assert_allclose(said.spread, 0.07, rtol=1e-6)


@pytest.mark.parametrize(
    ("op", "modality"),
    [("gaussian_noise", "visible"), ("jpeg", "visible"), ("ir_stripes", "infrared"), ("ir_dead_pixels", "infrared")],
)
def test_plain_cases_are_named_and_measured(pair: tuple[np.ndarray, np.ndarray], op: str, modality: str) -> None:
    clean = pair[0] if modality == "visible" else pair[1]
    values: list[float] = []
    for severity in (0.2, 0.8):
        found = estimate(degrade(clean, op, severity=severity, seed=5, modality=modality), modality)  # type: ignore[arg-type]
        assert found.findings[0].op == op and found[op].certainty > 0.5
        assert found[op].low <= found[op].value <= found[op].high
        values.append(found[op].severity)
    assert values[0] + 0.2 < values[1]


def test_it_refuses_what_it_cannot_tell_anything_of() -> None:
    with pytest.raises(ValueError, match="must be uint8"):
        estimate(np.zeros((64, 64), np.float32))
    with pytest.raises(ValueError, match="an infrared image has one channel"):
        estimate(np.zeros((64, 64, 3), np.uint8), "infrared")
    with pytest.raises(ValueError, match="at least 32 pixels"):
        estimate(np.zeros((64, 31), np.uint8))


def finding(op: str, certainty: float, severity: float = 0.5) -> Finding:
    value = value_at(op, severity)
    return Finding(op, certainty, severity, value, value, value)


def test_a_pair_has_one_prompt() -> None:
    """The surer finding of both images; what recipes never combine or the task is about is not spoken of."""
    a = Estimate(
        "visible",
        (finding("haze", 0.9), finding("gaussian_blur", 0.8), finding("defocus_blur", 0.6), finding("jpeg", 0.4)),
    )
    b = Estimate("infrared", (finding("gaussian_blur", 0.7), finding("ir_stripes", 0.95)))
    found = found_of_pair("vif", {"a": a, "b": b})
    assert [(one.finding.op, one.target) for one in found] == [
        ("ir_stripes", "b"),
        ("haze", "a"),
        ("gaussian_blur", "both"),
    ]
    prompt = write_prompt("vif", found)
    assert prompt is not None and prompt == write_prompt("vif", found) and len(prompt.templates) >= 3
    assert all(
        any(name.startswith(one.finding.op.replace("_", "-")) or one.finding.op in name for name in prompt.templates)
        for one in found
    )
    dark = Estimate("visible", (finding("low_exposure", 0.99),))
    assert found_of_pair("mef", {"a": dark, "b": Estimate("visible", ())}) == ()
    assert write_prompt("mef", ()) is None


@pytest.mark.slow
def test_the_command(tmp_path: Path, pair: tuple[np.ndarray, np.ndarray], synth: Synth) -> None:
    assert MODALITIES["vif"]["b"] == "infrared"
    save(tmp_path / "noisy.png", degrade(pair[0], "gaussian_noise", severity=0.9, seed=1))
    save(tmp_path / "ir.png", degrade(pair[1], "ir_stripes", severity=0.9, seed=1, modality="infrared"))
    (tmp_path / "text.png").write_text("no picture")
    ran = synth("estimate", tmp_path / "noisy.png", tmp_path / "ir.png", "--json")
    assert ran.code == 0
    noisy, infrared = json.loads(ran.out)["images"]
    assert noisy["modality"] == "visible" and infrared["modality"] == "infrared", "a grey picture is an infrared one"
    first = noisy["found"][0]
    assert (first["op"], first["parameter"], first["unit"]) == ("gaussian_noise", "sigma", "of full scale")
    assert 0 <= first["low"] <= first["value"] <= first["high"] <= 1 and first["certainty"] >= 0.5
    assert noisy["prompt"] and set(noisy["presence"]) == set(told_of("visible"))
    told = synth("estimate", tmp_path / "noisy.png")
    assert "gaussian_noise  σ " in told.out and "prompt: " in told.out
    ran = synth("estimate", tmp_path / "noisy.png", tmp_path / "text.png")
    assert ran.code == 1 and "1 of 2 images could not be used" in ran.err and "gaussian_noise" in ran.out
    for arguments, message in (
        ([tmp_path / "none.png"], "no such file"),
        ([tmp_path / "text.png"], "text.png"),
        ([tmp_path / "noisy.png", "--sure", "1.5"], "--sure 1.5: must be in [0, 1]"),
        ([tmp_path / "noisy.png", "--modality", "thermal"], "unknown modality 'thermal'"),
    ):
        ran = synth("estimate", *arguments)
        assert ran.code == 2 and message in ran.err and len(ran.err.splitlines()) == 1


def test_it_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys, numpy as np\nfrom clearfuse.synth.estimation.estimate import estimate\n"
        "estimate(np.zeros((64, 64, 3), np.uint8))\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


@pytest.mark.slow
def test_audit_of_a_data_set(msrs: Path, synth: Synth) -> None:
    ran = synth("datasets", "check", f"msrs={msrs}", "--degradations", "--json")
    facts = json.loads(ran.out)
    audited = facts["degradations"]["msrs"]
    assert ran.code == 0 and audited["images"] == 2 * facts["sets"]["msrs"]["pairs"]
    for found in audited["found"].values():
        assert 1 <= found["images"] <= audited["images"] and 1 <= len(found["surest"]) <= 3
    assert "msrs: 16 images looked at" in synth("datasets", "check", f"msrs={msrs}", "--degradations").out
    assert "degradations" not in json.loads(synth("datasets", "check", f"msrs={msrs}", "--json").out)
