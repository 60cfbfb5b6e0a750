"""The statistics of ``synth estimate``: each measures what it is there for, on pictures whose answer is known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from clearfuse.synth import color
from clearfuse.synth.estimation import residual, spectrum, traces
from clearfuse.synth.estimation.shapes import line_statistics
from clearfuse.synth.estimation.statistics import LARGEST, middle, statistics
from clearfuse.synth.estimation.tone import thinned
from clearfuse.synth.operators.codec import jpeg_bytes
from conftest import textured


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return textured(3, 320, 256)


def test_one_vector_for_any_size_and_kind(picture: np.ndarray) -> None:
    sizes = [
        picture,
        picture[:33, :47],
        picture[..., :1],
        np.zeros((64, 64, 3), np.uint8),
        np.full((40, 400, 1), 255, np.uint8),
    ]
    found = [statistics(np.ascontiguousarray(x), "visible") for x in sizes]
    assert {one.shape for one in found} == {found[0].shape}
    assert all(np.isfinite(one).all() and one.dtype == np.float32 for one in found)
    np.testing.assert_array_equal(found[0], statistics(picture, "visible"))
    with pytest.raises(ValueError, match="20x64: sides must be at least 32 pixels"):
        statistics(np.zeros((64, 20, 3), np.uint8), "visible")


def test_of_a_large_picture_the_middle_on_the_grid() -> None:
    rows = (np.arange(1500) // 8).astype(np.uint8)[:, None, None].repeat(1100, 1)  # the number of the block, from above
    cut = middle(rows)
    assert cut.shape == (LARGEST, LARGEST, 1)
    assert cut[0, 0, 0] == cut[7, 0, 0] == (1500 - 1024) // 2 // 8 and cut[8, 0, 0] == cut[0, 0, 0] + 1


@pytest.mark.parametrize("sigma", [2 / 255, 8 / 255, 30 / 255])
def test_the_mask_has_unit_gain_for_white_noise(sigma: float) -> None:
    """Immerkær: of white noise σ on any plane the residual has standard deviation σ, whatever the plane's slope."""
    rows, columns = np.mgrid[:200, :240].astype(np.float32)
    noisy = (0.3 + 0.001 * rows - 0.0005 * columns + np.random.default_rng(0).normal(0, sigma, (200, 240))).astype(
        np.float32
    )
    rest = cv2.filter2D(noisy, -1, residual._CHECK)[1:-1, 1:-1]
    assert rest.std() == pytest.approx(sigma, rel=0.03)


def test_the_table_is_libjpegs() -> None:
    """The steps read back from a file's own quantisation table."""
    from io import BytesIO

    from PIL import Image

    for quality in (8, 13, 20, 50, 77, 95):
        data = BytesIO()
        Image.new("L", (8, 8)).save(data, "JPEG", quality=quality)
        written = np.array(Image.open(data).quantization[0]).reshape(8, 8)  # type: ignore[attr-defined]
        np.testing.assert_array_equal(traces.jpeg_table(quality), written)


@pytest.mark.parametrize("quality", [8, 12, 16, 20])
def test_the_best_fit_is_the_quality(picture: np.ndarray, quality: int) -> None:
    """The DCT of a grey JPEG has multiples of its table's steps alone: the fit at its quality is 1, the best of all."""
    grey = picture[..., :1]
    decoded = cv2.imdecode(jpeg_bytes(grey, quality, "4:4:4"), cv2.IMREAD_GRAYSCALE).astype(np.float32)
    fits = traces.jpeg_statistics(decoded)[: len(traces.QUALITIES)]
    assert traces.QUALITIES[int(np.argmax(fits[:20]))] == quality and max(fits[:20]) > 0.9
    before = traces.jpeg_statistics(grey[..., 0].astype(np.float32))[: len(traces.QUALITIES)]
    assert max(before[:20]) < 0.5


def test_columns_and_rows_are_told_apart(picture: np.ndarray) -> None:
    grey = color.luma(color.code_to_float(picture))
    offsets = np.random.default_rng(1).normal(0, 0.04, (1, grey.shape[1])).astype(np.float32)
    plain, striped = (np.array(traces.column_statistics(x)) for x in (grey, grey + offsets))
    assert striped[0] > plain[0] + 1 and striped[2] > 0.8 > plain[2]
    np.testing.assert_allclose(striped[14:16], plain[14:16], atol=0.3)


def test_lines_are_found_in_their_direction() -> None:
    """Bright near-vertical streaks: the vertical filter answers most, and bright more than dark."""
    rng = np.random.default_rng(2)
    canvas = np.full((256, 256), 0.4, np.float32)
    for x, y in rng.integers(0, 240, (60, 2)).tolist():
        cv2.line(canvas, (x, y), (x, y + 16), 0.8, 1)
    found = line_statistics(canvas)
    energy = np.array(found[1:13])
    assert energy.argmax() == 6, "of twelve directions from the horizontal, the seventh is the vertical"
    assert found[49] > 0, "third moments of bright over dark"


def test_a_blur_empties_the_high_frequencies_across_it(picture: np.ndarray) -> None:
    grey = color.luma(color.code_to_float(picture))
    blurred = cv2.blur(grey, (13, 1))
    sharp, soft = (
        np.array(spectrum.spectrum_statistics(x)[: spectrum.RINGS * spectrum.SECTORS]).reshape(12, 8)
        for x in (grey, blurred)
    )
    lost = (sharp - soft)[6:].mean(0)
    assert lost[0] > 4 * lost[4] > 0, "horizontal frequencies are lost, vertical ones hardly"


def test_thinned_meets_every_place_of_a_grid() -> None:
    rows = thinned(np.mgrid[:1000, :1400][0])
    assert set((rows % 8).ravel().tolist()) == set(range(8)) and 20_000 < rows.size < 120_000
