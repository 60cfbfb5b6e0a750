"""Samples to learn from: clean pictures, degraded by the operators, whose parameters are the labels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from clearfuse.synth import color
from clearfuse.synth.datasets.read import read_pair
from clearfuse.synth.datasets.select import select
from clearfuse.synth.depth.base import DepthInput
from clearfuse.synth.depth.small import SmallDepth
from clearfuse.synth.estimation.statistics import statistics
from clearfuse.synth.estimation.targets import NAMES, WEATHER, severity_of, told_of
from clearfuse.synth.operators import operator_class, physical_order
from clearfuse.synth.operators.base import Scene
from clearfuse.synth.operators.codec import jpeg_bytes
from clearfuse.synth.samples.chain import run_chain
from clearfuse.synth.samples.prepare import FAR
from clearfuse.synth.samples.recipe import load_recipe
from clearfuse.synth.seeds import generator, seed_of
from clearfuse.synth.types import Modality

COUNTS = (0.16, 0.54, 0.18, 0.12)
"""Shares of samples with 0, 1, 2 and 3 degradations."""

ALIKE = (
    {"defocus_blur", "motion_blur", "gaussian_blur", "downsample"},
    {"low_exposure", "high_exposure"},
    {"low_contrast", "high_contrast", "ir_low_contrast"},
    {"sensor_noise", "gaussian_noise"},
    {"rain", "snow"},
    {"haze", "low_contrast"},
)
"""Of each of these at most one in a sample: two of a kind can't be told apart."""

WIDTHS = (320.0, 720.0)
"""Pixels across of a sample, log-uniform."""

FAINT = ("haze", "haze", "rain", "snow", "low_exposure", "high_exposure", "high_exposure")
"""What is hardest to tell, of which there are more samples, of street scenes, each with one of these alone."""


@dataclass(frozen=True)
class Clean:
    """A clean picture. depth: true metres, where they are known; infrared: of another modality than visible."""

    name: str
    image: np.ndarray
    modality: Modality
    depth: np.ndarray | None = None


@dataclass(frozen=True)
class Labelled:
    """A sample: a picture, and by operator its severity, NaN where it is not there. picture: the clean one's name."""

    image: np.ndarray
    modality: Modality
    severity: np.ndarray
    picture: str


def clean_pictures(sets: Mapping[str, str], split: str, scenes: int) -> list[Clean]:
    """The pictures of a split of data sets, and of so many built-in scenes."""
    out: list[Clean] = []
    if sets:
        pairs, _, _ = select(None, sets, split=split, pairs="extreme", limit=None)
        for ref in pairs:
            pair = read_pair(ref)
            if ref.single or ref.task != "vif":
                out.append(Clean(ref.name, pair.a if pair.gt is None else pair.gt, "visible"))
            else:
                out += [Clean(ref.name, pair.a, "visible"), Clean(ref.name, pair.b, "infrared")]
    if scenes:
        pairs, _, _ = select("vif", {}, split=split, pairs="extreme", limit=scenes)
        for ref in pairs:
            pair = read_pair(ref)
            out += [Clean(ref.name, pair.a, "visible", pair.depth), Clean(ref.name, pair.b, "infrared", pair.depth)]
    return out


