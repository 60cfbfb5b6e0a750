"""Every preset on a GPU that is not there: torch's FakeTensorMode runs the CUDA branches without values or a device.

Run as a script, in a process of its own since torch is patched for good: names of presets as arguments, all by default;
a line for each, and a traceback for the first that fails. Forward passes run on fake ``cuda`` tensors. Autograd wants
the device's own thread, which a build without CUDA lacks: the training step runs on fake CPU tensors that say that they
are on CUDA.
"""

from __future__ import annotations

import sys
import time
import types
from collections.abc import Sequence
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any
from unittest import mock

import torch

sys.path.insert(0, str(Path(__file__).parent))  # PYTHONSAFEPATH, which a command sets, leaves it out

from pretend import pretend_cuda
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.overrides import TorchFunctionMode
from transformers.models.t5.configuration_t5 import T5Config
from transformers.models.t5.modeling_t5 import T5EncoderModel

from clearfuse.train import semantics, tokenizers
from clearfuse.train import text as texts
from clearfuse.train.data.batch import Batch
from clearfuse.train.designs import design as designs
from clearfuse.train.designs.design import Assembly, Design
from clearfuse.train.designs.presets import PRESETS
from clearfuse.train.models import find_model
from clearfuse.train.models.attention import attention_kernel
from clearfuse.train.models.base import Inputs
from clearfuse.train.models.experts import Experts, Router
from clearfuse.train.models.omnigen.network import OmniGen
from clearfuse.train.models.omnigen.sequence import A, B
from clearfuse.train.objectives import samplers
from clearfuse.train.objectives.noise import Draws, NoiseField
from clearfuse.train.text.t5 import T5Encoder
from clearfuse.train.tokenizers.frozen import FrozenTokenizer
from clearfuse.train.training import optim, parallel
from clearfuse.train.training.loss import batch_loss, semantics_of
from clearfuse.train.training.validation import to_bytes
from clearfuse.train.weights import base as bases

SIDE, PROMPTS = 64, ["remove the haze", "clear the snow and suppress the noise in both frames"]


def pretend_xformers() -> None:
    """An ``xformers`` whose kernel refuses what the real one refuses: more than one dtype, or a bias of another."""

    def memory_efficient_attention(q: Tensor, k: Tensor, v: Tensor, attn_bias: Tensor | None = None) -> Tensor:
        kinds = {x.dtype for x in (q, k, v, *(() if attn_bias is None else (attn_bias,)))}
        assert len(kinds) == 1 and q.is_cuda, f"xformers takes one dtype, not {kinds}"
        assert attn_bias is None or attn_bias.shape == (q.shape[0], q.shape[2], q.shape[1], k.shape[1])
        return torch.empty_like(q)

    package, ops = types.ModuleType("xformers"), types.ModuleType("xformers.ops")
    ops.memory_efficient_attention = memory_efficient_attention  # type: ignore[attr-defined]
    package.__spec__ = ModuleSpec("xformers", None)  # by which diffusers looks for it
    sys.modules |= {"xformers": package, "xformers.ops": ops}


class InFp32(TorchFunctionMode):
    """Every floating-point result inside is fp32."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if isinstance(made, Tensor) and made.is_floating_point():
            assert made.dtype == torch.float32, f"the router computes {func} in {made.dtype}"
        return made


def probability(self: Router, tokens: Tensor, real: Any = Router.probability) -> Tensor:
    with InFp32():
        return real(self, tokens)


def numbers_of(function: Any) -> Any:
    """A function that gives numbers to the host, which fake tensors don't have: it runs without them."""

    def run(*args: Any) -> Any:
        with unset_fake_temporarily():
            return function(*args)

    return run


def decreasing(self: Tensor) -> list[float]:
    """Stands for the variances along a bridge, which the sampler reads on the host."""
    assert self.dtype == torch.float64, "a number is read back from the device"
    return [float(n) for n in range(len(self), 0, -1)]


class Vocabulary:
    """Stands for a tokenizer of words: one number a letter, at least two: a fake tensor of one computes."""

    def encode_batch(self, prompts: Sequence[str]) -> list[Any]:
        return [
            types.SimpleNamespace(ids=[1 + ord(letter) % 30 for letter in prompt][:20] or [1, 1]) for prompt in prompts
        ]


