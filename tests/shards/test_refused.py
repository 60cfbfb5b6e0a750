"""Tars and pictures in them that say what cannot be: each is refused at once, in little memory, by file and member."""

from __future__ import annotations

import io
import os
import struct
import tarfile
import time
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from clearfuse.synth.files.pictures import MOST_PIXELS
from clearfuse.synth.shards.codecs import CODECS, _jxl_size
from clearfuse.synth.shards.find import find_shards
from clearfuse.synth.shards.tar import MOST_BYTES, MOST_MEMBERS, MOST_SAMPLE_BYTES, read_members, read_shard, read_spans
from clearfuse.synth.types import UserError

MEMBER = "000000000.json"


def header(
    size: bytes, kind: bytes = b"0", name: str = MEMBER, magic: bytes = b"ustar\x0000", more: bytes = b""
) -> bytes:
    """A header of a tar with any size field and type."""
    block = bytearray(512)
    block[: len(name)] = name.encode()
    block[100:108], block[108:116], block[116:124] = b"0000644\0", b"0000000\0", b"0000000\0"
    block[124:136], block[136:148] = size.ljust(12, b"\0"), b"00000000000\0"
    block[148:156], block[156:157], block[257:265] = b" " * 8, kind, magic
    block[386 : 386 + len(more)] = more
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def octal(size: int) -> bytes:
    return b"%011o\0" % size


def binary(size: int) -> bytes:
    return (b"\xff" if size < 0 else b"\x80") + size.to_bytes(11, "big", signed=True)


def sparse(size: int) -> bytes:
    """A GNU member that is one hole."""
    more = (octal(0) * 2).ljust(97, b"\0") + binary(size)
    return header(octal(0), b"S", magic=b"ustar  \0", more=more)


