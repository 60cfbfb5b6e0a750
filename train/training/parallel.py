"""How a model is spread over the processes of a run: copied to each (DDP), or its weights shared out (FSDP2).

Either way the loss of a batch is the mean over the processes of the losses of their equal parts of it, and the
gradients are averaged alike: the same as one process with the whole batch. torch's own wrappers are used, without
another layer: see docs/decisions/0016.
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
    """What DDP wraps: it watches a module's forward alone."""

    def __init__(self, assembly: Assembly, device: torch.device, bf16: bool) -> None:
        super().__init__()
        self.assembly, self.device, self.bf16 = assembly, device, bf16

    def forward(self, batch: Batch, rng: Rng) -> Loss:
        return batch_loss(self.assembly, batch, rng, self.device, self.bf16)


class Engine:
    """Losses and gradients of an assembly, over all processes."""

    def __init__(self, assembly: Assembly, ranks: Ranks, bf16: bool, graphs: bool = False) -> None:
        self._graphs = graphs
        self._spread = [module for module in assembly.modules() if isinstance(module, FSDPModule)]
        self._forward: nn.Module = _Forward(assembly, ranks.device, bf16)
        if ranks.world > 1 and not self._spread:
            # A kernel of one channel has two ways to say the same strides; torch warns of a copy that costs nothing.
            warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
            gpu = [ranks.device] if ranks.device.type == "cuda" else None
            # Buffers are constants; torch 2.13 has a new name for leaving them alone.
            known = inspect.signature(DistributedDataParallel).parameters
            still = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
            self._forward = DistributedDataParallel(
                self._forward, device_ids=gpu, gradient_as_bucket_view=True, **{still: False}
            )

    def loss(self, batch: Batch, rng: Rng) -> Loss:
        """The loss of this process's part of a batch."""
        if self._graphs:
            torch.compiler.cudagraph_mark_step_begin()  # what the last replay gave may be written over
        return self._forward(batch, rng)

    @contextmanager
    def accumulating(self, more: bool) -> Iterator[None]:
        """Gradients stay in this process while more batches of the step are to come."""
        with ExitStack() as stack:
            if more and isinstance(self._forward, DistributedDataParallel):
                stack.enter_context(self._forward.no_sync())
            for module in self._spread:
                module.set_requires_gradient_sync(not more)
            yield

    def close(self) -> None:
        """Let go of DDP while the process group stands.

        Its reducer would else be the last to hold the group, and wait for the end of gloo's thread with the GIL in
        hand: which that thread waits for, where it lets go of the last sum's tensors.
        """
        if isinstance(self._forward, DistributedDataParallel):
            self._forward = self._forward.module


def compile_network(network: nn.Module, graphs: bool = False) -> None:
    """Put a network through torch.compile, in place: its weights keep their names.

    graphs: as CUDA graphs, replayed in place of a launch for each kernel. Its gradients must then be added to, never
    set to none: one that came to be within a graph would lie in memory that the next replay writes over.
    """
    if not graphs:
        network.compile()
        return
    network.compile(mode="reduce-overhead")
    for parameter in network.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)


def share_out(assembly: Assembly, ranks: Ranks) -> None:
    """Give each process a part of each weight (FSDP2): whole ones exist only while their block computes."""
    # The values that a block hands to the next are a view, and nobody writes into them.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
    mesh = init_device_mesh(ranks.device.type, (ranks.world,))
    # Weights are gathered in fp32, and autocast takes the products to bf16 as it does under DDP. FSDP2's own casts
    # would put the times, the residual stream, the router and the residual scales in bf16 too.
    policy = MixedPrecisionPolicy(cast_forward_inputs=False)
    roots: list[nn.Module] = [assembly.network]
    if any(parameter.requires_grad for parameter in assembly.text.parameters()):
        roots.append(assembly.text)
    for root in roots:
        for block in blocks_of(root):
            fully_shard(block, mesh=mesh, mp_policy=policy)
        fully_shard(root, mesh=mesh, mp_policy=policy)


def blocks_of(root: nn.Module) -> list[nn.Module]:
    """The layers of a network: what its lists hold."""
    return [
        block
        for module in root.modules()
        if isinstance(module, nn.ModuleList)
        for block in module
        if any(True for _ in block.children())
    ]


def recompute(network: nn.Module) -> None:
    """Gradient checkpointing (Chen et al., arXiv 1604.06174): keep a block's input, run it again backward."""
    for block in blocks_of(network):
        block.forward = partial(_again, block, block.forward)


def _again(block: nn.Module, forward: Any, *args: Any, **more: Any) -> Any:
    if block.training and torch.is_grad_enabled():
        return checkpoint(forward, *args, use_reentrant=False, **more)
    return forward(*args, **more)


def local(tensor: Tensor) -> tuple[Tensor, int]:
    """This process's part of a tensor, and the row at which it starts: all of it where it is not shared out."""
    if not isinstance(tensor, DTensor):
        return tensor, 0
    rows, mesh = tensor.shape[0], tensor.device_mesh
    each = -(-rows // mesh.size())  # as torch.chunk cuts: the last parts may be short or empty
    return tensor.to_local(), min(mesh.get_local_rank() * each, rows)
