"""*Prepare*: what a build needs of a clean pair once, whatever the number of variants and of builds.

Decoding, the ground truth, and depth, whole and at native resolution. Ground truth and depth are kept in the user's
cache where a build needs them more than once or a network makes them; what is there is used by any build.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from clearfuse.synth.datasets.read import CleanPair, read_pair
from clearfuse.synth.depth import metres as depth_maps
from clearfuse.synth.depth.anything import inverse_depths
from clearfuse.synth.depth.source import DepthSource
from clearfuse.synth.execute.tasks import report
from clearfuse.synth.files import cache
from clearfuse.synth.files.storage import Location
from clearfuse.synth.fusers import FUSERS
from clearfuse.synth.fusers.choice import fuser_weights
from clearfuse.synth.fusers.quality import truth_quality
from clearfuse.synth.operators import operator_class
from clearfuse.synth.samples.recipe import Recipe
from clearfuse.synth.seeds import unit_hash
from clearfuse.synth.shards.codecs import CODECS
from clearfuse.synth.types import BadPair, PairRef, Task, UserError
from clearfuse.synth.version import __version__

FAR = (50.0, 500.0)
"""Metres: where the far end of an estimated depth is put, log-uniform by pair."""

NETWORKS = ("depth-anything", "swinfusion", "defuse")
"""Depth sources and fusers that are worth keeping the work of, even for one variant."""

BATCH = 8
"""Pairs that are prepared together."""


@dataclass(frozen=True)
class Spec:
    """What decides a sample's pixels beside the pair itself. lean: without degraded images, steps and prompt.

    keep: what is made of a pair goes to the cache; decides no pixel. min_gt: the least Qabf of a ground truth.
    """

    task: Task
    seed: int
    recipe: Recipe
    fusers: Mapping[str, str]
    depths: Mapping[str, DepthSource]
    partial: float = 0.0
    largest: int = 16383
    prompts: Path | None = None
    lean: bool = False
    keep: bool = False
    min_gt: float = 0.0

    def takes_depth(self) -> bool:
        """Whether samples may need depth: any of the recipe's operators takes it, or the build is lean."""
        return self.lean or any(operator_class(name).takes_depth() for name in self.recipe.operators)


@dataclass(frozen=True)
class Prepared:
    """A clean pair with its ground truth; depth is estimated on first need, at native resolution.

    gt: None of a real pair, which no depth is estimated for either.
    """

    ref: PairRef
    pair: CleanPair
    gt: np.ndarray | None

    @property
    def truth(self) -> np.ndarray:
        """The ground truth of a pair that has one: uint8 ``(h, w, c)``."""
        assert self.gt is not None, f"{self.ref.name}: real pairs have no ground truth"
        return self.gt

    def picture(self, task: Task) -> np.ndarray:
        """What depth is estimated from: the visible frame of VIF; of MEF and MFF the fused one, which shows most."""
        return self.pair.a if task == "vif" else self.truth

    def quality(self, spec: Spec) -> dict[str, float | None]:
        """Fusion metrics of the ground truth against the clean pair."""
        fuser = _made_by(spec.fusers[self.ref.dataset], spec.task)
        path = cache.entry("quality", _versions(), spec.task, fuser, dict(self.pair.sha256))
        if (data := cache.load_cached(path)) is not None:
            return json.loads(data)
        found = truth_quality(self.truth, self.pair.a, self.pair.b)
        if spec.keep:
            cache.keep(path, json.dumps(found).encode())
        return found

    def far(self, spec: Spec) -> float:
        """Metres of the far end of an estimated depth."""
        return FAR[0] * (FAR[1] / FAR[0]) ** unit_hash(spec.seed, self.ref.dataset, self.ref.key, "far")

    def depth(self, spec: Spec) -> np.ndarray:
        """uint16 as stored: quantised before use, so that replay is exact."""
        path = depth_entry(spec, self)
        if path is not None and (data := cache.load_cached(path)) is not None:
            return depth_maps.decode_png(data)
        source = spec.depths[self.ref.dataset]
        image = self.picture(spec.task)
        focused = (self.pair.a, self.pair.b) if spec.task == "mff" else None
        inverse = inverses(spec, [self])[0] if source.name == "depth-anything" else None
        metres = source.estimate(self.ref.key, image, self.pair.depth, self.far(spec), focused, inverse)
        codes = depth_maps.quantise(metres)
        if spec.keep and path is not None:
            cache.keep(path, depth_maps.encode_png(codes, level=1))
        return codes


def prepare(spec: Spec, ref: PairRef) -> Prepared:
    """Decode a pair and fuse its ground truth, whole; a real one has none. Raises BadPair with the reason."""
    return fused(spec, ref, read_pair(ref))


def fused(spec: Spec, ref: PairRef, pair: CleanPair) -> Prepared:
    """A decoded pair with its ground truth. Raises BadPair where the set's own is asked for and is not there."""
    if ref.real:
        return Prepared(ref, pair, None)
    if spec.fusers[ref.dataset] == "dataset":
        if pair.gt is None:
            raise BadPair("no ground truth beside it, and --fuser dataset asks for the data set's own")
        return Prepared(ref, pair, pair.gt)
    path = truth_entry(spec, ref, pair)
    if (data := cache.load_cached(path)) is not None:
        return Prepared(ref, pair, CODECS["png"].decode(data))
    gt = FUSERS[spec.fusers[ref.dataset]]()(pair.a, pair.b, spec.task)
    if spec.keep:
        cache.keep(path, CODECS["png"].encode(gt))
    return Prepared(ref, pair, gt)


