"""LoRA as peft writes it, of OmniGen and DiTFuse: read under the names of this package's networks.

Source: peft's format (``adapter_config.json``, ``adapter_model.safetensors``). DiTFuse's adapters are of OmniGen's own
implementation, in which queries, keys and values are one layer ``qkv_proj``: a change B A of it is the change of three
layers with the same A and a third of B each, exactly.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from clearfuse.synth.types import UserError
from clearfuse.train.designs.design import Design
from clearfuse.train.designs.presets import find_preset
from clearfuse.train.models.omnigen.network import MLP
from clearfuse.train.weights.source import read_config
from clearfuse.train.weights.tensors import read_tensors

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
FILES = tuple(f"{below}{name}" for below in ("", "*/") for name in (CONFIG, WEIGHTS))
PUBLISHED = {"ditfuse": "lijiayangCS/DiTFuse"}
"""Published adapters by name, and their repositories on the hub."""

NAME = re.compile(r"(?:.+\.)?layers\.(\d+)\.(self_attn|mlp)\.(\w+)(\.0)?\.lora_(A|B)(?:\.default)?\.weight")
LAYERS = {"o_proj": "to_out.0", "to_out": "to_out.0"}


class AdapterConfig(BaseModel):
    """What ``adapter_config.json`` says, of which only this is read."""

    model_config = ConfigDict(strict=True)

    peft_type: Literal["LORA"]
    r: Annotated[int, Field(ge=1, le=1024)]
    lora_alpha: Annotated[float, Field(gt=0)]
    use_rslora: Literal[False] = False
    use_dora: Literal[False] = False
    bias: Literal["none"] = "none"
    modules_to_save: None = None
    rank_pattern: dict[str, int] = Field(default_factory=dict, max_length=0)
    alpha_pattern: dict[str, int] = Field(default_factory=dict, max_length=0)


def adapters_in(folder: Path) -> Path | None:
    """The folder with adapters: this one, or the only one below. Raises UserError where there are several."""
    found = sorted({path.parent for pattern in FILES for path in folder.glob(pattern) if path.name == CONFIG})
    if len(found) > 1:
        names = ", ".join(str(path) for path in found)
        raise UserError(f"{folder}: holds several adapters: say which: {names}")
    return found[0] if found else None


def design_of_adapters(folder: Path) -> Design:
    """DiTFuse's design with the sizes of adapters. Raises UserError, one line, where they are of another kind."""
    says, design = read_config(AdapterConfig, folder, str(folder), CONFIG), find_preset("ditfuse").design
    with_mlp = any(layer in name for name in read_tensors(folder / WEIGHTS)[0] for layer in MLP)
    return replace(design, config=replace(design.config, rank=says.r, alpha=float(says.lora_alpha), mlp=with_mlp))


def read_adapters(folder: Path, config: Any) -> dict[str, Tensor]:
    """Adapters under the names of an assembly with this network.

    Raises UserError where they are not of OmniGen's layers, or their rank or alpha is not the config's.
    """
    says = read_config(AdapterConfig, folder, str(folder), CONFIG)
    if (says.r, says.lora_alpha) != (config.rank, config.alpha):
        raise UserError(
            f"{folder}: adapters of rank {says.r} and alpha {says.lora_alpha:g}: --set config.rank={says.r} --set "
            f"config.alpha={float(says.lora_alpha)}"
        )
    if not (folder / WEIGHTS).is_file():
        raise UserError(f"{folder}: {WEIGHTS} is missing: adapters are read from safetensors alone")
    return renamed(read_tensors(folder / WEIGHTS)[0], config, folder)


def renamed(tensors: Mapping[str, Tensor], config: Any, where: Path) -> dict[str, Tensor]:
    """peft's tensors of OmniGen's layers, its own or diffusers', by the names of diffusers' in an assembly."""
    out: dict[str, Tensor] = {}
    kv = config.width // config.heads * config.value_heads
    for name, tensor in tensors.items():
        match = NAME.fullmatch(name)
        if match is None:
            raise UserError(f"{where}: {name} is of no layer of OmniGen")
        number, part, layer, _, side = match.groups()
        if layer == "qkv_proj":
            rows = [config.width, kv, kv]
            if side == "B" and len(tensor) != sum(rows):
                raise UserError(f"{where}: {name} has {len(tensor)} rows, not the {sum(rows)} of the base")
            parts = tensor.split(rows) if side == "B" else (tensor,) * 3
            each = dict(zip(("to_q", "to_k", "to_v"), parts, strict=True))
        else:
            each = {LAYERS.get(layer, layer): tensor}
        for one, values in each.items():
            out[f"network.base.layers.{number}.{part}.{one}.lora_{side}.default.weight"] = values
    return out
