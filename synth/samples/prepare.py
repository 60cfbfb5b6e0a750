"""Preparation of a clean pair, once for all its samples: decoding, ground truth and depth.

On the whole image at native resolution. Ground truth and depth are stored in the user's cache where a build needs them
more than once or a network makes them; every build reads them from there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from clearfuse.synth.datasets.read import CleanPair, read_pair
from clearfuse.synth.depth import metres as depth_maps
from clearfuse.synth.depth.base import DepthInput, DepthNetwork, DepthSource
from clearfuse.synth.execute.tasks import one_thread, report
from clearfuse.synth.files import cache
from clearfuse.synth.files.storage import Location
from clearfuse.synth.fusers import FUSERS
from clearfuse.synth.fusers.choice import fuser_weights, is_network
from clearfuse.synth.fusers.quality import truth_quality
from clearfuse.synth.operators import operator_class
from clearfuse.synth.samples.mixture import Mixture
from clearfuse.synth.samples.recipe import Recipe
from clearfuse.synth.samples.single import pair_of
from clearfuse.synth.seeds import generator, seed_of, unit_hash
from clearfuse.synth.shards.codecs import CODECS
from clearfuse.synth.shards.records import Exposed, Focused, Origin
from clearfuse.synth.types import BadPair, BuildTask, PairRef, Task, UserError
from clearfuse.synth.version import __version__

FAR = (100.0, 225.0)
"""Range in metres of the far end of estimated depth, log-uniform over pairs about ``metres.USUAL_FAR``.

