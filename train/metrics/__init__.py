"""The table of metrics, and one call that scores a fused image. docs/metrics.md has the definitions side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from synth.quality import qabf
from synth.types import unknown
from train.metrics.base import Metric, codes, luma
from train.metrics.fidelity import WINDOW, psnr, ssim
from train.metrics.fusion import MEF_SMALLEST, VIF_SMALLEST, mef_ssim, vif
from train.metrics.vifb import VIFB

METRICS: dict[str, Metric] = {
    "PSNR": Metric("PSNR", psnr, "higher", "full-reference", "dB against the ground truth, RGB", digits=2),
    "SSIM": Metric("SSIM", ssim, "higher", "full-reference", "structure against the ground truth, RGB", WINDOW),
    "VIF": Metric("VIF", vif, "higher", "fusion", "information kept of both sources, a sum, luma", VIF_SMALLEST),
    "Qabf": Metric("Qabf", qabf, "higher", "fusion", "edges kept of both sources, luma", 3),
    "MEF-SSIM": Metric("MEF-SSIM", mef_ssim, "higher", "fusion", "the best of two exposures, luma", MEF_SMALLEST),
}

ALIASES: dict[str, str] = {
    "Entropy": "EN",
    "Mutinf": "MI",
    "Avg_gradient": "AG",
    "Edge_intensity": "EI",
    "Variance": "SD",
    "Cross_entropy": "CE",
    "Spatial_frequency": "SF",
}
"""The toolboxes' names of metrics."""


@dataclass(frozen=True)
class Profile:
    """A way to define the metrics. metrics: by name."""

    doc: str
    metrics: Mapping[str, Metric]


PROFILES: dict[str, Profile] = {
    "strict": Profile("each metric as its source defines it, on checked ranges", METRICS),
    "vifb": Profile("the VIFB toolbox as it is, faults included, by colour channel", VIFB),
}


def find_profile(name: str) -> Profile:
    """The profile of a name."""
    if name not in PROFILES:
        raise unknown("profile", name, PROFILES)
    return PROFILES[name]


def find_metric(name: str, profile: str = "strict") -> Metric:
    """The metric of a name or a toolbox's alias, without regard to case."""
    lower = {key.lower(): metric for key, metric in find_profile(profile).metrics.items()}
    own = {alias.lower(): short.lower() for alias, short in ALIASES.items()}
    found = own.get(name.lower(), name.lower())
    if found not in lower:
        raise unknown("metric", name, lower)
    return lower[found]


def evaluate(
    fused: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    gt: np.ndarray | None = None,
    metrics: Sequence[str] | None = None,
    profile: str = "strict",
) -> dict[str, float]:
    """Score a fused image: {name as asked: value}.

    fused, a, b, gt: ``(h, w)``, ``(h, w, 1)`` or ``(h, w, 3)`` of one size; uint8, or float in [0, 1], which is put on
    the scale 0..255; a is the visible image, the under-exposed one, the near focus. metrics: names without regard to
    case; without them, all of the profile that the images given allow. Raises UserError for an unknown metric or
    profile, ValueError for images that can't be scored.
    """
    if metrics is None:
        held = find_profile(profile).metrics
        metrics = [name for name, metric in held.items() if gt is not None or metric.kind != "full-reference"]
    chosen = {name: find_metric(name, profile) for name in metrics}
    given = {"fused": fused, "a": a, "b": b} | ({} if gt is None else {"gt": gt})
    images = {name: codes(image, name) for name, image in given.items()}
    height, width = images["fused"].shape[:2]
    for name, image in images.items():
        if image.shape[:2] != (height, width):
            size = f"{image.shape[1]}x{image.shape[0]}"
            raise ValueError(f"{name} is {size}, fused {width}x{height}: all images must have one size")
    for metric in chosen.values():
        if metric.kind == "full-reference" and gt is None:
            raise ValueError(f"{metric.name} needs gt: it compares the fused image with a ground truth")
        if min(height, width) < metric.smallest:
            least = f"{metric.smallest}x{metric.smallest}"
            raise ValueError(f"{metric.name} needs images of {least} or more, not {width}x{height}")
    return _score(images, chosen)


def _score(images: dict[str, np.ndarray], chosen: dict[str, Metric]) -> dict[str, float]:
    """The values; lumas are made once, and a grey image is compared with a colour one as three equal channels."""
    lumas: tuple[np.ndarray, ...] = ()
    values: dict[str, float] = {}
    for name, metric in chosen.items():
        if metric.takes == "colour":
            values[name] = metric.function(*(images[image] for image in ("fused", "a", "b")))
        elif metric.kind == "fusion":
            lumas = lumas or tuple(luma(images[image]) for image in ("fused", "a", "b"))
            values[name] = metric.function(*lumas)
        else:
            fused, gt = images["fused"], images["gt"]
            shape = (*fused.shape[:2], max(fused.shape[2], gt.shape[2]))
            values[name] = metric.function(*(np.ascontiguousarray(np.broadcast_to(i, shape)) for i in (fused, gt)))
    return values


__all__ = ["ALIASES", "METRICS", "PROFILES", "Metric", "Profile", "evaluate", "find_metric", "find_profile"]
