"""The table of training objectives."""

from __future__ import annotations

from clearfuse.train.objectives.base import Objective
from clearfuse.train.objectives.flow import FlowMatching
from clearfuse.train.objectives.regression import Regression
from clearfuse.train.objectives.schrodinger import SchrodingerBridge

OBJECTIVES: dict[str, type[Objective]] = {cls.kind: cls for cls in (Regression, FlowMatching, SchrodingerBridge)}

__all__ = ["OBJECTIVES", "Objective"]
