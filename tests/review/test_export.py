"""Shards in the layout of the MMAIF authors: written, found and read where they lie, and what is wrong with them."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clearfuse.synth.builder.run import build
from clearfuse.synth.datasets.find import find_all
from clearfuse.synth.datasets.manifest import load_manifest
from clearfuse.synth.datasets.mmaif import Info, operator_of
from clearfuse.synth.datasets.read import read_pair
from clearfuse.synth.files import archives
from clearfuse.synth.review.export import as_jpeg, export, key_of
from clearfuse.synth.review.verify import verify
from clearfuse.synth.shards.codecs import CODECS
from clearfuse.synth.shards.sample import Sample, encode_sample, read_samples
from clearfuse.synth.shards.tar import write_shard
from clearfuse.synth.types import BadPair, PairRef, Step, UserError
from conftest import Ran, sample_meta, textured

STEPS = (Step("haze", "a", {}, 1, 0.5), Step("gaussian_noise", "both", {}, 2, None))
PROMPT = "Clear the haze, 并去除噪声."


def ours(folder: Path, pairs: int = 3, variants: int = 2, **fields: Any) -> Path:
    """A folder with one shard of ours, every pair in two variants."""
    samples: list[tuple[str, Mapping[str, bytes]]] = []
    for number in range(pairs * variants):
        colour, grey = textured(number, 96, 64), textured(number + 50, 96, 64, 1)
        images = {"a": colour, "b": grey, "clean_a": colour, "clean_b": grey, "gt": colour}
        meta = sample_meta(
            dataset="msrs",
            pair=f"000{number % pairs}N.x",
            variant=number // pairs,
            crop=(0, 0, 96, 64),
            **{"channels": {"a": 3, "b": 1, "gt": 3}, "n": 2, "steps": STEPS, **fields},
        )
        key = f"{number:09d}"
        samples.append((key, encode_sample(Sample(key, images, None, PROMPT, meta), CODECS["png"])))
    folder.mkdir(parents=True, exist_ok=True)
    write_shard(folder / "vif-train-000000.tar", samples)
    return folder


def found(folder: Path, name: str = "mmaif") -> list[PairRef]:
    return list(find_all(load_manifest(name), str(folder), "vif").pairs)


def info_of(tar: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    """Change every info.json of a tar."""
    with tarfile.open(tar) as file:
        held = [(one.name, file.extractfile(one).read()) for one in file]  # type: ignore[union-attr]
    with tarfile.open(tar, "w") as file:
        for name, data in held:
            data = json.dumps(edit(json.loads(data))).encode() if name.endswith("info.json") else data
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            file.addfile(entry, io.BytesIO(data))
    archives._members.cache_clear()


def test_a_round_trip(tmp_path: Path) -> None:
    shards, out = ours(tmp_path / "ours"), tmp_path / "theirs"
    assert export([str(shards)], str(out), "mmaif", quality=95).samples == 6
    assert {path.name for path in tmp_path.iterdir()} == {"ours", "theirs"}
    with tarfile.open(out / "0000.tar") as file:
        names = file.getnames()
        info = json.loads(file.extractfile(names[0]).read())  # type: ignore[union-attr]
    ends = ["info.json", "m1_clean.jpg", "m2_clean.jpg", "m1_degraded.jpg", "m2_degraded.jpg", "gt.jpg"]
    assert names[:6] == [f"msrs_0000N_x.{end}" for end in ends] and len(names) == 36
    assert (info["degrations"], info["instruction"]) == (["haze", "gaussian noise"], PROMPT)
    assert (info["H"], info["W"]) == (96, 64)  # as theirs has them
    refs = found(out)
    assert len(refs) == len({ref.key for ref in refs}) == 6
    assert {ref.scene for ref in refs} == {f"mmaif/msrs_000{k}N_x" for k in range(3)}
    assert len({(ref.scene, ref.split) for ref in refs}) == 3, "a scene is in one split, however often it comes"
    for number, ref in enumerate(sorted(refs, key=lambda ref: ref.key[-6:])):
        pair = read_pair(ref)
        assert pair.degradation == (("haze", "a"), ("gaussian_noise", "both")) and pair.instruction == PROMPT
        for image, seed, channels in ((pair.a, number, 3), (pair.degraded["b"], number + 50, 1)):
            difference = image.astype(float) - textured(seed, 96, 64, channels)
            assert image.shape == (64, 96, channels) and np.sqrt((difference**2).mean()) < 12
    assert all(not ref.predegraded for ref in found(out, "mmaif-clean"))


@pytest.mark.slow
def test_theirs_is_a_source_of_a_build_and_of_training(tmp_path: Path, synth: Callable[..., Ran]) -> None:
    ran = synth("export", ours(tmp_path / "ours"), "--format", "mmaif", "--out", tmp_path / "theirs", "--json")
    assert ran.code == 0 and json.loads(ran.out) == {"samples": 6, "shards": 1}
    usual: dict[str, Any] = {"workers": 1, "executor": "serial", "codec": "png", "split": "train,val,test"}
    splits = sorted({ref.split for ref in found(tmp_path / "theirs")})
    usual["split"] = ",".join(splits)
    build("vif", data=f"mmaif={tmp_path / 'theirs'}", out=str(tmp_path / "given"), **usual)
    samples = [s for path in sorted((tmp_path / "given").glob("*.tar")) for s in read_samples(path)]
    assert len(samples) == 6 and verify([str(tmp_path / "given")], workers=1).ok
    for sample in samples:
        assert sample.prompt == PROMPT and sample.meta.given and sample.meta.prompt.asked == (0, 1)
        assert [(step.op, step.target) for step in sample.meta.steps] == [("haze", "a"), ("gaussian_noise", "both")]
    build("vif", data=f"mmaif-clean={tmp_path / 'theirs'}", out=str(tmp_path / "anew"), limit=2, depth="prior", **usual)
    with pytest.raises(UserError, match="holds the pictures of 'mmaif' in another form"):
        build("vif", data=[f"{n}={tmp_path / 'theirs'}" for n in ("mmaif", "mmaif-clean")], out=str(tmp_path / "both"))


def test_their_own_info_names_degradations_alone(tmp_path: Path) -> None:
    export([str(ours(tmp_path / "ours", 1, 1))], str(tmp_path / "out"), "mmaif")
    theirs = {"degrations": ["gaussian noise", "Snow", "unheard of"], "instruction": " Denoise ", "H": 1, "psnr": [1.0]}
    info_of(tmp_path / "out/0000.tar", lambda _: theirs)
    (ref,) = found(tmp_path / "out")
    pair = read_pair(ref)
    assert (pair.degradation, pair.instruction) == ((("snow", "a"), ("gaussian_noise", "both")), "Denoise")
    info_of(tmp_path / "out/0000.tar", lambda _: {"degrations": 3})
    with pytest.raises(BadPair, match=r"info\.json: degrations"):
        read_pair(ref)
    assert Info(degrations="haze").degradation("mef") == (("haze", "both"),)
    assert [operator_of(name) for name in ("JPEG compression", "low light", "authors:haze", "?")] == [
        *("jpeg", "low_exposure", "haze", None)
    ]


def test_a_key_never_follows_itself_and_tars_are_cut(tmp_path: Path) -> None:
    shards = ours(tmp_path / "ours", 1, 3)
    assert export([str(shards)], str(tmp_path / "same"), "mmaif").shards == 3
    assert len(found(tmp_path / "same")) == 3
    size = len(as_jpeg(textured(0, 96, 64), 75))
    cut = export([str(ours(tmp_path / "more", 4, 1))], str(tmp_path / "cut"), "mmaif", most_bytes=8 * size)
    assert cut.shards > 1 and len(found(tmp_path / "cut")) == 4
    long = Sample("0", {}, None, "", sample_meta(dataset="folder", pair="x/ü" * 99))
    assert len(key_of(long)) < 80 and key_of(long).isascii()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--format", "mmaiv"), "unknown format 'mmaiv': did you mean 'mmaif'? allowed: mmaif"),
        (("--format", "mmaif", "--quality", "0"), "--quality 0: must be in [1, 100]"),
    ],
)
def test_wrong_arguments(synth: Callable[..., Ran], tmp_path: Path, args: tuple[str, ...], message: str) -> None:
    ran = synth("export", ours(tmp_path / "ours", 1, 1), "--out", tmp_path / "out", *args)
    assert (ran.code, ran.error) == (2, f"synth: error: {message}") and not (tmp_path / "out").exists()


def test_what_cannot_be_exported_leaves_nothing(tmp_path: Path) -> None:
    shards = ours(tmp_path / "ours", 1, 1)
    (tmp_path / "there").mkdir()
    (tmp_path / "there/file").touch()
    with pytest.raises(UserError, match="is there already"):
        export([str(shards)], str(tmp_path / "there"), "mmaif")
    tar = shards / "vif-train-000000.tar"
    tar.write_bytes(tar.read_bytes()[:5000])
    with pytest.raises(UserError, match=r"vif-train-000000\.tar.*see synth verify"):
        export([str(shards)], str(tmp_path / "out"), "mmaif")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ours", "there"]


def test_tars_that_are_damaged(tmp_path: Path) -> None:
    export([str(ours(tmp_path / "ours", 2, 1))], str(tmp_path / "out"), "mmaif")
    path = tmp_path / "out/0000.tar"
    whole = path.read_bytes()
    (first, *_) = found(tmp_path / "out")
    assert archives.read_member(first.sources["a"].replace("m1_clean", "m9_clean")) is None
    with pytest.raises(BadPair, match="is not in its tar"):
        read_pair(PairRef("vif", "mmaif", "x", "x", "train", {"a": f"{path}/x-0000000000.m1_clean.jpg", "b": "x"}))
    for cut in (whole[: len(whole) // 2], b"no tar at all" * 100):
        path.write_bytes(cut)
        archives._members.cache_clear()
        with pytest.raises(UserError, match=r"^0000\.tar: not a whole tar: "):
            found(tmp_path / "out")
    (tmp_path / "dir.tar").mkdir()
    assert not archives.is_member(str(tmp_path / "dir.tar/x.png")) and archives.is_member(first.sources["a"])
