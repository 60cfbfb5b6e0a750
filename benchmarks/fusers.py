"""SwinFusion beside itself carried out as published: masks anew for each block and call, attention maps of the image.

    python benchmarks/fusers.py [--sizes 256,512] [--repeats 2] [--threads N]

Both have the same weights, drawn at random, and their outputs are compared. Seconds of processor time and of the wall,
the least of the repeats; a table and a ratio by size.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

from clearfuse.synth.fusers import swinfusion
from clearfuse.synth.fusers.swin import BLOCKED, CrossBlock, SwinBlock, WindowAttention
from clearfuse.synth.fusers.swinfusion import SwinFusion


def laid_out(x: Tensor, size: int) -> Tensor:
    """(B, H, W, C) to windows (N, T, C)."""
    b, h, w, c = x.shape
    return x.view(b, h // size, size, w // size, size, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, size * size, c)


def mask_of(height: int, width: int, size: int) -> Tensor:
    """The mask of every window of a shifted block, from the regions of the image, (N, T, T)."""
    region, count = torch.zeros(1, height, width, 1), 0
    edges = (slice(0, -size), slice(-size, -(size // 2)), slice(-(size // 2), None))
    for rows in edges:
        for columns in edges:
            region[:, rows, columns], count = count, count + 1
    windows = laid_out(region, size).squeeze(2)
    apart = windows[:, None, :] - windows[:, :, None]
    return apart.masked_fill(apart != 0, BLOCKED).masked_fill(apart == 0, 0.0)


def attention(layer: WindowAttention, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """softmax(q kᵀ/√d + bias + mask) v, with every map of the image at once."""
    n, t, c = q.shape
    q, k, v = (x.view(n, t, layer.heads, -1).transpose(1, 2) for x in (q, k, v))
    scores = (q * (c // layer.heads) ** -0.5) @ k.transpose(-2, -1)
    scores = scores + layer.relative_position_bias_table[layer.relative_position_index].permute(2, 0, 1)[None]
    scores = scores.view(n // len(mask), len(mask), layer.heads, t, t) + mask[None, :, None]
    return (scores.view(-1, layer.heads, t, t).softmax(-1) @ v).transpose(1, 2).reshape(n, t, c)


def as_published(block: SwinBlock | CrossBlock, *images: Tensor) -> tuple[Tensor, ...]:
    """In place of ``through``."""
    size, half = block.window_size, block.window_size // 2 if block.shifted else 0
    _, height, width, _ = images[0].shape

    def mask() -> Tensor:
        made = mask_of(height, width, size)
        return made if half else torch.zeros_like(made)

    def windows(x: Tensor) -> Tensor:
        return laid_out(x.roll((-half, -half), (1, 2)) if half else x, size)

    def back(x: Tensor) -> Tensor:
        shape = (-1, height // size, width // size, size, size, x.shape[2])
        x = x.view(shape).permute(0, 1, 3, 2, 4, 5).reshape(-1, height, width, x.shape[2])
        return x.roll((half, half), (1, 2)) if half else x

    if isinstance(block, SwinBlock):
        (x,) = images
        own = block.attn
        x = x + back(own.proj(attention(own, *own.qkv(windows(block.norm1(x))).chunk(3, dim=-1), mask())))
        return (x + block.mlp(block.norm2(x)),)
    x, y = images
    u, v = windows(block.norm1_A(x)), windows(block.norm1_B(y))
    a, b = block.attn_A, block.attn_B
    x = x + back(a.proj(attention(a, a.q(u), *a.kv(v).chunk(2, dim=-1), mask())))
    y = y + back(b.proj(attention(b, b.q(v), *b.kv(u).chunk(2, dim=-1), mask())))
    return x + block.mlp_A(block.norm2_A(x)), y + block.mlp_B(block.norm2_B(y))


def timed(run: Callable[[], Tensor], repeats: int) -> tuple[Tensor, float, float]:
    """The output, and the least processor and wall seconds."""
    out, times = run(), list[tuple[float, float]]()
    for _ in range(repeats):
        used, began = time.process_time(), time.perf_counter()
        out = run()
        times.append((time.process_time() - used, time.perf_counter() - began))
    return out, min(t[0] for t in times), min(t[1] for t in times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="256,512")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    network = SwinFusion().eval()
    for parameter in network.parameters():
        parameter.data.normal_(0, 0.1)
    through = swinfusion.through
    print(f"threads {options.threads}\n{'size':>6} {'way':<14} {'processor s':>11} {'wall s':>8} {'ratio':>12}")
    for size in map(int, options.sizes.split(",")):
        a, b = torch.rand(2, 1, 1, size, size).unbind()
        with torch.inference_mode():
            ours, cpu, wall = timed(lambda: network(a, b), options.repeats)  # noqa: B023
            swinfusion.through = as_published
            theirs, cpu_published, wall_published = timed(lambda: network(a, b), options.repeats)  # noqa: B023
            swinfusion.through = through
        ratio = f"{cpu_published / cpu:.1f} / {wall_published / wall:.1f}"
        print(f"{size:>6} {'as published':<14} {cpu_published:>11.2f} {wall_published:>8.2f}")
        print(f"{size:>6} {'here':<14} {cpu:>11.2f} {wall:>8.2f} {ratio:>12}")
        print(f"{'':>6} largest difference {(ours - theirs).abs().max().item():.1e}")


if __name__ == "__main__":
    main()
