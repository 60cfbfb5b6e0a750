"""Files as sensors leave them: counts, centikelvins, 16 bit colour, alpha, and pictures that lie on their side."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from clearfuse.synth import color
from clearfuse.synth.builder.run import build
from clearfuse.synth.datasets.find import find_all
from clearfuse.synth.datasets.fingerprints import brightness, thumbnail
from clearfuse.synth.datasets.manifest import load_manifest
from clearfuse.synth.datasets.read import read_pair
from clearfuse.synth.files.pictures import decode
from clearfuse.synth.shards.sample import Sample, read_samples
from clearfuse.synth.types import BadPair, PairRef
from clearfuse.train.cli.options import EvalOptions, FuseOptions
from clearfuse.train.evaluation.methods.results import Results
from clearfuse.train.pipeline.pictures.jobs import Files, load_as
from conftest import Ran, sample_meta, save, textured


def test_thermal_counts_are_scaled_by_their_robust_range(tmp_path: Path) -> None:
    scene = textured(1, channels=1)[..., 0].astype(np.uint16)
    counts = 7000 + 4 * scene
    counts[3, 3], counts[5, 5] = 65535, 0
    Image.fromarray(counts).save(tmp_path / "ir.tiff")
    decoded = decode(str(tmp_path / "ir.tiff"), "infrared")
    assert decoded.image.shape == (128, 160, 1) and decoded.sensor["mode"] == "I;16"
    low, high = decoded.sensor["low"], decoded.sensor["high"]
    assert 7000 <= low < high <= 7000 + 4 * 255
    back = decoded.image[..., 0] / 255 * (high - low) + low
    inside = (counts >= low) & (counts <= high)
    assert np.abs(back - counts)[inside].max() <= (high - low) / 255
    assert (decoded.image[3, 3, 0], decoded.image[5, 5, 0]) == (255, 0)


def test_centikelvins_as_floats(tmp_path: Path) -> None:
    kelvin = 280 + textured(2, channels=1)[..., 0].astype(np.float32) / 10
    kelvin[0, 0] = np.nan
    Image.fromarray(kelvin).save(tmp_path / "ir.tiff")
    decoded = decode(str(tmp_path / "ir.tiff"), "infrared")
    assert decoded.sensor["mode"] == "F" and 280 <= decoded.sensor["low"] < decoded.sensor["high"] <= 305.5
    with pytest.raises(BadPair, match=r"F is not 8 bit, and its values, 28\d.* to 30\d.*, have no full scale"):
        decode(str(tmp_path / "ir.tiff"))


def with_significant_bits(path: Path, bits: int, channels: int) -> None:
    """Put an sBIT chunk behind a PNG's header."""
    data, chunk = path.read_bytes(), b"sBIT" + bytes([bits] * channels)
    path.write_bytes(data[:33] + channels.to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big") + data[33:])


@pytest.mark.parametrize("suffix", ["png", "tiff", "grey.png", "grey.tiff", "pgm", "float.tiff"])
def test_exposures_of_one_scene_keep_their_order(tmp_path: Path, suffix: str) -> None:
    """One full scale for all: none is brightened to its own largest count, in pictures and thumbnails."""
    scene = textured(3)[..., 0] / 255.0
    means: list[tuple[float, float]] = []
    for ev in (0, -1, -2, -3, -4, -5):
        counts = (scene**2.2 * 2.0**ev * 65535).astype(np.uint16)
        stored = counts if suffix in ("grey.png", "grey.tiff", "pgm") else np.dstack([counts] * 3)
        if suffix == "float.tiff":
            stored = (counts / np.float32(65535)).astype(np.float32)
        path = str(tmp_path / f"{-ev}.{suffix}")
        assert cv2.imwrite(path, stored)
        decoded = decode(path)
        assert decoded.sensor["high"] == (1 if suffix == "float.tiff" else 65535)
        assert abs(decoded.image.mean() - counts.mean() / 257) < 0.5
        means.append((decoded.image.mean(), brightness(thumbnail(path))))
    assert all(now > then for one, other in pairwise(means) for now, then in zip(one, other, strict=True))


def test_significant_bits_set_the_full_scale(tmp_path: Path) -> None:
    """As counts of so many bits; not where they are scaled up to 16 already, as the standard asks."""
    picture = textured(3)
    few = np.floor(picture / 255.0 * 4095 + 0.5).astype(np.uint16)
    for name, stored, high in (
        ("few", few, 4095), ("dark", few // 9, 4095),
        ("up", few << 4 | few >> 8, 65535), ("zeros", few // 9 << 4, 65535),
    ):  # fmt: skip
        path = tmp_path / f"{name}.png"
        for image, channels in ((stored, 3), (stored[..., 0], 1)):
            assert cv2.imwrite(str(path), image)
            assert decode(str(path)).sensor["high"] == 65535, "no metadata"
            with_significant_bits(path, 12, channels)
            assert decode(str(path)).sensor["high"] == high, name
    for tag, value, high in ((281, 4095, 4095), (281, 3000, 65535), (50717, 3900, 3900)):
        Image.fromarray(few[..., 0]).save(tmp_path / "x.tiff", tiffinfo={tag: value})
        assert decode(str(tmp_path / "x.tiff")).sensor["high"] == high


def twelve_bits(path: Path, image: np.ndarray) -> Path:
    """A PNG of 16 bits that holds counts to 4095, and says so nowhere."""
    path.parent.mkdir(parents=True, exist_ok=True)
    counts = np.floor(image / 255.0 * 4095 + 0.5).astype(np.uint16)
    assert cv2.imwrite(str(path), counts[..., ::-1])
    return path


def test_a_scale_that_is_given_is_the_count_of_white(tmp_path: Path) -> None:
    """Of visible pictures of more than 8 bits; a dark one is not brightened by it, and nothing above it is clipped."""
    bright, dark = textured(3), textured(3) // 9
    for name, picture in (("bright", bright), ("dark", dark)):
        path = str(twelve_bits(tmp_path / f"{name}.png", picture))
        decoded = decode(path, scale=4095)
        assert decoded.sensor["high"] == 4095
        np.testing.assert_array_equal(decoded.image, picture)
        assert abs(int(brightness(thumbnail(path, scale=4095))) - picture.mean()) < 3
        infrared = (decode(path, "infrared", scale).sensor["high"] for scale in (None, 4095))
        assert next(infrared) == next(infrared)
    with pytest.raises(BadPair, match=r"bright\.png: its counts reach 4\d+, above the scale of 1023"):
        decode(str(tmp_path / "bright.png"), scale=1023)
    np.testing.assert_array_equal(decode(str(save(tmp_path / "8.png", dark)), scale=4095).image, dark)


def test_one_scale_for_a_set(synth: Callable[..., Ran], tmp_path: Path) -> None:
    """By ``--scale``, or by the manifest: exposures in the same relation as in 8 bits, in the digest and the json."""
    for number in range(2):
        for folder, picture in (("under", textured(number) // 4), ("over", textured(number))):
            twelve_bits(tmp_path / folder / f"{number}.png", picture)
    data = f"folder={tmp_path / 'under'},{tmp_path / 'over'}"
    options = ["--task", "mef", "--data", data, "--n", "1", "--split", "train", "--limit", "1", "--executor", "serial"]
    settings: list[Any] = []
    for name, more in {"plain": [], "scaled": ["--scale", "4095"]}.items():
        ran = synth("build", *options, *more, "--out", tmp_path / name)
        assert ran.code == 0, ran.err
        (sample,) = read_samples(tmp_path / name / "mef-train-000000.tar")
        settings.append(
            json.loads((tmp_path / name / "mef-train-000000.json").read_text())["settings"]["data"]["folder"]
        )
        assert sample.meta.sensor["a"]["high"] == sample.meta.sensor["b"]["high"] == (4095 if more else 65535)
        x, y, width, height = sample.meta.crop
        number = int(sample.meta.pair)
        expected = textured(number)[y : y + height, x : x + width]
        if more:
            np.testing.assert_array_equal(sample.images["clean_b"], expected)
            np.testing.assert_array_equal(
                sample.images["clean_a"], (textured(number) // 4)[y : y + height, x : x + width]
            )
        else:
            assert sample.images["clean_b"].max() <= 16
    assert settings[1] == settings[0] | {"scale": 4095}
    manifest = tmp_path / "mine.toml"
    manifest.write_text(
        'schema = 1\ntask = "mef"\na = "under/{key}.png"\nb = "over/{key}.png"\nscale = 4095\nlicence = "x"\n'
    )
    pairs = find_all(load_manifest("mine", manifest), str(tmp_path), "mef").pairs
    assert [ref.scale for ref in pairs] == [4095, 4095]
    np.testing.assert_array_equal(read_pair(pairs[0]).b, textured(int(pairs[0].key)))
    ran = synth("build", "--task", "mef", "--scale", "4095", "--out", tmp_path / "x")
    assert ran.code == 2 and "--scale 4095: has no effect without --data" in ran.error
    ran = synth("build", *options, "--scale", "100", "--out", tmp_path / "x")
    assert ran.code == 2 and ran.error.endswith("--scale 100: must be at least 256")


def test_degrade_takes_a_scale(synth: Callable[..., Ran], tmp_path: Path) -> None:
    path = twelve_bits(tmp_path / "x.png", textured(1))
    options = ["--op", "gaussian_blur", "--severity", "0", "--scale"]
    assert synth("degrade", path, *options, "4095", "--out", tmp_path / "out").code == 0
    assert abs(decode(str(tmp_path / "out/x.png")).image.mean() - textured(1).mean()) < 4  # blurred in linear light
    ran = synth("degrade", path, *options, "100", "--out", tmp_path / "out")
    assert ran.code == 2 and ran.error.endswith("--scale 100: must be in [256, 65535]")


def test_fuse_and_results_take_a_scale(tmp_path: Path) -> None:
    paths = [twelve_bits(tmp_path / "results" / f"{name}.png", textured(name)) for name in range(2)]
    for scale, brightest in ((4095, 240), (None, 16)):
        job = Files(tuple(map(str, paths)), tmp_path / "o.png")
        images = [load_as(job, place, "mef", scale).image for place in (0, 1)]
        assert all((x.max() > 200 / 255) == (scale is not None) and x.max() <= (brightest + 15) / 255 for x in images)
        sample = Sample("0", {"a": textured(0)}, None, "", sample_meta(pair="0"))
        found = Results(tmp_path / "results", frozenset(), True, scale)(sample)
        assert found is not None and np.array_equal(found, color.to_uint8(images[0]))
    options = FuseOptions(inputs=("a", "b"), out="o", task="mef", scale=4095), EvalOptions(shards=("s",), scale=4095)
    assert [each.scale for each in options] == [4095, 4095]


@pytest.mark.parametrize(("bits", "suffix"), [(16, "png"), (16, "tiff"), (12, "png")])
def test_visible_colour_of_more_bits(tmp_path: Path, bits: int, suffix: str) -> None:
    picture = textured(3)
    picture[0, 0] = 255
    wide = np.floor(picture / 255.0 * (2**bits - 1) + 0.5).astype(np.uint16)
    assert cv2.imwrite(str(tmp_path / f"x.{suffix}"), wide[..., ::-1])
    if bits < 16:
        with_significant_bits(tmp_path / f"x.{suffix}", bits, 3)
    decoded = decode(str(tmp_path / f"x.{suffix}"))
    assert np.array_equal(decoded.image, picture)
    assert decoded.sensor == {"mode": "RGB;16", "low": 0.0, "high": 2.0**bits - 1}


def test_alpha_and_orientation_are_noted(tmp_path: Path) -> None:
    picture = textured(4)
    alpha = np.dstack([picture, np.full(picture.shape[:2], 9, np.uint8)])
    decoded = decode(str(save(tmp_path / "alpha.png", alpha)))
    assert np.array_equal(decoded.image, picture) and decoded.sensor == {"alpha": "ignored"}
    assert decode(str(save(tmp_path / "plain.png", picture))).sensor == {}


@pytest.mark.parametrize("turn", range(1, 9))
def test_wide_colour_is_turned_as_pillow_turns_it(tmp_path: Path, turn: int) -> None:
    picture = textured(5)
    picture[0, 0] = 255
    narrow = Image.fromarray(picture)
    exif = narrow.getexif()
    exif[0x0112] = turn
    narrow.save(tmp_path / "narrow.png", exif=exif)
    assert cv2.imwrite(str(tmp_path / "wide.png"), picture[..., ::-1].astype(np.uint16) * 257)
    chunk = (tmp_path / "narrow.png").read_bytes()
    wide = (tmp_path / "wide.png").read_bytes()
    at = chunk.index(b"eXIf") - 4
    length = int.from_bytes(chunk[at : at + 4], "big") + 12
    (tmp_path / "wide.png").write_bytes(wide[:33] + chunk[at : at + length] + wide[33:])
    one, two = decode(str(tmp_path / "wide.png")), decode(str(tmp_path / "narrow.png"))
    assert np.array_equal(one.image, two.image)
    assert one.sensor.get("orientation") == two.sensor.get("orientation") == (turn if turn > 1 else None)


@pytest.mark.slow
def test_the_scale_is_in_the_samples_metadata(tmp_path: Path) -> None:
    save(tmp_path / "vi/1.png", textured(6))
    (tmp_path / "ir").mkdir()
    Image.fromarray(7000 + 3 * textured(7, channels=1)[..., 0].astype(np.uint16)).save(tmp_path / "ir/1.png")
    location = f"{tmp_path / 'vi'},{tmp_path / 'ir'}"
    pair = read_pair(
        PairRef("vif", "folder", "1", "1", "train", {"a": f"{tmp_path}/vi/1.png", "b": f"{tmp_path}/ir/1.png"})
    )
    assert set(pair.sensor) == {"b"}
    build("vif", data=f"folder={location}", out=tmp_path / "out", n="1", workers=1, depth="prior")
    (sample,) = read_samples(tmp_path / "out/vif-train-000000.tar")
    assert sample.meta.sensor == json.loads(json.dumps({"b": dict(pair.sensor["b"])}))
    assert sample.meta.sensor["b"]["low"] >= 7000


def test_a_thumbnail_and_a_depth_map_are_judged_by_their_headers(tmp_path: Path) -> None:
    from clearfuse.synth.depth.metres import decode_any, encode_png

    codes = encode_png(np.arange(64, dtype=np.uint16).reshape(8, 8))
    assert decode_any(codes) is not None
    huge = codes[:16] + (60000).to_bytes(4, "big") * 2 + codes[24:]
    assert [decode_any(data) for data in (huge, codes[:20], b"", b"text")] == [None] * 4
    Image.new("1", (9000, 9000)).save(tmp_path / "large.png")
    with pytest.raises(BadPair, match="9000x9000 has too many pixels: at most 67108864 are read"):
        thumbnail(str(tmp_path / "large.png"))
    with pytest.raises(BadPair, match="9000x9000 has too many pixels"):
        decode(str(tmp_path / "large.png"))
