"""Latency of fusion by component: ``mmaif-reg`` with a VAE of Flux's architecture and with a tiny autoencoder.

    python benchmarks/latency.py [--sizes 256,512] [--textif DIR] [--text small] [--threads N] [--repeats 1]
    python benchmarks/latency.py --model small [--textif DIR] [--onnx FILE] [--threads N] [--repeats 3]

All weights are random, of the published shapes; float32 on a CPU, bf16 on CUDA, where the size is 1024. Milliseconds,
the least of the repeats: CPU time on a CPU, so that other work on the machine matters little, wall time on CUDA.
``--textif``: a checkout of github.com/XunpengYi/Text-IF, whose network is then measured too, without its CLIP, as this
one is without its prompt encoder; the ratio is its time over this one's. It runs with the C library's default
allocator, this one with the settings of ``train fuse``. The prompt is encoded once, and not part of the sum.

``--model``: a regression model in place of these, on a CPU, at 512×512, 640×480 and 1024×1024: the whole call of the
pipeline, its network alone, the network in bf16, with linear layers in int8, and by onnxruntime
(``--onnx``: what ``train export`` wrote), with the PSNR of what each makes to the image in float32; and the largest
memory of a process that fuses 4000×3000.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from clearfuse.synth.fusers.pyramid.region import full_region
from clearfuse.synth.scenes import scene_pair
from clearfuse.train.data.batch import to_tensor
from clearfuse.train.designs.design import Assembly
from clearfuse.train.designs.presets import find_preset
from clearfuse.train.device import keep_freed_memory
from clearfuse.train.models import Inputs, build_model
from clearfuse.train.pipeline.files import load_pipeline
from clearfuse.train.text import to_bytes
from clearfuse.train.text.t5 import T5Encoder
from clearfuse.train.tokenizers import Tokenizer, autoencoder

TOKENS = 20
"""Tokens of a typical prompt."""

T5 = {
    "small": (512, 1024, 8, 6), "base": (768, 2048, 12, 12), "large": (1024, 2816, 16, 24), "xl": (2048, 5120, 32, 24),
}  # fmt: skip
"""Flan-T5: width, hidden width, heads of 64, layers."""


def flux_shaped() -> nn.Module:
    """A VAE of FLUX.1's architecture."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=16, use_quant_conv=False,
        use_post_quant_conv=False, shift_factor=0.1159, scaling_factor=0.3611,
    )  # fmt: skip


def tiny() -> nn.Module:
    """An autoencoder of TAESD3's architecture."""
    from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny

    return AutoencoderTiny(latent_channels=16)


SHAPES: dict[str, Callable[[], nn.Module]] = {"Flux-shaped VAE": flux_shaped, "tiny autoencoder": tiny}


def tokenizer_of(make: Callable[[], nn.Module]) -> Tokenizer:
    """A random network as a tokenizer."""
    network = make()
    return autoencoder.wrap(network, autoencoder.kinds()[type(network).__name__])


def text_of(size: str) -> T5Encoder:
    """A random T5 of a size, with a trivial vocabulary."""
    from tokenizers import Tokenizer as Words
    from tokenizers import models
    from transformers import T5Config, T5EncoderModel

    width, hidden, heads, layers = T5[size]
    config = T5Config(
        vocab_size=32128, d_model=width, d_kv=64, d_ff=hidden, num_heads=heads, num_layers=layers,
        feed_forward_proj="gated-gelu",
    )  # fmt: skip
    return T5Encoder(T5EncoderModel(config), Words(models.WordLevel({"a": 0}, unk_token="a")), size)


def official(folder: Path) -> nn.Module:
    """Text-IF's network from a checkout."""
    path = folder / "model/Text_IF_model.py"
    spec = importlib.util.spec_from_file_location("text_if_model", path)
    assert spec is not None and spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    class Clip(nn.Module):
        def encode_text(self, text: Tensor) -> Tensor:
            return text

    return module.Text_IF(Clip())


def cost(run: Callable[[], Any], device: torch.device, repeats: int) -> float:
    """Milliseconds of a call: the least of the repeats, on CUDA after three warm-up calls."""

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
            return time.perf_counter()
        return time.process_time()

    found: list[float] = []
    for number in range(repeats + (3 if device.type == "cuda" else 0)):
        start = now()
        run()
        if device.type == "cpu" or number >= 3:
            found.append(1e3 * (now() - start))
            continue
        now()
    return min(found)