It scales every estimate. Distances of unknown scale may be off by more, but then one severity would not mean one
strength: of haze at a visibility V an object at 12 m would look as at 40 m in another pair.
"""

BATCH = 8
"""Pairs prepared together."""


@dataclass(frozen=True)
class Spec:
    """The settings that determine a sample, apart from the pair itself.

    fusers, depths: by data set. partial: share of samples whose prompt asks to remove only some steps. largest: longest
    side that the codec stores, in pixels. lean: clean crops only, without degraded images, steps and prompt. keep:
    store results in the cache; affects no pixel. min_gt: least Qabf of a ground truth. language: of the prompts.
    """

    task: BuildTask
    seed: int
    recipe: Recipe | Mixture
    fusers: Mapping[str, str]
    depths: Mapping[str, DepthSource]
    partial: float = 0.0
    largest: int = 16383
    prompts: Path | None = None
    lean: bool = False
    keep: bool = False
    min_gt: float = 0.0
    language: str = "en"

    def takes_depth(self) -> bool:
        """Whether samples may need depth: an operator of the recipe uses it, or the build is lean."""
        if isinstance(self.recipe, Mixture):
            return False
        return self.lean or any(operator_class(name).takes_depth() for name in self.recipe.operators)


@dataclass(frozen=True)
class Prepared:
    """A clean pair with its ground truth; depth is estimated on demand, at native resolution.

    gt: None for a real pair, for which no depth is estimated either. single: how the pair was made of a single picture.
    codes: the depth as stored, where it is known already.
    """

    ref: PairRef
    pair: CleanPair
    gt: np.ndarray | None
    single: Exposed | Focused | None = None
    codes: np.ndarray | None = None

    @property
    def truth(self) -> np.ndarray:
        """The ground truth, uint8 ``(h, w, c)``, of a pair that has one."""
        assert self.gt is not None, f"{self.ref.name}: real pairs have no ground truth"
        return self.gt

    def picture(self) -> np.ndarray:
        """The image from which depth is estimated: the visible one of VIF, the fused one of MEF and MFF.

        Of a pair made of a single picture it is that picture.
        """
        if self.ref.single and self.pair.gt is not None:
            return self.pair.gt
        return self.pair.a if self.ref.task == "vif" else self.truth

    def quality(self, spec: Spec) -> dict[str, float | None]:
        """Fusion metrics of the ground truth against the clean pair."""
        fuser = _fuser_key(spec.fusers[self.ref.dataset], self.ref.task)
        path = cache.entry("quality", _versions(), self.ref.task, fuser, _sources(self.ref, self.pair))
        if (data := cache.load_cached(path)) is not None:
            return json.loads(data)
        values = truth_quality(self.truth, self.pair.a, self.pair.b)
        if spec.keep:
            cache.keep(path, json.dumps(values).encode())
        return values

    def far(self, spec: Spec) -> float:
        """The far end of estimated depth, in metres."""
        return FAR[0] * (FAR[1] / FAR[0]) ** unit_hash(spec.seed, self.ref.dataset, self.ref.key, "far")

    def depth(self, spec: Spec) -> np.ndarray:
        """The depth as stored, uint16 (see ``depth.metres``): quantised before use, so that replay is exact."""
        if self.codes is not None:
            return self.codes
        path = depth_entry(spec, self)
        if path is not None and (data := cache.load_cached(path)) is not None:
            return depth_maps.decode_png(data)
        source = spec.depths[self.ref.dataset]
        image = self.picture()
        focused = (self.pair.a, self.pair.b) if self.ref.task == "mff" and not self.ref.single else None
        predicted = predictions(spec, source, [image])[0] if isinstance(source, DepthNetwork) else None
        known = DepthInput(self.ref.key, image, self.pair.depth, self.far(spec), focused, predicted)
        metres = source.estimate(known)
        codes = depth_maps.quantise(metres)
        if spec.keep and path is not None:
            cache.keep(path, depth_maps.encode_png(codes))
        return codes


def prepare(spec: Spec, ref: PairRef) -> Prepared:
    """Decode a pair and make its ground truth; a real pair has none. Raises BadPair with the reason."""
    return add_ground_truth(spec, ref, read_pair(ref))


def add_ground_truth(spec: Spec, ref: PairRef, pair: CleanPair, counts: PreparedCounts | None = None) -> Prepared:
    """A decoded pair with its ground truth; of a single picture, the pair is made of it first.

    counts: told where a ground truth is fused anew. Raises BadPair where the data set's own is requested and missing,
    or where no pair can be made of a single picture.
    """
    if ref.real:
        return Prepared(ref, pair, None)
    if ref.single and isinstance(spec.recipe, Mixture):
        return Prepared(ref, pair, pair.gt)
    if ref.single:
        return _of_picture(spec, ref, pair, counts)
    return _with_truth(spec, ref, pair, counts)


def _of_picture(spec: Spec, ref: PairRef, picture: CleanPair, counts: PreparedCounts | None) -> Prepared:
    """The pair made of a single picture, the same for all variants, with its ground truth."""
    codes, source = None, spec.depths[ref.dataset]
    if ref.task == "mff":
        codes = Prepared(ref, picture, picture.gt).depth(spec)
    metres = None if codes is None else depth_maps.dequantise(codes)
    rng = generator(seed_of(spec.seed, ref.task, ref.dataset, ref.key, "single"))
    made = pair_of(picture.a, ref.task, metres, Origin(name=source.name, weights=source.weights), rng)
    hashes = {name: hashlib.sha256(image.tobytes()).hexdigest() for name, image in (("a", made.a), ("b", made.b))}
    pair = replace(picture, a=made.a, b=made.b, sha256={**hashes, **picture.sha256})
    return replace(_with_truth(spec, ref, pair, counts), single=made.how, codes=codes)


def _with_truth(spec: Spec, ref: PairRef, pair: CleanPair, counts: PreparedCounts | None) -> Prepared:
    if spec.fusers[ref.dataset] == "dataset":
        if pair.gt is None:
            raise BadPair("no ground truth beside it, and --fuser dataset asks for the data set's own")
        return Prepared(ref, pair, pair.gt)
    path = truth_entry(spec, ref, pair)
    if (data := cache.load_cached(path)) is not None:
        return Prepared(ref, pair, CODECS["png"].decode(data))
    gt = FUSERS[spec.fusers[ref.dataset]]()(pair.a, pair.b, ref.task)
    if counts is not None:
        counts.truths += 1
    if spec.keep:
        cache.keep(path, CODECS["png"].encode(gt))
    return Prepared(ref, pair, gt)


def truth_entry(spec: Spec, ref: PairRef, pair: CleanPair) -> Location:
    """The cache entry of the pair's fused ground truth."""
    fuser = _fuser_key(spec.fusers[ref.dataset], ref.task)
    return cache.entry("truth", _versions(), ref.task, fuser, _sources(ref, pair, ("a", "b")))


def depth_entry(spec: Spec, prepared: Prepared) -> Location | None:
    """The cache entry of the pair's metric depth; None where depth is read rather than estimated."""
    source = spec.depths[prepared.ref.dataset]
    if not source.cached:
        return None
    fuser = (
        None
        if prepared.ref.task == "vif" or prepared.ref.single
        else _fuser_key(spec.fusers[prepared.ref.dataset], prepared.ref.task)
    )
    torch_version = None if source.weights is None else version("torch")
    # Of a single picture it is estimated before the pair is made.
    sources = _sources(prepared.ref, prepared.pair, ["gt"] if prepared.ref.single else None)
    # All source files, since depth of MEF and MFF may be estimated from the data set's own ground truth.
    key = (prepared.ref.task, source.name, source.weights, torch_version, prepared.far(spec), fuser)
    return cache.entry("depth", _versions(), *key, sources)


