"""SwinFusion and DeFuse as fusers of images of any size."""

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
from clearfuse.synth.types import BadPair, Task

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Picture = Float32[np.ndarray, "h w _"]

LUMA = np.asarray(color.LUMA, np.float32)


@dataclass(frozen=True)
class Tiling:
    """Limits for tiled inference. whole: most pixels of an image that is not tiled. tile, overlap: pixels per side.

    batch: tiles per batch; None: by device.
    """

    whole: int
    tile: int
    overlap: int
    batch: int | None = None

    def batch_size(self, device: torch.device) -> int:
        """Tiles per batch: one on a CPU, where larger batches cost memory and save no time."""
        return self.batch or (8 if device.type == "cuda" else 1)


@dataclass(frozen=True)
class SwinFusionFuser:
    """SwinFusion on luma, with the colour of the visible image (VIF) or of both images (MEF, MFF) restored.

    checkpoint: a file with the weights of one task; None: those that ``synth weights`` installed.
    """

    checkpoint: Path | None = None
    tiling: Tiling = Tiling(whole=768 * 768, tile=512, overlap=96)

    def __call__(
        self, a: UInt8[np.ndarray, "h w c"], b: UInt8[np.ndarray, "h_b w_b d"], task: Task
    ) -> UInt8[np.ndarray, "h w e"]:
        """The fused image: (h, w, 3) where one of the two is in colour, else (h, w, 1)."""
        x, y = _pair(a, b)
        model = load_network("swinfusion", self.checkpoint or need_weights(f"swinfusion-{task}"))
        # The authors' first image is the infrared, and the under-exposed one.
        first, second = (y, x) if task == "vif" else (x, y)
        luma = self.fuse_luma(model, color.luma(first), color.luma(second))
        return color.to_uint8(with_chroma(luma, (x,) if task == "vif" else (x, y), max(a.shape[2], b.shape[2])))

    def fuse_luma(
        self, model: Any, first: Float32[np.ndarray, "h w"], second: Float32[np.ndarray, "h w"]
    ) -> Float32[np.ndarray, "h w"]:
        """The network's output for two luma images, not clipped."""
        height, width = first.shape
        planes = [np.pad(x, ((0, -height % 8), (0, -width % 8)), "reflect")[..., None] for x in (first, second)]
        fused = _run(model, planes, self.tiling, model.forward)
        return fused[:height, :width, 0]


@dataclass(frozen=True)
class DeFuseFuser:
    """DeFuse on colour images (MEF, MFF), or on luma with the visible image's colour restored (VIF, grey in the paper).

    checkpoint: a file with the weights; None: the one that ``synth weights`` installed.
    """

    checkpoint: Path | None = None
    tiling: Tiling = Tiling(whole=1536 * 1536, tile=1024, overlap=128)

    def __call__(
        self, a: UInt8[np.ndarray, "h w c"], b: UInt8[np.ndarray, "h_b w_b d"], task: Task
    ) -> UInt8[np.ndarray, "h w e"]:
        """The fused image: (h, w, 3) where one of the two is in colour, else (h, w, 1)."""
        x, y = _pair(a, b)
        model = load_network("defuse", self.checkpoint or need_weights("defuse"))
        channels = max(a.shape[2], b.shape[2])
        if task == "vif":
            fused = self.fuse_colour(model, *(color.luma(image)[..., None] for image in (y, x)))
            return color.to_uint8(with_chroma(color.luma(fused), (x,), channels))
        # The authors' first image is the over-exposed one; two focus distances have no order.
        fused = self.fuse_colour(model, *((y, x) if task == "mef" else (x, y)))
        return color.to_uint8(fused if channels == 3 else color.luma(fused)[..., None])

    def fuse_colour(self, model: Any, first: Picture, second: Picture) -> Float32[np.ndarray, "h w 3"]:
        """The network's output for two images, grey ones repeated to three channels; not clipped."""
        padded = [
            np.pad(np.repeat(x, 3, axis=2) if x.shape[2] == 1 else x, ((16, 16), (16, 16), (0, 0)), "reflect")
            for x in (first, second)
        ]
        return _run(model, padded, self.tiling, lambda a, b: model(a, b)[3])[16:-16, 16:-16]


