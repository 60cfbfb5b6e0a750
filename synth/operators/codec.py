"""Loss in storage: down- and upsampling, JPEG compression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
from PIL import Image as Pillow

from clearfuse.synth.color import as_hwc, code_to_float, to_uint8
from clearfuse.synth.operators.base import Image, Operator, Scene, Stage, choice, severe

DOWN = {
    "bilinear": Pillow.Resampling.BILINEAR,
    "bicubic": Pillow.Resampling.BICUBIC,
    "lanczos": Pillow.Resampling.LANCZOS,
}
UP = {"bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC, "lanczos": cv2.INTER_LANCZOS4}
SUBSAMPLING = {"4:2:0": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420, "4:4:4": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444}


def shrink(image: Image, size: tuple[int, int], kernel: str) -> np.ndarray:
    """Anti-aliased resizing to ``size`` (width, height): each output pixel is a weighted mean over its footprint.

    'area' is cv2.INTER_AREA; 'bilinear', 'bicubic' and 'lanczos' are Pillow's, whose kernels scale with the factor.
    cv2's read a fixed neighbourhood and alias from a factor of 2 on.
    """
    if kernel == "area":
        return as_hwc(cv2.resize(image, size, interpolation=cv2.INTER_AREA))
    planes = [Pillow.fromarray(np.ascontiguousarray(image[..., c])) for c in range(image.shape[2])]
    return np.stack([np.asarray(plane.resize(size, DOWN[kernel])) for plane in planes], axis=2)


def jpeg_bytes(image: np.ndarray, quality: int, subsampling: str) -> np.ndarray:
    """The JPEG file of a uint8 ``(h, w, c)`` RGB or grey image, as uint8: libjpeg's quality scale, 1 to 100."""
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    if image.shape[2] == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, SUBSAMPLING[subsampling]]
    done, data = cv2.imencode(".jpg", image, options)
    assert done, f"JPEG refused an image of {image.shape}"
    return data


@dataclass(frozen=True)
class Downsample(Operator):
    """Loss of resolution: downsampling to round(size / factor), at least one pixel, and upsampling to the old size.

    Both keep pixel areas aligned (no half-pixel shift), and their kernels sum to one (the mean is kept). The
    downsampling is anti-aliased. Code values; clipped, because bicubic and Lanczos kernels overshoot at edges.
    """

    name: ClassVar[str] = "downsample"
    stage: ClassVar[Stage] = "resolution"
    source: ClassVar[str] = "Zhang et al., BSRGAN, ICCV 2021; Wang et al., Real-ESRGAN, ICCVW 2021 (random kernels)"

    factor: float = severe(2.2, 4.0, "ratio of the sides", low=1.0, high=16.0, identity=1.0)
    kernel: str = choice("area", "bilinear", "bicubic", "lanczos", doc="kernel of the downsampling")
    up: str = choice("bilinear", "bicubic", "lanczos", doc="kernel of the upsampling")

    def __call__(self, image: Image, rng: np.random.Generator, scene: Scene) -> Image:
        h, w, _ = image.shape
        size = (max(1, round(w / self.factor)), max(1, round(h / self.factor)))
        if size == (w, h):
            return image.copy()
        out = as_hwc(cv2.resize(shrink(image, size, self.kernel), (w, h), interpolation=UP[self.up]))
        return np.clip(out, 0, 1, out=out)


@dataclass(frozen=True)
class Jpeg(Operator):
    """JPEG compression by libjpeg: Y'CbCr, chroma subsampling, 8x8 DCT, quantised by the tables of its quality scale.

    Grey images are coded as grey JPEGs. Quality 100 with 4:4:4 still rounds Y'CbCr and the DCT to whole numbers: a grey
    image is reproduced within 1/255, a colour one within 1/255 for 97 % of its values and within 5/255 for all.
    """

    name: ClassVar[str] = "jpeg"
    stage: ClassVar[Stage] = "codec"
    source: ClassVar[str] = "ITU-T T.81, libjpeg's quality scale; ranges: ImageNet-C, ICLR 2019, BSRGAN, ICCV 2021"

    quality: int = severe(20.0, 8.0, "libjpeg quality", low=1.0, high=100.0, integer=True, identity=100)
    subsampling: str = choice("4:2:0", "4:4:4", doc="chroma subsampling", identity="4:4:4")

    def __call__(self, image: Image, rng: np.random.Generator, scene: Scene) -> Image:
        codes = to_uint8(image)
        data = jpeg_bytes(codes, self.quality, self.subsampling)
        if codes.shape[2] == 1:
            return code_to_float(as_hwc(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)))
        return code_to_float(cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB))
