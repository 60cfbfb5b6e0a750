"""Error of the depth sources that need no download, against maps of relative inverse depth and the scenes' true depth.

    python benchmarks/depth.py [--data DIR] [--weights FILE]

DIR contains vif/ and depth/, a map for each picture by its name, stretched to metres at a far end of 150 m. A row is
the root mean square of the difference in ln(metres), the median in brackets (positive: too far) and the rank
correlation, means over pictures, the sky left out. The networks' training pictures are in no row (models/depth).
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from scipy.stats import spearmanr

from clearfuse.synth import color
from clearfuse.synth.depth import small
from clearfuse.synth.depth.base import DepthInput
from clearfuse.synth.depth.inverse import metric, resized
from clearfuse.synth.depth.metres import USUAL_FAR
from clearfuse.synth.depth.prior import Prior
from clearfuse.synth.scenes import KINDS, make_scene, visible
from clearfuse.synth.seeds import seed_of

SHARED = Path(os.environ.get("CLEARFUSE_SHARED", Path(__file__).resolve().parent.parent.parent / "shared"))
WIDTH = 320
"""Pixels at which the maps are compared."""

SOURCES = {"prior": Prior(), "small": small.SmallDepth()}
SETS: dict[str, tuple[str, str, Callable[[list[Path]], list[Path]]]] = {
    "MSRS, test split, day": ("vif/MSRS/test/vi", "MSRS", lambda found: [path for path in found if "D" in path.stem]),
    "MSRS, test split, night": ("vif/MSRS/test/vi", "MSRS", lambda found: [path for path in found if "N" in path.stem]),
    "RoadScene, from the 121st on": ("vif/RoadScene/crop_LR_visible", "RoadScene", lambda found: found[120:]),
    "LLVIP": ("vif/LLVIP/visible", "LLVIP", lambda found: found),
    "M3FD": ("vif/M3FD/Vis", "M3FD", lambda found: found),
}

Known = tuple[np.ndarray, np.ndarray]
"""A picture and metres of it."""


def with_maps(pictures: Path, maps: Path, keep: Callable[[list[Path]], list[Path]]) -> Iterator[Known]:
    """The pictures below a folder that have a map."""
    for path in keep(sorted(path for path in pictures.rglob("*") if path.is_file())):
        inverse = cv2.imread(str(maps / f"{path.stem}.png"), cv2.IMREAD_UNCHANGED)
        picture = cv2.imread(str(path))
        if inverse is not None and picture is not None:
            image = color.as_hwc(np.ascontiguousarray(picture[..., ::-1]))
            yield image, metric(inverse.astype(np.float32), image, USUAL_FAR)


def scenes(kind: str, count: int) -> Iterator[Known]:
    """Built-in scenes of a kind, of seeds that no network was trained on."""
    for number in range(count):
        scene = make_scene(seed_of("depth benchmark", kind, number), kind=kind)
        yield visible(scene), scene.depth


def errors(estimate: np.ndarray, known: np.ndarray) -> tuple[float, float, float]:
    """RMS and median of the difference in ln(metres) and the rank correlation, where both are finite."""
    height = round(known.shape[0] * WIDTH / known.shape[1])
    said, true = (resized(metres, height, WIDTH) for metres in (estimate, known))
    at = np.isfinite(said) & np.isfinite(true)
    gap = np.log(said[at]) - np.log(true[at])
    return float(np.sqrt(np.mean(gap**2))), float(np.median(gap)), float(spearmanr(said[at], true[at]).statistic)


def main() -> None:
    """Print the table, and the mean over all pictures with maps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=SHARED / "data")
    parser.add_argument("--weights", type=Path, default=small.WEIGHTS, help="of `small`")
    parser.add_argument("--scenes", type=int, default=8, help="of each kind")
    options = parser.parse_args()
    small.WEIGHTS = options.weights
    print(f"{'':<32}{'pictures':>9}" + "".join(f"{name:>26}" for name in SOURCES))
    every: dict[str, list[float]] = {name: [] for name in SOURCES}
    sets = {
        name: with_maps(options.data / at, options.data / "depth" / maps, keep)
        for name, (at, maps, keep) in SETS.items()
    }
    made = {f"built-in {kind}": scenes(kind, options.scenes) for kind in KINDS}
    for name, pictures in (sets | made).items():
        known = list(pictures)
        cells: list[str] = []
        for key, source in SOURCES.items():
            got = [
                errors(source.estimate(DepthInput(key="", image=image, true=None, far=USUAL_FAR)), metres)
                for image, metres in known
            ]
            error, shift, rank = np.mean(got, axis=0)
            cells.append(f"{error:.3f} ({shift:+.2f}) {rank:5.2f}")
            if name in sets:
                every[key] += [one[0] for one in got]
        print(f"{name:<32}{len(known):>9}" + "".join(f"{cell:>26}" for cell in cells), flush=True)
    count = len(next(iter(every.values())))
    print(f"{'all with maps':<32}{count:>9}" + "".join(f"{np.mean(each):>26.3f}" for each in every.values()))


if __name__ == "__main__":
    main()
