"""``train fuse`` on whatever people have: formats, depths, grey and colour, alpha, orientations, sizes, stacks.

With a small network that has learned nothing: what is written must be, to the code, what the pipeline makes of the
pictures as they were before they became files.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from tiny import untrained

from clearfuse.synth import color
from clearfuse.synth.files.pictures import read_picture
from clearfuse.train.pipeline import files
from clearfuse.train.pipeline.fuse import Plan
from clearfuse.train.pipeline.fusion import FusionPipeline
from conftest import textured


@pytest.fixture(scope="module")
def pipeline() -> FusionPipeline:
    """A small network with a first guess, its weights moved away from the start."""
    return untrained(guess=True)


@pytest.fixture(autouse=True)
def _loaded(pipeline: FusionPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "load_pipeline", lambda *_: pipeline)


def deep(seed: int, width: int, height: int, channels: int = 3) -> np.ndarray:
    """A picture with all values of 16 bits, float32 in [0, 1]."""
    noise = np.random.default_rng(seed).integers(0, 257, (height, width, channels))
    return (
        ((textured(seed, width, height, channels).astype(np.int64) * 256 + noise) / 65535).clip(0, 1).astype(np.float32)
    )


def counts(image: np.ndarray) -> np.ndarray:
    """As counts of 16 bits."""
    return np.floor(image * 65535.0 + 0.5).astype(np.uint16)


def store(path: Path, image: np.ndarray) -> str:
    """Write a picture losslessly where the format can, by OpenCV."""
    planes = image[..., 0] if image.shape[2] == 1 else image[..., [2, 1, 0, *range(3, image.shape[2])]]
    assert cv2.imwrite(str(path), planes)
    return str(path)


def fuse(*given: str, out: Path, task: str = "mff", plan: Plan = Plan()) -> np.ndarray:  # noqa: B008
    """What is written, (h, w, c), in the file's own type."""
    assert files.fuse_files(given, str(out), task, plan=plan)[0] == str(out)
    stored = cv2.imread(str(out), cv2.IMREAD_UNCHANGED)
    assert stored is not None
    stored = color.as_hwc(stored)
    return stored[..., [2, 1, 0, *range(3, stored.shape[2])]] if stored.shape[2] > 2 else stored


@pytest.mark.parametrize("size", [(17, 23), (150, 97)])
@pytest.mark.parametrize("ending", ["png", "jpg", "tif", "webp", "ppm", "bmp", "jp2", "pgm"])
def test_formats(tmp_path: Path, pipeline: FusionPipeline, ending: str, size: tuple[int, int]) -> None:
    pictures = [textured(seed, *size, 1 if ending == "pgm" else 3) for seed in (1, 2)]
    paths = [str(tmp_path / f"{name}.{ending}") for name in "ab"]
    for path, picture in zip(paths, pictures, strict=True):
        how = {"webp": {"lossless": True}, "jp2": {"num_resolutions": 2}}.get(ending, {})
        Image.fromarray(picture[..., 0] if ending == "pgm" else picture).save(path, **how)
    if ending == "jpg":
        pictures = [np.asarray(Image.open(path)) for path in paths]
    written = fuse(*paths, out=tmp_path / "o.png")
    expected = pipeline(*pictures, task="mff")
    if ending == "pgm":
        expected = color.to_uint8(color.luma(color.code_to_float(expected)))[..., None]
    np.testing.assert_array_equal(written, expected)