def predictions(spec: Spec, source: DepthNetwork, pictures: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The predictions of a depth network for pictures: from the cache, the missing ones in one batch.

    Rounded to half precision, as it is cached, before use, so that the cache changes no result.
    """
    paths = [
        cache.entry("inverse", _versions(), version("torch"), source.weights, picture.shape, _digest(picture))
        for picture in pictures
    ]
    cached = [cache.load_cached(path) for path in paths]
    missing = [i for i, data in enumerate(cached) if data is None]
    computed = source.predict([pictures[i] for i in missing]) if missing else []
    out: list[np.ndarray] = [np.empty(0)] * len(pictures)
    for i, predicted in zip(missing, computed, strict=True):
        half = predicted.astype(np.float16)
        if spec.keep:
            cache.keep(paths[i], np.array(half.shape, "<u4").tobytes() + half.astype("<f2").tobytes())
        out[i] = half.astype(np.float32)
    for i, data in enumerate(cached):
        if data is not None:
            shape = np.frombuffer(data[:8], "<u4").astype(int)
            out[i] = np.frombuffer(data[8:], "<f2").reshape(shape).astype(np.float32)
    return out


@dataclass
class PreparedCounts:
    """How many ground truths and depth maps were computed rather than found in the cache."""

    truths: int = 0
    depths: int = 0


def prepare_batch(spec: Spec, refs: Sequence[PairRef]) -> PreparedCounts:
    """Compute what the cache lacks for these pairs; pairs that cannot be read are skipped, and rejected later."""
    with one_thread(torch=uses_network(spec.fusers, spec.depths)):
        return _prepare_batch(spec, refs)


def _prepare_batch(spec: Spec, refs: Sequence[PairRef]) -> PreparedCounts:
    counts = PreparedCounts()
    _predict_single(spec, refs)
    need_depth: dict[str, list[Prepared]] = {}
    for ref in refs:
        if ref.real:
            continue  # has neither ground truth nor depth
        report(ref.name)
        try:
            pair = read_pair(ref)
            split = depth_entry(spec, Prepared(ref, pair, None)) if _is_split(spec, ref) else None
            counts.depths += split is not None and not split.is_file()  # made for the pair itself
            prepared = add_ground_truth(spec, ref, pair, counts)
            if not ref.single or prepared.single is not None:
                prepared.quality(spec)
            path = depth_entry(spec, prepared) if spec.takes_depth() and not ref.predegraded else None
            if path is not None and not path.is_file():
                need_depth.setdefault(ref.dataset, []).append(prepared)
        except UserError:  # a missing network: no pair would work
            raise
        except Exception:  # a pair that cannot be read or fused: rejected when its samples are rendered
            continue
    for dataset, batch in need_depth.items():
        source = spec.depths[dataset]
        if isinstance(source, DepthNetwork):
            report(f"the depth of {batch[0].ref.name}")
            # In one batch, for the calls of depth() below.
            predictions(spec, source, [prepared.picture() for prepared in batch])
        for prepared in batch:
            prepared.depth(spec)
            counts.depths += 1
    return counts


def _predict_single(spec: Spec, refs: Sequence[PairRef]) -> None:
    """What depth networks say of the single pictures that are split by depth, in one batch, for the calls to come."""
    pictures: dict[str, list[np.ndarray]] = {}
    for ref in refs:
        if _is_split(spec, ref) and isinstance(spec.depths[ref.dataset], DepthNetwork):
            with contextlib.suppress(Exception):  # it is rejected when the pair itself is made
                pictures.setdefault(ref.dataset, []).append(read_pair(ref).a)
    for dataset, those in pictures.items():
        source = spec.depths[dataset]
        assert isinstance(source, DepthNetwork)
        report(f"the depth of {len(those)} pictures of {dataset}")
        predictions(spec, source, those)


def _is_split(spec: Spec, ref: PairRef) -> bool:
    """Whether a pair of two focus distances is made of a single picture, by its depth."""
    return ref.single and ref.task == "mff" and not isinstance(spec.recipe, Mixture)


def uses_network(fusers: Mapping[str, str], depths: Mapping[str, DepthSource]) -> bool:
    """Whether a network makes ground truth or depth, so that results are worth caching even for one variant."""
    return any(map(is_network, fusers.values())) or any(isinstance(depth, DepthNetwork) for depth in depths.values())


def on_gpu(spec: Spec) -> bool:
    """Whether networks run on a CUDA device, for which one process is best."""
    if not uses_network(spec.fusers, spec.depths):
        return False
    import torch

    return torch.cuda.is_available()


@lru_cache(maxsize=1)  # package metadata is read from files
def _versions() -> list[str]:
    return [__version__, *(version(name) for name in ("numpy", "opencv-python-headless"))]


def _fuser_key(fuser: str, task: Task) -> list[str]:
    """A fuser for cache keys: its name, and for a network its weights and torch's version."""
    weights = fuser_weights(fuser, task)
    return [fuser] if weights is None else [fuser, weights, version("torch")]


def _sources(ref: PairRef, pair: CleanPair, names: Iterable[str] | None = None) -> dict[str, Any]:
    """What decides a pair's pixels, for cache keys. names: of the images; all."""
    hashes = {name: pair.sha256[name] for name in names or pair.sha256}
    return hashes if ref.scale is None else {**hashes, "scale": ref.scale}


def _digest(picture: np.ndarray) -> str:
    return cache.digest(np.ascontiguousarray(picture).tobytes()).hex()