def pax(records: bytes, size: bytes | None = None) -> bytes:
    """A member with an extended header."""
    said = header(size or octal(len(records)), b"x", "x")
    return said + records.ljust(-(-len(records) // 512) * 512, b"\0") + header(octal(2)) + b"{}".ljust(512, b"\0")


END = bytes(1024)
WRONG = {
    "negative": header(b"-0000001000\0"),
    "negative in binary": header(binary(-1024)),
    "negative, of a folder": header(binary(-512), b"5"),
    "negative, of an unknown type": header(binary(-512), b"Z"),
    "negative, of a long name": header(binary(-512), b"L"),
    "negative, of an extended header": pax(b"", binary(-512)),
    "negative, by an extended header": pax(b"14 size=-1024\n"),
    "not a number, by an extended header": pax(b"18 GNU.sparse.size=x\n"),
    "absurd": header(binary(1 << 80)),
    "absurd, of an unknown type": header(binary(1 << 80), b"Z"),
    "beyond the end": header(octal(5000)),
    "holes": sparse(20 << 30),
    "holes by a map": pax(b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n"),
    "a path from the root": header(octal(0), name="/000000000.json"),
    "a path upwards": header(octal(0), name="../000000000.json"),
    "a path upwards from a folder": header(octal(0), name="x/../../000000000.json"),
    "nested long names": (header(octal(4), b"L", "././@LongLink") + b"name".ljust(512, b"\0")) * 4000,
}


@pytest.mark.parametrize("name", WRONG)
def test_headers_that_cannot_be_are_refused_at_once(tmp_path: Path, name: str) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(WRONG[name] + END)
    _refused(lambda: list(read_shard(path)), r"x\.tar: not a whole tar")
    _refused(lambda: read_spans(path), "not a whole shard")


def _refused(read: Callable[[], object], match: str) -> None:
    started = time.monotonic()
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=match):
            read()
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("start", "match"),
    [
        (header(octal(MOST_BYTES + 1)), f"{MEMBER} has {MOST_BYTES + 1} bytes: at most"),
        (header(octal(4 << 30), b"L", "././@LongLink"), "has no end"),
        (header(octal(4 << 30), b"x", "x"), "has no end"),
    ],
)
def test_a_large_file_of_zeros_is_not_read(tmp_path: Path, start: bytes, match: str) -> None:
    path = tmp_path / "x.tar"
    with path.open("wb") as file:  # the disk holds none of it
        file.write(start)
        file.truncate(6 << 30)
    _refused(lambda: list(read_shard(path)), match)
    _refused(lambda: read_spans(path), match)


def test_samples_have_a_bound(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    with path.open("wb") as file:
        for member in range(9):
            file.seek(member * (512 + MOST_BYTES))
            file.write(header(octal(MOST_BYTES), name=f"000000000.{member}"))
        file.truncate(MOST_SAMPLE_BYTES + 20 * 512)
    _refused(lambda: read_spans(path), f"sample 000000000 has more than {MOST_SAMPLE_BYTES} bytes up to 000000000.7")


def test_many_members_take_linear_time() -> None:
    def tar(count: int, name: Callable[[int], str]) -> io.BytesIO:
        return io.BytesIO(b"".join(header(octal(0), name=name(at)) for at in range(count)) + END)

    one = tar(30_000, lambda at: f"000000000.{at}")
    _refused(lambda: list(read_members(one)), f"sample 000000000 has more than {MOST_MEMBERS} members")
    assert len(list(read_members(tar(20_000, lambda at: f"{at}.txt")))) == 20_000


def test_tars_of_others_are_read(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name in ("000000000.json", "000000000." + "x" * 120):
            info = tarfile.TarInfo(name)
            info.size, info.mtime = 3, 1.5  # type: ignore[assignment]  # as webdataset writes it: an extended header
            tar.addfile(info, io.BytesIO(b"abc"))
    assert list(read_shard(path)) == [("000000000", {"json": b"abc", "x" * 120: b"abc"})]
    assert [len(span.members) for span in read_spans(path)] == [2]


def png(width: int, height: int) -> bytes:
    """The header of a PNG, and no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    said = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", said) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def webp(kind: bytes, body: bytes) -> bytes:
    return b"RIFF\0\0\0\0WEBP" + kind + len(body).to_bytes(4, "little") + body.ljust(16, b"\0")


SIDE = 16000
BOMBS = {
    "png": png(SIDE, SIDE),
    "pnm": f"P6\n{SIDE} {SIDE}\n255\n".encode(),
    "webp": webp(b"VP8L", b"\x2f" + ((SIDE - 1) | (SIDE - 1) << 14).to_bytes(4, "little")),
    "webp, extended": webp(b"VP8X", bytes(4) + (SIDE - 1).to_bytes(3, "little") * 2),
    "webp, lossy": webp(b"VP8 ", b"\0\0\0\x9d\x01\x2a" + SIDE.to_bytes(2, "little") * 2),
}


@pytest.mark.parametrize("name", BOMBS)
def test_too_many_pixels_are_refused_by_the_header(name: str) -> None:
    decode = CODECS[name.partition(",")[0]].decode
    _refused(lambda: decode(BOMBS[name]), f"{SIDE}x{SIDE} has too many pixels: at most {MOST_PIXELS} are read")


@pytest.mark.parametrize("name", ["webp", "png", "pnm"])
def test_a_codec_reads_its_own_format_alone(name: str) -> None:
    with pytest.raises(ValueError, match=r"^no "):
        CODECS[name].decode(b"BM" + bytes(200))


def test_jpeg_xl_says_its_size() -> None:
    def bits(*fields: tuple[int, int]) -> bytes:
        value, at = 0, 0
        for number, count in fields:
            value, at = value | number << at, at + count
        return b"\xff\x0a" + value.to_bytes(12, "little")

    assert _jxl_size(bits((1, 1), (3, 5), (0, 3), (4, 5))) == (40, 32)
    assert _jxl_size(bits((0, 1), (2, 2), (21999, 18), (1, 3))) == (22000, 22000)
    boxes = b"\0\0\0\x0cJXL \r\n\x87\n" + b"\0\0\0\x14ftypjxl \0\0\0\0jxl " + b"\0\0\0\0jxlc"
    assert _jxl_size(boxes + bits((0, 1), (0, 2), (99, 9), (0, 3), (1, 2), (999, 13))) == (1000, 100)
    free = b"\0\0\0\x12freejxlc" + b"\xff\x0a" + bytes(4)
    parts = boxes[:32] + free + b"\0\0\0\0jxlp\0\0\0\0" + bits((0, 1), (2, 2), (21999, 18), (1, 3))
    assert _jxl_size(parts) == (22000, 22000)
    with pytest.raises(ValueError, match="no JPEG XL image"):
        _jxl_size(png(8, 8))


def test_pipes_and_links_to_nothing_are_no_shards(tmp_path: Path) -> None:
    pipe, link = tmp_path / "a/x.tar", tmp_path / "b/x.tar"
    for path in (pipe, link):
        path.parent.mkdir()
    os.mkfifo(pipe)
    link.symlink_to("gone.tar")
    for named in (pipe, pipe.parent, tmp_path / "?" / "x.tar"):
        with pytest.raises(UserError, match=r"x\.tar: is a pipe or a device, no shard"):
            find_shards([str(named)])
    for named in (link, link.parent):
        with pytest.raises(UserError, match=r"x\.tar: is a link to gone\.tar, which is not there"):
            find_shards([str(named)])


def test_what_a_killed_build_left_is_no_shard(tmp_path: Path) -> None:
    left = tmp_path / ".tmp-9-deadbeef-vif-train-000000.tar"
    left.write_bytes(END)
    for named in (str(left), f"{tmp_path}/.tmp-{{9,10}}-deadbeef-vif-train-000000.tar"):
        with pytest.raises(UserError, match="is what a killed build left, no shard; remove it"):
            find_shards([named])
    with pytest.raises(UserError, match="matches no shard"):
        find_shards([f"{tmp_path}/.tmp-*"])