def find_text(reference: str, rng: torch.Generator, store: Path | None = None, real: Any = texts.find_text) -> Any:
    """The prompt encoder of a reference; of a T5 one as wide, of one small layer."""
    if reference in texts.OWN:
        return real(reference, rng, store)
    if reference in texts.OMNIGEN:
        return texts.LoadedText(texts.blank_text(reference), reference)
    width = texts.t5.WIDTHS[reference]
    config = T5Config(vocab_size=32, d_model=width, d_kv=8, num_heads=2, d_ff=16, num_layers=1)
    return texts.LoadedText(T5Encoder(T5EncoderModel(config), Vocabulary(), reference), reference)


def find_tokenizer(reference: str, real: Any = tokenizers.find_tokenizer) -> Any:
    """The tokenizer of a reference; of a published network one of its grid, of one convolution each way."""
    if reference == "dct":
        return real(reference)
    f, z = tokenizers.GRIDS[reference].f, tokenizers.GRIDS[reference].z
    networks = [nn.Conv2d(3, z, f, stride=f), nn.ConvTranspose2d(z, 3, f, stride=f)]
    made = FrozenTokenizer(networks, *networks, f=f, shift=[0.0] * z, scale=[1.0] * z, layout=torch.channels_last)
    return tokenizers.LoadedTokenizer(made, reference)


def find_semantics(reference: str, questions: Sequence[str], rng: torch.Generator) -> Any:
    """The encoder of pictures of a reference; of a frozen one, whose tokens are cached, a stand-in."""
    return semantics.LoadedSemantics(semantics.blank_semantics(reference), reference)


def split(self: Experts, tokens: Tensor, counts: Tensor) -> Sequence[Tensor]:
    """Stands for the numbers of tokens, which are read on the host."""
    return tokens.tensor_split(len(self))


def find_base(reference: str, kind: Any) -> Any:
    """The base of a reference, of which no file is read."""
    return bases.LoadedBase(reference)


def read(self: OmniGen, inputs: Inputs) -> list[list[int]]:
    """Stands for the numbers of prompts, which are read on the host."""
    present = inputs.present is None
    return [[1, A, 2, B, 3] if present else [1, 2, 3]] * len(inputs.text[0])


def build_model(name: str, config: Any, rng: torch.Generator, base: Any = None, check: Any = None) -> nn.Module:
    with torch.device("meta"):
        return find_model(name).network(config)


def fake(module: nn.Module, device: str, mode: FakeTensorMode) -> None:
    """Give a module, and the frozen networks in it, fake tensors on a device, as a move of real ones would leave it."""

    def moved(tensor: Tensor, dtype: torch.dtype) -> Tensor:
        return torch.empty(tensor.shape, dtype=dtype if tensor.is_floating_point() else tensor.dtype, device=device)

    with mode:
        for one in module.modules():
            frozen = [part for network in getattr(one, "networks", ()) for part in network.modules()]
            for part, dtype in [(one, torch.float32), *((part, torch.bfloat16) for part in frozen)]:
                for name, old in part._parameters.items():
                    if old is not None:
                        kind = dtype if old.requires_grad else torch.bfloat16
                        part._parameters[name] = nn.Parameter(moved(old, kind), old.requires_grad)
                for name, old in part._buffers.items():
                    if old is not None:
                        part._buffers[name] = moved(old, dtype)


def assembly_of(design: Design) -> Assembly:
    """A design's parts, as they are in a run whose prompts have one length."""
    made = Assembly(design, torch.Generator().manual_seed(0))
    made.one_length = True
    return made


def batch_of(assembly: Assembly) -> Batch:
    names = ("a", "b", "gt", "clean_a", "clean_b", *(("guess",) if assembly.guess is not None else ()))
    images = {name: torch.zeros(2, 3, SIDE, SIDE, dtype=torch.uint8) for name in names}
    encoder, cached = assembly.semantics, None
    if encoder is not None and encoder.trainable:
        images["views"] = torch.zeros(2, 3, 2 * encoder.view.rows, encoder.view.side, dtype=torch.uint8)
    elif encoder is not None:
        cached = torch.zeros(2, 40, encoder.width, dtype=torch.float16), torch.ones(2, 40, dtype=torch.bool)
    return Batch(
        images,
        PROMPTS,
        ["0", "1"],
        [0, 1],
        ["vif", "vif"],
        [("haze",), ("snow",)],
        semantics=cached,
        strength=torch.ones(2),
    )


