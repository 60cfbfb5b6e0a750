"""Restoration networks of other people, by degradation, as ``spandrel`` tells them from their weights."""

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
from clearfuse.synth.files.checkpoints import digest, read_state
from clearfuse.synth.fusers import PyramidFuser
from clearfuse.synth.operators import operator_class
from clearfuse.synth.shards.sample import Sample
from clearfuse.synth.types import UserError
from clearfuse.train.evaluation.methods.classical import CLASSICAL, Fault, Restorer, restored
from clearfuse.train.evaluation.scoring import Method

Image = Float32[np.ndarray, "h w c"]

NEEDS = "needs spandrel: pip install 'clearfuse[restorers]'"
LARGEST = 1024 * 1024
"""Pixels that go through a network at once; larger images in tiles."""
TILE, MARGIN = 768, 32
"""Sides of a tile's own part, and what it sees beyond it, pixels."""


@dataclass(frozen=True)
class Network:
    """A network's weights in a file, as a restorer: what it does to an image is its own business.

    A grey image goes in as three equal channels where the network wants colour, and comes back as their mean. What
    enlarges is brought back to the size by areas.
    """

    file: Path

    def __call__(self, image: Image, fault: Fault) -> Image:
        """The image as the network restores it."""
        return self.run(image)

    def run(self, image: Image) -> Image:
        """In tiles that see beyond their borders where it is large."""
        h, w, _ = image.shape
        if h * w <= LARGEST:
            return self._run(image)
        out = np.empty_like(image)
        for top in range(0, h, TILE):
            for left in range(0, w, TILE):
                y, x = max(top - MARGIN, 0), max(left - MARGIN, 0)
                part = self._run(image[y : top + TILE + MARGIN, x : left + TILE + MARGIN])
                into = out[top : top + TILE, left : left + TILE]
                into[:] = part[top - y : top - y + into.shape[0], left - x : left - x + into.shape[1]]
        return out

    def _run(self, image: Image) -> Image:
        import torch

        model = load_network(self.file)
        h, w, c = image.shape
        wanted = int(model.input_channels)
        given = np.repeat(image, wanted, axis=2) if c == 1 else image
        if given.shape[2] != wanted:
            given = given.mean(axis=2, keepdims=True)
        planes = torch.from_numpy(np.ascontiguousarray(given.transpose(2, 0, 1)))[None]
        with torch.inference_mode():
            out = model(planes)[0].float().cpu().numpy().transpose(1, 2, 0)
        if out.shape[:2] != (h, w):
            out = as_hwc(cv2.resize(out, (w, h), interpolation=cv2.INTER_AREA))
        if out.shape[2] != c:
            out = out.mean(axis=2, keepdims=True) if c == 1 else np.repeat(out, c, axis=2)
        return np.ascontiguousarray(np.clip(out, 0, 1), np.float32)


@lru_cache(maxsize=8)
def load_network(file: Path) -> Any:
    """The network of a file's tensors, on the processor. Nothing in the file is run; see ``weights.read_state``.

    Raises UserError where spandrel is not installed, or knows no architecture with such weights.
    """
    if find_spec("spandrel") is None:
        raise UserError(f"--restorer {file}: {NEEDS}")
    import spandrel  # type: ignore[import-not-found]

    state = read_state(file)
    try:
        found = spandrel.ModelLoader(device="cpu").load_from_state_dict(dict(state))
    except spandrel.UnsupportedModelError:
        raise UserError(f"--restorer {file}: spandrel knows no network with these weights") from None
    if not isinstance(found, spandrel.ImageModelDescriptor):
        raise UserError(f"--restorer {file}: {found.architecture.name} takes more than an image")
    found.model.eval().requires_grad_(False)
    return found


@dataclass(frozen=True)
class NetworksThenPyramid:
    """Each step's network where it has one, else its classical restorer, then the pyramid fuser."""

    networks: tuple[tuple[str, Network], ...]

    def __call__(self, sample: Sample) -> np.ndarray:
        """The fused image."""
        table: dict[str, Restorer] = {**CLASSICAL, **dict(self.networks)}
        a, b = (restored(sample, name, table) for name in ("a", "b"))
        return PyramidFuser()(a, b, sample.meta.task)


def network_methods(named: Sequence[str]) -> tuple[Method, ...]:
    """The method of ``OPERATOR,...=FILE``, none where none is named. Raises UserError where one can't be loaded."""
    networks: dict[str, Network] = {}
    for text in named:
        operators, _, place = text.partition("=")
        if not operators or not place:
            raise UserError(f"--restorer {text}: must be OPERATOR,...=FILE, such as haze,rain=promptir.safetensors")
        if not Path(place).is_file():
            raise UserError(f"--restorer {text}: {place}: no such file")
        for name in operators.split(","):
            networks[operator_class(name.strip()).name] = Network(Path(place))
    if not networks:
        return ()
    for network in networks.values():
        load_network(network.file)
    chosen = tuple(sorted(networks.items(), key=lambda item: item[0]))
    identity = " ".join(f"{name}={digest(network.file)}" for name, network in chosen)
    return (Method("networks + pyramid", NetworksThenPyramid(chosen), identity=identity),)
