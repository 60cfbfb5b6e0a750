"""The readers of outside data, each with what a command does with its input, and the valid inputs to mutate."""

from __future__ import annotations

import io
import json
import tarfile
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jits import cosmos
from PIL import Image
from tiny import small
from torch import nn

from clearfuse.synth.builder.run import build
from clearfuse.synth.datasets.find import find_all
from clearfuse.synth.datasets.manifest import load_manifest
from clearfuse.synth.files.checkpoints import load_into
from clearfuse.synth.files.resources import resource_dir
from clearfuse.synth.review.inspection import inspect
from clearfuse.synth.review.preview import degrade_files
from clearfuse.synth.review.verify import verify
from clearfuse.synth.samples.draw import draw_crop, draw_steps
from clearfuse.synth.samples.recipe import load_recipe
from clearfuse.synth.seeds import generator
from clearfuse.synth.shards.tar import read_shard, write_shard
from clearfuse.synth.types import TASKS, UserError, WorkIncomplete
from clearfuse.train.data.batch import UnreadableSample
from clearfuse.train.data.corpus import index
from clearfuse.train.data.degrade import choose_degraders
from clearfuse.train.data.samples import Samples
from clearfuse.train.designs.design import Assembly
from clearfuse.train.designs.folder import save
from clearfuse.train.evaluation.samples import cut, plan_portions
from clearfuse.train.pipeline.fusion import FusionPipeline
from clearfuse.train.weights.tensors import write_tensors
from clearfuse.train.weights.torchscript import read_archive
from conftest import save as save_picture
from conftest import textured
from faults.fuzz.guard import check_line
from faults.fuzz.mutate import MAGIC, mutate_bytes, mutate_value, pick, to_json, to_toml

Rng = np.random.Generator
SHARD = "vif-train-000000.tar"


@dataclass(frozen=True)
class Target:
    """A reader. make: the name of a file, and an input for it, from a generator; use: what a command does with it."""

    make: Callable[[Rng], tuple[str, bytes]]
    use: Callable[[Path], object]


def tar(folder: Path) -> Target:
    """Shards, for ``train fit`` and ``eval``, ``synth inspect`` and ``verify``: bytes, headers, members, order."""
    seeds = [shard.read_bytes() for shard in _shards(folder)]
    samples = [list(read_shard(shard)) for shard in _shards(folder)]

    def make(rng: Rng) -> tuple[str, bytes]:
        match int(rng.integers(4)):
            case 0:
                return SHARD, _mutated_headers(rng, pick(rng, seeds))
            case 1:
                return SHARD, _generated_tar(rng)
            case 2:
                members = [(f"{key}.{name}", data) for key, held in pick(rng, samples) for name, data in held.items()]
                return SHARD, _shuffled_tar(rng, members)
            case _:
                return SHARD, mutate_bytes(rng, pick(rng, seeds))

    return Target(make, _use_shard)


def sample_json(folder: Path) -> Target:
    """The ``json`` of a sample, for the same commands and for ``synth verify --replay``."""
    samples = [list(read_shard(shard)) for shard in _shards(folder)]
    where = folder / SHARD

    def make(rng: Rng) -> tuple[str, bytes]:
        held = [(key, dict(members)) for key, members in pick(rng, samples)]
        members = pick(rng, held)[1]
        meta = json.loads(members["json"])
        members["json"] = mutate_bytes(rng, members["json"]) if rng.random() < 0.2 else to_json(mutate_value(rng, meta))
        write_shard(where, held)
        return SHARD, where.read_bytes()

    return Target(make, lambda path: _use_shard(path, replay=True))


def picture(folder: Path) -> Target:
    """Pictures in every form that is read, for ``synth degrade`` and as visible and infrared images of pairs."""
    seeds = _pictures()

    def make(rng: Rng) -> tuple[str, bytes]:
        suffix, data = pick(rng, seeds)
        if rng.random() < 0.1:  # the header of one form, and any bytes after it
            return f"x.{suffix}", data[: int(rng.integers(4, 60))] + rng.bytes(int(rng.integers(0, 3000)))
        return f"x.{suffix}", mutate_bytes(rng, data)

    def use(path: Path) -> None:
        for modality in ("visible", "infrared"):
            out = str(path.parent / "out")
            options: dict[str, Any] = {"severity": 0.5, "seed": 0, "depth": "prior", "modality": modality}
            degrade_files([str(path)], "gaussian_noise", out, **options)

    return Target(make, use)


