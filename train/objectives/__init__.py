"""The table of training objectives."""

from __future__ import annotations

from clearfuse.synth.tables import Table
from clearfuse.train.objectives.base import Objective
from clearfuse.train.objectives.flow import FlowMatching
from clearfuse.train.objectives.regression import Regression
from clearfuse.train.objectives.schrodinger import SchrodingerBridge

OBJECTIVES: Table[type[Objective]] = Table(
    "objective", {cls.kind: cls for cls in (Regression, FlowMatching, SchrodingerBridge)}, own="kind"
)

__all__ = ["OBJECTIVES", "Objective"]
