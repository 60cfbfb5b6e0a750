"""What a build would take on this machine, from a few of its own samples made here and thrown away."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from clearfuse.synth.datasets.read import read_pair
from clearfuse.synth.depth.base import DepthNetwork
from clearfuse.synth.depth.prior import Prior
from clearfuse.synth.execute.tasks import limit_threads, one_thread
from clearfuse.synth.fusers import FUSERS
from clearfuse.synth.fusers.choice import is_network
from clearfuse.synth.samples.prepare import Prepared, Spec, add_ground_truth, uses_network
from clearfuse.synth.samples.render import FALLBACK, render
from clearfuse.synth.shards.codecs import CODECS
from clearfuse.synth.shards.sample import encode_sample
from clearfuse.synth.shards.tar import BLOCK, in_blocks
from clearfuse.synth.types import PairRef

if TYPE_CHECKING:
    from clearfuse.synth.builder.build import Build

SECONDS = 3.0
"""How long to measure; a first sample is made whatever it takes."""
MOST = 32
"""Samples to measure at most."""
STEP = (5**0.5 - 1) / 2
"""Of all pairs, between one measured pair and the next: multiples of the golden ratio spread evenly, however many."""
PATCH = 128
"""Pixels: the side of the crop on which a network that fuses is timed; its work is in proportion to the pixels."""


@dataclass(frozen=True)
class Estimate:
    """Bytes of all shards and seconds with ``workers`` of this machine, from ``measured`` samples.

    sample_bytes, sample_seconds: of one sample in one worker. pair_seconds: what is made once a pair and kept.
    """

    bytes: int
    seconds: float
    workers: int
    measured: int
    sample_bytes: float
    sample_seconds: float
    pair_seconds: float

    def to_json(self) -> dict[str, Any]:
        """The fields, as ``synth build --dry-run --json`` has them."""
        return dataclasses.asdict(self)


@dataclass
class Clock:
    """Seconds of one measured sample: reading its pair, making what a build keeps, and all that comes after."""

    read: float = 0.0
    make: float = 0.0
    render: float = 0.0
    size: int = 0


def estimate(build: Build, workers: int | None) -> Estimate | str:
    """Make samples for ``SECONDS``, and extrapolate; or why no sample could be made. Nothing is written.

    Networks are timed on a patch, once, and the samples made without them. What the cache holds already is not taken
    off, nor what is done of the build.
    """
    limit_threads()
    with one_thread(torch=uses_network(build.spec.fusers, build.spec.depths)):
        return _estimate(build, workers)


def _estimate(build: Build, workers: int | None) -> Estimate | str:
    plain = _without_networks(build.spec)
    clocks: list[Clock] = []
    refused, began = "", time.perf_counter()
    for ref in _spread(build.pairs):
        try:
            clocks.append(_measure(plain, build.codec, ref, build.spec.keep))
        except Exception as error:  # the build will say so of this pair: it is measured without it
            refused = f"{ref.name}: {error}"
        if time.perf_counter() - began > SECONDS or len(clocks) >= MOST:
            break
    if not clocks:
        return refused
    # Medians: whatever a sample uses for the first time is loaded and compiled in it.
    read, make, after = (float(np.median([getattr(c, name) for c in clocks])) for name in ("read", "make", "render"))
    size = float(np.mean([clock.size for clock in clocks]))
    network = (
        _network_seconds(build.spec, build.pairs[0]) if uses_network(build.spec.fusers, build.spec.depths) else 0.0
    )
    sample, pair = (read + after, read + make + network) if build.spec.keep else (read + make + after, 0.0)
    hands = workers or os.cpu_count() or 1
    seconds = (build.sample_count * sample + len(build.pairs) * pair) / hands
    return Estimate(round(build.sample_count * size), seconds, hands, len(clocks), size, sample, pair)


def _spread(pairs: Sequence[PairRef]) -> Iterator[PairRef]:
    """Pairs from all over the plan, each once at most."""
    seen: set[int] = set()
    for i in range(4 * MOST):
        at = int(i * STEP % 1 * len(pairs))
        if at not in seen:
            seen.add(at)
            yield pairs[at]


def _without_networks(spec: Spec) -> Spec:
    """The same build by what needs no network, keeping nothing."""
    fusers = {name: FALLBACK if is_network(fuser) else fuser for name, fuser in spec.fusers.items()}
    depths = {name: Prior() if isinstance(one, DepthNetwork) else one for name, one in spec.depths.items()}
    return dataclasses.replace(spec, fusers=fusers, depths=depths, keep=False)


@dataclass(frozen=True)
class _Kept(Prepared):
    """A pair of which all that a build keeps is made."""

    found: Mapping[str, float | None] = field(default_factory=dict[str, "float | None"])

    def quality(self, spec: Spec) -> dict[str, float | None]:
        """As it was found."""
        return dict(self.found)


def _measure(spec: Spec, codec: str, ref: PairRef, keep: bool) -> Clock:
    """Make a sample. keep: what is made once a pair is timed apart."""
    clock, began = Clock(), time.perf_counter()
    pair = read_pair(ref)
    clock.read = time.perf_counter() - began
    began = time.perf_counter()
    prepared = add_ground_truth(spec, ref, pair)
    if keep and not ref.real:
        needs = spec.takes_depth() and not ref.predegraded
        codes = prepared.depth(spec) if needs else None
        whole = prepared.pair, prepared.gt, prepared.single, codes
        prepared = _Kept(ref, *whole, found=prepared.quality(spec))
    clock.make = time.perf_counter() - began
    began = time.perf_counter()
    members = encode_sample(render(spec, prepared, 0, "000000000"), CODECS[codec])
    clock.size = sum(BLOCK + in_blocks(len(data)) for data in members.values())
    clock.render = time.perf_counter() - began
    return clock


def _network_seconds(spec: Spec, ref: PairRef) -> float:
    """Seconds that the networks take for a pair: loaded first, then timed."""
    pair, seconds = read_pair(ref), 0.0
    fuser, depth = spec.fusers[ref.dataset], spec.depths.get(ref.dataset)
    if is_network(fuser):
        a, b = (image[:PATCH, :PATCH] for image in (pair.a, pair.b))
        network = FUSERS[fuser]()
        share = pair.a.shape[0] * pair.a.shape[1] / (a.shape[0] * a.shape[1])
        seconds += share * _second_time(lambda: network(a, b, ref.task))
    if isinstance(depth, DepthNetwork):
        seconds += _second_time(lambda: depth.predict([pair.a]))
    return seconds


def _second_time(call: Callable[[], object]) -> float:
    call()
    began = time.perf_counter()
    call()
    return time.perf_counter() - began
