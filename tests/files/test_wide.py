"""Pictures of more than 8 bits a channel that Pillow cuts off or does not know: in full, with alpha, upright."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from clearfuse.synth import color
from clearfuse.synth.datasets.fingerprints import thumbnail
from clearfuse.synth.files.pictures import decode, read_picture, upright_header
from clearfuse.synth.types import BadPair
from conftest import textured


def deep(channels: int) -> np.ndarray:
    """(40, 64) counts of 16 bits that 8 bits can't hold."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 64, channels))
    return (textured(1, 64, 40, channels).astype(np.int64) * 256 + noise).astype(np.uint16)


@pytest.mark.parametrize("name", ["x.ppm", "x.pgm", "x.jp2", "grey.jp2", "x.png", "x.tif", "float.tif"])
def test_each_format_in_full(tmp_path: Path, name: str) -> None:
    """The depth that the header says, and every count."""
    grey = name in ("x.pgm", "grey.jp2")
    counts, path = deep(1 if grey else 3), str(tmp_path / name)
    stored = counts / np.float32(65535) if name == "float.tif" else counts
    options = [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000] if name.endswith("jp2") else []
    assert cv2.imwrite(path, stored[..., 0] if grey else stored[..., ::-1], options)
    picture = read_picture(path)
    assert upright_header(path) == ((64, 40), 32 if name == "float.tif" else 16, grey)
    assert picture.bits == upright_header(path).bits and picture.alpha is None and picture.image.dtype == np.float32
    lossy = 0.02 if name.endswith("jp2") else 1e-6
    assert np.abs(picture.image - counts / 65535).max() < lossy
    np.testing.assert_array_equal(decode(path).image, color.to_uint8(picture.image))
    assert abs(int(thumbnail(path).mean()) - decode(path).image.mean()) < 4


def test_a_ppm_says_its_white(tmp_path: Path) -> None:
    counts = (deep(3) >> 4).astype(">u2")
    for comment in (b"", b"# made by hand\n"):
        (tmp_path / "x.ppm").write_bytes(b"P6\n" + comment + b"64 40\n4095\n" + counts.tobytes())
        decoded = decode(str(tmp_path / "x.ppm"))
        assert decoded.sensor["high"] == 4095 and np.abs(decoded.image / 255 - counts / 4095).max() <= 0.5 / 255 + 1e-6


def test_alpha_and_orientation_of_what_pillow_does_not_read(tmp_path: Path) -> None:
    counts, alpha = deep(3), np.full((40, 64, 1), 30000, np.uint16)
    cv2.imwrite(str(tmp_path / "x.png"), np.dstack([counts[..., ::-1], alpha]))
    picture = read_picture(str(tmp_path / "x.png"))
    assert picture.alpha is not None and picture.image.shape == (40, 64, 3)
    np.testing.assert_allclose(picture.alpha, 30000 / 65535)
    grey = np.dstack([deep(1)] * 3)
    cv2.imwrite(str(tmp_path / "g.png"), np.dstack([grey, alpha]))
    with Image.open(tmp_path / "g.png") as file:
        assert file.mode == "RGBA", "equal channels are a colour picture's"
    small = textured(2, 24, 16)
    tall = np.ascontiguousarray(np.rot90(small))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.dstack([tall, tall[..., 0]])).save(tmp_path / "turned.png", exif=exif)
    turned = read_picture(str(tmp_path / "turned.png"))
    np.testing.assert_array_equal(turned.image, small)
    np.testing.assert_array_equal(turned.alpha, small[..., 0])
    assert upright_header(str(tmp_path / "turned.png")).size == (24, 16)


def test_a_damaged_tiff_in_floating_point_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    cv2.imwrite(str(path), deep(3) / np.float32(65535))
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:8], whole[:4] + b"\xff\xff\xff\x7f" + whole[8:]):
        path.write_bytes(damaged)
        with pytest.raises(BadPair, match=r"x\.tif: "):
            read_picture(str(path))
    cv2.imwrite(str(path), deep(3) / np.float32(65535) * 3)
    with pytest.raises(BadPair, match="have no full scale"):
        read_picture(str(path))