def camera(rng: np.random.Generator, clean: Clean) -> tuple[np.ndarray, np.ndarray | None]:
    """A part of a clean picture at another size, as another camera might have taken it: uint8, and its depth.

    A little soft, noise of up to 2.5 codes, mild compression and another tone curve are usual in pictures that are
    called clean, so they are in the samples and in no label.
    """
    image, depth = clean.image, clean.depth
    h, w = (max(min(side, 160), int(side * rng.uniform(0.6, 1))) for side in image.shape[:2])
    top, left = (int(rng.integers(0, side - cut + 1)) for side, cut in zip(image.shape[:2], (h, w), strict=True))
    scale = math.exp(rng.uniform(*map(math.log, WIDTHS))) / w
    scale = min(max(scale, 0.4), 1.8 if rng.random() < 0.25 else 1.15)
    size = (max(96, round(w * scale)), max(96, round(h * scale)))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    part = color.as_hwc(cv2.resize(image[top : top + h, left : left + w], size, interpolation=interpolation))
    if depth is not None:
        depth = cv2.resize(depth[top : top + h, left : left + w], size, interpolation=cv2.INTER_NEAREST)
    if rng.random() < 0.5:
        part = np.ascontiguousarray(part[:, ::-1])
        depth = None if depth is None else np.ascontiguousarray(depth[:, ::-1])
    if part.shape[2] == 3 and rng.random() < 0.06:
        part = color.to_uint8(color.luma(color.code_to_float(part)))[..., None]
    x = color.code_to_float(part)
    if rng.random() < 0.4:
        x = np.clip(x, 0, 1) ** np.float32(math.exp(rng.normal(0, 0.18)))
    if rng.random() < 0.2:
        x = color.as_hwc(cv2.GaussianBlur(x, (0, 0), rng.uniform(0.3, 0.7)))
    if rng.random() < 0.5:
        shape = (*x.shape[:2], x.shape[2] if rng.random() < 0.7 else 1)
        x = x + rng.standard_normal(shape, np.float32) * np.float32(rng.uniform(0, 2.5) / 255)
    part = color.to_uint8(np.clip(x, 0, 1))
    if rng.random() < 0.35:
        data = jpeg_bytes(part, int(rng.integers(80, 99)), "4:2:0" if rng.random() < 0.5 else "4:4:4")
        grey = part.shape[2] == 1
        read = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR)
        part = color.as_hwc(read) if grey else np.ascontiguousarray(read[..., ::-1])
    return part, depth


def draw_names(rng: np.random.Generator, modality: Modality) -> list[str]:
    """The operators of a sample, each as likely, none of ``ALIKE`` twice; in the infrared also weather, unlabelled."""
    count = int(rng.choice(len(COUNTS), p=COUNTS))
    drawn: list[str] = []
    left = list(told_of(modality))
    while left and len(drawn) < count:
        name = left.pop(int(rng.integers(len(left))))
        drawn.append(name)
        barred = {other for group in ALIKE if name in group for other in group}
        left = [other for other in left if other not in barred]
    if modality == "infrared" and rng.random() < 0.12:
        drawn.append(sorted(WEATHER)[int(rng.integers(len(WEATHER)))])
    return physical_order(drawn)


def make_sample(seed: int, number: int, pictures: Sequence[Clean], *, faint: bool = False) -> Labelled:
    """The sample of that number: a function of the seed, the number and the pictures. faint: of ``FAINT``, visible."""
    rng = generator(seed_of("estimation", seed, number, *(["faint"] if faint else [])))
    infrared = [clean for clean in pictures if clean.modality == "infrared"]
    wanted = bool(infrared) and rng.random() < 0.36 and not faint
    pool = infrared if wanted else [clean for clean in pictures if clean.modality == "visible"]
    clean = pool[int(rng.integers(len(pool)))]
    image, depth = camera(rng, clean)
    names = [FAINT[int(rng.integers(len(FAINT)))]] if faint else draw_names(rng, clean.modality)
    if depth is None and any(operator_class(name).takes_depth() for name in names):
        far = math.exp(rng.uniform(*map(math.log, FAR)))
        depth = SmallDepth.open("").estimate(DepthInput(clean.name, image, None, far))
    elif depth is not None and rng.random() < 0.5:
        depth = depth * np.float32(rng.uniform(0.7, 1.4))
    scene = Scene(clean.modality, depth)
    severity = np.full(len(NAMES), np.nan, np.float32)
    beyond = load_recipe("vif-extended").operators
    calls = []
    for name in names:
        cls = operator_class(name)
        ranges = beyond[name].ranges if name in beyond and rng.random() < 0.5 else cls.ranges()
        fitted = cls.fit(ranges, image, scene)
        if fitted is None:
            continue
        op = cls.draw(rng, None, fitted)
        calls.append((op, generator(seed_of("estimation", seed, number, name))))
        if not (clean.modality == "infrared" and name in WEATHER):
            severity[NAMES.index(name)] = severity_of(name, op.params())
    out = color.to_uint8(run_chain(image, calls, scene)) if calls else image
    return Labelled(out, clean.modality, severity, clean.name)


def write_samples(path: Path, samples: Sequence[Labelled]) -> None:
    """Write the statistics and the labels of samples, by rename."""
    new = path.with_suffix(".new.npz")
    np.savez(
        new,
        values=np.stack([statistics(one.image, one.modality) for one in samples]),
        severity=np.stack([one.severity for one in samples]),
        picture=np.array([one.picture for one in samples]),
        infrared=np.array([one.modality == "infrared" for one in samples]),
    )
    new.replace(path)
