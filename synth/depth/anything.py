"""Depth Anything: relative inverse depth of single images, by any network of its transformers class.

Yang et al., Depth Anything V2, NeurIPS 2024. The network predicts affine-invariant inverse depth, where near is large;
``clearfuse.synth.depth.metres.metric_from_inverse`` converts it to metres.
"""

from __future__ import annotations

import functools
import hashlib
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import cv2
import numpy as np
from jaxtyping import Float32

from clearfuse.synth import color
from clearfuse.synth.depth.base import DepthInput, DepthNetwork, DepthSource
from clearfuse.synth.depth.inverse import metric
from clearfuse.synth.depth.metres import Metres, Picture
from clearfuse.synth.files.checkpoints import check_weights, read_state
from clearfuse.synth.types import BadPair, UserError, reason_of

if TYPE_CHECKING:
    import torch

HUB_ID, REVISION = "depth-anything/Depth-Anything-V2-Small-hf", "5426e4f0f36572d16453bbda7a8389317b1bef99"
"""The default network, 99 MB, Apache-2.0; Base and Large are for research only (CC BY-NC 4.0)."""

CONFIG = "config.json"
WEIGHTS = "*.safetensors"
SIDE, PATCH = 518, 14
"""The shorter side in pixels that the network was trained for, and the number of which sides must be multiples."""

BATCH = 8
"""Images per batch on a GPU."""

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of ImageNet's code values, for the normalisation of the input."""


@dataclass(frozen=True)
class DepthAnything(DepthNetwork):
    """Any network of the class in a folder."""

    name: ClassVar[str] = "depth-anything"
    help: ClassVar[str] = "a Depth Anything network: V2-Small from the hub, depth-anything=DIR or =HUB_ID for another"
    takes: ClassVar[Literal["an optional folder"]] = "an optional folder"

    @classmethod
    def open(cls, folder: str) -> DepthSource:
        """The network of a folder or a hub id; for none the default one, fetched where it is not there."""
        found = locate(folder or None)
        return cls(str(found), weights_digest(found))

    @classmethod
    def automatic(cls, has_true: bool) -> DepthSource | None:
        """Where the default network is on disk."""
        found = on_disk()
        return None if found is None else cls(str(found), weights_digest(found))

    def predict(self, pictures: Sequence[Picture]) -> list[np.ndarray]:
        """Relative inverse depth, near is large."""
        return inverse_depths(pictures, self.folder)

    def estimate(self, pair: DepthInput) -> Metres:
        """The network's map in metres, laid along the picture's edges. Raises BadPair where it is not finite."""
        predicted = self.predict([pair.image])[0] if pair.predicted is None else pair.predicted
        if not np.isfinite(predicted).all():
            raise BadPair(f"the depth of {self.folder} has values that are not finite")
        return metric(predicted, pair.image, pair.far)


def on_disk() -> Path | None:
    """The folder of the default network in the hub's cache; None where it is missing."""
    from huggingface_hub import try_to_load_from_cache

    found = [try_to_load_from_cache(HUB_ID, name, revision=REVISION) for name in (CONFIG, "model.safetensors")]
    return Path(found[0]).parent if all(isinstance(path, str) for path in found) and found[0] else None


def locate(name: str | None) -> Path:
    """The folder of a network: the given folder, or that of a hub id in the hub's cache, downloaded where missing.

    name: a folder or a hub id; None: the default, at a pinned revision. Raises UserError where there is no such network
    or the download fails.
    """
    if name is None and (cached := on_disk()) is not None:
        return cached
    if name is not None and Path(name).is_dir():
        folder = Path(name)
    else:
        folder = _download(name or HUB_ID, REVISION if name in (None, HUB_ID) else None)
    if not (folder / CONFIG).is_file() or not list(folder.glob(WEIGHTS)):
        raise UserError(f"--depth depth-anything={folder}: no {CONFIG} and {WEIGHTS} in it")
    return folder


def _download(hub_id: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=[CONFIG, WEIGHTS]))
    except HFValidationError:
        raise UserError(f"--depth depth-anything={hub_id}: neither a folder nor a hub id") from None
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise UserError(
            f"--depth depth-anything: {hub_id} cannot be fetched ({reason_of(error)}); download {CONFIG} and "
            "model.safetensors and give their folder: --depth depth-anything=DIR"
        ) from None