def forward(design: Design) -> None:
    """The loss, a validation and a fusion on CUDA, with both attention kernels."""
    assembly, mode, device = assembly_of(design), FakeTensorMode(), torch.device("cuda")
    fake(assembly, "cuda", mode)
    for kernel in ("sdpa", "xformers"):
        with mode, attention_kernel(kernel):
            batch = batch_of(assembly)
            assembly.train()
            loss = batch_loss(assembly, batch, Draws.of("loss", 0, batch.positions), device, bf16=True)
            assert loss.total.dtype == torch.float32 and loss.total.device.type == "cuda" and loss.total.requires_grad
            assembly.eval()
            moved = batch.to(device)
            with torch.inference_mode():
                batch_loss(assembly, batch, Draws.of("validation", 0, batch.positions), device, bf16=True)
            with torch.autocast("cuda", torch.bfloat16):
                rng = NoiseField(torch.Generator().manual_seed(0), 16, 16)
                said = semantics_of(assembly, moved)
                fused = assembly.fuse(moved.a, moved.b, batch.prompts, rng, guess=moved.guess, semantics=said)
            assert fused.shape == moved.a.shape and fused.device.type == "cuda"
            assert to_bytes(fused).dtype == torch.uint8


def step(design: Design, recompute: bool) -> None:
    """A training step of fake CPU tensors that say they are on CUDA."""
    assembly, mode = assembly_of(design), FakeTensorMode()
    assembly.train()
    fake(assembly, "cpu", mode)
    if recompute:
        parallel.recompute(assembly.network)
    is_cuda = mock.patch.object(FakeTensor, "is_cuda", property(lambda self: True))
    with mode, is_cuda, torch.autocast("cuda", torch.bfloat16):
        weights = assembly.trained()
        optimizer = optim.build_optimizer(assembly, 1e-3, 0.01)
        batch = batch_of(assembly)
        loss = batch_loss(assembly, batch, Draws.of("loss", 0, batch.positions), torch.device("cpu"), bf16=True)
        loss.total.backward()
        without = [name for name, weight in weights.items() if weight.grad is None]
        assert not without, f"no gradient: {without[:5]}"
        optim.clip_gradients(weights.values(), optim.grad_norm(weights.values()), 1.0)
        optimizer.step()
        assert all(weight.dtype == torch.float32 for weight in weights.values())


def short(design: Design) -> Design:
    """The design with the pixel loss, two steps of its sampler, and three blocks: those after the first are alike."""
    steps = {"steps": 2} if hasattr(design.objective, "steps") else {}
    config = (
        replace(design.config, depth=min(design.config.depth, 3)) if hasattr(design.config, "depth") else design.config
    )
    return replace(design, config=config, objective=replace(design.objective, pixel=0.1, **steps))


def main(names: Sequence[str]) -> None:
    pretend_cuda()
    pretend_xformers()
    Router.probability, Experts.split = probability, split  # type: ignore[method-assign]
    designs.find_semantics, bases.find_base, OmniGen.read = find_semantics, find_base, read  # type: ignore[method-assign]
    samplers.times, FakeTensor.tolist = numbers_of(samplers.times), decreasing  # type: ignore[method-assign]
    tokenizers.find_tokenizer, texts.find_text, designs.build_model = find_tokenizer, find_text, build_model
    seen: list[object] = []
    for name in names or PRESETS:
        start, preset = time.monotonic(), PRESETS[name]
        print(name, end=" ", flush=True)
        if (preset.design, preset.schedule.recompute) in seen:
            print("differs in its batches alone", flush=True)
            continue
        seen.append((preset.design, preset.schedule.recompute))
        forward(short(preset.design))
        step(short(preset.design), preset.schedule.recompute)
        print(f"{time.monotonic() - start:.1f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
