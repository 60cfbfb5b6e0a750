"""Corrupted pictures, shards and receipts, by a seeded generator: no traceback, no hang, bounded memory, each counted.

400 of each; ``CLEARFUSE_CORRUPTED=2000`` for as many as the claim is about.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from clearfuse.synth.builder.run import build
from clearfuse.synth.files.pictures import decode
from clearfuse.synth.files.storage import MOST_BYTES
from clearfuse.synth.review.verify import check_folder
from clearfuse.synth.seeds import generator
from clearfuse.synth.types import BadPair
from conftest import save, textured

pytestmark = pytest.mark.slow

COUNT = int(os.environ.get("CLEARFUSE_CORRUPTED", "400"))
MOST_MEMORY = 2 << 30
SIZE = (96, 80)
FORMATS = {"png": "PNG", "jpg": "JPEG", "tif": "TIFF", "bmp": "BMP", "webp": "WEBP"}

Rng = np.random.Generator


def encoded(image: Any, kind: str, **options: Any) -> bytes:
    """A picture (PIL, or uint8 ``(h, w, c)``) as the bytes of a file."""
    out = io.BytesIO()
    picture = (
        image if isinstance(image, Image.Image) else Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    )
    picture.save(out, format=kind, **options)
    return out.getvalue()


def some(rng: Rng) -> tuple[str, bytes]:
    """A whole picture in any format: (suffix, bytes)."""
    suffix = str(rng.choice(list(FORMATS)))
    return suffix, encoded(textured(int(rng.integers(1 << 20)), *SIZE), FORMATS[suffix])


def flipped(data: bytes, rng: Rng, within: int | None = None) -> bytes:
    """One to thirty-two bits of the data, or of its first bytes, the other way round."""
    changed = bytearray(data)
    for at in rng.integers(0, min(within or len(data), len(data)), int(rng.integers(1, 33))):
        changed[at] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def bits(rng: Rng) -> tuple[str, bytes]:
    suffix, data = some(rng)
    return suffix, flipped(data, rng)


def header_bits(rng: Rng) -> tuple[str, bytes]:
    suffix, data = some(rng)
    return suffix, flipped(data, rng, 64)


def truncated(rng: Rng) -> tuple[str, bytes]:
    suffix, data = some(rng)
    return suffix, data[: int(rng.integers(0, len(data)))]


def wrong_extension(rng: Rng) -> tuple[str, bytes]:
    suffix, data = some(rng)
    return str(rng.choice([other for other in FORMATS if other != suffix])), data


def empty(rng: Rng) -> tuple[str, bytes]:
    return "png", b""


def zeros(rng: Rng) -> tuple[str, bytes]:
    return str(rng.choice(list(FORMATS))), bytes(int(rng.integers(1, 5000)))


def noise(rng: Rng) -> tuple[str, bytes]:
    suffix, data = some(rng)
    return suffix, data[: int(rng.integers(0, 16))] + rng.bytes(int(rng.integers(1, 5000)))


def text(rng: Rng) -> tuple[str, bytes]:
    return "png", b"<html>404: not found</html>\n" * int(rng.integers(1, 99))


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


def huge(rng: Rng) -> tuple[str, bytes]:
    """A header that says 60000 x 60000, and hardly anything behind it."""
    suffix = str(rng.choice(["png", "bmp", "tif", "jpg", "webp"]))
    side = 60000
    if suffix == "png":
        header = side.to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
        return suffix, b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(bytes(999)))
    data = bytearray(encoded(textured(1, *SIZE), FORMATS[suffix]))
    if suffix == "bmp":
        data[18:26] = side.to_bytes(4, "little") * 2
    elif suffix == "tif":  # entries of 12 bytes: tags 256 and 257 are the width and the height
        at = int.from_bytes(data[4:8], "little")
        for entry in range(at + 2, at + 2 + 12 * int.from_bytes(data[at : at + 2], "little"), 12):
            if int.from_bytes(data[entry : entry + 2], "little") in (256, 257):
                data[entry + 2 : entry + 12] = b"\4\0\1\0\0\0" + side.to_bytes(4, "little")
    elif suffix == "jpg":
        at = data.index(b"\xff\xc0") + 5
        data[at : at + 4] = side.to_bytes(2, "big") * 2
    else:  # lossy WebP has its sides in 14 bits
        at = data.index(b"\x9d\x01\x2a") + 3
        data[at : at + 4] = (16383).to_bytes(2, "little") * 2
    return suffix, bytes(data)


@cache
def packed(count: int) -> bytes:
    """So many zeros, in a thousandth of the room."""
    return zlib.compress(bytes(count), 9)


def bomb(rng: Rng) -> tuple[str, bytes]:
    """A whole PNG of 12000 x 12000 in a few kilobytes, or text that unpacks to 64 MB."""
    if rng.random() < 0.5:
        header = (12000).to_bytes(4, "big") * 2 + bytes([1, 0, 0, 0, 0])
        rows = packed(12000 * 1501)
        chunks = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", rows) + png_chunk(b"IEND", b"")
        return "png", b"\x89PNG\r\n\x1a\n" + chunks
    whole = encoded(textured(2, *SIZE), "PNG")
    return "png", whole[:33] + png_chunk(b"zTXt", b"Comment\0\0" + packed(64 << 20)) + whole[33:]


def animated(rng: Rng) -> tuple[str, bytes]:
    kind = str(rng.choice(["GIF", "PNG", "WEBP"]))
    frames = [Image.fromarray(textured(int(seed), *SIZE)) for seed in rng.integers(0, 99, 3)]
    if kind == "GIF":
        frames = [frame.quantize(32) for frame in frames]
    return "png", encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=40)


def cmyk(rng: Rng) -> tuple[str, bytes]:
    return "jpg", encoded(Image.fromarray(textured(3, *SIZE)).convert("CMYK"), "JPEG")


def sixteen(rng: Rng) -> tuple[str, bytes]:
    wide = textured(int(rng.integers(99)), *SIZE).astype(np.uint16) * 257
    suffix = str(rng.choice(["png", "tif"]))
    picture = wide if rng.random() < 0.5 else wide[..., 0]
    return suffix, cv2.imencode(f".{suffix}", picture)[1].tobytes()


def sixteen_cut(rng: Rng) -> tuple[str, bytes]:
    suffix, data = sixteen(rng)
    return suffix, flipped(data, rng) if rng.random() < 0.5 else data[: int(rng.integers(0, len(data)))]


def alpha(rng: Rng) -> tuple[str, bytes]:
    mode = str(rng.choice(["RGBA", "LA", "PA"]))
    picture = Image.fromarray(textured(4, *SIZE)).convert("RGBA")
    return "png", encoded(picture.quantize(32) if mode == "PA" else picture.convert(mode), "PNG")


def turned(rng: Rng) -> tuple[str, bytes]:
    """Upside down, by EXIF."""
    picture = Image.fromarray(textured(5, *SIZE))
    exif = picture.getexif()
    exif[0x0112] = 3
    return "jpg", encoded(picture, "JPEG", exif=exif)


def turned_aside(rng: Rng) -> tuple[str, bytes]:
    """On its side, by EXIF: of another size than its partner."""
    picture = Image.fromarray(textured(5, *SIZE))
    exif = picture.getexif()
    exif[0x0112] = 6
    return "jpg", encoded(picture, "JPEG", exif=exif)


def bad_exif(rng: Rng) -> tuple[str, bytes]:
    suffix, data = turned(rng)
    return suffix, flipped(data, rng, 120)


def tiny(rng: Rng) -> tuple[str, bytes]:
    return "png", encoded(textured(6, *SIZE)[: int(rng.integers(1, 63))], "PNG")


@dataclass(frozen=True)
class Kind:
    """made: (suffix, bytes). usable: whether a sample must come of it; None where the bits decide."""

    made: Callable[[Rng], tuple[str, bytes]]
    usable: bool | None


KINDS = {
    "bits": Kind(bits, None),
    "header": Kind(header_bits, None),
    "truncated": Kind(truncated, None),  # a PNG or WebP may lose its last chunk and nothing of the picture
    "extension": Kind(wrong_extension, True),
    "empty": Kind(empty, False),
    "zeros": Kind(zeros, False),
    "noise": Kind(noise, None),
    "text": Kind(text, False),
    "huge": Kind(huge, False),
    "bomb": Kind(bomb, None),
    "animated": Kind(animated, False),
    "cmyk": Kind(cmyk, True),
    "sixteen": Kind(sixteen, True),
    "sixteen-cut": Kind(sixteen_cut, None),
    "alpha": Kind(alpha, True),
    "turned": Kind(turned, True),
    "aside": Kind(turned_aside, False),
    "exif": Kind(bad_exif, None),
    "tiny": Kind(tiny, False),
}


@dataclass(frozen=True)
class Corpus:
    """pairs: key -> kind. ignored: files that match nothing or lead nowhere; unpaired: pictures without a partner."""

    a: Path
    b: Path
    pairs: dict[str, str]
    ignored: int
    unpaired: int


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """COUNT pairs, one image of each corrupted, and names that are no pictures at all."""
    root = tmp_path_factory.mktemp("corrupted")
    a, b = root / "a", root / "b"
    a.mkdir()
    b.mkdir()
    whole = encoded(textured(7, *SIZE), "PNG", compress_level=1)
    pairs: dict[str, str] = {}
    for number, name in zip(range(COUNT), (list(KINDS) * COUNT), strict=False):
        rng, key = generator(number), f"{number:04d}-{name}"
        suffix, data = KINDS[name].made(rng)
        bad, good = (a, b) if rng.random() < 0.5 else (b, a)
        (bad / f"{key}.{suffix}").write_bytes(data)
        (good / f"{key}.png").write_bytes(whole)
        pairs[key] = name
    with (a / "large.png").open("wb") as file:  # sparse: the disk holds none of it
        file.truncate(MOST_BYTES + 1)
    (b / "large.png").write_bytes(whole)
    pairs["large"] = "large"
    for key in ("folder", "loop", "gone", "pipe"):
        (b / f"{key}.png").write_bytes(whole)  # without a partner
    (a / "folder.png").mkdir()
    (a / "loop.png").symlink_to(a / "other.png")
    (a / "other.png").symlink_to(a / "loop.png")
    (a / "gone.png").symlink_to(a / "nowhere.png")
    os.mkfifo(a / "pipe.png")
    (a / "below").symlink_to(a)  # a folder within itself
    (a / "notes.txt").write_text("not a picture")
    return Corpus(a, b, pairs, ignored=5, unpaired=4)  # the two of the loop, gone, pipe, notes


@dataclass(frozen=True)
class Measured:
    """What a process of its own did: exit code, output, and the most memory that it, or a worker of it, held."""

    code: int
    out: str
    err: str
    memory: int


def measured(arguments: Sequence[str | Path], cwd: Path, seconds: float = 900) -> Measured:
    """Run ``synth``; fails where it hangs, shows a traceback, or takes more than 2 GB."""
    command = [sys.executable, "-m", "clearfuse.synth.cli", *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    files = {name: (cwd / f"{name}.txt").open("w+") for name in ("out", "err")}
    process = subprocess.Popen(command, stdout=files["out"], stderr=files["err"], cwd=cwd, env=environment)
    until = time.monotonic() + seconds
    found, status, usage = os.wait4(process.pid, os.WNOHANG)
    while found == 0:
        if time.monotonic() > until:
            process.kill()
        time.sleep(0.05)
        found, status, usage = os.wait4(process.pid, os.WNOHANG)
    process.returncode = os.waitstatus_to_exitcode(status)
    texts: dict[str, str] = {}
    for name, file in files.items():
        with file:
            file.seek(0)
            texts[name] = file.read()
    assert time.monotonic() < until, "it hangs"
    assert "Traceback" not in texts["err"], texts["err"][-3000:]
    memory = usage.ru_maxrss * 1024
    print(f"{arguments[0]}: {memory >> 20} MB, {usage.ru_utime + usage.ru_stime:.1f} s of a processor")
    assert memory < MOST_MEMORY
    return Measured(process.returncode, texts["out"], texts["err"], memory)


def test_a_build_counts_every_corrupted_pair(corpus: Corpus, tmp_path: Path) -> None:
    data = f"folder={corpus.a},{corpus.b}"
    common = ["--data", data, "--split", "train,val,test", "--n", "1", "--set", "operators.rain.weight=0"]
    command = ["build", "--task", "mef", *common, "--max-rejects", "1", "--workers", "1", "--json", "--out", "out"]
    ran = measured(command, tmp_path)
    assert ran.code == 0, ran.err
    report = json.loads(ran.out)
    receipts = [json.loads(path.read_bytes()) for path in (tmp_path / "out").glob("mef-*.json")]
    rejects = {reject["pair"]: reject["reason"] for receipt in receipts for reject in receipt["rejects"]}
    assert report["failed"] == {} and report["samples"] + len(rejects) == len(corpus.pairs)
    assert sum(json.loads((tmp_path / "out/dataset.json").read_bytes())["rejects"].values()) == len(rejects)
    assert all(reason and "\n" not in reason and len(reason) < 400 for reason in rejects.values())
    for key, name in corpus.pairs.items():
        usable = False if name == "large" else KINDS[name].usable
        assert usable is None or usable == (key not in rejects), (key, rejects.get(key))
    assert f"({corpus.ignored} other files ignored)" in ran.err and f"warning: {corpus.unpaired} images" in ran.err
    count = Counter(corpus.pairs[key] for key in rejects)
    print(f"{report['samples']} samples, {len(rejects)} rejects: {dict(sorted(count.items()))}")


def test_degrade_counts_every_corrupted_image(corpus: Corpus, tmp_path: Path) -> None:
    names = sorted(path.name for path in corpus.a.iterdir() if path.is_file())
    ran = measured(["degrade", *names, "--op", "jpeg", "--out", tmp_path / "out", "--json"], corpus.a)
    pictures = len(list((tmp_path / "out").iterdir()))
    assert ran.code == 1 and pictures > 0
    assert f"synth: error: {len(names) - pictures} of {len(names)} images could not be used: " in ran.err


def test_what_is_refused_is_refused_by_its_header(tmp_path: Path) -> None:
    for number in range(40):
        suffix, data = huge(generator(number))
        (tmp_path / f"x.{suffix}").write_bytes(data)
        with pytest.raises(BadPair, match=r"too many pixels: at most 67108864 are read|is not an image"):
            decode(str(tmp_path / f"x.{suffix}"))
    (tmp_path / "film.png").write_bytes(animated(generator(1))[1])
    with pytest.raises(BadPair, match=r"film\.png: is animated: 3 frames, where one is wanted"):
        decode(str(tmp_path / "film.png"))


SPOILT_RECEIPTS: list[Callable[[dict[str, Any]], Any]] = [
    lambda receipt: [],
    lambda receipt: None,
    lambda receipt: receipt | {"bytes": str(receipt["bytes"])},
    lambda receipt: receipt | {"samples": -1},
    lambda receipt: receipt | {"samples": receipt["samples"] + 1},
    lambda receipt: receipt | {"offsets": list(receipt["offsets"])},
    lambda receipt: receipt | {"offsets": {key: at + 512 for key, at in receipt["offsets"].items()}},
    lambda receipt: receipt | {"offsets": {}},
    lambda receipt: receipt | {"sha256": None},
    lambda receipt: receipt | {"sha256": "0" * 64},
    lambda receipt: receipt | {"digest": 7},
    lambda receipt: receipt | {"settings": receipt["settings"] | {"seed": 99}},
    lambda receipt: receipt | {"settings": 0},
    lambda receipt: receipt | {"schema": "1"},
    lambda receipt: receipt | {"schema": 99},
    lambda receipt: receipt | {"shard": "vif-train-999999.tar"},
    lambda receipt: receipt | {"rejects": 3},
    *((lambda receipt, name=name: {k: v for k, v in receipt.items() if k != name}) for name in ("sha256", "offsets")),
]


def test_verify_names_every_corrupted_shard(tmp_path: Path) -> None:
    for number in range(4):  # three of them are in train
        save(tmp_path / f"a/{number}.png", textured(number, *SIZE))
        save(tmp_path / f"b/{number}.png", textured(9 + number, *SIZE))
    out = tmp_path / "out"
    data = f"folder={tmp_path / 'a'},{tmp_path / 'b'}"
    sets = [f"operators.{name}.weight=0" for name in ("rain", "haze")]
    build("mef", data=data, out=out, n="1", executor="serial", sets=sets)
    index = json.loads((out / "dataset.json").read_bytes())
    name = max(index["shards"], key=lambda shard: shard["samples"])["shard"]
    listed = next(shard for shard in index["shards"] if shard["shard"] == name)
    tar, receipt = (out / name).read_bytes(), json.loads((out / name).with_suffix(".json").read_bytes())
    folder, split = tmp_path / "spoilt", name.rpartition("-")[0]
    folder.mkdir()
    shards: list[dict[str, Any]] = []
    whole: set[str] = set()
    for number in range(COUNT):
        rng, own = generator(1000 + number), f"{split}-{number:06d}.tar"
        shards.append(listed | {"shard": own})
        told: Any = receipt | {"shard": own}
        content, written = tar, None
        kind = number % 8
        if kind == 0:
            whole.add(own)
        elif kind in (1, 2):
            content = flipped(tar, rng, 1536 if kind == 1 else None)
        elif kind == 3:
            content = tar[: int(rng.integers(0, len(tar)))]
        elif kind == 4:
            content = bytes(len(tar)) if rng.random() < 0.5 else rng.bytes(len(tar))
        elif kind == 5:
            told = SPOILT_RECEIPTS[number // 8 % len(SPOILT_RECEIPTS)](told)
        elif kind == 6:
            written = json.dumps(told).encode()[: int(rng.integers(0, 300))]
        else:
            written = b"[" * 100_000 if rng.random() < 0.5 else rng.bytes(300)
        (folder / own).write_bytes(content)
        (folder / own).with_suffix(".json").write_bytes(json.dumps(told).encode() if written is None else written)
    (folder / "dataset.json").write_text(json.dumps(index | {"shards": shards}))
    ran = measured(["verify", folder, "--replay", "--workers", "1", "--json"], tmp_path)
    report = json.loads(ran.out)
    assert (ran.code, report["ok"]) == (1, False)
    named = {
        own
        for shard in shards
        if any((own := shard["shard"]) in line or own[:-4] in line for line in report["problems"])
    }
    assert named == {shard["shard"] for shard in shards} - whole
    assert all("\n" not in line for line in report["problems"])
    for spoilt in ("[]", '{"schema": 1', "[" * 100_000, *(json.dumps(index | {"shards": x}) for x in (3, [7], [{}]))):
        (folder / "dataset.json").write_text(spoilt)
        (problem,) = check_folder(folder)
        assert problem.startswith(f"{folder / 'dataset.json'}: ") and "\n" not in problem
