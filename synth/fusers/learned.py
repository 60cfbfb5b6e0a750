"""The networks of the papers as fusers: images in, images out, at any size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32, UInt8

from clearfuse.synth import color
from clearfuse.synth.files.checkpoints import load_into
from clearfuse.synth.fusers.weights import need_weights, network
from clearfuse.synth.types import Task

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Picture = Float32[np.ndarray, "h w _"]

LUMA = np.asarray(color.LUMA, np.float32)


@dataclass(frozen=True)
class Tiling:
    """What is fused at once. whole: pixels of the largest image that is not tiled; tile, overlap: pixels a side."""

    whole: int
    tile: int
    overlap: int
    batch: int | None = None

    def at_once(self, device: torch.device) -> int:
        """Tiles in a batch: one on a processor, where more cost memory and save no time."""
        return self.batch or (8 if device.type == "cuda" else 1)


@dataclass(frozen=True)
class SwinFusionFuser:
    """SwinFusion on luma, with the colour put back: of the visible image (VIF), or of both (MEF, MFF).

    checkpoint: a file of one task's weights; None for those of ``synth weights``.
    """

    checkpoint: Path | None = None
    tiling: Tiling = Tiling(whole=768 * 768, tile=512, overlap=96)

    def __call__(
        self, a: UInt8[np.ndarray, "h w c"], b: UInt8[np.ndarray, "h_b w_b d"], task: Task
    ) -> UInt8[np.ndarray, "h w e"]:
        """The fused image: (h, w, 3) where one of the two is in colour, else (h, w, 1)."""
        x, y = _pair(a, b)
        model = loaded("swinfusion", self.checkpoint or need_weights(f"swinfusion-{task}"))
        # The authors' first image is the infrared, and the under-exposed one.
        first, second = (y, x) if task == "vif" else (x, y)
        luma = self.fuse_luma(model, color.luma(first), color.luma(second))
        return color.to_uint8(with_chroma(luma, (x,) if task == "vif" else (x, y), max(a.shape[2], b.shape[2])))

    def fuse_luma(
        self, model: Any, first: Float32[np.ndarray, "h w"], second: Float32[np.ndarray, "h w"]
    ) -> Float32[np.ndarray, "h w"]:
        """The network's own output on two luma images."""
        height, width = first.shape
        planes = [np.pad(x, ((0, -height % 8), (0, -width % 8)), "reflect")[..., None] for x in (first, second)]
        fused = _run(model, planes, self.tiling, model.forward)
        return fused[:height, :width, 0]


@dataclass(frozen=True)
class DeFuseFuser:
    """DeFuse on colour images (MEF, MFF); on luma with the visible image's colour for VIF, where its authors use grey.

    checkpoint: the file of the weights; None for that of ``synth weights``.
    """

    checkpoint: Path | None = None
    tiling: Tiling = Tiling(whole=1536 * 1536, tile=1024, overlap=128)

    def __call__(
        self, a: UInt8[np.ndarray, "h w c"], b: UInt8[np.ndarray, "h_b w_b d"], task: Task
    ) -> UInt8[np.ndarray, "h w e"]:
        """The fused image: (h, w, 3) where one of the two is in colour, else (h, w, 1)."""
        x, y = _pair(a, b)
        model = loaded("defuse", self.checkpoint or need_weights("defuse"))
        channels = max(a.shape[2], b.shape[2])
        if task == "vif":
            fused = self.fuse_colour(model, *(color.luma(image)[..., None] for image in (y, x)))
            return color.to_uint8(with_chroma(color.luma(fused), (x,), channels))
        # The authors' first image is the over-exposed one; two focus distances have no order.
        fused = self.fuse_colour(model, *((y, x) if task == "mef" else (x, y)))
        return color.to_uint8(fused if channels == 3 else color.luma(fused)[..., None])

    def fuse_colour(self, model: Any, first: Picture, second: Picture) -> Float32[np.ndarray, "h w 3"]:
        """The network's own output on two images, grey ones as three equal channels; 16 px of reflection around."""
        padded = [
            np.pad(np.repeat(x, 3, axis=2) if x.shape[2] == 1 else x, ((16, 16), (16, 16), (0, 0)), "reflect")
            for x in (first, second)
        ]
        return _run(model, padded, self.tiling, lambda a, b: model(a, b)[3])[16:-16, 16:-16]


