"""Published restoration networks for single degradations, whose architecture ``spandrel`` infers from the weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float32

from clearfuse.synth.color import as_hwc
from clearfuse.synth.files.checkpoints import check_weights, digest, read_state
from clearfuse.synth.fusers import PyramidFuser
from clearfuse.synth.operators import operator_class
from clearfuse.synth.shards.sample import Sample
from clearfuse.synth.types import UserError
from clearfuse.train.evaluation.methods.classical import CLASSICAL, Fault, Restorer, restore
from clearfuse.train.evaluation.scoring import Method

Image = Float32[np.ndarray, "h w c"]

NEEDS = "needs spandrel: pip install 'clearfuse[restorers]'"
LARGEST = 1024 * 1024
"""Maximum number of pixels in one pass; larger images are processed in tiles."""
TILE, MARGIN = 768, 32
"""Side of a tile, and the margin of context around it, in pixels."""


@dataclass(frozen=True)
class Network:
    """A network in a weight file, as a restorer.

    For a network that takes colour, a grey image is repeated to three channels and its output averaged. The output of
    a network that enlarges is downsampled to the image's size by area averaging.
    """

    file: Path

    def __call__(self, image: Image, fault: Fault) -> Image:
        """Restore an image."""
        return self.run(image)

    def run(self, image: Image) -> Image:
        """Restore an image, in overlapping tiles if it is large."""
        h, w, _ = image.shape
        if h * w <= LARGEST:
            return self._run(image)
        out = np.empty_like(image)
        for top in range(0, h, TILE):
            for left in range(0, w, TILE):
                y, x = max(top - MARGIN, 0), max(left - MARGIN, 0)
                tile = self._run(image[y : top + TILE + MARGIN, x : left + TILE + MARGIN])
                target = out[top : top + TILE, left : left + TILE]
                target[:] = tile[top - y : top - y + target.shape[0], left - x : left - x + target.shape[1]]
        return out

    def _run(self, image: Image) -> Image:
        import torch

        model = load_network(self.file)
        h, w, c = image.shape
        channels = int(model.input_channels)
        source = np.repeat(image, channels, axis=2) if c == 1 else image
        if source.shape[2] != channels:
            source = source.mean(axis=2, keepdims=True)
        planes = torch.from_numpy(np.ascontiguousarray(source.transpose(2, 0, 1)))[None]
        with torch.inference_mode():
            out = model(planes)[0].float().cpu().numpy().transpose(1, 2, 0)
        if not np.isfinite(out).all():
            raise ValueError(f"{self.file}: the network's result has values that are not finite")
        if out.shape[:2] != (h, w):
            out = as_hwc(cv2.resize(out, (w, h), interpolation=cv2.INTER_AREA))
        if out.shape[2] != c:
            out = out.mean(axis=2, keepdims=True) if c == 1 else np.repeat(out, c, axis=2)
        return np.ascontiguousarray(np.clip(out, 0, 1), np.float32)


@lru_cache(maxsize=8)
def load_network(file: Path) -> Any:
    """Load the network of a weight file on the CPU. No code in the file is run; see ``checkpoints.read_state``.

    Raises UserError if spandrel is not installed, or knows no architecture with such weights.
    """
    if find_spec("spandrel") is None:
        raise UserError(f"--restorer {file}: {NEEDS}")
    import spandrel  # type: ignore[import-not-found]

    state = read_state(file)
    check_weights({name: tensor for name, tensor in state.items() if tensor.is_floating_point()}, file)
    try:
        descriptor = spandrel.ModelLoader(device="cpu").load_from_state_dict(dict(state))
    except spandrel.UnsupportedModelError:
        raise UserError(f"--restorer {file}: spandrel knows no network with these weights") from None
    if not isinstance(descriptor, spandrel.ImageModelDescriptor):
        raise UserError(f"--restorer {file}: {descriptor.architecture.name} takes more than an image")
    descriptor.model.eval().requires_grad_(False)
    return descriptor


@dataclass(frozen=True)
class NetworksThenPyramid:
    """A method: each degradation undone by its network, or else by its classical restorer, then the pyramid fuser."""

    networks: tuple[tuple[str, Network], ...]

    def __call__(self, sample: Sample) -> np.ndarray:
        """The fused image."""
        table: dict[str, Restorer] = {**CLASSICAL, **dict(self.networks)}
        a, b = (restore(sample, name, table) for name in ("a", "b"))
        return PyramidFuser()(a, b, sample.meta.task)


def network_methods(options: Sequence[str]) -> tuple[Method, ...]:
    """The method for options ``OPERATOR,...=FILE``; () without any. Raises UserError if a network can't be loaded."""
    networks: dict[str, Network] = {}
    for text in options:
        operators, _, file = text.partition("=")
        if not operators or not file:
            raise UserError(f"--restorer {text}: must be OPERATOR,...=FILE, such as haze,rain=promptir.safetensors")
        if not Path(file).is_file():
            raise UserError(f"--restorer {text}: {file}: no such file")
        for name in operators.split(","):
            networks[operator_class(name.strip()).name] = Network(Path(file))
    if not networks:
        return ()
    for network in networks.values():
        load_network(network.file)
    chosen = tuple(sorted(networks.items(), key=lambda item: item[0]))
    identity = " ".join(f"{name}={digest(network.file)}" for name, network in chosen)
    return (Method("networks + pyramid", NetworksThenPyramid(chosen), identity=identity),)
