"""Fused images on disk with what they show: ``METHOD/KEY.png`` beside ``boxes/KEY.json`` or ``labels/KEY.png``.

A network is trained and scored on these files alone. What is there is not made again: work that was killed goes on.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import RootModel

from clearfuse.synth.datasets.labels import Box
from clearfuse.synth.datasets.read import read_image
from clearfuse.synth.execute.run import run_tasks
from clearfuse.synth.execute.tasks import Watch, limit_threads, one_thread
from clearfuse.synth.files.folders import difference
from clearfuse.synth.files.schema import Schema, StrictModel, validate
from clearfuse.synth.files.storage import landing, read_small
from clearfuse.synth.types import BadPair, PairRef, UserError, WorkIncomplete
from clearfuse.train.downstream.sources import SIDECAR, Kind, Source, read_example
from clearfuse.train.evaluation.methods.fusers import on_gpu
from clearfuse.train.evaluation.parts import processes
from clearfuse.train.evaluation.scoring import Method
from clearfuse.train.pipeline.pictures.write import write_image

Progress = Callable[[int, int], None]
FOLDER, SETTINGS = "pictures", "settings.json"


class Settings(StrictModel):
    """``settings.json``: what decided the pictures, and by method whose they are."""

    schema_: Schema
    source: dict[str, Any]
    methods: dict[str, Any]


class Boxes(RootModel[tuple[Box, ...]]):
    """What is to be found in a pair, as its file has it."""


@dataclass(frozen=True)
class Pictures:
    """Fused images of pairs. keys: of those that could be read. left_out: the others, and why."""

    folder: Path
    kind: Kind
    methods: tuple[str, ...]
    keys: tuple[str, ...]
    left_out: dict[str, str]

    def path(self, method: str, key: str) -> Path:
        """The file of a fused image."""
        return _picture(self.folder, method, key)

    def image(self, method: str, key: str) -> np.ndarray:
        """A fused image, uint8 ``(h, w, 3)``; a grey one with three equal channels."""
        image = read_image(str(self.path(method, key)))[0]
        return np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3)))

    def boxes(self, key: str) -> tuple[Box, ...]:
        """What is to be found in a pair."""
        path = _truth(self.folder, self.kind, key)
        return validate(Boxes, read_small(path), str(path)).root

    def classes(self, key: str) -> np.ndarray:
        """The number of each pixel's class, uint8 ``(h, w)``; 255 where it counts for nothing."""
        return read_image(str(_truth(self.folder, self.kind, key)))[0][..., 0]


@dataclass(frozen=True)
class Work:
    """What is done to each pair."""

    source: Source
    methods: tuple[Method, ...]
    folder: Path


def make_pictures(
    source: Source,
    methods: Sequence[Method],
    out: Path,
    workers: int | None = None,
    progress: Progress = lambda done, total: None,
) -> Pictures:
    """Fuse every pair by every method into ``out/pictures``, but for what is there.

    Raises UserError where other pictures are there, WorkIncomplete where a method has no image of a pair, or no pair
    can be read.
    """
    work = Work(source, tuple(methods), out / FOLDER)
    names = [method.name for method in methods]
    _check_settings(work)
    count = min(processes(workers, on_gpu(methods)), len(source.pairs))
    keys: list[str] = []
    left_out: dict[str, str] = {}
    progress(0, len(source.pairs))
    limit_threads()
    with one_thread():
        watch = Watch(name=lambda ref: f"pair {ref.key}")
        executor = "serial" if count == 1 else "processes"
        made = run_tasks(fuse_pair, work, source.pairs, workers=count, executor=executor, watch=watch)
        for ref, why in zip(source.pairs, made, strict=True):
            if why:
                left_out[ref.key] = why
            else:
                keys.append(ref.key)
            progress(len(keys) + len(left_out), len(source.pairs))
    if not keys:
        key, why = next(iter(left_out.items()))
        raise WorkIncomplete(f"none of {len(left_out)} pairs can be used, such as {key}: {why}")
    return Pictures(work.folder, source.kind, tuple(names), tuple(keys), left_out)


def fuse_pair(work: Work, ref: PairRef) -> str:
    """Write a pair's fused images, and then what it shows; the reason where it can't be used.

    Raises WorkIncomplete where a method has no image of it.
    """
    missing = [m for m in work.methods if not _picture(work.folder, m.name, ref.key).is_file()]
    truth = _truth(work.folder, work.source.kind, ref.key)
    if not missing and truth.is_file():
        return ""
    try:
        example = read_example(work.source, ref)
    except BadPair as error:
        return str(error)
    for method in missing:
        try:
            fused = method.fuse(example.sample)
        except (ValueError, BadPair) as error:
            raise WorkIncomplete(f"{method.name}: pair {ref.key}: {error}") from None
        if fused is None:
            raise WorkIncomplete(f"{method.name}: has no image of pair {ref.key}, and is compared on all or none")
        write_image(_picture(work.folder, method.name, ref.key), fused)
    if example.classes is not None:
        write_image(truth, example.classes)
    else:
        truth.parent.mkdir(parents=True, exist_ok=True)
        with landing(truth) as file:
            file.write(json.dumps([list(box) for box in example.boxes]).encode() + b"\n")
    return ""


def _picture(folder: Path, method: str, key: str) -> Path:
    return folder / file_name(method) / f"{key}.png"


def _truth(folder: Path, kind: Kind, key: str) -> Path:
    return folder / SIDECAR[kind] / f"{key}{'.json' if kind == 'detection' else '.png'}"


def file_name(name: str) -> str:
    """A method's name as that of a folder: those of hub ids have a slash. It is none of ``SIDECAR``."""
    return re.sub(r"[^\w.+-]+", "_", name) + ("_" if name in SIDECAR.values() else "")


def _check_settings(work: Work) -> None:
    """Record what decides the pictures. Raises UserError, naming it, where those that are there were made of others."""
    names = [file_name(method.name) for method in work.methods]
    if len({name.casefold() for name in names}) < len(names):
        raise UserError(f"two methods have one folder of pictures: {', '.join(names)}: rename one")
    said = json.loads(json.dumps({"schema": 1, "source": dict(work.source.record), "methods": {}}))
    path = work.folder / SETTINGS
    methods = {method.name: method.identity for method in work.methods}
    if path.is_file():
        known = validate(Settings, read_small(path), str(path))
        theirs = known.methods
        changed = [*difference(known.source, said["source"])]
        changed += [f"{name} is another" for name, one in methods.items() if theirs.get(name, one) != one]
        if changed:
            raise UserError(
                f"{work.folder}: holds pictures made otherwise: {changed[0]}: name another --out, or remove the folder"
            )
        methods = theirs | methods
    os.makedirs(work.folder, exist_ok=True)
    with landing(path) as file:
        file.write(json.dumps({**said, "methods": methods}, indent=1, ensure_ascii=False).encode() + b"\n")
