"""Time of each operator on one thread, beside albumentations and imagecorruptions in the same run.

The operators of a row have the same kernel, quality or factor where possible. All get float32 images except
imagecorruptions, which takes only uint8. This project's operators are timed in their own space, linear light or code
values; the conversion is timed separately. They alternate in turns of five runs, and the fastest run counts. A ratio
above 1: this project's is faster; the target is the required ratio. Where imagecorruptions, which is not a dependency,
is not installed, its column says so.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import cv2
import numpy as np

from clearfuse.synth import color
from clearfuse.synth.execute.tasks import limit_threads
from clearfuse.synth.operators import OPERATORS
from clearfuse.synth.operators.base import LINEAR_STAGES, Operator, Scene
from clearfuse.synth.scenes import scene_pair
from clearfuse.synth.seeds import generator

SIZES = ((640, 480), (1280, 1024))
SEVERITY = 0.5
DAY = 2
"""The built-in scene, by day. At night the airlight is a map of the lamps' glow, so that weather takes longer."""

Peer = Callable[[np.ndarray, np.ndarray], Any]
"""A function of the image as float32 and as uint8."""


@dataclass(frozen=True)
class Row:
    """An operator with fixed parameters, its counterparts elsewhere, and the required ratio at the two sizes."""

    name: str
    params: Mapping[str, Any] = field(default_factory=dict[str, Any])
    peers: tuple[str, ...] = ()
    bar: tuple[float, float] | None = None

    def operator(self) -> Operator:
        """An operator at severity 0.5, except for ``params``."""
        drawn = OPERATORS[self.name].draw(generator(3), SEVERITY)
        return type(drawn)(**(drawn.params() | dict(self.params)))


LINE = {"length": 20.0, "angle": 0.0, "shake": 0.0}
ROWS = (
    Row("haze", {}, ("RandomFog", "fog"), (5, 5)),
    Row("rain", {}, ("RandomRain",), (0.5, 2)),
    Row("snow", {}, ("RandomSnow texture", "snow"), (5, 5)),
    Row("motion_blur", LINE, ("MotionBlur 21", "motion_blur"), (0.9, 0.9)),
    Row("gaussian_blur", {"sigma": 3.0, "ratio": 1.0}, ("GaussianBlur σ3", "gaussian_blur"), (0.9, 0.9)),
    Row("gaussian_noise", {"sigma": 0.1, "colour": 1.0}, ("GaussNoise", "gaussian_noise"), None),
    Row("sensor_noise", {}, ("ShotNoise", "shot_noise"), (5, 5)),
    Row("defocus_blur", {}, ("defocus_blur",), None),
    Row("low_contrast", {"contrast": 0.5}, ("Contrast ×0.5", "contrast"), (0.9, 0.9)),
    Row("downsample", {"factor": 2.0, "kernel": "area", "up": "bilinear"}, ("Downscale ×2",), (0.9, 0.9)),
    Row("jpeg", {"quality": 50, "subsampling": "4:2:0"}, ("JPEG q50",), (0.9, 0.9)),
)


def peers() -> dict[str, Peer]:
    """The counterparts of other packages, as a data loader calls them: simpler models of weather, else the same."""
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    import albumentations as A

    area = {"downscale": cv2.INTER_AREA, "upscale": cv2.INTER_LINEAR}
    transforms: dict[str, Any] = {
        "RandomFog": A.RandomFog(p=1),
        "RandomRain": A.RandomRain(p=1),
        "RandomSnow texture": A.RandomSnow(p=1, method="texture"),
        "MotionBlur 21": A.MotionBlur(
            blur_limit=(21, 21), angle_range=(0, 0), direction_range=(0, 0), allow_shifted=False, p=1
        ),
        "GaussianBlur σ3": A.GaussianBlur(sigma_limit=(3, 3), blur_limit=(25, 25), p=1),
        "GaussNoise": A.GaussNoise(std_range=(0.1, 0.1), p=1),
        "ShotNoise": A.ShotNoise(p=1),
        "Contrast ×0.5": A.RandomBrightnessContrast(contrast_limit=(-0.5, -0.5), brightness_limit=(0, 0), p=1),
        "Downscale ×2": A.Downscale(scale_range=(0.5, 0.5), interpolation_pair=area, p=1),
        "JPEG q50": A.ImageCompression(quality_range=(50, 50), p=1),
    }
    found: dict[str, Peer] = {name: partial(_transformed, each) for name, each in transforms.items()}
    try:
        from imagecorruptions import corrupt  # pyright: ignore[reportMissingImports]
    except ImportError:
        return found
    names = {name for row in ROWS for name in row.peers} - found.keys()
    return found | {name: partial(_corrupted, corrupt, name) for name in names}


