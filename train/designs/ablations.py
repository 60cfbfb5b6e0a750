"""The rows of MMAIF's ablation (table 6) as designs: each is the row it comes after with one part changed.

Rows (b) to (f) add the transformer's parts one by one; (b) and (c) have DiT's sinusoidal positions; (f) is the full
model, ``mmaif-fm``. (h) and (i) are its weights
sampled otherwise; (j) to (m) are other paths to the same latents, fitted anew. The dense transformer has the hidden
width that makes its parameters those of all experts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from clearfuse.train.designs.design import Design
from clearfuse.train.models import UNetConfig
from clearfuse.train.objectives.schrodinger import SchrodingerBridge

FULL = "mmaif-fm"


@dataclass(frozen=True)
class AblationRow:
    """letter: the paper's; after: the row that it is compared with; config, objective: what it changes there."""

    letter: str
    about: str
    after: str
    config: Mapping[str, Any] = field(default_factory=dict)
    objective: Mapping[str, Any] = field(default_factory=dict)


ROWS: dict[str, AblationRow] = {
    "ablation-moe": AblationRow("c", "+ experts", "ablation-dit", {"experts": 4, "expert_width": 1752}),
    "ablation-rope": AblationRow(
        "d", "+ RoPE, and positions before each block for DiT's", "ablation-moe", {"rope": True, "pe": True}
    ),
    "ablation-value": AblationRow("e", "+ value residual", "ablation-rope", {"value_residual": True}),
    "ablation-naf": AblationRow("g", "+ NAF block", "ablation-value", {"naf": True}),
    "ablation-lora": AblationRow("f", "+ LoRA-AdaLN: the full model", "ablation-naf", {"lora": 128}),
    "ablation-euler25": AblationRow("h", "25 Euler steps", FULL, objective={"sampler": "euler", "steps": 25}),
    "ablation-euler100": AblationRow("i", "100 Euler steps", FULL, objective={"sampler": "euler", "steps": 100}),
    "ablation-z0": AblationRow("j", "from the first degraded latent", FULL, objective={"source": "a"}),
    "ablation-z1": AblationRow("k", "from the second degraded latent", FULL, objective={"source": "b"}),
    "ablation-mean": AblationRow("l", "from the mean of both degraded latents", FULL, objective={"source": "mean"}),
}


def ablations(full: Design) -> dict[str, tuple[str, Design]]:
    """What each row is, and its design, from that of the full model."""
    off = {"rope": False, "pe": "sine", "value_residual": False, "naf": False, "lora": 0}
    config = full.config
    dense = config.experts * config.expert_width + config.shared_width
    dit = replace(full, config=replace(config, experts=0, expert_width=dense, **off))
    unet = UNetConfig(flow=config.flow, latent_channels=config.latent_channels, text_width=config.text_width)
    bridge = SchrodingerBridge(drop=full.objective.drop)
    made = {
        "ablation-unet": ("table 6 (a): dense U-Net", replace(full, model="unet", config=unet)),
        "ablation-dit": ("table 6 (b): dense DiT", dit),
    }
    for name, row in ROWS.items():
        before = full if row.after == FULL else made[row.after][1]
        config, objective = replace(before.config, **row.config), replace(before.objective, **row.objective)
        made[name] = (f"table 6 ({row.letter}): {row.about}", replace(before, config=config, objective=objective))
    made["i2sb"] = ("table 6 (m): I²SB from the mean, 100 steps", replace(full, objective=bridge))
    return made