def pipeline_json(folder: Path) -> Target:
    """``pipeline.json`` beside whole weights, for ``train fuse``: read, and built."""
    seeds: list[tuple[Any, bytes]] = []
    for number, (flow, guess) in enumerate([(False, False), (True, False), (False, True)]):
        design = _pipeline(folder / f"model{number}", flow, guess) / "pipeline.json"
        seeds.append((json.loads(design.read_bytes()), design.with_name("model.safetensors").read_bytes()))

    def make(rng: Rng) -> tuple[str, bytes]:
        design, weights = pick(rng, seeds)
        (folder / "model.safetensors").write_bytes(weights)
        if rng.random() < 0.2:
            return "pipeline.json", mutate_bytes(rng, to_json(design))
        return "pipeline.json", to_json(mutate_value(rng, design))

    def use(path: Path) -> None:
        (path.parent / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
        FusionPipeline.from_pretrained(path.parent)

    return Target(make, use)


def recipe(folder: Path) -> Target:
    """Recipes, for ``synth build``: read, and steps and crops drawn by those that are accepted."""
    seeds = [tomllib.loads(path.read_text()) for path in resource_dir("manifests/recipes").glob("*.toml")]

    def make(rng: Rng) -> tuple[str, bytes]:
        return "mine.toml", _toml(rng, pick(rng, seeds))

    def use(path: Path) -> None:
        read = load_recipe(path)
        for number in range(3):
            rng = generator(number)
            draw_steps(read, rng, lambda step: step, number)
            draw_crop(read, 640, 480, rng)

    return Target(make, use)


def manifest(folder: Path) -> Target:
    """Manifests, for ``synth build --data``: read, and a folder searched by their templates."""
    seeds = [tomllib.loads(path.read_text()) for path in resource_dir("manifests/datasets").glob("*.toml")]
    data = folder / "data"
    for split in ("train", "test"):
        for image in ("vi", "ir", "under", "over"):
            for number in range(3):
                save_picture(data / split / image / f"{number:05d}D.png", textured(number, 24, 16))
    long = data / "train/vi" / f"{'a_1-' * 50}.png"
    long.write_bytes((data / "train/vi/00000D.png").read_bytes())

    def make(rng: Rng) -> tuple[str, bytes]:
        if rng.random() < 0.5:
            page = pick(rng, seeds)
        else:  # one that fits the folder
            name = pick(rng, ("vi", "{vi|ir|vis}", "v*"))
            page = {"schema": 1, "task": "vif", "a": f"{{split}}/{name}/{{key}}.png", "b": "{split}/ir/{key}.*"}
            page |= {"splits": {"train": "train", "test": "test"}, "scene": "{key[:3]}", "exclude": ["00001D"]}
        if rng.random() < 0.3:
            pieces = ("{key}", "{split}", "*", "{part}", "/", "_", ".png", ".*", "{a|b}", "{|_x}", "train", "vi", "{")
            template = ["".join(pick(rng, pieces) for _ in range(int(rng.integers(2, 12)))) for _ in range(2)]
            page = {**page, "a": template[0], "b": template[1]}
        return "mine.toml", _toml(rng, page)

    def use(path: Path) -> None:
        read = load_manifest("mine", path)
        try:
            find_all(read, str(data), "vif" if read.task == "any" else read.task)
        except UserError as error:
            check_line(str(error), str(data))
            raise UserError(f"{path}: {error}") from None

    return Target(make, use)


def weights(folder: Path) -> Target:
    """Weights: of a pipeline, checkpoints of other people's networks, and TorchScript archives."""
    made = _pipeline(folder / "model", False, False)
    design = (made / "pipeline.json").read_bytes()
    module = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    torch.save({"params": module.state_dict()}, folder / "net.pth")
    torch.save(module.state_dict(), folder / "old.pth", _use_new_zipfile_serialization=False)
    write_tensors(folder / "net.safetensors", module.state_dict(), {"format": "pt"})
    cosmos(folder)
    seeds = [("model.safetensors", (made / "model.safetensors").read_bytes())]
    for name, file in (("net.pth", "net.pth"), ("net.pth", "old.pth"), ("net.safetensors",) * 2):
        seeds.append((name, (folder / file).read_bytes()))
    seeds.append(("encoder.jit", (folder / "encoder.jit").read_bytes()))

    def make(rng: Rng) -> tuple[str, bytes]:
        name, data = pick(rng, seeds)
        if name.endswith(".safetensors") and rng.random() < 0.5:
            return name, _mutated_safetensors(rng, data)
        return name, mutate_bytes(rng, data)

    def use(path: Path) -> None:
        if path.name == "model.safetensors":
            path.with_name("pipeline.json").write_bytes(design)
            FusionPipeline.from_pretrained(path.parent)
        elif path.suffix == ".jit":
            read_archive(path)
        else:
            load_into(module, path)

    return Target(make, use)


TARGETS: Mapping[str, Callable[[Path], Target]] = {
    "tar": tar,
    "sample json": sample_json,
    "picture": picture,
    "pipeline.json": pipeline_json,
    "recipe": recipe,
    "manifest": manifest,
    "weights": weights,
}


def _shards(folder: Path) -> list[Path]:
    """Small shards to mutate, in each codec of two, made once a folder; one of them lean."""
    out = folder / "shards"
    if not out.exists():
        for number in range(4):
            save_picture(folder / "a" / f"{number}.png", textured(number, 64, 64))
            save_picture(folder / "b" / f"{number}.png", textured(100 + number, 64, 64, channels=1))
        data = [f"folder={folder / 'a'},{folder / 'b'}"]
        common: dict[str, Any] = {"data": data, "executor": "serial", "limit": 3}
        sets = ['ratios={ "1:1" = 1 }']
        for name, more in {"webp": {"n": "1-3"}, "png": {"n": "2", "codec": "png"}, "lean": {"lean": True}}.items():
            build("vif", out=str(out / name), sets=sets, depth="prior", **common, **more)
    return sorted(out.glob("*/*.tar"))


_DEGRADERS = choose_degraders(TASKS)


def _use_shard(path: Path, replay: bool = False) -> None:
    """What the commands do with a shard; each must use or refuse it by itself."""
    refused: list[UserError | WorkIncomplete] = []
    commands: Sequence[Callable[[], object]] = (lambda: _fit(path), lambda: _eval(path), lambda: inspect([str(path)]))
    for command in commands:
        try:
            command()
        except (UserError, WorkIncomplete) as error:
            check_line(str(error), path.name)
            refused.append(error)
    for problem in verify([str(path)], replay=replay).problems:
        check_line(problem, path.name)
    if refused:
        raise refused[0]


def _fit(path: Path) -> None:
    corpus = index([str(path)])
    degrade = _DEGRADERS if corpus.lean else {}
    for training in (False, True):
        samples = Samples(corpus, side=32, training=training, degrade=degrade)
        for number in range(3 if training else len(samples)):
            _checked(samples[number])


def _checked(item: object) -> None:
    if isinstance(item, UnreadableSample):
        raise WorkIncomplete(item.reason)


def _eval(path: Path) -> None:
    for part in cut(plan_portions([str(path)])):
        try:
            for _ in part.read():
                pass
        except (ValueError, OSError) as error:  # as ``score_part`` does
            raise WorkIncomplete(f"{part.path.name}: {error}") from None


def _mutated_headers(rng: Rng, data: bytes) -> bytes:
    """A tar, some of whose headers say something else, by a checksum that is right."""
    out = bytearray(data)
    starts = [at for at in range(0, len(out), 512) if out[at + 257 : at + 262] == b"ustar"]
    for _ in range(int(rng.integers(1, 3))):
        at = pick(rng, starts)
        field, size = pick(rng, [(0, 100), (100, 8), (124, 12), (124, 12), (136, 12), (156, 1), (157, 100), (345, 155)])
        kinds = (b"0", b"\0", b"1", b"2", b"3", b"5", b"6", b"7", b"g", b"x", b"L", b"K", b"S", b"D", b"V")
        piece = (
            pick(rng, kinds) if field == 156 else (*MAGIC, b"\x80" + b"\xff" * 11)[int(rng.integers(len(MAGIC) + 1))]
        )
        out[at + field : at + field + size] = piece[:size].ljust(size, b"\0")
        out[at + 148 : at + 156] = b" " * 8
        out[at + 148 : at + 156] = b"%06o\0 " % (sum(out[at : at + 512]) & 0o777777)
    return bytes(out)


def _generated_tar(rng: Rng) -> bytes:
    """A tar of members with odd names and kinds, whose contents mean nothing."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=int(rng.integers(3))) as archive:
        for _ in range(int(rng.integers(0, 90))):
            names = ("a.json", "a.txt", "000.a.webp", "", ".", "a", "..a.b", "x/y.json", "a.0.safetensors", "é\n.json")
            info = tarfile.TarInfo(pick(rng, names) * int(rng.integers(1, 3)))
            data = pick(rng, (b"", b"{}", b"[]", b'{"schema": 1}', b"x" * 600, rng.bytes(40)))
            info.size = len(data)
            info.type = pick(rng, (tarfile.REGTYPE,) * 8 + (tarfile.SYMTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE))
            archive.addfile(info, io.BytesIO(data) if info.isreg() else None)
    return file.getvalue()


def _shuffled_tar(rng: Rng, members: Sequence[tuple[str, bytes]]) -> bytes:
    """A whole tar whose members are left out, repeated, renamed, moved, or another's."""
    held = list(members)
    for _ in range(int(rng.integers(1, 4))):
        at, other = int(rng.integers(len(held))), pick(rng, held)
        match int(rng.integers(5)):
            case 0 if len(held) > 1:
                del held[at]
            case 1:
                held.insert(at, other)
            case 2:
                held[at] = (held[at][0], other[1])
            case 3:
                held[at] = (held[at][0], mutate_bytes(rng, held[at][1]))
            case _:
                held[at] = (pick(rng, (other[0], "x.json", held[at][0] + ".x", "a" * 300)), held[at][1])
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, data in held:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def _pictures() -> list[tuple[str, bytes]]:
    """(suffix, file) of one picture in many forms."""
    colour, grey = textured(0, 48, 40), textured(1, 48, 40, channels=1)[..., 0]
    wide = grey.astype(np.uint16) * 257
    exif = Image.Exif()
    exif[0x0112] = 6
    made: list[tuple[str, np.ndarray, dict[str, Any]]] = [
        *((suffix, colour, {}) for suffix in ("png", "jpg", "bmp", "webp", "tif", "gif")),
        ("png", grey, {}), ("png", wide, {}), ("tif", wide, {}), ("tif", grey.astype(np.float32) / 255, {}),
        ("jpg", colour, {"exif": exif}), ("tif", colour, {"compression": "tiff_lzw"}),
        ("tif", colour, {"compression": "tiff_adobe_deflate"}), ("webp", colour, {"lossless": True}),
        ("png", np.dstack([colour, grey]), {}), ("jpg", grey, {"progressive": True}),
        ("tif", wide.astype(np.int32), {}),
    ]  # fmt: skip
    found: list[tuple[str, bytes]] = []
    for suffix, image, options in made:
        file = io.BytesIO()
        forms = {"jpg": "JPEG", "tif": "TIFF"}
        Image.fromarray(image).save(file, forms.get(suffix, suffix.upper()), **options)
        found.append((suffix, file.getvalue()))
    return found


def _pipeline(folder: Path, flow: bool, guess: bool) -> Path:
    assembly = Assembly(small(flow, guess), torch.Generator().manual_seed(0))
    save(assembly, folder, assembly.state_dict())
    return folder


def _toml(rng: Rng, page: Any) -> bytes:
    page = mutate_value(rng, page) if rng.random() < 0.85 else page
    data = to_toml(page) if isinstance(page, dict) else to_json(page)
    return mutate_bytes(rng, data) if rng.random() < 0.2 else data


def _mutated_safetensors(rng: Rng, data: bytes) -> bytes:
    """A safetensors file whose header says something else, in its own length."""
    length = int.from_bytes(data[:8], "little")
    header = to_json(mutate_value(rng, json.loads(data[8 : 8 + length])))
    return len(header).to_bytes(8, "little") + header + data[8 + length :]
