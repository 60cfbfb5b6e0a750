"""The table of model families, and ``build_model``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from clearfuse.synth.execute.memory import memory_limit
from clearfuse.synth.tables import Table
from clearfuse.synth.types import UserError, look_up
from clearfuse.train.models import joint, mdaif, mmaif, nafnet, restorer, unet
from clearfuse.train.models.base import Family, Inputs, Prediction
from clearfuse.train.models.joint import JointConfig
from clearfuse.train.models.mdaif import MdaIFConfig
from clearfuse.train.models.mmaif import MMAIFConfig
from clearfuse.train.models.nafnet import NAFNetConfig
from clearfuse.train.models.omnigen import config as omnigen
from clearfuse.train.models.omnigen.config import OmniGenConfig, OmniGenFile
from clearfuse.train.models.omnigen.network import OmniGen
from clearfuse.train.models.restorer import RestorerConfig
from clearfuse.train.models.unet import UNetConfig

MODELS: Table[Family] = Table("model", {
    "joint": Family(JointConfig, joint.Joint, joint.inactive, joint.flops, joint.activations),
    "mdaif": Family(MdaIFConfig, mdaif.MdaIF, mdaif.inactive, mdaif.flops, mdaif.activations, mdaif.preferences),
    "mmaif": Family(MMAIFConfig, mmaif.MMAIF, mmaif.inactive, mmaif.flops, mmaif.activations),
    "nafnet": Family(NAFNetConfig, nafnet.NAFNet, nafnet.inactive, nafnet.flops, nafnet.activations),
    "omnigen": Family(
        OmniGenConfig, OmniGen, omnigen.inactive, omnigen.flops, omnigen.activations,
        base=OmniGenFile, parameters=omnigen.parameters,
    ),
    "restorer": Family(RestorerConfig, restorer.Restorer, restorer.inactive, restorer.flops, restorer.activations),
    "unet": Family(UNetConfig, unet.UNet, unet.inactive, unet.flops, unet.activations),
})  # fmt: skip


def find_model(name: str) -> Family:
    """The model family with this name. Raises UserError for an unknown one."""
    return look_up("model", name, MODELS)


def build_model(
    name: str,
    config: Any,
    rng: torch.Generator,
    base: Callable[[], Mapping[str, Tensor]] | None = None,
    check: Callable[[nn.Module], None] | None = None,
) -> nn.Module:
    """Build a network on the CPU and draw its parameters from the generator: the same seed gives the same weights.

    base: reads those of a network that changes a base. check: is shown the network before it takes any memory. Raises
    UserError where its weights are larger than this machine's memory.
    """
    with torch.device("meta"):
        network: Any = find_model(name).network(config)
    check_room(network)
    if check is not None:
        check(network)
    if base is not None:
        network.take(base())
    network = network._apply(lambda tensor: torch.empty_like(tensor, device="cpu") if tensor.is_meta else tensor)
    network.initialise(rng)
    return network


def check_room(network: nn.Module, copies: int = 1) -> None:
    """Raise UserError where a network is larger than this machine's memory, with so many copies of what learns."""
    weights = [*network.parameters()]
    size = sum(w.numel() * w.element_size() * (copies if w.requires_grad else 1) for w in weights)
    if size > memory_limit():
        held = "its weights take" if copies == 1 else "weights, gradients, optimizer and average take"
        raise UserError(
            f"the network has {sum(w.numel() for w in weights):,} parameters: {held} {size / 2**30:,.1f} GiB, and this "
            f"machine has {memory_limit() / 2**30:,.1f}"
        )


__all__ = [
    "MODELS", "Family", "Inputs", "JointConfig", "MMAIFConfig", "MdaIFConfig", "NAFNetConfig", "OmniGenConfig",
    "Prediction", "RestorerConfig", "UNetConfig", "build_model", "check_room", "find_model",
]  # fmt: skip
