"""The small depth network that comes with the package: ``models/depth`` says how it was made and how well it does."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import cv2
import numpy as np
from jaxtyping import Bool, Float32

from clearfuse.synth import color
from clearfuse.synth.depth.base import DepthInput, DepthSource
from clearfuse.synth.depth.focus import split_by_focus
from clearfuse.synth.depth.inverse import along_rays
from clearfuse.synth.depth.metres import USUAL_FAR, Metres, Picture, guided, sky_mask
from clearfuse.synth.depth.prior import layout
from clearfuse.synth.execute.tasks import one_thread
from clearfuse.synth.files.checkpoints import digest, read_state

if TYPE_CHECKING:
    from clearfuse.synth.depth.network import SmallDepthNet

WEIGHTS = Path(__file__).with_name("small.safetensors")

REACH = 60.0
"""Far end over near end of what the network says, as in ``metres.metric_from_inverse``."""

LONGEST = 512
"""Longest side in pixels of the network's input, for very wide pictures."""

STEPS = 1024
"""Steps from the far end to the near one to which the answer is rounded: a last bit changes almost none."""


@dataclass(frozen=True)
class SmallDepth(DepthSource):
    """The network's answer in metres; of two focus distances with their near and far side told apart."""

    name: ClassVar[str] = "small"
    help: ClassVar[str] = "a small network that comes with the package; coarser than depth-anything"
    torch: ClassVar[bool] = True
    better: ClassVar[str | None] = "--depth depth-anything (fetched once, 99 MB)"

    @classmethod
    def open(cls, folder: str) -> DepthSource:
        """The one there is."""
        del folder
        return cls(weights=digest(WEIGHTS))

    @classmethod
    def automatic(cls, has_true: bool) -> DepthSource | None:
        """Always."""
        return cls.open("")

    def estimate(self, pair: DepthInput) -> Metres:
        """Between the pair's far end and a sixtieth of it, laid along the picture's edges."""
        sky = sky_mask(pair.image)
        laid = np.clip(guided(nearness(pair.image, sky), pair.image, 2, 1e-3), 0, 1)
        metres = along_rays(np.float32(pair.far) * np.float32(REACH) ** -laid, pair.image, sky, pair.far)
        return metres if pair.focused is None else split_by_focus(metres, *pair.focused)


def guess(sky: Bool[np.ndarray, "h w"], height: int, width: int) -> Float32[np.ndarray, "height width"]:
    """t of the usual place of a picture with this sky (``prior.layout``), 0 in the sky."""
    t = np.log(USUAL_FAR / layout(sky, height, width)) / math.log(REACH)
    clear = cv2.resize((~sky).astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
    return (np.clip(t, 0, 1) * clear).astype(np.float32)


def nearness(picture: Picture, sky: Bool[np.ndarray, "h w"]) -> Float32[np.ndarray, "nh nw"]:
    """What the network says of a picture: t from 0 (far) to 1 (near), so that z = far/60^t, at half its input's size.

    On the CPU and one thread, wherever and in how many processes it runs, since both would change last bits.
    """
    import torch

    from clearfuse.synth.depth.network import MULTIPLE, SIDE

    scale = SIDE / min(sky.shape)
    h, w = (int(np.clip(round(side * scale / MULTIPLE), 1, LONGEST // MULTIPLE)) * MULTIPLE for side in sky.shape)
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    code = color.as_hwc(cv2.resize(color.code_to_float(picture), (w, h), interpolation=interpolation))
    rgb = np.repeat(code, 3, axis=2) if code.shape[2] == 1 else code
    inputs = (torch.from_numpy(np.ascontiguousarray(x)[None]) for x in (rgb.transpose(2, 0, 1), guess(sky, h, w)))
    with one_thread(torch=True), torch.inference_mode():
        said = _network()(*inputs)[0].numpy()
    return np.clip(np.round(said * STEPS) / STEPS, 0, 1).astype(np.float32)


@functools.lru_cache(maxsize=1)
def _network() -> SmallDepthNet:
    import torch

    from clearfuse.synth.depth.network import SmallDepthNet

    network = SmallDepthNet()
    missing = network.load_state_dict({name: v.float() for name, v in read_state(WEIGHTS).items()}, strict=False)
    stray = [name for name in missing.missing_keys if not name.endswith("num_batches_tracked")]
    if stray or missing.unexpected_keys:
        raise ValueError(f"{WEIGHTS}: {stray or missing.unexpected_keys} do not fit the network")
    return network.to(memory_format=torch.channels_last).eval().requires_grad_(False)  # pyright: ignore