def loaded(name: str, path: Path) -> Any:
    """A network with its weights, ready to use, on the GPU where there is one; kept for the next call."""
    return _loaded(name, path, path.stat().st_mtime_ns if path.is_file() else 0)


@lru_cache(maxsize=4)
def _loaded(name: str, path: Path, changed: int) -> Any:
    del changed  # a file put in its place is another one
    import torch

    model = network(name)
    load_into(model, path)
    return model.eval().requires_grad_(False).to("cuda" if torch.cuda.is_available() else "cpu")


def _pair(a: np.ndarray, b: np.ndarray) -> tuple[Picture, Picture]:
    if a.shape[:2] != b.shape[:2]:
        raise ValueError(f"a is {a.shape[:2]}, b is {b.shape[:2]}: a pair has one height and width")
    return color.code_to_float(a), color.code_to_float(b)


def _run(model: Any, images: list[Picture], tiling: Tiling, run: Callable[[Tensor, Tensor], Tensor]) -> Picture:
    """A network over two images, whole or in tiles: (h, w, c), not clipped."""
    import torch

    from clearfuse.synth.fusers.cpu.means import shared_means
    from clearfuse.synth.fusers.tiles import Tiles, run_tiled

    device = next(model.parameters()).device
    # On a GPU too the numbers are the official ones, each time the same: 10 bits of mantissa would show.
    exact = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
    with torch.inference_mode(), exact:
        a, b = (torch.from_numpy(np.ascontiguousarray(x.transpose(2, 0, 1)))[None].to(device) for x in images)
        height, width = a.shape[2:]
        if height * width <= tiling.whole:
            fused = run(a, b)
        else:
            tiles, batch = Tiles.of(height, width, tiling.tile, tiling.overlap), tiling.at_once(device)
            with shared_means(model, tiles, batch, a, b):
                fused = run_tiled(run, a, b, tiles, batch)
        return np.ascontiguousarray(fused[0].permute(1, 2, 0).cpu().numpy())


def with_chroma(
    luma: Float32[np.ndarray, "h w"], sources: tuple[Picture, ...], channels: int
) -> Float32[np.ndarray, "h w e"]:
    """A luma image with the colour of its sources, in [0, 1] or beyond; (h, w, channels).

    Cb and Cr of one source are taken as they are; of two, (c₁|c₁| + c₂|c₂|)/(|c₁| + |c₂|) of each, about the
    stronger colour (Prabhakar et al., ICCV 2017). BT.601: R − Y = 1.402 Cr, B − Y = 1.772 Cb.
    """
    if channels == 1:
        return luma[..., None]
    chroma = [fuse_chroma(*(difference(source, c) for source in sources)) for c in (0, 2)]
    red, blue = luma + chroma[0], luma + chroma[1]
    green = luma - (LUMA[0] * chroma[0] + LUMA[2] * chroma[1]) / LUMA[1]
    return np.stack((red, green, blue), axis=2)


def difference(image: Picture, channel: int) -> Float32[np.ndarray, "h w"]:
    """A channel less the luma: Cr or Cb but for a factor; zero for a grey image."""
    if image.shape[2] == 1:
        return np.zeros(image.shape[:2], np.float32)
    return image[..., channel] - color.luma(image)


def fuse_chroma(
    first: Float32[np.ndarray, "h w"], second: Float32[np.ndarray, "h w"] | None = None
) -> Float32[np.ndarray, "h w"]:
    """(c₁|c₁| + c₂|c₂|)/(|c₁| + |c₂|), zero where both are; the first alone where there is one."""
    if second is None:
        return first
    one, other = np.abs(first), np.abs(second)
    return (first * one + second * other) / np.maximum(one + other, np.float32(1e-6))
