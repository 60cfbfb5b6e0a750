"""The table of training objectives."""

from __future__ import annotations

from clearfuse.synth.types import unknown
from clearfuse.train.objectives.base import Objective
from clearfuse.train.objectives.flow import FlowMatching
from clearfuse.train.objectives.regression import Regression
from clearfuse.train.objectives.schrodinger import SchrodingerBridge

OBJECTIVES: dict[str, type[Objective]] = {
    "regression": Regression,
    "flow": FlowMatching,
    "i2sb": SchrodingerBridge,
}


def find_objective(name: str) -> type[Objective]:
    """The objective with this name. Raises UserError for an unknown one."""
    if name not in OBJECTIVES:
        raise unknown("objective", name, OBJECTIVES)
    return OBJECTIVES[name]


__all__ = ["OBJECTIVES", "Objective", "find_objective"]
