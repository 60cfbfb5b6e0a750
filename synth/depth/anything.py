"""Depth Anything: relative inverse depth of one picture, by any network of its transformers class.

Yang et al., Depth Anything V2, NeurIPS 2024. The network gives affine-invariant inverse depth, near is large: what
makes metres of it is ``clearfuse.synth.depth.metres.metric_from_inverse``.
"""

from __future__ import annotations

import functools
import hashlib
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from clearfuse.synth import color
from clearfuse.synth.types import UserError

if TYPE_CHECKING:
    import torch

HUB_ID, REVISION = "depth-anything/Depth-Anything-V2-Small-hf", "5426e4f0f36572d16453bbda7a8389317b1bef99"
"""The default network, 99 MB, Apache-2.0; Base and Large are for research alone (CC BY-NC 4.0)."""

CONFIG = "config.json"
WEIGHTS = "*.safetensors"
SIDE, PATCH = 518, 14
"""Pixels: the shorter side that the network was trained for, and what sides must be a multiple of."""

BATCH = 8
"""Pictures that a GPU takes together."""

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's code values, by which the network wants its input normalised."""

Picture = UInt8[np.ndarray, "h w c"]
Inverse = Float32[np.ndarray, "ih iw"]


def on_disk() -> Path | None:
    """The folder of the default network in the hub's cache, None where it is not there."""
    from huggingface_hub import try_to_load_from_cache

    found = [try_to_load_from_cache(HUB_ID, name, revision=REVISION) for name in (CONFIG, "model.safetensors")]
    return Path(found[0]).parent if all(isinstance(each, str) for each in found) and found[0] else None


def locate(name: str | None) -> Path:
    """The folder of a network: a folder's own path, or a hub id's in the hub's cache, fetched where it is not there.

    name: None for the default, at a pinned revision. UserError where there is no such network, or no way to it.
    """
    if name is None and (kept := on_disk()) is not None:
        return kept
    if name is not None and Path(name).is_dir():
        folder = Path(name)
    else:
        folder = _fetched(name or HUB_ID, REVISION if name in (None, HUB_ID) else None)
    if not (folder / CONFIG).is_file() or not list(folder.glob(WEIGHTS)):
        raise UserError(f"--depth depth-anything={folder}: no {CONFIG} and {WEIGHTS} in it")
    return folder


def _fetched(hub_id: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=[CONFIG, WEIGHTS]))
    except HFValidationError:
        raise UserError(f"--depth depth-anything={hub_id}: neither a folder nor a hub id") from None
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"--depth depth-anything: {hub_id} cannot be fetched ({said}); download {CONFIG} and model.safetensors "
            "and give their folder: --depth depth-anything=DIR"
        ) from None


def weights_digest(folder: Path) -> str:
    """Which network this is: blake2b over its configuration and weights, 16 hex digits."""
    whole = hashlib.blake2b(digest_size=8)
    for path in [folder / CONFIG, *sorted(folder.glob(WEIGHTS))]:
        with path.open("rb") as file:
            whole.update(hashlib.file_digest(file, "blake2b").digest())
    return whole.hexdigest()


def network_size(height: int, width: int) -> tuple[int, int]:
    """(h, w) of the network's input: the shorter side near ``SIDE``, the ratio kept, each a multiple of ``PATCH``."""
    scale = SIDE / min(height, width)
    sides = (max(round(side * scale / PATCH), 1) * PATCH for side in (height, width))
    high, wide = sides
    return high, wide


@functools.lru_cache(maxsize=1)
def load_depth_network(folder: str) -> torch.nn.Module:
    """The network of a folder, for inference: bf16 on the first CUDA device, float32 on the CPU."""
    import torch
    from safetensors import SafetensorError
    from transformers.models.depth_anything.modeling_depth_anything import DepthAnythingForDepthEstimation
    from transformers.utils import logging

    where = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if where.type == "cuda" else torch.float32
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        model: Any = DepthAnythingForDepthEstimation.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, dtype=dtype
        )
    except (OSError, ValueError, RuntimeError, KeyError, AttributeError, SafetensorError) as error:
        said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"--depth depth-anything={folder}: not a Depth Anything network: {said}") from None
    finally:
        if shown:
            logging.enable_progress_bar()
    return model.to(where).eval().requires_grad_(False)


def inverse_depths(pictures: Sequence[np.ndarray], folder: str) -> list[np.ndarray]:
    """Relative inverse depth of each picture, near is large, at the network's resolution: see ``network_size``.

    On a GPU pictures of one size go through ``BATCH`` at a time, the last ones beside copies of one of them: a batch of
    another size is computed in another order, and a picture's last bits would depend on which others are still to do.
    """
    import torch

    model = load_depth_network(folder)
    parameter = next(model.parameters())
    count = at_once(parameter.device.type)
    by_size: dict[tuple[int, int], list[int]] = {}
    for index, picture in enumerate(pictures):
        by_size.setdefault(network_size(*picture.shape[:2]), []).append(index)
    out: list[np.ndarray] = [np.zeros((0, 0), np.float32)] * len(pictures)
    batches = [(size, which[i : i + count]) for size, which in by_size.items() for i in range(0, len(which), count)]
    for size, indices in batches:
        inputs = [_input(pictures[i], size) for i in indices]
        batch = torch.from_numpy(np.stack(inputs + inputs[-1:] * (count - len(inputs))))
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # positions are interpolated to other sizes: as intended
            found = model(pixel_values=batch.to(parameter.device, parameter.dtype)).predicted_depth
        for i, each in zip(indices, found.float().cpu().numpy(), strict=False):  # the copies are left
            out[i] = each
    return out


def at_once(device: str) -> int:
    """Pictures in a batch: on a processor one, since more cost memory there and save no time."""
    return BATCH if device == "cuda" else 1


def _input(picture: Picture, size: tuple[int, int]) -> Float32[np.ndarray, "3 nh nw"]:
    """A picture as the network takes it: three channels, resized, normalised, channels first."""
    shrinks = math.prod(size) < math.prod(picture.shape[:2])
    way = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    code = color.as_hwc(cv2.resize(color.code_to_float(picture), size[::-1], interpolation=way))
    three = np.clip(np.repeat(code, 3, axis=2) if code.shape[2] == 1 else code, 0, 1)
    normal = (three - np.array(MEAN, np.float32)) / np.array(DEVIATION, np.float32)
    return np.ascontiguousarray(normal.transpose(2, 0, 1))
