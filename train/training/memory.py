"""What a training step takes of a GPU's memory, counted without one.

The step that the trainer takes runs on tensors without values (torch's ``FakeTensorMode``), and every storage is
counted while it lives. torch's ``MemTracker`` counts the same bytes in 3 to 27 times the time: see docs/log.md.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from clearfuse.train.data.batch import Batch
from clearfuse.train.designs.design import Assembly, Design
from clearfuse.train.models.base import Inputs
from clearfuse.train.models.experts import Experts, MoE, swiglu_each, swiglu_grouped
from clearfuse.train.models.omnigen.config import spared
from clearfuse.train.models.omnigen.network import OmniGen
from clearfuse.train.models.omnigen.sequence import chosen
from clearfuse.train.objectives.noise import Draws
from clearfuse.train.training import optim, parallel
from clearfuse.train.training.loss import batch_loss
from clearfuse.train.weights.frozen import Frozen

PROMPT, TOKENS = "clear the haze from the visible image and suppress the noise in both frames, then fuse them", 24
"""A prompt of usual length, and its tokens in a vocabulary such as T5's."""

SEMANTICS = 64
"""Tokens of a frozen encoder of pictures: BLIP-2's 32 and a question's."""


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes of a training process on its device.

    weights, ema, optimizer: of what learns, in fp32; frozen: tokenizer, prompt encoder and the base that adapters
    change; gradients: of the weights.
    backward: the most that lives in the forward and backward pass of a batch, activations beside all of the former;
    update: the same in the optimizer's step. What CUDA itself takes (about half a GiB) and what its allocator keeps in
    pieces comes on top.
    """

    weights: int
    ema: int
    optimizer: int
    frozen: int
    gradients: int
    backward: int
    update: int

    @property
    def peak(self) -> int:
        """The most that lives at once."""
        return max(self.backward, self.update)

    @property
    def activations(self) -> int:
        """What the forward and backward pass takes above all that outlives it."""
        return self.backward - self.weights - self.ema - self.optimizer - self.frozen - self.gradients


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all storages that are made inside, while they live. live: now; peak: the most so far."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._seen: set[int] = set()

    def count(self, tensors: Iterable[Tensor]) -> int:
        """Count tensors that were made before; their bytes."""
        before = self.live
        for tensor in tensors:
            self.hold(tensor)
        return self.live - before

    def know(self, tensors: Iterable[Tensor]) -> None:
        """Count neither these tensors nor views of them: their bytes are added by the caller, and they stay."""
        self._seen.update(id(tensor.untyped_storage()) for tensor in tensors)

    def hold(self, tensor: Tensor) -> Tensor:
        """Count a tensor's storage, once."""
        storage = tensor.untyped_storage()
        key, size = id(storage), storage.nbytes()
        if key not in self._seen:
            self._seen.add(key)
            self.live += size
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._free, key, size)
        return tensor

    def _free(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.live -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, and count what it made."""
        made = func(*args, **(kwargs or {}))
        return tree_map_only(Tensor, self.hold, made)


def training_memory(
    design: Design,
    *,
    batch: int,
    size: tuple[int, int],
    recompute: bool = False,
    accumulate: int = 1,
    cuda: bool = True,
    bf16: bool = True,
    adapt: bool = False,
) -> TrainingMemory:
    """Count a step on ``batch`` crops of ``size``, (width, height); no weights are read or made.

    recompute: gradient checkpointing; accumulate: batches of a step; cuda: as on a GPU, with the frozen parts in bf16
    and grouped products of experts, else as on a CPU; bf16: the network under autocast; adapt: see ``Assembly``.
    Experts have equal loads. Raises UserError for parts that are not there.
    """
    assembly = Assembly(design, torch.Generator(), adapt=adapt, blank=True).train()
    if recompute:
        parallel.recompute(assembly.network)
        assembly.tokenizer.recompute()
    counter, device = LiveBytes(), torch.device("cpu")
    with FakeTensorMode():
        frozen = _fill(assembly, torch.bfloat16 if cuda else torch.float32, cuda and bf16)
        trained = list(assembly.trained().values())
        counter.know(each for part in _base_parts(assembly.network) for each in _own(part))
        optimizer = optim.build_optimizer(assembly, 1e-3, 0.01)
        weights = counter.count(trained)
        moments = counter.count(value for state in optimizer.state.values() for value in state.values())
        samples = _batch(assembly, batch, size)
        if accumulate > 1:
            for weight in trained:
                weight.grad = counter.hold(torch.empty_like(weight))
        counter.live += frozen + weights  # the moving average, which is a copy
        with counter:
            counter.peak = counter.live
            loss = batch_loss(assembly, samples, Draws.of("loss", 0, samples.positions), device, bf16)
            loss.total.backward()
            backward = counter.peak
            del loss
            counter.peak = counter.live
            optim.clip_gradients(trained, optim.grad_norm(trained), 1.0)
            optimizer.step()
    return TrainingMemory(weights, weights, moments, frozen, weights, backward, counter.peak)


def _fill(assembly: Assembly, dtype: torch.dtype, as_cuda: bool) -> int:
    """Give an assembly's parts on ``meta`` tensors without values, the frozen ones of a dtype: the bytes of these.

    as_cuda: autocast's rules of CUDA. A frozen prompt encoder's are counted alone: its embeddings are cached, so that
    it hardly ever runs.
    """
    frozen = 0
    base = {id(part): part for part in _base_parts(assembly.network)}
    for module in assembly.modules():
        _fake(module, dtype if id(module) in base else torch.float32)
        if isinstance(module, OmniGen):
            text: Any = assembly.text
            module.read = partial(_usual_prompts, chosen(text.numbers(PROMPT), True))  # type: ignore[method-assign]
            module.precision = dtype
            frozen += sum(each.numel() * dtype.itemsize for part in base.values() for each in _own(part))
            frozen -= spared(module.config) if module.config.bits == 4 else 0
        if as_cuda and isinstance(module, nn.LayerNorm | nn.GroupNorm):
            module.forward = partial(_in_fp32, module.forward)  # pyright: ignore[reportAttributeAccessIssue]
        if isinstance(module, MoE):
            module._experts = partial(_evenly, module, as_cuda)  # type: ignore[method-assign]
        if isinstance(module, Experts):
            module.split = partial(_even_parts, len(module))  # type: ignore[method-assign]
        if isinstance(module, Frozen):
            module.precision = dtype
            for part in (each for network in module.networks for each in network.modules()):
                if module is not assembly.text:
                    _fake(part, dtype)
                frozen += sum(tensor.numel() * dtype.itemsize for tensor in _own(part))
    return frozen


def _own(module: nn.Module) -> tuple[Tensor, ...]:
    return *module.parameters(recurse=False), *module.buffers(recurse=False)


def _base_parts(network: nn.Module) -> list[nn.Module]:
    """The modules of a base, whose own weights stay."""
    parts = network.base.modules() if isinstance(network, OmniGen) else ()
    return [part for part in parts if not any(each.requires_grad for each in _own(part))]


def _usual_prompts(prompt: list[int], inputs: Inputs) -> list[list[int]]:
    """``OmniGen.read`` without reading the numbers, which tensors without values don't have."""
    return [prompt] * len(inputs.text[0])


def _fake(module: nn.Module, dtype: torch.dtype = torch.float32) -> None:
    """Put a module's own tensors on a CPU that is not there."""

    def made(tensor: Tensor) -> Tensor:
        kind = dtype if tensor.is_floating_point() else tensor.dtype
        return torch.empty(tensor.shape, dtype=kind, device="cpu")

    for name, tensor in module._parameters.items():
        if tensor is not None:
            module._parameters[name] = nn.Parameter(made(tensor), tensor.requires_grad)
    for name, tensor in module._buffers.items():
        if tensor is not None:
            module._buffers[name] = made(tensor)


def _in_fp32(forward: Any, x: Tensor) -> Tensor:
    """A norm as autocast runs it on CUDA; on a CPU it would run in the dtype of what it is given."""
    return forward(x.float())


def _evenly(moe: MoE, grouped: bool, tokens: Tensor, counts: Tensor) -> Tensor:
    """``MoE._experts`` without reading the counts, which tensors without values don't have."""
    if grouped:
        w_in, w_out = (weight.to(torch.bfloat16) for weight in (moe.w_in, moe.w_out))
        return swiglu_grouped(tokens.to(torch.bfloat16), w_in, w_out, counts, moe.gate)
    sizes = [len(part) for part in _even_parts(moe.experts, tokens, counts)]
    return swiglu_each(tokens, moe.w_in, moe.w_out, sizes, moe.gate)


def _even_parts(experts: int, tokens: Tensor, counts: Tensor) -> Sequence[Tensor]:
    """``Experts.split`` without reading the counts."""
    return tokens.tensor_split(experts)


def _batch(assembly: Assembly, count: int, size: tuple[int, int]) -> Batch:
    """A batch of the images that the assembly's loss reads, and a prompt of usual length for each."""
    names = ["a", "b", "gt"]
    names += ["guess"] if assembly.guess is not None else []
    names += ["clean_a", "clean_b"] if assembly.objective.pixel else []
    images = {name: torch.empty((count, 3, size[1], size[0]), dtype=torch.uint8) for name in names}
    encoder, semantics = assembly.semantics, None
    if encoder is not None and encoder.trainable:
        side, rows = encoder.view.side, 2 * encoder.view.rows
        images["views"] = torch.empty((count, 3, rows, side), dtype=torch.uint8)
    elif encoder is not None:
        semantics = torch.empty(count, SEMANTICS, encoder.width), torch.ones(count, SEMANTICS, dtype=torch.bool)
    prompts, embeddings = [PROMPT] * count, None
    if assembly.text.trainable:
        assembly.text.limit = assembly.text(prompts)[0].shape[1]
    else:
        assembly.text.limit = tokens = TOKENS if assembly.text.width else 0
        embeddings = torch.empty(count, tokens, assembly.text.width), torch.empty(count, tokens, dtype=torch.bool)
    assembly.one_length = True
    numbers = list(range(count))
    return Batch(
        images, prompts, [""] * count, numbers, ["vif"] * count, [()] * count, {}, embeddings, semantics=semantics,
        strength=torch.ones(count),
    )  # fmt: skip
