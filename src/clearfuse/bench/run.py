"""Score methods on a built benchmark: an evaluation a task, and one of real pairs, through ``train eval``'s own."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from clearfuse.bench.page import BenchmarkFile, sample_name
from clearfuse.bench.submission import REAL_TRACK, SCORES, RunFile, tracks_of
from clearfuse.bench.verify import built_parts, compare, missing_sets
from clearfuse.synth.files.jsonstream import dumps, write_json
from clearfuse.synth.files.schema import validate
from clearfuse.synth.files.storage import read_small
from clearfuse.synth.plugins import loaded
from clearfuse.synth.review.extract import extract
from clearfuse.synth.shards.receipts import read_receipt
from clearfuse.synth.shards.sample import Sample
from clearfuse.synth.shards.tar import receipt_path
from clearfuse.synth.types import UserError, check_name
from clearfuse.synth.version import __version__
from clearfuse.train.evaluation.evaluate import evaluate_portions
from clearfuse.train.evaluation.methods.choose import methods_of
from clearfuse.train.evaluation.methods.fusers import ModelMethod
from clearfuse.train.evaluation.methods.results import ENDINGS, Results, result_methods
from clearfuse.train.evaluation.samples import Portion, plan_portions
from clearfuse.train.evaluation.scoring import Method, Methods
from clearfuse.train.evaluation.summary import Evaluation

Say = Callable[[str], None]
Progress = Callable[[int, int], None]
COMPUTES = ("numpy", "opencv-python-headless", "torch")
"""The packages that scores depend on."""


class NamedResults(Results):
    """Images at ``TASK/NAME.png``, named as ``bench extract`` names the inputs."""

    def names(self, sample: Sample) -> list[str]:
        """The one path of a sample's image."""
        return [f"{sample.meta.task}/{sample_name(sample.meta, sample.key)}"]


@dataclass(frozen=True)
class Chosen:
    """What is compared: models (None: the default one), folders of results, and where networks run."""

    models: tuple[str, ...] | None
    results: tuple[str, ...] = ()
    device: str | None = None
    unprompted: bool = False


def extract_benchmark(page: BenchmarkFile, folder: str, out: str, progress: Progress) -> dict[str, int]:
    """Write the inputs of all samples as ``OUT/TASK/a/NAME.png`` and ``b``, with their prompts; samples by task."""
    there = [str(Path(folder) / part.folder) for part in built_parts(page, Path(folder))]
    if not there:
        raise UserError(f"{folder}: holds no shards of {page.name}")
    return extract(there, out, name=lambda sample: sample_name(sample.meta, sample.key), progress=progress)


def run_benchmark(
    page: BenchmarkFile,
    folder: str,
    out: str,
    chosen: Chosen,
    *,
    only: Sequence[str] = (),
    limit: int | None = None,
    workers: int | None = None,
    examples: int = 3,
    progress: Progress = lambda done, total: None,
    say: Say = lambda line: None,
) -> dict[str, Evaluation | None]:
    """Evaluate track by track; after each, ``bench.json`` says what ``bench submit`` may read. The same call goes on.

    only: the tracks to score; empty: all. limit: samples of each at most. Gives None for a track that was scored by an
    earlier call. Raises UserError, before work begins, where a shard is not the benchmark's.
    """
    place, target = Path(folder), Path(out)
    parts = built_parts(page, place)
    if problems := compare(page, place, parts):
        for line in problems:
            say(f"problem: {line}")
        raise UserError(f"{folder}: differs from {page.name}: {problems[0]}; nothing was scored")
    for line in missing_sets(page, place):
        say(f"missing: {line}")
    shards = [name for part in parts for name in part.shards]
    sha256 = {name: read_receipt(receipt_path(place / name)).sha256 for name in shards}
    tracks = tracks_of(page, sha256)
    for track in only:
        check_name("task", track, tracks)
    choose = _methods(chosen)
    run = _Run(page, choose(()), sha256, tracks, limit)
    before = _scored(target)
    kept = [track for track in tracks if before.get(track) == run.digest(track)]
    done: dict[str, Evaluation | None] = {}
    for track in tracks:
        if only and track not in only:
            continue
        if track in kept:
            say(f"{track}: already scored")
            done[track] = None
            continue
        portions = plan_portions([str(place / name) for name in tracks[track]], limit)
        say(f"{track}: {sum(portion.take for portion in portions)} samples")
        done[track] = evaluate_portions(
            *(portions, str(target / track)),
            metrics=",".join(page.real_metrics if track == REAL_TRACK else page.metrics),
            methods=choose, examples=examples, workers=workers, progress=progress, note=say,
        )  # fmt: skip
        kept = [one for one in tracks if one in (*kept, track)]
        write_json(target / SCORES, run.record(kept))
    return done


