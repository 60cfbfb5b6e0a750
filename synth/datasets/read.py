"""Decoding of pairs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from clearfuse.synth import color
from clearfuse.synth.datasets.labels import Box, Labels, boxes_of, read_boxes, read_labels
from clearfuse.synth.datasets.manifest import Manifest
from clearfuse.synth.datasets.manifest import load_manifest as load_manifest
from clearfuse.synth.datasets.manifest import template_regex as template_regex
from clearfuse.synth.datasets.mmaif import read_info
from clearfuse.synth.files.archives import is_member
from clearfuse.synth.files.pictures import decode, read_file
from clearfuse.synth.seeds import seed_of
from clearfuse.synth.types import (
    BOXES,
    DEGRADED,
    LABELS,
    MODALITIES,
    PROMPTS,
    SIDECARS,
    BadPair,
    Modality,
    PairRef,
    Target,
)


@dataclass(frozen=True)
class CleanPair:
    """A decoded pair: uint8 ``(h, w, c)``, with the sha256 of each source. depth: metres along the ray, or None.

    sensor: by image, the conversions of files that are not 8 bit, upright and without alpha: see ``pictures.Decoded``.
    degraded: a, b or both where the data set provides degraded images; an absent one equals the clean image. Of a real
    pair, a and b are the degraded images. degradation: what the pair's own file says was done to it, as (operator,
    target), instruction: the set's own prompt for it; empty where it has none. Of a single picture, all three images
    are that picture, until ``samples.single`` makes a and b of it. labels: its label map, None where it has none.
    boxes: of its objects, where the set has such.
    """

    a: np.ndarray
    b: np.ndarray
    gt: np.ndarray | None
    depth: np.ndarray | None
    sha256: Mapping[str, str]
    sensor: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, "Mapping[str, Any]"])
    degraded: Mapping[str, np.ndarray] = field(default_factory=dict[str, np.ndarray])
    degradation: tuple[tuple[str, Target], ...] = ()
    instruction: str = ""
    labels: Labels | None = None
    boxes: tuple[Box, ...] = ()


def read_image(path: str, modality: Modality = "visible", scale: int | None = None) -> tuple[np.ndarray, str]:
    """An image, (h, w, c) uint8 with c = 1 or 3, upright, and the sha256 of the file; see ``decode``."""
    decoded = decode(path, modality, scale)
    return decoded.image, decoded.sha256


def as_grey(image: np.ndarray) -> np.ndarray:
    """Reduce to one channel: equal channels as they are, others by their luma."""
    if image.shape[2] == 1:
        return image
    if np.array_equal(image[..., 0], image[..., 1]) and np.array_equal(image[..., 0], image[..., 2]):
        return np.ascontiguousarray(image[..., :1])
    return color.to_uint8(color.luma(color.code_to_float(image)))[..., None]


def modality_of(ref: PairRef, image: str) -> Modality:
    """What an image of a pair shows, by its key in ``sources``; ground truth is visible."""
    side = image.removeprefix("degraded_")
    return "visible" if side == "gt" else MODALITIES[ref.task][side]  # type: ignore[index]


def read_pair(ref: PairRef) -> CleanPair:
    """Decode a pair, or render it where it is a built-in scene. Raises BadPair with the reason."""
    if not ref.sources:
        return _make_builtin(ref)
    images: dict[str, np.ndarray] = {}
    hashes: dict[str, str] = {}
    sensor: dict[str, Mapping[str, Any]] = {}
    for image, path in ref.sources.items():
        if image in SIDECARS:
            continue
        modality = modality_of(ref, image)
        decoded = decode(path, modality, ref.scale)
        images[image] = as_grey(decoded.image) if modality == "infrared" else decoded.image
        hashes[image] = decoded.sha256
        if decoded.sensor:
            sensor[image] = decoded.sensor
    sizes = {image: f"{x.shape[1]}x{x.shape[0]}" for image, x in images.items()}
    if len(set(sizes.values())) > 1:
        raise BadPair("sizes differ: " + ", ".join(f"{image} {size}" for image, size in sizes.items()))
    _same_channels(images)
    beside = read_sidecars(ref, next(iter(images.values())).shape[:2])
    hashes |= beside.sha256
    if ref.single:
        return CleanPair(
            *(images["gt"], images["gt"], images["gt"], None, hashes, sensor), labels=beside.labels, boxes=beside.boxes
        )
    degraded = {image.removeprefix("degraded_"): images[image] for image in DEGRADED if image in images}
    known, instruction = read_info(ref.sources["a"], ref.task) if is_member(ref.sources["a"]) else ((), beside.prompt)
    return CleanPair(
        *(images["a"], images["b"], images.get("gt"), None, hashes, sensor, degraded, known, instruction),
        *(beside.labels, beside.boxes),
    )


class Sidecars(NamedTuple):
    """What stands beside a pair's pictures, and the sha256 of each file."""

    labels: Labels | None
    boxes: tuple[Box, ...]
    prompt: str
    sha256: Mapping[str, str]