@pytest.mark.parametrize("out", ["o.png", "o.tif"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("ending", ["png", "tif", "pnm"])
def test_16_bits_stay_16(tmp_path: Path, pipeline: FusionPipeline, ending: str, channels: int, out: str) -> None:
    ending = ending if ending != "pnm" else "pgm" if channels == 1 else "ppm"
    pictures = [deep(seed, 40, 31, channels) for seed in (1, 2)]
    paths = [store(tmp_path / f"{name}.{ending}", counts(x)) for name, x in zip("ab", pictures, strict=True)]
    written = fuse(*paths, out=tmp_path / out)
    assert written.dtype == np.uint16 and written.shape[2] == channels and len(np.unique(written)) > 600
    expected = pipeline(*(counts(x) / np.float32(65535) for x in pictures), task="mff")
    expected = color.luma(expected)[..., None] if channels == 1 else expected
    assert np.abs(written / 65535 - expected).max() < 1 / 65535
    read = read_picture(str(tmp_path / out))
    assert read.bits == 16 and np.abs(read.image - expected).max() < 2 / 65535


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("out", ["o.tif", "o.png"])
def test_floating_point_stays(
    tmp_path: Path, pipeline: FusionPipeline, channels: int, out: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a TIFF; a PNG holds 16 bits of it, which is said."""
    pictures = [deep(seed, 33, 29, channels) for seed in (1, 2)]
    paths = [store(tmp_path / f"{name}.tiff", x) for name, x in zip("ab", pictures, strict=True)]
    written = fuse(*paths, out=tmp_path / out)
    expected = pipeline(*pictures, task="mff")
    expected = color.luma(expected)[..., None] if channels == 1 else expected
    if out == "o.tif":
        assert written.dtype == np.float32 and np.abs(written - expected).max() < 1e-6
        assert read_picture(str(tmp_path / out)).bits == 32
    else:
        assert written.dtype == np.uint16 and np.abs(written / 65535 - expected).max() < 1 / 65535
    assert ("does not keep floating point: -o with .tif does" in capsys.readouterr().err) == (out == "o.png")


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [(1, 1), (1, 3), (3, 1), (3, 3)])
def test_grey_stays_grey_and_colour_colour(tmp_path: Path, channels: tuple[int, int], bits: int) -> None:
    """Grey where both are; and a pair of visible and infrared has the depth of the visible one."""
    pictures = [deep(seed, 41, 26, c) for seed, c in enumerate(channels)]
    stored = [counts(x) if bits == 16 else color.to_uint8(x) for x in pictures]
    paths = [store(tmp_path / f"{name}.png", x) for name, x in zip("ab", stored, strict=True)]
    for task in ("mff", "vif"):
        written = fuse(*paths, out=tmp_path / f"{task}.png", task=task)
        grey = channels == (1, 1) or (task == "vif" and channels[0] == 1)
        assert written.shape == (26, 41, 1 if grey else 3) and written.dtype == (np.uint16 if bits == 16 else np.uint8)


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("kind", ["RGBA", "LA", "palette", "RGBA16"])
def test_alpha_is_kept(tmp_path: Path, kind: str, side: int) -> None:
    """A fused pixel is as opaque as the least opaque of its sources."""
    alpha = np.full((30, 44), 255, np.uint8)
    alpha[5:20, 10:30] = 90
    paths = [str(tmp_path / "0.png"), str(tmp_path / "1.png")]
    Image.fromarray(textured(3, 44, 30)).save(paths[1 - side])
    picture = textured(4, 44, 30)
    if kind == "RGBA":
        Image.fromarray(np.dstack([picture, alpha])).save(paths[side])
    elif kind == "LA":
        Image.fromarray(np.dstack([picture[..., 0], alpha])).save(paths[side])
    elif kind == "palette":
        alpha = np.where(alpha == 255, 255, 0).astype(np.uint8)
        flat = Image.fromarray(np.where(alpha == 255, 1, 0).astype(np.uint8), "P")
        flat.putpalette([0, 0, 0, 200, 90, 40])
        flat.save(paths[side], transparency=0)
    else:
        store(Path(paths[side]), np.dstack([counts(deep(4, 44, 30)), alpha.astype(np.uint16) * 257]))
    written = fuse(*paths, out=tmp_path / "o.png")
    assert written.shape[2] == 4
    scale = 257 if kind == "RGBA16" else 1
    np.testing.assert_array_equal(written[..., 3], alpha.astype(np.int64) * scale)
    least = np.full((30, 44), 40, np.uint8)
    Image.fromarray(np.dstack([textured(3, 44, 30), least])).save(paths[1 - side])
    assert fuse(*paths, out=tmp_path / "p.png")[..., 3].max() == 40 * scale


@pytest.mark.parametrize("turn", range(1, 9))
def test_orientations(tmp_path: Path, pipeline: FusionPipeline, turn: int) -> None:
    """A picture that lies on its side is fused with one that stands; EXIF's eight cases (TIFF 6.0, tag 274)."""
    a, b = textured(1, 37, 24), textured(2, 37, 24)
    lying = {
        1: a, 2: a[:, ::-1], 3: a[::-1, ::-1], 4: a[::-1], 5: a.transpose(1, 0, 2), 6: np.rot90(a),
        7: a[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(a, -1),
    }[turn]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = turn
    Image.fromarray(np.ascontiguousarray(lying)).save(tmp_path / "a.png", exif=exif)
    written = fuse(str(tmp_path / "a.png"), store(tmp_path / "b.png", b), out=tmp_path / "o.png")
    np.testing.assert_array_equal(written, pipeline(a, b, task="mff"))


@pytest.mark.parametrize("out", ["o.png", "o.webp", "o.tiff", "o.bmp", "o.jpg", "o.jpeg"])
def test_outputs(tmp_path: Path, pipeline: FusionPipeline, out: str, capsys: pytest.CaptureFixture[str]) -> None:
    """16 bits with alpha into every format: what it does not keep is said, in one line."""
    pictures = [deep(seed, 40, 31) for seed in (1, 2)]
    opaque = np.full((31, 40, 1), 0.5, np.float32)
    paths = [store(tmp_path / f"{i}.png", counts(np.dstack([x, opaque]))) for i, x in enumerate(pictures)]
    written = fuse(*paths, out=tmp_path / out)
    said = capsys.readouterr().err
    expected = pipeline(*(counts(x) / np.float32(65535) for x in pictures), task="mff")
    share = written[..., :3] / np.iinfo(written.dtype).max
    assert np.abs(share - expected).mean() < (0.06 if "jp" in out else 1 / 255)
    lost = {
        "o.webp": "16 bits",
        "o.bmp": "16 bits and alpha",
        "o.jpg": "16 bits and alpha",
        "o.jpeg": "16 bits and alpha",
    }
    assert written.dtype == (np.uint8 if out in lost else np.uint16)
    assert written.shape[2] == (4 if "alpha" not in lost.get(out, "") else 3)
    assert (f"does not keep {lost[out]}: -o with .png or .tif does" in said) if out in lost else "keep" not in said


@pytest.mark.parametrize("task", ["mef", "mff"])
@pytest.mark.parametrize("count", [3, 4, 5, 8])
def test_stacks(tmp_path: Path, pipeline: FusionPipeline, count: int, task: str) -> None:
    """Exposures in whatever order of names, from dark to bright; foci in the order of names; both as a tree."""
    scene = textured(1, 60, 34)
    stops = np.linspace(-3, 0, count)
    frames = [
        (scene * 2.0**ev).astype(np.uint8) if task == "mef" else textured(i, 60, 34) for i, ev in enumerate(stops)
    ]
    names = [f"{(7 * i) % 11:02d}" if task == "mef" else f"{i:02d}" for i in range(count)]
    (tmp_path / "s").mkdir()
    for name, frame in zip(names, frames, strict=True):
        store(tmp_path / f"s/{name}.png", frame)
    written = fuse(str(tmp_path / "s"), out=tmp_path / "o.png", task=task)

    def tree(part: list[np.ndarray]) -> np.ndarray:
        middle = (len(part) + 1) // 2
        return part[0] if len(part) == 1 else pipeline(tree(part[:middle]), tree(part[middle:]), task=task, prompt="")

    np.testing.assert_array_equal(written, tree(frames))
    again = fuse(*(str(tmp_path / f"s/{name}.png") for name in names), out=tmp_path / "p.png", task=task)
    np.testing.assert_array_equal(again, written)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(17, 23), (8, 40), (513, 300), (320, 1030)])
def test_sizes_in_tiles_and_whole(tmp_path: Path, pipeline: FusionPipeline, size: tuple[int, int]) -> None:
    a, b = textured(1, *size), textured(2, *size)
    paths = [store(tmp_path / "a.png", a), store(tmp_path / "b.png", b)]
    written = fuse(*paths, out=tmp_path / "o.png", plan=Plan(sampling=(("tile", 256),)))
    np.testing.assert_array_equal(written, pipeline(a, b, task="mff", tile=256))