def weights_digest(folder: Path) -> str:
    """The digest of a network: blake2b over its configuration and weights, 16 hex digits."""
    total = hashlib.blake2b(digest_size=8)
    for path in [folder / CONFIG, *sorted(folder.glob(WEIGHTS))]:
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "blake2b").digest())
    return total.hexdigest()


def network_size(height: int, width: int) -> tuple[int, int]:
    """(h, w) of the network's input: the shorter side about ``SIDE``, the ratio kept, multiples of ``PATCH``."""
    scale = SIDE / min(height, width)
    sides = (max(round(side * scale / PATCH), 1) * PATCH for side in (height, width))
    net_height, net_width = sides
    return net_height, net_width


@functools.lru_cache(maxsize=1)
def load_depth_network(folder: str) -> torch.nn.Module:
    """Load the network of a folder, for inference: bf16 on the first CUDA device, float32 on a CPU.

    Raises UserError where it is not a Depth Anything network.
    """
    import torch
    from safetensors import SafetensorError
    from transformers.models.depth_anything.modeling_depth_anything import DepthAnythingForDepthEstimation
    from transformers.utils import logging

    target = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if target.type == "cuda" else torch.float32
    progress_bar = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        network: Any = DepthAnythingForDepthEstimation
        model, report = network.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, dtype=dtype, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, KeyError, AttributeError, SafetensorError) as error:
        raise UserError(f"--depth depth-anything={folder}: not a Depth Anything network: {reason_of(error)}") from None
    finally:
        if progress_bar:
            logging.enable_progress_bar()
    missing = sorted(report["missing_keys"])
    if missing:
        raise UserError(f"--depth depth-anything={folder}: {len(missing)} weights missing, such as {missing[0]}")
    dtypes = {name: tensor.dtype for name, tensor in model.state_dict().items()}
    for path in sorted(Path(folder).glob(WEIGHTS)):
        check_weights(read_state(path), path, dtypes)  # as stored: transformers takes any kind of number
    return model.to(target).eval().requires_grad_(False)


def inverse_depths(pictures: Sequence[np.ndarray], folder: str) -> list[np.ndarray]:
    """Relative inverse depth of each image, where near is large, float32 ``network_size``. pictures: uint8 (h, w, c).

    On a GPU, images of one size are processed in batches of ``BATCH``; the last batch is padded with copies, since the
    batch size changes the order of computation, and with it the last bits of each result.
    """
    import torch

    model = load_depth_network(folder)
    parameter = next(model.parameters())
    count = batch_size(parameter.device.type)
    by_size: dict[tuple[int, int], list[int]] = {}
    for index, picture in enumerate(pictures):
        by_size.setdefault(network_size(*picture.shape[:2]), []).append(index)
    out: list[np.ndarray] = [np.zeros((0, 0), np.float32)] * len(pictures)
    batches = [(size, which[i : i + count]) for size, which in by_size.items() for i in range(0, len(which), count)]
    for size, indices in batches:
        inputs = [_input(pictures[i], size) for i in indices]
        batch = torch.from_numpy(np.stack(inputs + inputs[-1:] * (count - len(inputs))))
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about the interpolated position embeddings
            predicted = model(pixel_values=batch.to(parameter.device, parameter.dtype)).predicted_depth
        for i, result in zip(indices, predicted.float().cpu().numpy(), strict=False):  # without the copies
            out[i] = result
    return out


def batch_size(device: str) -> int:
    """Images per batch: one on a CPU, where larger batches cost memory and save no time."""
    return BATCH if device == "cuda" else 1


def _input(picture: Picture, size: tuple[int, int]) -> Float32[np.ndarray, "3 nh nw"]:
    """An image as the network's input: three channels, resized, normalised, channels first."""
    shrinks = math.prod(size) < math.prod(picture.shape[:2])
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    code = color.as_hwc(cv2.resize(color.code_to_float(picture), size[::-1], interpolation=interpolation))
    rgb = np.clip(np.repeat(code, 3, axis=2) if code.shape[2] == 1 else code, 0, 1)
    normalised = (rgb - np.array(MEAN, np.float32)) / np.array(DEVIATION, np.float32)
    return np.ascontiguousarray(normalised.transpose(2, 0, 1))
