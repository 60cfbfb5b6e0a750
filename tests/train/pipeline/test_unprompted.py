"""A pair without a prompt: what is wrong with it is estimated, said in a line and asked for, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import small_mdaif, untrained

from clearfuse.synth.samples.chain import degrade
from clearfuse.synth.scenes import scene_pair
from clearfuse.synth.types import PairRef, UserError
from clearfuse.train.designs.design import Assembly
from clearfuse.train.evaluation.methods import fusers
from clearfuse.train.evaluation.pairs import sample_of
from clearfuse.train.pipeline import blind, files
from clearfuse.train.pipeline.fuse import Plan
from clearfuse.train.pipeline.fusion import FusionPipeline
from conftest import save, textured

AS_IT_IS = Plan(prompt="fuse")


@pytest.fixture(scope="module")
def pipeline() -> FusionPipeline:
    """A small network that has learned nothing, and answers every prompt with another image."""
    return untrained()


@pytest.fixture(autouse=True)
def _loaded(pipeline: FusionPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "load_pipeline", lambda *_: pipeline)


@pytest.fixture(scope="module")
def noisy() -> tuple[np.ndarray, np.ndarray]:
    """A visible picture with strong noise, and a clean infrared one."""
    scene = scene_pair("vif", 70002, (320, 240))
    return degrade(scene.a, "gaussian_noise", severity=0.9, seed=1), scene.b


def fuse(folder: Path, pair: tuple[np.ndarray, np.ndarray], plan: Plan, task: str = "vif") -> np.ndarray:
    """What ``train fuse`` writes."""
    paths = [save(folder / f"{name}.png", image) for name, image in zip("ab", pair, strict=True)]
    files.fuse_files([*map(str, paths)], str(folder / "o.png"), task, plan=plan)
    return np.asarray(Image.open(folder / "o.png"))


def test_what_is_wrong_is_asked_for_and_said(
    tmp_path: Path,
    pipeline: FusionPipeline,
    noisy: tuple[np.ndarray, np.ndarray],
    capsys: pytest.CaptureFixture[str],
) -> None:
    written = fuse(tmp_path, noisy, Plan())
    (said,) = [line for line in capsys.readouterr().err.splitlines() if "; prompt: " in line]
    assert said.startswith("a.png, b.png: gaussian_noise in a, σ ")
    prompt = said.partition("; prompt: ")[2]
    np.testing.assert_array_equal(written, pipeline(*noisy, task="vif", prompt=prompt))
    np.testing.assert_array_equal(written, fuse(tmp_path, noisy, Plan(prompt="auto")))
    capsys.readouterr()
    np.testing.assert_array_equal(written, pipeline(*noisy, task="vif"))
    assert capsys.readouterr().err.splitlines() == [said.removeprefix("a.png, b.png: ")]
    plain = pipeline(*noisy, task="vif", prompt="fuse the visible and infrared images")
    assert (plain != written).any()
    for word in ("", "fuse", " Fuse "):
        np.testing.assert_array_equal(fuse(tmp_path, noisy, Plan(prompt=word)), plain)
        np.testing.assert_array_equal(pipeline(*noisy, task="vif", prompt=word), plain)
    assert "prompt" not in capsys.readouterr().err


def test_a_clean_pair_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene = scene_pair("vif", 70002, (320, 240))
    written = fuse(tmp_path, (scene.a, scene.b), Plan())
    assert "a.png, b.png: nothing found to remove: fused\n" in capsys.readouterr().err
    np.testing.assert_array_equal(written, fuse(tmp_path, (scene.a, scene.b), AS_IT_IS))


def test_what_is_not_sure_is_not_asked_for(
    noisy: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    (found,) = blind.find_request("vif", *noisy).found
    sure = found.finding.certainty
    assert found.finding.op == "gaussian_noise" and 0.8 <= blind.ASKED["gaussian_noise"] < sure < 1
    for levels in ({"gaussian_noise": (1 + sure) / 2}, {"haze": 0.0 + sure}):  # not sure enough; not to be asked for
        monkeypatch.setattr(blind, "ASKED", levels)
        request = blind.find_request("vif", *noisy)
        assert "gaussian_noise" not in [one.finding.op for one in request.found]
        said = f"nothing found surely enough to remove it (gaussian_noise in a, {100 * sure:.0f} % sure): fused"
        assert (request.line() == said) == ("gaussian_noise" in levels)  # what may never be asked for is not spoken of


def test_too_small_to_tell_is_fused_unless_it_was_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pair = (textured(1, 40, 20), textured(2, 40, 20, channels=1))
    written = fuse(tmp_path, pair, Plan())
    assert "a.png, b.png: too small to tell what is wrong (40x20: sides must be" in capsys.readouterr().err
    np.testing.assert_array_equal(written, fuse(tmp_path, pair, AS_IT_IS))
    with pytest.raises(UserError, match=r"a\.png, b\.png: too small to tell what is wrong"):
        fuse(tmp_path, pair, Plan(prompt="auto"))


def test_a_grey_pair_stays_grey(tmp_path: Path, noisy: tuple[np.ndarray, np.ndarray]) -> None:
    grey = (noisy[0][..., :1], noisy[0][..., 1:2])
    assert blind.find_request("mff", *grey).found
    assert fuse(tmp_path, grey, Plan(), "mff").ndim == 2


def test_nothing_is_estimated_for_nobody(
    tmp_path: Path,
    noisy: tuple[np.ndarray, np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A model that reads no prompts, and pairs of other kinds."""

    def refuse(*_: object) -> None:
        raise AssertionError("the estimator was asked")

    monkeypatch.setattr(blind, "estimates_of_pair", refuse)
    fuse(tmp_path, noisy, Plan(), "other")
    deaf = FusionPipeline(Assembly(small_mdaif(), torch.Generator().manual_seed(0)))
    monkeypatch.setattr(files, "load_pipeline", lambda *_: deaf)
    pair = tuple(x[:64, :64] for x in noisy)
    written = fuse(tmp_path, (pair[0], pair[1]), Plan())
    np.testing.assert_array_equal(written, deaf(*pair, task="vif"))
    assert "fused, nothing removed" not in capsys.readouterr().err
    fuse(tmp_path, (pair[0], pair[1]), Plan(prompt="auto"))
    assert "the model reads no prompts: fused, nothing removed" in capsys.readouterr().err


def test_eval_asks_as_fuse_does_and_no_prompt_is_the_plain_request(
    tmp_path: Path,
    pipeline: FusionPipeline,
    noisy: tuple[np.ndarray, np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    written = {plan.prompt: fuse(tmp_path, noisy, plan) for plan in (Plan(), AS_IT_IS)}
    sources = {name: str(tmp_path / f"{name}.png") for name in "ab"}
    sample = sample_of(PairRef("vif", "folder", "0", "0", "test", sources))
    monkeypatch.setattr(fusers, "load_cached", lambda *_: pipeline)
    capsys.readouterr()
    for prompted, key in ((True, None), (False, "fuse")):
        fused = fusers.ModelMethod("model", None, (), (), prompted=prompted)(sample)
        np.testing.assert_array_equal(fused, written[key])
    assert capsys.readouterr().err == ""
