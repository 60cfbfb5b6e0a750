"""The attention kernel: torch's scaled_dot_product_attention, or xformers' memory_efficient_attention on CUDA.

Shapes: b batch, n heads, l queries, m keys, k width of a head.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from clearfuse.synth.types import UserError, unknown

Kernel = Literal["auto", "sdpa", "xformers"]
KERNELS: tuple[Kernel, ...] = get_args(Kernel)

_asked: Kernel = "auto"  # of the process; a ContextVar would cut a compiled graph in two


@functools.cache
def has_xformers() -> bool:
    """Whether xformers is installed."""
    return importlib.util.find_spec("xformers") is not None


def find_kernel(name: str) -> Kernel:
    """The kernel of a name. Raises UserError for an unknown one, and for xformers where it is not installed."""
    for kernel in KERNELS:
        if kernel == name:
            break
    else:
        raise unknown("attention kernel", name, KERNELS)
    if kernel == "xformers" and not has_xformers():
        raise UserError("--attention xformers: xformers is not installed: pip install 'clearfuse[xformers]'")
    return kernel


@contextmanager
def attention_kernel(kernel: Kernel) -> Iterator[None]:
    """Use a kernel inside the block: ``auto`` picks one for each call, see ``choose_kernel``."""
    global _asked
    before, _asked = _asked, kernel
    try:
        yield
    finally:
        _asked = before


def choose_kernel(asked: Kernel, device: torch.device, masked: bool) -> Literal["sdpa", "xformers"]:
    """The kernel of a call.

    ``auto`` takes torch's, whose flash kernel is the fastest, unless a mask rules that kernel out on CUDA and xformers,
    which takes a bias, is installed. xformers has no kernel for a CPU.
    """
    if device.type != "cuda" or asked == "sdpa":
        return "sdpa"
    if asked == "xformers":
        return "xformers"
    return "xformers" if masked and has_xformers() else "sdpa"


def attention(
    q: Float[Tensor, "b n l k"],
    k: Float[Tensor, "b n m k"],
    v: Float[Tensor, "b n m k"],
    mask: Bool[Tensor, "b m"] | None,
) -> Float[Tensor, "b n l k"]:
    """softmax(q kᵀ / √k) v; keys where the mask is False are ignored. All attention goes through this function."""
    assert q.dtype == k.dtype == v.dtype, f"attention in {q.dtype}, {k.dtype} and {v.dtype}: kernels take one"
    if choose_kernel(_asked, q.device, mask is not None) == "xformers":
        return _xformers_attention(q, k, v, mask)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=None if mask is None else mask[:, None, None, :])


def _xformers_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    from xformers.ops import memory_efficient_attention  # pyright: ignore[reportMissingImports]

    bias = None
    if mask is not None:
        # The kernels need the rows of the bias aligned to 8 elements: allocate more, then slice.
        b, n, queries, keys = q.shape[0], q.shape[1], q.shape[2], k.shape[2]
        row = torch.zeros((b, 1, 1, -(-keys // 8) * 8), dtype=q.dtype, device=q.device)
        row[..., :keys].masked_fill_(~mask[:, None, None, :], float("-inf"))
        bias = row.expand(b, n, queries, -1)[..., :keys]
    q, k, v = (rearrange(x, "b n l k -> b l n k") for x in (q, k, v))
    return rearrange(memory_efficient_attention(q, k, v, attn_bias=bias), "b l n k -> b n l k")
