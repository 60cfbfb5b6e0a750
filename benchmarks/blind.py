"""What an estimated prompt is worth: PSNR without a prompt, with the estimated one and told the recorded one.

    python benchmarks/blind.py SHARDS... [--model small] [--sure 0.5 0.8 0.9] [--limit N] [--json FILE]

Of each sample its degraded pair, compared with its ground truth: by the plain request, by the estimate as ``train
fuse`` asks where it is given no prompt, by the sample's own prompt, and by what ``synth estimate`` finds from each
certainty on. Of each clean pair (once a pair) the same against the pyramid of the clean pair: there an estimate can
only do harm. A prompt is fused once, whatever ways come to it.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import cv2
import numpy as np

from clearfuse.synth.datasets.read import as_grey
from clearfuse.synth.estimation.estimate import estimate
from clearfuse.synth.estimation.prompt import Sure, found_of_pair, write_prompt
from clearfuse.synth.fusers import PyramidFuser
from clearfuse.synth.shards.sample import read_samples
from clearfuse.synth.types import MODALITIES, ImageName, Task
from clearfuse.train.data.find import find_local_shards
from clearfuse.train.metrics.fidelity import psnr
from clearfuse.train.pipeline.blind import ASKED
from clearfuse.train.pipeline.fusion import FusionPipeline
from clearfuse.train.text import plain_request

Row = dict[str, Any]
HARM = 0.1
"""dB below the plain request from which an estimate has done harm."""


def wide(image: np.ndarray) -> np.ndarray:
    """A picture in three channels, float32."""
    return np.broadcast_to(image, (*image.shape[:2], 3)).astype(np.float32)


def scored(
    pipeline: FusionPipeline, task: Task, pair: Mapping[ImageName, np.ndarray], truth: np.ndarray,
    sures: Sequence[float], told: str | None,
) -> tuple[dict[str, float], dict[str, str]]:  # fmt: skip
    """PSNR by way: plain, estimated, told, and each certainty; and what was found by those that look."""
    grey = {name: as_grey(x) if MODALITIES[task][name] == "infrared" else x for name, x in pair.items()}
    estimates = {name: estimate(x, MODALITIES[task][name]) for name, x in grey.items()}
    prompts, found = {"plain": plain_request(task)}, dict[str, str]()
    levels: dict[str, Sure] = {"estimated": ASKED} | {f"{sure:g}": sure for sure in sures}
    for way, level in levels.items():
        named = found_of_pair(task, estimates, level)
        prompt = write_prompt(task, named)
        prompts[way] = prompts["plain"] if prompt is None else prompt.text
        found[way] = "+".join(f"{one.finding.op}[{one.target}]" for one in named)
    prompts |= {"told": told} if told else {}
    values: dict[str, float] = {}
    for prompt in dict.fromkeys(prompts.values()):
        fused = pipeline(pair["a"], pair["b"], task=task, prompt=prompt)
        values[prompt] = psnr(wide(fused), wide(truth))
    return {way: values[prompt] for way, prompt in prompts.items()}, found


def rows_of(shards: Sequence[str], model: str, sures: Sequence[float], limit: int | None) -> list[Row]:
    """A row a degraded sample and a clean pair."""
    pipeline, rows, seen = FusionPipeline.from_pretrained(model), list[Row](), set[str]()
    for path in find_local_shards(shards):
        for number, sample in enumerate(read_samples(path)):
            if limit is not None and number >= limit:
                break
            meta, images = sample.meta, sample.images
            name = f"{meta.dataset}/{meta.pair}"
            told = {"task": meta.task, "name": name, "op": "+".join(step.op for step in meta.steps)}
            sides: dict[ImageName, np.ndarray] = {"a": images["a"], "b": images["b"]}
            values, found = scored(pipeline, meta.task, sides, images["gt"], sures, sample.prompt)
            rows.append(told | {"values": values, "found": found})
            if name not in seen:
                seen.add(name)
                clean: dict[ImageName, np.ndarray] = {"a": images["clean_a"], "b": images["clean_b"]}
                truth = PyramidFuser()(clean["a"], clean["b"], meta.task)
                values, found = scored(pipeline, meta.task, clean, truth, sures, None)
                rows.append(told | {"op": "clean", "values": values, "found": found})
            print(json.dumps(rows[-1], ensure_ascii=False), flush=True)
    return rows


def mean(values: Sequence[float]) -> float:
    """The mean of the finite values."""
    finite = [value for value in values if math.isfinite(value)]
    return fmean(finite) if finite else math.nan


def table(title: str, groups: Mapping[str, Sequence[Row]]) -> None:
    """Means by way, a line a group; then how often an estimate is below the plain request by more than ``HARM``."""
    ways = list(dict.fromkeys(way for rows in groups.values() for row in rows for way in row["values"]))
    looked = [way for way in ways if way not in ("plain", "told")]
    print(f"\n| {title} | samples | {' | '.join(ways)} | harmed: {' / '.join(looked)} |")
    print(f"|{'---|' * (len(ways) + 3)}")
    for name, rows in groups.items():
        cells = [f"{mean([row['values'][way] for row in rows if way in row['values']]):.2f}" for way in ways]
        harm = [str(sum(row["values"][way] < row["values"]["plain"] - HARM for row in rows)) for way in looked]
        print(f"| {name} | {len(rows)} | {' | '.join(cells)} | {' / '.join(harm)} |")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", nargs="+")
    parser.add_argument("--model", default="clearfuse-small")
    parser.add_argument("--sure", type=float, nargs="+", default=[0.5, 0.8, 0.9])
    parser.add_argument("--limit", type=int, help="samples of a shard")
    parser.add_argument("--json", help="write every row there")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    rows = rows_of(options.shards, options.model, options.sure, options.limit)
    if options.json:
        with open(options.json, "w") as file:
            json.dump(rows, file, indent=1, ensure_ascii=False)
    by: dict[str, dict[str, list[Row]]] = {"task": defaultdict(list), "degradation": defaultdict(list)}
    for row in rows:
        kind = "clean" if row["op"] == "clean" else "degraded"
        by["task"][f"{row['task']}, {kind}"].append(row)
        by["degradation"][row["op"]].append(row)
    for title, groups in by.items():
        table(title, dict(sorted(groups.items())))


if __name__ == "__main__":
    main()
