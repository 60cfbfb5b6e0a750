"""Pictures of shards as files: inputs for other methods, under the names that ``train eval --results`` reads."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from clearfuse.synth.files.folders import new_folder
from clearfuse.synth.files.storage import Location, is_below, local
from clearfuse.synth.shards.codecs import CODECS
from clearfuse.synth.shards.find import find_shards
from clearfuse.synth.shards.sample import Sample, read_samples
from clearfuse.synth.types import UserError, check_name

IMAGES = ("a", "b", "gt", "clean_a", "clean_b")
PROMPTS = "prompts.jsonl"

Progress = Callable[[int, int], None]


def extract(
    paths: Sequence[str],
    out: str,
    images: Sequence[str] = ("a", "b"),
    *,
    name: Callable[[Sample], str] | None = None,
    progress: Progress = lambda done, total: None,
) -> dict[str, int]:
    """Write ``TASK/IMAGE/KEY.png`` and ``TASK/prompts.jsonl`` to the new folder ``out``, there whole or not at all.

    Gives the number of samples by task.

    A method's results belong at ``TASK/KEY.png``. images: some of ``IMAGES``. A line of the prompts has key, prompt,
    dataset, pair and the operators of a sample. name: what stands in the key's place, where it tells samples of several
    builds apart. Raises UserError for wrong arguments, for samples that lack an image, and for two builds of one task,
    whose keys are the same, without ``name``.
    """
    for image in images:
        check_name("image", image, IMAGES)
    target = local(out, "--out")
    shards, _ = find_shards(paths)
    tasks: Counter[str] = Counter()
    builds: dict[str, Location] = {}
    try:
        with new_folder(target) as folder:
            for done, shard in enumerate(shards):
                progress(done, len(shards))
                for sample in read_samples(shard, images, depth=False):
                    task = sample.meta.task
                    if name is None and builds.setdefault(task, shard.parent) != shard.parent:
                        raise UserError(
                            f"{builds[task]} and {shard.parent}: two builds of {task}, whose keys are the same; "
                            "extract each to a folder of its own"
                        )
                    called = sample.key if name is None else name(sample)
                    if not is_below(called):
                        raise UserError(f"{shard}: sample {sample.key}: {called} is no name of a file")
                    _write(sample, called, images, folder / task)
                    tasks[task] += 1
            if not tasks:
                raise UserError(f"{', '.join(paths)}: no samples to extract")
    except ValueError as error:
        raise UserError(f"{error}; see synth verify") from None
    progress(len(shards), len(shards))
    return dict(tasks)


def _write(sample: Sample, name: str, images: Sequence[str], folder: Path) -> None:
    for image in images:
        path = folder / image / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(CODECS["png"].encode(sample.images[image]))
    meta = sample.meta
    line = {"key": name, "prompt": sample.prompt, "dataset": meta.dataset, "pair": meta.pair}
    line |= {"operators": [step.op for step in meta.steps]}
    with (folder / PROMPTS).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, ensure_ascii=False) + "\n")
