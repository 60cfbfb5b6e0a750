"""Time and memory of a training step: the preset's network beside dense ones, on one device.

    python benchmarks/training.py [--preset mmaif-fm] [--size 512] [--batch 8] [--steps 20] [--compile | --cuda-graphs]
        [--shards DIR]

One table from one run, with random latents and prompts on the device, without tokenizer and text encoder: the preset;
with gradient checkpointing; with a dense SwiGLU of the same active FLOPs in place of the experts; and a dense DiT of
diffusers with the same number of active parameters. A step is forward, backward, clipping, optimizer and weight
averaging. Time: the median over the steps, wall time on CUDA, CPU time on a CPU. MFU: three times the FLOPs of a
forward pass, by formula, relative to the device's dense bf16 peak; recomputed blocks are not counted. ``--shards``:
also run ``train fit`` on them, and print the share of time that it waits for data.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from clearfuse.train.designs.presets import TEXT_TOKENS, find_preset
from clearfuse.train.device import find_device
from clearfuse.train.models import Inputs, Prediction, build_model, find_model
from clearfuse.train.objectives.base import Predict
from clearfuse.train.training import optim, parallel

PEAKS = {"H200": 989.4e12, "H100": 989.4e12, "A100": 312e12, "4090": 165.2e12}
"""Dense bf16 FLOP/s of devices, from the manufacturers' data sheets."""


class DenseDiT(nn.Module):
    """diffusers' DiT on the concatenated latents, with this project's interface of networks; without prompts."""

    def __init__(self, channels: int, side: int, parameters: int, layers: int, heads: int) -> None:
        super().__init__()
        from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel

        def sized(head: int) -> Any:
            return DiTTransformer2DModel(
                num_attention_heads=heads, attention_head_dim=head, in_channels=3 * channels, out_channels=channels,
                num_layers=layers, sample_size=side, patch_size=2, num_embeds_ada_norm=1000,
            )  # fmt: skip

        with torch.device("meta"):
            head = min(range(8, 129, 2), key=lambda width: abs(count(sized(width)) - parameters))
        self.dit = sized(head)

    def forward(self, inputs: Inputs) -> Prediction:
        """Predict a velocity."""
        z_t, t = inputs.z_t, inputs.t
        assert z_t is not None and t is not None
        label = torch.zeros(len(z_t), dtype=torch.int64, device=z_t.device)
        made = self.dit(torch.cat([z_t, *inputs.pair], 1), timestep=1000 * t, class_labels=label).sample
        return Prediction(made, made.new_zeros(()), made.new_zeros(0, 0))