def read_sidecars(ref: PairRef, size: tuple[int, int]) -> Sidecars:
    """The label map, the boxes and the prompt of a pair, as far as it has such. size: its (height, width).

    Raises BadPair where one does not fit the pair or cannot be read.
    """
    labels, boxes, prompt = None, (), ""
    hashes: dict[str, str] = {}
    if LABELS in ref.sources:
        labels, hashes[LABELS] = read_labels(ref, load_manifest(ref.dataset), size)
    if BOXES in ref.sources:
        boxes, hashes[BOXES] = read_boxes(ref, load_manifest(ref.dataset), size)
    if PROMPTS in ref.sources:
        prompt, hashes[PROMPTS] = read_prompt(ref, load_manifest(ref.dataset))
    return Sidecars(labels, boxes, prompt, hashes)


def read_prompt(ref: PairRef, manifest: Manifest) -> tuple[str, str]:
    """The set's own prompt for a pair, on one line, and the sha256 of the file that it is in.

    Of a file with a prompt a line the pair's is drawn by its key, one and the same in every build. Raises BadPair for a
    file that is no text or has no word.
    """
    path = ref.sources[PROMPTS]
    raw = read_file(path)
    try:
        lines = [" ".join(line.split()) for line in raw.decode("utf-8-sig").splitlines()]
    except UnicodeDecodeError:
        raise BadPair(f"{Path(path).name}: is no text in UTF-8") from None
    if not any(lines):
        raise BadPair(f"{Path(path).name}: is empty, where a prompt is wanted")
    said = [line for line in lines if line]
    own = "{key}" in manifest.prompts[0]
    text = " ".join(said) if own else said[seed_of("prompt line", ref.dataset, ref.key) % len(said)]
    return text, hashlib.sha256(raw).hexdigest()


def _same_channels(images: dict[str, np.ndarray]) -> None:
    """Where only one of a clean and a degraded image is grey, repeat it to three channels, in place."""
    for image in DEGRADED:
        clean = image.removeprefix("degraded_")
        if image in images and images[image].shape != images[clean].shape:
            for name in (image, clean):
                images[name] = np.repeat(images[name], 3, 2) if images[name].shape[2] == 1 else images[name]


def _make_builtin(ref: PairRef) -> CleanPair:
    from clearfuse.synth.scenes import CLASSES, scene_pair
    from clearfuse.synth.seeds import seed_of

    scene = scene_pair(ref.task, seed_of("scene", ref.task, ref.key))
    images = {"a": scene.a, "b": scene.b} | ({"gt": scene.gt} if scene.gt is not None else {})
    hashes = {name: hashlib.sha256(x.tobytes()).hexdigest() for name, x in images.items()}
    labels = Labels(scene.classes, {number: name for number, name in enumerate(CLASSES) if name})
    boxes = boxes_of(scene.objects, labels)
    return CleanPair(scene.a, scene.b, scene.gt, scene.depth, hashes, labels=labels, boxes=boxes)
