"""NIQE: the value of another implementation, fits of known distributions, and reading the model without pickles."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from clearfuse.synth.types import UserError
from clearfuse.train.metrics import PROFILES, evaluate, niqe


def picture() -> np.ndarray:
    """Smoothed noise on a ramp, nowhere flat; the last rows and columns do not fill a block."""
    noise = np.random.Generator(np.random.Philox(5)).normal(128, 60, (211, 300))
    smooth = cv2.GaussianBlur(noise, (0, 0), 1.5) * 2 - 128 + np.linspace(-40, 40, 300)
    return np.clip(smooth, 0, 255).round().astype(np.uint8)


def scored(image: np.ndarray) -> float:
    return evaluate(image, image, image, metrics=["NIQE"])["NIQE"]


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A synthetic model in place of the package's."""
    path = tmp_path / "model.npz"
    held: dict[str, Any] = {"mu_pris_param": np.linspace(0, 2, 36)[None]}
    np.savez(path, **held, cov_pris_param=np.diag(np.linspace(0.1, 1, 36)))
    monkeypatch.setattr(niqe, "_file", lambda: path)
    niqe.model.cache_clear()
    return path


def test_the_number_of_another_implementation(model: Path) -> None:
    """Computed in advance by BasicSR 1.4.2 (scipy 1.17) with the same model and image."""
    assert scored(picture()) == pytest.approx(15.290827194752964, rel=1e-8)


def test_what_is_no_whole_block_does_not_count(model: Path) -> None:
    inside = scored(picture())
    assert scored(picture()[:192, :288]) == pytest.approx(inside, rel=1e-3), "but for the windows at the cut"
    assert inside != scored(picture()[:, 8:])


def test_a_picture_of_the_model_s_mean_is_at_no_distance(model: Path) -> None:
    np.savez(model, mu_pris_param=niqe.block_features(picture().astype(float)).mean(0), cov_pris_param=np.eye(36))
    assert scored(picture()) == pytest.approx(0, abs=1e-9)


def test_a_distribution_s_scales_are_found() -> None:
    """For a two-sided Gaussian: shape 2, β = σ √2, and mean (β_r − β_l) Γ(1)/Γ(1/2)."""
    rng = np.random.Generator(np.random.Philox(3))
    left, right = np.abs(rng.normal(0, 1, 100_000)), np.abs(rng.normal(0, 3, 300_000))  # as many as the sides weigh
    shape, mean, low, high = niqe._fit(np.concatenate([-left, right])[None])
    assert (shape, low, high) == pytest.approx((2, math.sqrt(2), 3 * math.sqrt(2)), rel=0.02)
    assert mean == pytest.approx((high - low) / math.sqrt(math.pi), rel=0.02)


def test_a_flat_block_counts_by_what_it_has(model: Path) -> None:
    image = picture()
    image[:96, :96] = 0
    rows = niqe.block_features(image.astype(float))
    assert rows.shape == (6, 36) and rows[0, 0] == 0.2 and np.isnan(rows[0]).any() and np.isfinite(rows[1:]).all()
    assert math.isfinite(scored(image))
    assert math.isnan(scored(np.full((200, 200), 7, np.uint8)))


def test_small_images_are_refused(model: Path) -> None:
    with pytest.raises(ValueError, match="NIQE needs images of 192x192 or more, not 300x191"):
        scored(picture()[:191])


def test_what_is_no_model_is_named(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "loaded",)

    np.savez(model, mu_pris_param=np.array([Trap()], object), cov_pris_param=np.eye(36))
    with pytest.raises(UserError, match=r"^NIQE: .*model\.npz holds no model: "):
        scored(picture())
    assert not (tmp_path / "loaded").exists()
    np.savez(model, mu_pris_param=np.zeros(18), cov_pris_param=np.eye(18))
    with pytest.raises(UserError, match="no model of 36 features"):
        scored(picture())
    model.unlink()
    with pytest.raises(UserError, match=r"^NIQE needs the data files of basicsr: pip install --no-deps basicsr$"):
        scored(picture())
    assert "NIQE" not in PROFILES["strict"].usual