@dataclass(frozen=True)
class _Run:
    """What is scored: the methods, the shards with their sha256, and these by track."""

    page: BenchmarkFile
    methods: Sequence[Method]
    sha256: Mapping[str, str]
    tracks: Mapping[str, Sequence[str]]
    limit: int | None

    @property
    def versions(self) -> dict[str, str]:
        """Of what computes."""
        plugins = {f"plugin {one.name}": one.sha256 for one in loaded()}
        return {"clearfuse": __version__, **{name: version(name) for name in COMPUTES}, **plugins}

    def digest(self, track: str) -> str:
        """Of all that decides a track's report."""
        methods = [[one.name, one.identity, one.upper_bound] for one in self.methods]
        shards = {name: self.sha256[name] for name in self.tracks[track]}
        return hashlib.sha256(dumps([self.page.definition, methods, shards, self.limit, self.versions])).hexdigest()

    def record(self, tracks: Sequence[str]) -> dict[str, Any]:
        """``bench.json`` of these tracks."""
        return {
            "schema": 1, "benchmark": self.page.name, "definition": self.page.definition,
            "shards": {name: self.sha256[name] for track in tracks for name in self.tracks[track]},
            "versions": self.versions, "methods": [_record(method) for method in self.methods],
            "tracks": {track: self.digest(track) for track in tracks},
            "of": {track: sum(self.page.shards[name].samples for name in self.tracks[track]) for track in tracks},
        }  # fmt: skip


def _scored(target: Path) -> Mapping[str, str]:
    """The tracks that an earlier call scored, with their digests."""
    path = target / SCORES
    if not path.is_file():
        return {}
    found = validate(RunFile, read_small(path), str(path)).tracks
    return {track: digest for track, digest in found.items() if (target / track / "report.json").is_file()}


def _methods(chosen: Chosen) -> Methods:
    """The methods of ``train eval`` without learned fusers, and results named as the benchmark names them."""
    standard, _ = methods_of(chosen.models, fusers=("none",), device=chosen.device, unprompted=chosen.unprompted)

    def choose(portions: Sequence[Portion]) -> tuple[Method, ...]:
        own = result_methods(chosen.results, portions, kind=NamedResults)
        return (*own, *(standard(portions) if callable(standard) else standard))

    return choose


def _record(method: Method) -> Mapping[str, Any]:
    """What ``bench.json`` says of a method."""
    facts: dict[str, Any] = {"name": method.name, "ceiling": method.upper_bound}
    if isinstance(method.fuse, ModelMethod):
        from clearfuse.train.designs.folder import WEIGHTS
        from clearfuse.train.pipeline.shipped import folder_of

        path = folder_of(method.fuse.model) / WEIGHTS
        facts["weights"] = _sha256([path]) if path.is_file() else None
    if isinstance(method.fuse, Results):
        folder = method.fuse.folder
        images = sorted(path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS)
        facts["images"] = _sha256(images, folder)
    return facts


def _sha256(paths: Iterable[Path], folder: Path | None = None) -> str:
    """Of a file's bytes; of several below a folder, of their names and bytes, one after another."""
    whole = hashlib.sha256()
    for path in paths:
        if folder is not None:
            whole.update(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            for block in iter(partial(file.read, 1 << 20), b""):
                whole.update(block)
    return whole.hexdigest()