def _transformed(transform: Any, image: np.ndarray, codes: np.ndarray) -> np.ndarray:
    return transform(image=image)["image"]


def _corrupted(corrupt: Any, name: str, image: np.ndarray, codes: np.ndarray) -> np.ndarray:
    return corrupt(codes, corruption_name=name, severity=3)


def fastest(calls: Mapping[str, Callable[[], Any]], seconds: float = 1.0) -> dict[str, float | None]:
    """Milliseconds of the fastest run of each, in alternating turns of five; None where a call fails."""
    best: dict[str, float | None] = {}
    for name, call in calls.items():
        try:
            call()
            best[name] = float("inf")
        except Exception:  # a package that does not run with this numpy
            best[name] = None
    began = time.perf_counter()
    turns = 0
    while turns < 3 or time.perf_counter() - began < seconds:
        for name, call in calls.items():
            so_far = best[name]
            if so_far is None:
                continue
            for _ in range(5):
                start = time.perf_counter()
                call()
                so_far = min(so_far, 1000 * (time.perf_counter() - start))
            best[name] = so_far
        turns += 1
    return best


def measure(row: Row, others: Mapping[str, Peer], codes: np.ndarray, depth: np.ndarray) -> list[str]:
    """The row's lines of the table at one size."""
    op = row.operator()
    image = color.code_to_linear(codes) if op.stage in LINEAR_STAGES else color.code_to_float(codes)
    plain = color.code_to_float(codes)
    calls: dict[str, Callable[[], Any]] = {"ours": lambda: op(image, generator(4), Scene("visible", depth))}
    calls |= {name: partial(others[name], plain, codes) for name in row.peers if name in others}
    times = fastest(calls)
    ours = times.pop("ours")
    assert ours is not None
    bar = "" if row.bar is None else f"{row.bar[codes.shape[1] > SIZES[0][0]]:g}"
    lines: list[str] = []
    for name in row.peers or ("",):
        theirs = times.get(name)
        said = "not installed" if name and name not in others else "fails" if theirs is None else f"{theirs:.2f}"
        ratio = f"{theirs / ours:.2f}" if theirs is not None else ""
        lines.append(f"{row.name:<16}{ours:>9.2f}  {name:<20}{said if name else '':>14}{ratio:>8}{bar:>6}")
    return lines


def main() -> None:
    """Print the table."""
    cv2.setNumThreads(1)
    warnings.simplefilter("ignore")
    limit_threads()
    others = peers()
    rows = [*ROWS, *(Row(name) for name in OPERATORS if name not in {row.name for row in ROWS})]
    for width, height in SIZES:
        pair = scene_pair("vif", DAY, (width, height))
        print(f"\n{f'{width}x{height}':<16}{'ms':>9}  {'beside':<20}{'ms':>14}{'ratio':>8}{'bar':>6}")
        for row in rows:
            infrared = OPERATORS[row.name].modalities == frozenset({"infrared"})
            print("\n".join(measure(row, others, pair.b if infrared else pair.a, pair.depth)))
        one = np.ascontiguousarray(pair.a)
        back = color.code_to_linear(one)
        times = fastest({"to": partial(color.code_to_linear, one), "from": partial(color.linear_to_srgb, back)})
        print(f"to linear light {times['to']:.2f}, back {times['from']:.2f}")


if __name__ == "__main__":
    main()
