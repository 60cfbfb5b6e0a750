"""Pairs that are degraded as they come, without a clean side: BRISQUE and NIQE of inputs and results, and a sheet.

    python benchmarks/real.py awfusion=DIR textif=DIR 'msrs=DIR' [--keys 'N$'] [--model small] [--limit 12]
        [--prompt TEXT] [--out real.png]

Visible and infrared pairs. Of the visible picture, of the pyramid of the pair, and of the model without and with the
prompt, which is the data set's own request where ``--prompt`` is not given. Metrics whose data files are not installed
are left out. The sheet has a row a pair: visible, infrared, pyramid, the model's.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

import cv2
import numpy as np
from PIL import Image

from clearfuse.synth.datasets.find import find_all
from clearfuse.synth.datasets.manifest import load_manifest
from clearfuse.synth.datasets.read import read_pair
from clearfuse.synth.fusers import PyramidFuser
from clearfuse.synth.types import BadPair
from clearfuse.train.metrics import METRICS, evaluate
from clearfuse.train.pipeline.fusion import FusionPipeline

SHOWN = 320
"""Width of a picture on the sheet, pixels."""


def pairs(sets: list[str], keys: str, limit: int) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Name and images of the pairs, at most ``limit`` of a set, evenly spaced."""
    for item in sets:
        name, _, folder = item.partition("=")
        refs = [ref for ref in find_all(load_manifest(name), folder, "vif").pairs if re.search(keys, ref.key)]
        for ref in refs[:: max(len(refs) // limit, 1)][:limit]:
            try:
                pair = read_pair(ref)
            except BadPair as error:
                print(f"{name}/{ref.key}: {error}")
                continue
            yield f"{name}/{ref.key}", pair.degraded.get("a", pair.a), pair.degraded.get("b", pair.b)


def cell(image: np.ndarray) -> np.ndarray:
    """A picture as the sheet shows it, in colour."""
    height = round(image.shape[0] * SHOWN / image.shape[1])
    colour = np.repeat(image, 3, 2) if image.shape[2] == 1 else image
    return cv2.resize(colour, (SHOWN, height), interpolation=cv2.INTER_AREA)


def main() -> None:
    """Print the means, and write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", metavar="NAME=DIR")
    parser.add_argument("--keys", default="", help="a pattern of the pairs' names")
    parser.add_argument("--model", default="clearfuse-small")
    parser.add_argument("--limit", type=int, default=12, help="pairs of a set")
    parser.add_argument("--prompt", default="remove the degradations and fuse the visible and infrared images")
    parser.add_argument("--out", type=Path, default=Path("real.png"))
    options = parser.parse_args()
    pipeline = FusionPipeline.from_pretrained(options.model)
    metrics = [name for name in ("BRISQUE", "NIQE") if not METRICS[name].missing()]
    scores: dict[tuple[str, str], list[dict[str, float]]] = {}
    rows: list[np.ndarray] = []
    for name, a, b in pairs(options.sets, options.keys, options.limit):
        shown = {
            "visible": a,
            "pyramid": PyramidFuser()(a, b, "vif"),
            "model, no prompt": pipeline(a, b, task="vif", prompt=""),
            "model, prompt": pipeline(a, b, task="vif", prompt=options.prompt),
        }
        for kind, image in shown.items():
            found = evaluate(image, a, b, metrics=metrics) if metrics else {}
            scores.setdefault((name.partition("/")[0], kind), []).append(found)
        rows.append(np.concatenate([cell(x) for x in (a, b, shown["pyramid"], shown["model, prompt"])], 1))
        print(name, flush=True)
    print(f"{'':<36}{''.join(f'{metric:>10}' for metric in metrics)}  pairs")
    for (name, kind), found in scores.items():
        cells = "".join(f"{fmean(one[metric] for one in found):>10.2f}" for metric in metrics)
        print(f"{name:<16}{kind:<20}{cells}{len(found):>7}")
    Image.fromarray(np.concatenate(rows)).save(options.out)
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