def truth_entry(spec: Spec, ref: PairRef, pair: CleanPair) -> Location:
    """Where the cache holds the pair's fused ground truth."""
    made_by = _made_by(spec.fusers[ref.dataset], spec.task)
    return cache.entry("truth", _versions(), spec.task, made_by, _sources(pair))


def depth_entry(spec: Spec, one: Prepared) -> Location | None:
    """Where the cache holds the pair's metric depth; None where it is read and not made."""
    source = spec.depths[one.ref.dataset]
    if source.name in ("true", "maps", "inverse"):
        return None
    fuser = None if spec.task == "vif" else _made_by(spec.fusers[one.ref.dataset], spec.task)
    runs = None if source.weights is None else version("torch")
    # All of its files: a set's own ground truth is what depth of MEF and MFF is estimated from.
    made_of = (spec.task, source.name, source.weights, runs, one.far(spec), fuser, dict(one.pair.sha256))
    return cache.entry("depth", _versions(), *made_of)


def inverses(spec: Spec, some: Sequence[Prepared]) -> list[np.ndarray]:
    """The network's relative inverse depth of pairs of one set, from the cache where it is there, else in one batch.

    In half precision before it is used, as it is kept, so that a kept one changes nothing.
    """
    source = spec.depths[some[0].ref.dataset]
    folder = source.folder
    assert folder is not None
    pictures = [one.picture(spec.task) for one in some]
    paths = [
        cache.entry("inverse", _versions(), version("torch"), source.weights, picture.shape, _digest(picture))
        for picture in pictures
    ]
    held = [cache.load_cached(path) for path in paths]
    missing = [i for i, data in enumerate(held) if data is None]
    made = inverse_depths([pictures[i] for i in missing], folder) if missing else []
    out: list[np.ndarray] = [np.empty(0)] * len(some)
    for i, found in zip(missing, made, strict=True):
        half = found.astype(np.float16)
        if spec.keep:
            cache.keep(paths[i], np.array(half.shape, "<u4").tobytes() + half.astype("<f2").tobytes())
        out[i] = half.astype(np.float32)
    for i, data in enumerate(held):
        if data is not None:
            shape = np.frombuffer(data[:8], "<u4").astype(int)
            out[i] = np.frombuffer(data[8:], "<f2").reshape(shape).astype(np.float32)
    return out


@dataclass
class Made:
    """How much of a stage had to be made, and was not kept from before."""

    truths: int = 0
    depths: int = 0


def prepare_batch(spec: Spec, refs: Sequence[PairRef]) -> Made:
    """Make what the cache does not hold of these pairs; a pair that cannot be read is left to be rejected later."""
    one_thread(spec)
    made = Made()
    waiting: dict[str, list[Prepared]] = {}
    for ref in refs:
        if ref.real:
            continue  # nothing is made of it
        report(ref.name)
        try:
            pair = read_pair(ref)
            there = spec.fusers[ref.dataset] == "dataset" or truth_entry(spec, ref, pair).is_file()
            one = fused(spec, ref, pair)
            made.truths += not there
            one.quality(spec)
            path = depth_entry(spec, one) if spec.takes_depth() and not ref.given else None
            if path is not None and not path.is_file():
                waiting.setdefault(ref.dataset, []).append(one)
        except UserError:  # a network that is not there: nothing of it would work
            raise
        except Exception:  # a pair that cannot be read or fused: its samples say so, and the others go on
            continue
    for dataset, some in waiting.items():
        if spec.depths[dataset].name == "depth-anything":
            report(f"the depth of {some[0].ref.name}")
            inverses(spec, some)  # in one batch; each finds its own below
        for one in some:
            one.depth(spec)
            made.depths += 1
    return made


def has_network(spec: Spec) -> bool:
    """Whether a network makes ground truth or depth."""
    return not {*spec.fusers.values(), *(source.name for source in spec.depths.values())}.isdisjoint(NETWORKS)


def on_gpu(spec: Spec) -> bool:
    """Whether networks run on a CUDA device: then one process serves it best."""
    if not has_network(spec):
        return False
    import torch

    return torch.cuda.is_available()


def one_thread(spec: Spec) -> None:
    """One thread for the networks of this process: sums over several have other last bits."""
    if has_network(spec):
        import torch

        torch.set_num_threads(1)


@lru_cache(maxsize=1)  # the metadata of packages are files
def _versions() -> list[str]:
    return [__version__, *(version(name) for name in ("numpy", "opencv-python-headless"))]


def _made_by(fuser: str, task: Task) -> list[str]:
    """A fuser, and for a network its weights and what runs it."""
    weights = fuser_weights(fuser, task)
    return [fuser] if weights is None else [fuser, weights, version("torch")]


def _sources(pair: CleanPair) -> dict[str, Any]:
    return {name: pair.sha256[name] for name in ("a", "b")}


def _digest(picture: np.ndarray) -> str:
    return cache.digest(np.ascontiguousarray(picture).tobytes()).hex()