def load_network(name: str, path: Path) -> Any:
    """A network with its weights, for inference, on the GPU where there is one; cached."""
    return _load_network(name, path, path.stat().st_mtime_ns if path.is_file() else 0)


@lru_cache(maxsize=4)
def _load_network(name: str, path: Path, changed: int) -> Any:
    del changed  # part of the cache key: a replaced file is read again
    import torch

    model = network(name)
    load_into(model, path)
    return model.eval().requires_grad_(False).to("cuda" if torch.cuda.is_available() else "cpu")


def _pair(a: np.ndarray, b: np.ndarray) -> tuple[Picture, Picture]:
    if a.shape[:2] != b.shape[:2]:
        raise ValueError(f"a is {a.shape[:2]}, b is {b.shape[:2]}: a pair has one height and width")
    return color.code_to_float(a), color.code_to_float(b)


def _run(model: Any, images: list[Picture], tiling: Tiling, run: Callable[[Tensor, Tensor], Tensor]) -> Picture:
    """Run a network on two images, whole or in tiles: (h, w, c), not clipped."""
    import torch

    from clearfuse.synth.fusers.means import shared_means
    from clearfuse.synth.fusers.tiles import Tiles, run_tiled

    device = next(model.parameters()).device
    # Deterministic, and without TF32, whose 10 bits of mantissa would show in the result.
    exact = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
    with torch.inference_mode(), exact:
        a, b = (torch.from_numpy(np.ascontiguousarray(x.transpose(2, 0, 1)))[None].to(device) for x in images)
        height, width = a.shape[2:]
        if height * width <= tiling.whole:
            fused = run(a, b)
        else:
            tiles, batch = Tiles.of(height, width, tiling.tile, tiling.overlap), tiling.batch_size(device)
            with shared_means(model, tiles, batch, a, b):
                fused = run_tiled(run, a, b, tiles, batch)
        if not fused.isfinite().all():
            raise BadPair(f"{type(model).__name__}'s result has values that are not finite")
        return np.ascontiguousarray(fused[0].permute(1, 2, 0).cpu().numpy())


def with_chroma(
    luma: Float32[np.ndarray, "h w"], sources: tuple[Picture, ...], channels: int
) -> Float32[np.ndarray, "h w e"]:
    """A luma image with the colour of its sources, not clipped; (h, w, channels).

    Of one source Cb and Cr are used unchanged; of two, (c₁|c₁| + c₂|c₂|)/(|c₁| + |c₂|) for each, which favours the
    stronger colour (Prabhakar et al., ICCV 2017). BT.601: R − Y = 1.402 Cr, B − Y = 1.772 Cb.
    """
    if channels == 1:
        return luma[..., None]
    chroma = [fuse_chroma(*(difference(source, c) for source in sources)) for c in (0, 2)]
    red, blue = luma + chroma[0], luma + chroma[1]
    green = luma - (LUMA[0] * chroma[0] + LUMA[2] * chroma[1]) / LUMA[1]
    return np.stack((red, green, blue), axis=2)


def difference(image: Picture, channel: int) -> Float32[np.ndarray, "h w"]:
    """A channel minus the luma: Cr or Cb up to a factor; zero for a grey image."""
    if image.shape[2] == 1:
        return np.zeros(image.shape[:2], np.float32)
    return image[..., channel] - color.luma(image)


def fuse_chroma(
    first: Float32[np.ndarray, "h w"], second: Float32[np.ndarray, "h w"] | None = None
) -> Float32[np.ndarray, "h w"]:
    """(c₁|c₁| + c₂|c₂|)/(|c₁| + |c₂|), zero where both are zero; ``first`` where ``second`` is None."""
    if second is None:
        return first
    abs_first, abs_second = np.abs(first), np.abs(second)
    return (first * abs_first + second * abs_second) / np.maximum(abs_first + abs_second, np.float32(1e-6))