@torch.inference_mode()
def beside(folder: Path, size: int, device: torch.device, repeats: int) -> float:
    """Milliseconds of Text-IF's network."""
    rng = torch.Generator().manual_seed(0)
    a, b = (2 * torch.rand(1, 3, size, size, generator=rng).to(device) - 1 for _ in range(2))
    other = official(folder).to(device).eval()
    clip = torch.randn(1, 512, generator=rng).to(device)

    def run() -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            return other(a, b, clip)

    other(a[..., :64, :64], b[..., :64, :64], clip)
    return cost(run, device, repeats)


@torch.inference_mode()
def rows(size: int, device: torch.device, repeats: int, theirs: float | None, threads: int) -> None:
    """Print the table of a size. theirs: milliseconds of Text-IF."""
    rng = torch.Generator().manual_seed(0)
    a, b = (2 * torch.rand(1, 3, size, size, generator=rng).to(device) - 1 for _ in range(2))
    design = find_preset("mmaif-reg").design
    network = build_model(design.model, replace(design.config, latent_channels=16), rng).to(device).eval()
    text = torch.randn(1, TOKENS, design.config.text_width, generator=rng).to(device)
    cuda = device.type == "cuda"

    def fuse(z_a: Tensor, z_b: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=cuda):
            return network(Inputs((z_a, z_b), (text, None))).latent.float()

    print(f"{size}x{size}, {'bf16' if cuda else 'float32'}, {device.type}, {threads} threads, milliseconds")
    print(f"{'':<18}{'two encodes':>12}{'DiT':>10}{'decode':>10}{'sum':>10}")
    z = torch.randn(1, 16, size // 8, size // 8, generator=rng).to(device)
    dit = cost(lambda: fuse(z, z), device, repeats)
    for name, make in SHAPES.items():
        encode, decode = coding(tokenizer_of(make).to(device), (a, b), z, device, repeats)
        total = encode + dit + decode
        ratio = "" if theirs is None else f"{theirs / total:8.2f} times faster than Text-IF"
        print(f"{name:<18}{encode:12.0f}{dit:10.0f}{decode:10.0f}{total:10.0f}{ratio}")
    if theirs is not None:
        print(f"{'Text-IF':<18}{'':32}{theirs:10.0f}")
    print(flush=True)


def coding(
    tokenizer: Tokenizer, pair: tuple[Tensor, Tensor], z: Tensor, device: torch.device, repeats: int
) -> tuple[float, float]:
    """Milliseconds to encode both images, and to decode one."""
    size = (pair[0].shape[2], pair[0].shape[3])
    tokenizer.decode(tokenizer.encode(pair[0][..., :64, :64]), (64, 64))  # what is computed once for all images
    encode = cost(lambda: [tokenizer.encode(picture) for picture in pair], device, repeats)
    return encode, cost(lambda: tokenizer.decode(z, size), device, repeats)


PROMPT = "remove the haze and the noise"
SIZES = ((512, 512), (640, 480), (1024, 1024))
"""Width and height of the pictures that a model is measured at, pixels."""

MEMORY = """
import numpy as np
from clearfuse.train.pipeline.files import load_pipeline
rng = np.random.default_rng(0)
a, b = (rng.integers(0, 256, (3000, 4000, c), np.uint8) for c in (3, 1))
load_pipeline({model!r}, "cpu")(a, b, task="vif", prompt={prompt!r})
with open("/proc/self/status") as file:
    print(next(int(line.split()[1]) / 2**20 for line in file if line.startswith("VmHWM")))
"""


def psnr(image: Tensor, reference: Tensor) -> float:
    """Of two images, cut to [−1, 1], dB."""
    return float(10 * torch.log10(4 / (image.clamp(-1, 1) - reference.clamp(-1, 1)).square().mean()))


@torch.inference_mode()
def model_rows(model: str, theirs: float | None, onnx: Path | None, repeats: int, threads: int) -> None:
    """Print the tables of a model. theirs: milliseconds of Text-IF at 512×512; onnx: the model's graph."""
    cpu = torch.device("cpu")
    pipeline = load_pipeline(model, "cpu")
    assembly: Assembly = pipeline.assembly
    whole = load_pipeline(model, "cpu").assembly
    # Not those whose weight is read by itself, nor those of NAF blocks: torch's layer takes no (b, h, w, d).
    linear = {name for name, one in whole.named_modules() if type(one) is nn.Linear}
    linear = {name for name in linear if "positions" not in name and ".naf." not in name}
    eight = torch.ao.quantization.quantize_dynamic(whole, linear, torch.qint8)
    session = None if onnx is None else session_of(onnx, threads)
    print(f"{model}, {threads} threads, milliseconds of processor time (and by the clock); dB to the image in float32")
    for width, height in SIZES:
        pair = scene_pair("vif", 7, (width, height))
        guess = [] if assembly.guess is None else [assembly.guess(pair.a, pair.b, "vif")(full_region(pair.a.shape))]
        colour = (np.broadcast_to(one, (height, width, 3)) for one in (pair.a, pair.b, *guess))
        x, y, *first = (to_tensor([one]) for one in colour)

        def network(parts: Any, bf16: bool = False, given: Any = (x, y, *first)) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                return parts.fuse(*given[:2], [PROMPT], torch.Generator(), None, *given[2:]).float()

        def by_onnx(given: Any = (x, y, *first)) -> Tensor:
            assert session is not None
            named = dict(zip(("a", "b", "guess"), (one.numpy() for one in given), strict=False))
            return torch.from_numpy(session.run(None, {**named, "prompt": to_bytes([PROMPT], 512, 1).numpy()})[0])

        ways: dict[str, Callable[[], Any]] = {
            "whole call": lambda pair=pair: pipeline(pair.a, pair.b, task="vif", prompt=PROMPT),
            "network": lambda: network(assembly),
            "network in bf16": lambda: network(assembly, True),
            "linear in int8": lambda: network(eight),
        }
        if session is not None:
            ways["onnxruntime"] = by_onnx
        exact = network(assembly)
        for name, run in ways.items():
            result = run()  # what is made once
            begun = time.perf_counter()
            spent = cost(run, cpu, repeats)
            wall = 1e3 * (time.perf_counter() - begun) / repeats
            loss = f"{psnr(result, exact):8.1f} dB" if isinstance(result, Tensor) and name != "network" else ""
            ratio = ""
            if theirs is not None and (width, height) == (512, 512):
                ratio = f"{theirs / spent:8.1f} times faster than Text-IF's network ({theirs:.0f})"
            print(f"{width}x{height:<6}{name:<20}{spent:8.0f} ({wall:.0f}){loss}{ratio}", flush=True)
    code = MEMORY.format(model=model, prompt=PROMPT)
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    print(f"4000x3000: {float(told):.2f} GiB at most")


def session_of(path: Path, threads: int) -> Any:
    """onnxruntime's session of a graph."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


@torch.inference_mode()
def main() -> None:
    """The tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", help="sides of the images in pixels; 256,512, or 1024 on CUDA")
    parser.add_argument("--textif", type=Path, help="a checkout of Text-IF")
    parser.add_argument("--model", help="a regression model, in place of random weights")
    parser.add_argument("--onnx", type=Path, help="the model's graph, by train export")
    parser.add_argument("--text", choices=T5, default="small", help="the prompt encoder's size")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if options.model:
        theirs = beside(options.textif, SIZES[0][0], torch.device("cpu"), options.repeats) if options.textif else None
        model_rows(options.model, theirs, options.onnx, options.repeats, options.threads)
        return
    sizes = options.sizes or ("1024" if device.type == "cuda" else "256,512")
    sides = [int(side) for side in sizes.split(",")]
    theirs = {side: beside(options.textif, side, device, options.repeats) for side in sides if options.textif}
    keep_freed_memory(device)  # as train fuse does; Text-IF was measured without it
    for side in sides:
        rows(side, device, options.repeats, theirs.get(side), options.threads)
    encoder = text_of(options.text).to(device)
    counter = iter(range(1000))
    prompt = cost(lambda: encoder([" ".join(["a"] * TOKENS) + " " * next(counter)]), device, options.repeats)
    print(f"text, {TOKENS} tokens of Flan-T5 {options.text}, once a prompt: {prompt:.0f}")


if __name__ == "__main__":
    main()
