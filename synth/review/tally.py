"""Counting over samples in bounded memory: thinned values, histograms, and what a sample's ``json`` adds to them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from clearfuse.synth.seeds import seed_of
from clearfuse.synth.shards.records import Blocks, SampleMeta
from clearfuse.synth.types import Step

SEVERITY_BINS = 5
BINS = 12
"""Of the histograms of parameters, prompt lengths and metrics."""


@dataclass
class BoundedSample:
    """Numbers as they come, at most ``most`` of them kept: every one, then every second, every fourth, and so on."""

    most: int = 4096
    stride: int = 1
    seen: int = 0
    low: float = float("inf")
    high: float = float("-inf")
    values: list[float] = field(default_factory=list[float])

    def add(self, value: float) -> None:
        """Take one more."""
        self.low, self.high = min(self.low, value), max(self.high, value)
        if self.seen % self.stride == 0:
            if len(self.values) == self.most:
                self.values, self.stride = self.values[::2], 2 * self.stride
            if self.seen % self.stride == 0:
                self.values.append(value)
        self.seen += 1

    def stats(self) -> dict[str, Any]:
        """count, lowest, median and highest, and how many of those kept fall in each of ``BINS`` equal bins between."""
        bins = [0] * BINS
        span = self.high - self.low
        for value in self.values:
            bins[min(int((value - self.low) / span * BINS), BINS - 1) if span > 0 else 0] += 1
        ordered = sorted(self.values)
        return {
            "count": self.seen,
            "low": self.low,
            "median": ordered[len(ordered) // 2],
            "high": self.high,
            "bins": bins,
        }


@dataclass
class DistinctCount:
    """How many different texts there are: exactly up to ``most``, then within about 1/sqrt(most) of it.

    The smallest hashes are kept; with k of them below the share x of their range there are about (k − 1)/x in all.
    Source: Bar-Yossef et al., Counting distinct elements in a data stream, RANDOM 2002.
    """

    most: int = 1 << 16
    hashes: set[int] = field(default_factory=set[int])
    bound: int = 1 << 53

    def add(self, text: str) -> None:
        """Take one more."""
        value = seed_of(text)
        if value < self.bound:
            self.hashes.add(value)
            if len(self.hashes) == 2 * self.most:
                kept = sorted(self.hashes)[: self.most]
                self.hashes, self.bound = set(kept), kept[-1]

    def __len__(self) -> int:
        if self.bound == 1 << 53:
            return len(self.hashes)
        return round((len(self.hashes) - 1) / (max(self.hashes) / 2.0**53))


@dataclass
class Measure:
    """A parameter or metric: numbers, or names and how often each was drawn."""

    numbers: BoundedSample = field(default_factory=BoundedSample)
    names: Counter[str] = field(default_factory=Counter[str])

    def add(self, value: Any) -> None:
        """Take one more; what is neither a number nor a name is counted by its kind."""
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            self.numbers.add(float(value))
        else:
            self.names[value if isinstance(value, str) else type(value).__name__] += 1

    def stats(self) -> dict[str, Any]:
        """The numbers' statistics, the names' counts, or both."""
        numbers = self.numbers.stats() if self.numbers.seen else {}
        return numbers | ({"names": dict(ordered(self.names))} if self.names else {})


COUNTED = (
    "categories",
    "controls",
    "classes",
    "blocks",
    "sides",
    "n",
    "operators",
    "combinations",
    "datasets",
    "ratios",
    "sizes",
    "fusers",
    "asked",
    "splits",
    "strengths",
)
"""What is counted by name."""


@dataclass
class Tally:
    """What has been seen of samples so far; grows with what is different in them, not with their number."""

    samples: int = 0
    lean: int = 0
    given: int = 0
    real: int = 0
    count: dict[str, Counter[str]] = field(
        default_factory=lambda: {name: Counter() for name in (*COUNTED, "templates")}
    )
    together: dict[str, Counter[str]] = field(default_factory=dict[str, "Counter[str]"])
    targets: dict[str, Counter[str]] = field(default_factory=dict[str, "Counter[str]"])
    severities: dict[str, list[int]] = field(default_factory=dict[str, "list[int]"])
    parameters: dict[str, dict[str, Measure]] = field(default_factory=dict[str, "dict[str, Measure]"])
    metrics: dict[str, Measure] = field(default_factory=dict[str, Measure])
    words: BoundedSample = field(default_factory=BoundedSample)
    prompts: DistinctCount = field(default_factory=DistinctCount)

    def add(self, meta: SampleMeta, prompt: str | None) -> None:
        """Count a sample by its ``json`` and its prompt; None for a lean one."""
        self.samples += 1
        self.lean += meta.lean
        self.given += meta.given
        self.real += meta.real
        self.count["categories"][meta.category] += 1
        if meta.control is not None:
            self.count["controls"][meta.control.tag] += 1
        if meta.segment is not None:
            self.count["classes"][meta.segment.name if any(meta.segment.counts[1::2]) else "none shown"] += 1
        if meta.blocks is not None:
            self._add_blocks(meta.blocks)
        self.count["datasets"][meta.dataset] += 1
        self.count["splits"][meta.split] += 1
        self.count["ratios"][meta.ratio] += 1
        self.count["sizes"]["x".join(map(str, meta.crop[2:]))] += 1
        self.count["fusers"][meta.fuser.name] += 1
        for name, value in meta.gt_quality.items():
            if value is not None:
                self.metrics.setdefault(name, Measure()).add(value)
        if prompt is None:
            return
        self.prompts.add(prompt)
        self.words.add(len(prompt.split()))
        self.count["templates"].update(meta.prompt.templates)
        self.count["strengths"][meta.prompt.strength or "unsaid"] += 1
        self.count["n"][str(meta.n)] += 1
        self.count["asked"]["a part" if meta.partial else "all"] += 1
        names = [step.op for step in meta.steps]
        self.count["combinations"][" + ".join(names) or "none named"] += 1
        for step in meta.steps:
            self._add_step(step, names)

    def _add_blocks(self, blocks: Blocks) -> None:
        for block in blocks.blocks:
            self.count["blocks"][block.op] += 1
            self.count["sides"][block.side] += 1
            for name, value in block.params.items():
                self.parameters.setdefault(block.op, {}).setdefault(name, Measure()).add(value)

    def _add_step(self, step: Step, names: list[str]) -> None:
        op = step.op
        self.count["operators"][op] += 1
        self.together.setdefault(op, Counter()).update(name for name in names if name != op)
        self.targets.setdefault(op, Counter())[step.target] += 1
        if step.severity is not None:
            bins = self.severities.setdefault(op, [0] * SEVERITY_BINS)
            bins[min(int(step.severity * SEVERITY_BINS), SEVERITY_BINS - 1)] += 1
        for name, value in step.params.items():
            self.parameters.setdefault(op, {}).setdefault(name, Measure()).add(value)

    def to_json(self) -> dict[str, Any]:
        """The counts, the most frequent first."""
        return {
            "samples": self.samples,
            "lean": self.lean,
            "given": self.given,
            "real": self.real,
            **{name: dict(ordered(self.count[name])) for name in COUNTED},
            "n": {n: self.count["n"][n] for n in sorted(self.count["n"], key=int)},
            "together": {op: dict(ordered(counter)) for op, counter in sorted(self.together.items())},
            "targets": {op: dict(sorted(counter.items())) for op, counter in sorted(self.targets.items())},
            "severities": dict(sorted(self.severities.items())),
            "parameters": {
                op: {name: measure.stats() for name, measure in held.items()}
                for op, held in sorted(self.parameters.items())
            },
            "metrics": {name: measure.stats() for name, measure in self.metrics.items()},
            "prompts": len(self.prompts),
            "templates": dict(ordered(self.count["templates"])),
            "words": self.words.stats() if self.words.seen else {},
        }


def ordered(counter: Mapping[str, int]) -> list[tuple[str, int]]:
    """The most frequent first, equal ones by name."""
    return sorted(counter.items(), key=lambda item: (-item[1], item[0]))


_FILE = re.compile(r"^[^:]*\.\w{2,5}: ")
_NUMBER = re.compile(r"-?\d+(\.\d+)?(e[+-]?\d+)?")


def kind_of(reason: str) -> str:
    """A reject's reason without the file's name and with # for numbers, so that like reasons fall together."""
    return _NUMBER.sub("#", _FILE.sub("", reason))
