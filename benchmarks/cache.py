"""Time saved by ``train cache``: a step on images against a step on latents, with a random VAE of Flux's architecture.

    python benchmarks/cache.py [--preset tiny-reg] [--side 128] [--steps 3] [--device cpu] [--tokenizer DIR]

The network is the preset's, adapted to the VAE's 16 channels. A step, forward and backward, is measured from images and
from the latents that ``train cache`` wrote for the same crops. CPU seconds on a CPU, wall seconds on a GPU, the fastest
step; "model only" is a step on latents already on the device. The losses must agree to 1e-3.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from clearfuse.synth.builder.run import build
from clearfuse.train.data.batch import Batch
from clearfuse.train.data.corpus import index
from clearfuse.train.data.loader import batches
from clearfuse.train.data.order import RankBatches
from clearfuse.train.designs.design import Assembly
from clearfuse.train.objectives.noise import Draws
from clearfuse.train.runs.settings import Settings
from clearfuse.train.training.cache import cache
from clearfuse.train.training.inputs import samples_of
from clearfuse.train.training.loss import batch_loss

TOLERANCE = 1e-3


def flux_shaped(folder: Path) -> Path:
    """An autoencoder of Flux's architecture, 84 M parameters, with random weights."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=16, use_quant_conv=False,
            use_post_quant_conv=False, shift_factor=0.1159, scaling_factor=0.3611,
        )  # fmt: skip
    network.save_pretrained(folder)
    return folder


def fastest(step: Callable[[], float], count: int, device: torch.device) -> tuple[float, float]:
    """Seconds of the fastest of ``count`` steps, and the loss of the first."""
    first, spent = 0.0, []
    for number in range(count):
        began = time.perf_counter() if device.type == "cuda" else time.process_time()
        loss = step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        spent.append((time.perf_counter() if device.type == "cuda" else time.process_time()) - began)
        first = loss if number == 0 else first
    return min(spent), first


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="tiny-reg")
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--tokenizer")
    parser.add_argument("--text", default="bytes")
    asked = parser.parse_args()
    device = torch.device(asked.device)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        vae = asked.tokenizer or str(flux_shaped(folder / "vae"))
        sets = [f"tokenizer={json.dumps(vae)}", f"text={json.dumps(asked.text)}"]
        settings = Settings.of(asked.preset, sets=sets, crop=asked.side, batch=asked.batch, ratios="1:1")
        build("vif", n="1-3", limit=2 * asked.batch, out=str(folder / "shards"), executor="serial")
        began = time.perf_counter()
        cache([str(folder / "shards")], str(folder / "latents"), settings, executor="serial", device=asked.device)
        print(f"cached {2 * asked.batch} samples of {asked.side}² in {time.perf_counter() - began:.1f} s", flush=True)
        measure(settings, folder, device, asked.steps)


def measure(settings: Settings, folder: Path, device: torch.device, steps: int) -> None:
    """Print the time of a step in each case."""
    assembly = Assembly(settings.design(), torch.Generator().manual_seed(0), suit=True).to(device).train()
    rows: dict[str, tuple[float, float]] = {}
    for name in ("shards", "latents"):
        samples = samples_of(settings, assembly, index([str(folder / name)]), {}, training=True)
        (batch,) = batches(samples, RankBatches(0, 1, settings.batch))
        assert isinstance(batch, Batch)
        ready = batch.to(device) if name == "latents" else batch

        def step(batch: Batch) -> float:
            assembly.zero_grad()
            rng = Draws.of("noise", 0, batch.positions)
            loss = batch_loss(assembly, batch, rng, device, bf16=device.type == "cuda").total
            loss.backward()
            return float(loss.detach())

        rows[name] = fastest(lambda batch=batch: step(batch), steps, device)
        if name == "latents":
            rows["model alone"] = fastest(lambda batch=ready: step(batch), steps, device)
    (whole, first), (short, second) = rows["shards"], rows["latents"]
    print(f"{'a step on':<16}{'seconds':>10}{'loss':>12}")
    for name, (seconds, loss) in rows.items():
        print(f"{'pictures' if name == 'shards' else name:<16}{seconds:>10.3f}{loss:>12.6f}")
    verdict = "agree" if abs(second / first - 1) <= TOLERANCE else "DIFFER"
    print(
        f"{whole / short:.1f} times as fast; {short / rows['model alone'][0]:.2f} of the model alone; losses {verdict}"
    )


if __name__ == "__main__":
    main()
