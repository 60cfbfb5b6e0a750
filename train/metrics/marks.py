"""Which metrics noise or haze raise, from ``manifests/stress.toml``, which ``train metrics stress --out`` writes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated

from pydantic import Field

from clearfuse.synth.files.resources import read_toml, resource_dir
from clearfuse.synth.files.schema import Schema, StrictModel, validate

SIGN = "‡"
PLAIN_SIGN = "!"
"""In place of SIGN where a terminal may have ASCII alone."""
MARKED = ("noise", "haze")
"""The disturbances that count for a mark: a method that leaves them in should not gain by it."""

CLEAR = 0.3
"""The trend above which a metric counts as raised; below, scenes or strengths are of two minds."""


@dataclass(frozen=True)
class Answer:
    """How a metric answers to a disturbance at rising strengths.

    trend: Spearman's correlation of strength and goodness, mean over the scenes: −1 where more is always worse, 1 where
    more is always better. change: the relative change of the value at the greatest strength, median over the scenes;
    best: that at the strength where the metric is best; both None where the undisturbed value is 0 or infinite.
    """

    trend: float
    change: float | None
    best: float | None

    @property
    def rewards(self) -> bool:
        """Whether the metric calls the disturbed image better, by and large."""
        return self.trend > CLEAR


class MarkFields(StrictModel):
    """``manifests/stress.toml``: of each profile's metrics an ``Answer`` by disturbance."""

    schema_: Schema
    scenes: dict[str, int]
    """Pairs by task and data set."""
    profiles: dict[str, dict[str, dict[str, Annotated[list[float], Field(min_length=1, max_length=3)]]]] = {}  # noqa: RUF012
    """By profile, disturbance and metric: [trend, change, best], or [trend] where there is no change to tell."""


@lru_cache(maxsize=1)
def answers() -> Mapping[str, Mapping[str, Mapping[str, Answer]]]:
    """The checked-in table: by profile, disturbance and metric."""
    path = resource_dir("manifests") / "stress.toml"
    fields = validate(MarkFields, read_toml(path), str(path))

    def answer(trend: float, change: float | None = None, best: float | None = None) -> Answer:
        return Answer(trend, change, best)

    return {
        profile: {
            disturbance: {name: answer(*numbers) for name, numbers in of.items()} for disturbance, of in table.items()
        }
        for profile, table in fields.profiles.items()
    }


def rewards(metric: str, profile: str = "strict") -> dict[str, Answer]:
    """The answers of a metric to those of ``MARKED`` that raise its goodness; empty for one that was not tested."""
    table = answers().get(profile, {})
    found = {name: table[name][metric] for name in MARKED if metric in table.get(name, {})}
    return {name: answer for name, answer in found.items() if answer.rewards}


def mark(metric: str, profile: str = "strict", *, plain: bool = False) -> str:
    """What stands behind a metric's name in a report: SIGN for one that noise or haze raise, else nothing."""
    return (PLAIN_SIGN if plain else SIGN) if rewards(metric, profile) else ""


def explain(metrics: Iterable[str], profile: str = "strict", *, plain: bool = False) -> str:
    """One sentence for the marked ones among the metrics, with the figures; empty where there is none."""
    names, told = list(metrics), list[str]()
    for name in MARKED:
        of = {metric: found[name] for metric in names if name in (found := rewards(metric, profile))}
        if of:
            each = [metric + ("" if one.best is None else f" by {one.best:+.0%}") for metric, one in of.items()]
            told.append(f"{name} changes {', '.join(each)} for the better")
    text = f"{SIGN}: the metric rewards noise or haze that is left in: {'; '.join(told)} (train metrics stress)."
    return text.replace(SIGN, PLAIN_SIGN) if plain and told else text if told else ""