def count(network: nn.Module) -> int:
    """The number of parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


def step_of(
    network: nn.Module, objective: Any, inputs: dict[str, Tensor], bf16: bool, graphs: bool = False
) -> Callable[[], None]:
    """One training step on the inputs. graphs: the network is replayed as CUDA graphs."""
    weights = [parameter for parameter in network.parameters() if parameter.requires_grad]
    shadow = [weight.detach().clone() for weight in weights]
    groups = [{"params": weights, "weight_decay": 0.01}]
    optimizer = optim.CautiousAdamW(groups, lr=1e-4)
    device, rng = inputs["a"].device, torch.Generator().manual_seed(0)
    pair = inputs["a"], inputs["b"]

    def predict(z_t: Tensor | None, t: Tensor | None) -> Prediction:
        return network(Inputs(pair, (inputs["text"], None), z_t=z_t, t=t, guess=inputs.get("guess")))

    bound: Predict = predict

    def step() -> None:
        optimizer.zero_grad(set_to_none=not graphs)
        if graphs:
            torch.compiler.cudagraph_mark_step_begin()
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            loss = objective.loss(bound, inputs["gt"], pair, rng).total
        loss.backward()
        norm = optim.grad_norm(weights)
        optim.clip_gradients(weights, norm, 1.0)
        optimizer.step()
        optim.update_ema(shadow, weights, 0, 0.9999)

    return step


def timed(step: Callable[[], None], steps: int, cuda: bool) -> float:
    """Seconds: the median over the steps, after three warm-up steps."""
    spent: list[float] = []
    for number in range(steps + 3):
        if cuda:
            torch.cuda.synchronize()
        began = time.perf_counter() if cuda else time.process_time()
        step()
        if cuda:
            torch.cuda.synchronize()
        if number >= 3:
            spent.append((time.perf_counter() if cuda else time.process_time()) - began)
    return median(spent)


def inputs_of(config: Any, batch: int, cells: int, device: torch.device) -> dict[str, Tensor]:
    """Random latents and prompts."""
    rng = torch.Generator().manual_seed(1)
    shape = (batch, config.latent_channels, cells, cells)
    names = ["a", "b", "gt", *(["guess"] if config.guess else [])]
    made = {name: torch.randn(shape, generator=rng).to(device) for name in names}
    return made | {"text": torch.randn(batch, TEXT_TOKENS, config.text_width, generator=rng).to(device)}


def candidates(name: str, cells: int) -> dict[str, tuple[Callable[[], nn.Module], float, bool]]:
    """By name: a function that makes the network, FLOPs per forward pass and sample, whether blocks are recomputed."""
    design = find_preset(name).design
    family, config = find_model(design.model), design.config
    flops = family.flops(config, cells, cells, TEXT_TOKENS)
    width = config.active * config.expert_width + config.shared_width
    dense = replace(config, experts=0, expert_width=width, shared_width=0)
    with torch.device("meta"):
        active = count(family.network(config)) - family.inactive(config)

    def ours(config: Any) -> Callable[[], nn.Module]:
        return lambda: build_model(design.model, config, torch.Generator().manual_seed(0))

    rows: dict[str, tuple[Callable[[], nn.Module], float, bool]] = {
        name: (ours(config), flops, False),
        f"{name}, recomputed": (ours(config), flops, True),
        "dense, equal active FLOPs": (ours(dense), family.flops(dense, cells, cells, TEXT_TOKENS), False),
    }
    if config.flow:
        made = DenseDiT(config.latent_channels, cells, active, config.depth, config.heads)
        head = made.dit.config.attention_head_dim
        tokens, d = (cells // 2) ** 2, head * config.heads
        cost = 2 * config.depth * (tokens * 12 * d * d + 2 * tokens * tokens * d)
        rows[f"diffusers DiT, width {d}, {count(made) / 1e6:.0f} M"] = (lambda: made, cost, False)
    return rows


def waiting(shards: str, preset: str, batch: int, steps: int) -> float:
    """The share of time that ``train fit`` waits for data, the median over its steps."""
    import json

    from clearfuse.train.runs.logs import SPEED
    from clearfuse.train.runs.options import RunOptions
    from clearfuse.train.runs.settings import Settings
    from clearfuse.train.training.trainer import fit

    with tempfile.TemporaryDirectory() as folder:
        settings = Settings.of(preset, steps=steps, batch=batch, accumulate=1)
        fit(
            [shards],
            f"{folder}/run",
            settings,
            run_options=RunOptions(workers=8, validate_every=steps, trackers=("none",)),
        )
        lines = (Path(folder) / "run" / SPEED).read_text().splitlines()
    return median(json.loads(line)["data_wait"] for line in lines[len(lines) // 4 :])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="mmaif-fm")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--cuda-graphs", action="store_true")
    parser.add_argument("--shards")
    args = parser.parse_args()
    graphs: bool = args.cuda_graphs
    device = find_device()
    cuda = device.type == "cuda"
    name = torch.cuda.get_device_name() if cuda else "cpu"
    peak = next((value for key, value in PEAKS.items() if key in name), None)
    design = find_preset(args.preset).design
    cells = args.size // 8
    inputs = inputs_of(design.config, args.batch, cells, device)
    print(f"{args.preset} at {args.size}², batch {args.batch}, on {name}, {'bf16' if cuda else 'fp32'}")
    print(f"{'':<42}{'ms a step':>10}{'samples/s':>11}{'MFU':>8}{'GiB':>7}{'ratio':>7}")
    first: float | None = None
    for row, (make, flops, again) in candidates(args.preset, cells).items():
        network = make().to(device).train()
        if again:
            parallel.recompute(network)
        if args.compile or graphs:
            parallel.compile_network(network, graphs)
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        seconds = timed(step_of(network, design.objective, inputs, cuda, graphs), args.steps, cuda)
        first = first or seconds
        used = f"{3 * flops * args.batch / seconds / peak:.1%}" if peak else "-"
        memory = f"{torch.cuda.max_memory_allocated() / 2**30:.1f}" if cuda else "-"
        rate = args.batch / seconds
        print(f"{row:<42}{1000 * seconds:>10.1f}{rate:>11.2f}{used:>8}{memory:>7}{seconds / first:>7.2f}", flush=True)
        del network
    if args.shards:
        print(
            f"train fit: {waiting(args.shards, args.preset, args.batch, args.steps):.1%} of the time waiting for data"
        )


if __name__ == "__main__":
    main()
