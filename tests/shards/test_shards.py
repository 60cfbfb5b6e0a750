"""Samples and shards: the round trip, bytes without times or owners, and damage that is named."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from clearfuse.synth.files.storage import landing
from clearfuse.synth.shards.codecs import CODECS, find_codec
from clearfuse.synth.shards.records import Origin
from clearfuse.synth.shards.sample import Sample, decode_sample, encode_sample, read_samples
from clearfuse.synth.shards.tar import read_shard, write_shard
from clearfuse.synth.types import UserError
from conftest import changed, sample_meta, textured

CODECS_HERE = ["webp", "png", "pnm"]


def sample(key: str = "000000003") -> Sample:
    """A small sample with depth and a grey b."""
    grey = textured(1, 64, 64, channels=1)
    images = {
        "a": textured(2, 64, 64),
        "b": grey,
        "clean_a": textured(3, 64, 64),
        "clean_b": grey,
        "gt": textured(4, 64, 64),
    }
    depth = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
    return Sample(
        key,
        images,
        depth,
        "Clear the haze.",
        sample_meta(depth=Origin(name="true", weights=None)),
    )


@pytest.mark.parametrize("codec", CODECS_HERE)
def test_a_sample_survives_its_codec(codec: str) -> None:
    before = sample()
    members = encode_sample(before, CODECS[codec])
    assert list(members) == [
        *(f"{n}.{codec}" for n in ("a", "b", "clean_a", "clean_b", "gt")),
        "depth.png",
        "txt",
        "json",
    ]
    after = decode_sample(before.key, members)
    assert all(np.array_equal(after.images[name], before.images[name]) for name in before.images)
    assert after.depth is not None and np.array_equal(after.depth, before.depth)
    assert after.prompt == before.prompt and after.meta == before.meta


@pytest.mark.parametrize("codec", CODECS_HERE)
@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 1, 1), (17, 5, 3), (3, 40, 1)])
def test_codecs_are_lossless(codec: str, shape: tuple[int, int, int]) -> None:
    image = np.random.Generator(np.random.Philox(3)).integers(0, 256, shape, dtype=np.uint8)
    back = CODECS[codec].decode(CODECS[codec].encode(image))
    expected = image if CODECS[codec].grey else np.broadcast_to(image, (*shape[:2], 3))
    assert np.array_equal(back, expected)


def test_bytes_depend_on_the_samples_alone(tmp_path: Path) -> None:
    content = [("000000000", encode_sample(sample(), CODECS["webp"])), ("000000001", {"txt": b"x"})]
    first = write_shard(tmp_path / "one.tar", content)
    second = write_shard(tmp_path / "two.tar", content)
    assert first == second
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    with tarfile.open(tmp_path / "one.tar") as tar:
        for info in tar:
            assert (info.mtime, info.uid, info.gid, info.uname, info.gname) == (0, 0, 0, "", "")


def test_offsets_point_at_the_samples(tmp_path: Path) -> None:
    facts = write_shard(tmp_path / "x.tar", [("000000000", {"txt": b"a" * 700}), ("000000007", {"txt": b"b"})])
    data = (tmp_path / "x.tar").read_bytes()
    assert facts.size == len(data)
    for key, offset in facts.offsets.items():
        with tarfile.open(fileobj=io.BytesIO(data[offset:])) as tar:
            first = tar.next()
            assert first is not None and first.name == f"{key}.txt"


@pytest.mark.parametrize("keep", [300, 1500, 5000])
def test_a_truncated_tar_is_named(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "x.tar"
    write_shard(path, [("000000000", {"a.png": bytes(2000), "txt": b"x" * 3000}), ("000000001", {"txt": b"y"})])
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"x\.tar"):
        list(read_shard(path))


def test_missing_and_damaged_members_are_named() -> None:
    members = encode_sample(sample(), CODECS["png"])
    without = {name: data for name, data in members.items() if name != "gt.png"}
    with pytest.raises(ValueError, match="sample 000000003: member gt is missing"):
        decode_sample("000000003", without)
    with pytest.raises(ValueError, match="sample 000000003: b does not decode"):
        decode_sample("000000003", members | {"b.png": members["b.png"][:60]})


def test_a_higher_schema_is_refused() -> None:
    members = encode_sample(sample(), CODECS["png"])
    meta = json.loads(members["json"]) | {"schema": 2}
    with pytest.raises(ValueError, match=r"schema 2 is newer than this version reads \(1\)"):
        decode_sample("000000003", members | {"json": json.dumps(meta).encode()})


def test_a_file_lands_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "x.bin"
    with pytest.raises(RuntimeError, match="stop"), landing(target) as file:
        file.write(b"half")
        raise RuntimeError("stop")
    assert list(tmp_path.iterdir()) == []
    with landing(target) as file:
        file.write(b"whole")
    assert [path.name for path in tmp_path.iterdir()] == ["x.bin"]


# webdataset leaves the open tar to the collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_and_pillow_read_a_shard_without_our_code(tmp_path: Path) -> None:
    import webdataset
    from PIL import Image

    before = sample()
    path = tmp_path / "vif-train-000000.tar"
    write_shard(path, [(before.key, encode_sample(before, CODECS["webp"]))])
    dataset = webdataset.WebDataset(str(path), shardshuffle=False).decode("pil")  # type: ignore[attr-defined]
    (read,) = list(dataset)
    assert read["__key__"] == before.key and read["txt"] == before.prompt
    assert np.array_equal(np.asarray(read["gt.webp"]), before.images["gt"])
    with tarfile.open(path) as tar:
        member = tar.extractfile("000000003.clean_a.webp")
        assert member is not None
        assert np.array_equal(np.asarray(Image.open(member).convert("RGB")), before.images["clean_a"])
    assert [s.key for s in read_samples(path)] == [before.key]


def test_unknown_codec_names_the_nearest() -> None:
    with pytest.raises(UserError, match="unknown codec 'wepb': did you mean 'webp'"):
        find_codec("wepb")


@pytest.mark.parametrize("codec", CODECS_HERE)
def test_damaged_images_do_not_decode(codec: str) -> None:
    data = CODECS[codec].encode(textured(5))
    for damaged in (data[: len(data) // 2], data[:4], b"", b"x" + data):
        with pytest.raises((ValueError, OSError, cv2.error)):
            CODECS[codec].decode(damaged)


def test_a_missing_extra_names_its_pip_line() -> None:
    try:
        import imagecodecs  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError:
        with pytest.raises(UserError, match=r"pip install 'clearfuse\[jxl\]'"):
            find_codec("jxl")
    else:
        image = textured(5)
        assert np.array_equal(CODECS["jxl"].decode(CODECS["jxl"].encode(image)), image)


def test_a_sample_without_depth_has_the_same_members() -> None:
    from dataclasses import replace

    with_depth = sample()
    without = replace(changed(with_depth, depth=None), depth=None)
    members = encode_sample(without, CODECS["webp"])
    assert list(members) == list(encode_sample(with_depth, CODECS["webp"]))
    assert len(members["depth.png"]) < 1000
    assert decode_sample("000000003", members).depth is None
