"""Data parallelism: the model is replicated on each rank (DDP), or its weights are sharded (FSDP2).

Either way each rank computes the loss of an equal part of the batch, and losses and gradients are averaged over the
ranks: the result is that of one process with the whole batch. torch's wrappers are used directly: see
docs/decisions/0016.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from clearfuse.train.data.batch import Batch
from clearfuse.train.designs.design import Assembly
from clearfuse.train.objectives.base import Loss
from clearfuse.train.objectives.noise import Rng
from clearfuse.train.training.loss import batch_loss
from clearfuse.train.training.ranks import Ranks


class _Forward(nn.Module):
    """The module that DDP wraps, since it synchronises gradients only of a module's forward."""

    def __init__(self, assembly: Assembly, device: torch.device, bf16: bool) -> None:
        super().__init__()
        self.assembly, self.device, self.bf16 = assembly, device, bf16

    def forward(self, batch: Batch, rng: Rng) -> Loss:
        return batch_loss(self.assembly, batch, rng, self.device, self.bf16)


class Engine:
    """Computes losses and gradients of an assembly over all ranks."""

    def __init__(self, assembly: Assembly, ranks: Ranks, bf16: bool, graphs: bool = False) -> None:
        self._graphs = graphs
        self._sharded = [module for module in assembly.modules() if isinstance(module, FSDPModule)]
        self._forward: nn.Module = _Forward(assembly, ranks.device, bf16)
        if ranks.world > 1 and not self._sharded:
            # The strides of a one-channel kernel are ambiguous, and torch warns about a copy that costs nothing.
            warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
            gpu = [ranks.device] if ranks.device.type == "cuda" else None
            # Buffers are constants; the option not to synchronise them has a new name in torch 2.13.
            options = inspect.signature(DistributedDataParallel).parameters
            sync_buffers = "forward_sync_buffers" if "forward_sync_buffers" in options else "broadcast_buffers"
            self._forward = DistributedDataParallel(
                self._forward, device_ids=gpu, gradient_as_bucket_view=True, **{sync_buffers: False}
            )

    def loss(self, batch: Batch, rng: Rng) -> Loss:
        """The loss of this rank's part of a batch."""
        if self._graphs:
            torch.compiler.cudagraph_mark_step_begin()  # the outputs of the last replay may be overwritten
        return self._forward(batch, rng)

    @contextmanager
    def accumulating(self, more: bool) -> Iterator[None]:
        """Context: skip the synchronisation of gradients while more batches of the step follow."""
        with ExitStack() as stack:
            if more and isinstance(self._forward, DistributedDataParallel):
                stack.enter_context(self._forward.no_sync())
            for module in self._sharded:
                module.set_requires_gradient_sync(not more)
            yield

    def close(self) -> None:
        """Release DDP while the process group still exists.

        Otherwise its reducer holds the last reference to the group and, on release, waits for gloo's thread while
        holding the GIL, which that thread needs to free the tensors of the last reduction: a deadlock.
        """
        if isinstance(self._forward, DistributedDataParallel):
            self._forward = self._forward.module


def compile_network(network: nn.Module, graphs: bool = False) -> None:
    """Compile a network in place by torch.compile, which keeps the names of its weights.

    graphs: capture CUDA graphs, which replace the launches of single kernels. Gradients must then be accumulated in
    place, never set to None: a gradient allocated inside a graph would be overwritten by the next replay.
    """
    if not graphs:
        network.compile()
        return
    network.compile(mode="reduce-overhead")
    for parameter in network.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)


def shard_model(assembly: Assembly, ranks: Ranks) -> None:
    """Shard the weights over the ranks (FSDP2); full weights exist only while their block computes."""
    # The attention values that a block returns for the next one are a view, which is never written to.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
    mesh = init_device_mesh(ranks.device.type, (ranks.world,))
    # Weights are gathered in fp32, and autocast takes the products to bf16 as it does under DDP. FSDP2's own casts
    # would put the times, the residual stream, the router and the residual scales in bf16 too.
    policy = MixedPrecisionPolicy(cast_forward_inputs=False)
    roots: list[nn.Module] = [assembly.network]
    for part in (assembly.text, assembly.semantics):
        if part is not None and any(parameter.requires_grad for parameter in part.parameters()):
            roots.append(part)
    for root in roots:
        for block in blocks_of(root):
            fully_shard(block, mesh=mesh, mp_policy=policy)
        fully_shard(root, mesh=mesh, mp_policy=policy)


def blocks_of(root: nn.Module) -> list[nn.Module]:
    """The blocks of a network: the modules with children in its module lists, but a single layer that LoRA changes."""
    return [
        block
        for module in root.modules()
        if isinstance(module, nn.ModuleList)
        for block in module
        if any(True for _ in block.children()) and not hasattr(block, "base_layer")
    ]


def recompute(network: nn.Module) -> None:
    """Enable gradient checkpointing (Chen et al., arXiv 1604.06174): blocks are recomputed in the backward pass."""
    for block in blocks_of(network):
        block.forward = partial(_checkpointed, block, block.forward)


def _checkpointed(block: nn.Module, forward: Any, *args: Any, **kwargs: Any) -> Any:
    if block.training and torch.is_grad_enabled():
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)
    return forward(*args, **kwargs)


def local_shard(tensor: Tensor) -> tuple[Tensor, int]:
    """This rank's rows of a sharded tensor and the first row's index; the whole tensor and 0 if it is not sharded."""
    if not isinstance(tensor, DTensor):
        return tensor, 0
    rows, mesh = tensor.shape[0], tensor.device_mesh
    chunk = -(-rows // mesh.size())  # as in torch.chunk: the last parts may be shorter or empty
    return tensor.to_local(), min(mesh.get_local_rank() * chunk, rows)
