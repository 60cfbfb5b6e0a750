"""Checkpoint files: digests, and tensors read without running anything that is in them."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from clearfuse.synth.types import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


SUFFIXES = (".safetensors", ".pth")
WRAPPERS = ("params", "state_dict")
"""Keys under which a checkpoint may hold its state dict."""

CHUNK = 1 << 20


def digest(path: Path) -> str:
    """Which weights these are: the first 16 hex digits of the file's sha256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def blob_id(path: Path) -> str:
    """git's id of a file: sha1 of ``blob SIZE\\0`` and its content, 40 hex digits."""
    whole = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            whole.update(chunk)
    return whole.hexdigest()


def load_into(module: nn.Module, path: Path) -> None:
    """Load a checkpoint into its network, every entry by name, shape and kind of number, and finite.

    Raises UserError, one line, where one does not fit.
    """
    fill(module, read_state(path), path, type(module).__name__)


def fill(module: nn.Module, state: dict[str, Tensor], path: Path, what: str, assign: bool = False) -> None:
    """Load what was read from ``path`` as ``load_into`` does.

    what: the network's name, for the error's sake. assign: the tensors themselves take the entries' place.
    """
    wanted = module.state_dict()
    check_entries(wanted, state, path, what)
    check_weights(state, path, {name: tensor.dtype for name, tensor in wanted.items()})
    module.load_state_dict(state, strict=True, assign=assign)


def check_entries(wanted: Mapping[str, Tensor], state: Mapping[str, Tensor], path: Path, what: str) -> None:
    """Raise UserError, naming the file, unless the entries that were read have the names and shapes of those wanted.

    wanted: tensors, which may be without memory (torch's device ``meta``).
    """
    missing, extra = [k for k in wanted if k not in state], [k for k in state if k not in wanted]
    wrong = [k for k in wanted if k in state and state[k].shape != wanted[k].shape]
    faults = [
        f"{len(names)} entries {what}, such as {names[0]}"
        for names, what in ((missing, "missing"), (extra, "too many"), (wrong, "of another shape"))
        if names
    ]
    if faults:
        raise UserError(f"{path}: not a checkpoint of {what}: {'; '.join(faults)}")


def check_weights(
    state: Mapping[str, Tensor], path: Path, dtypes: Mapping[str, torch.dtype] = MappingProxyType({})
) -> None:
    """Raise UserError, naming the file and the entry, for the first tensor that can't be a network's weights.

    dtypes: what the entries are loaded as, floating point where an entry is not named. One kind of number is not taken
    for another, and every number must be finite once loaded.
    """
    import torch

    for name, tensor in state.items():
        dtype = dtypes.get(name, torch.float32)
        is_real = tensor.dtype.is_floating_point and tensor.dtype.itemsize > 1  # of one byte they come with scales
        if tensor.dtype is not dtype and not (is_real and dtype.is_floating_point):
            wanted = "float16, bfloat16, float32 or float64" if dtype.is_floating_point else _short(dtype)
            raise UserError(f"{path}: {name} is of type {_short(tensor.dtype)}; must be {wanted}")
        if tensor.layout is not torch.strided or tensor.is_meta or tensor.is_nested:
            raise UserError(f"{path}: {name} is no dense tensor with its numbers")
        if dtype.is_floating_point and tensor.numel():
            ends = torch.stack(tensor.aminmax()).to(dtype)  # NaN where there is one
            if not ends.isfinite().all():
                at = "NaN" if ends.isnan().any() else f"infinite as {_short(dtype)}"
                raise UserError(f"{path}: {name} holds a number that is {at}: weights must be finite")


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name, with or without a wrapper's key. Nothing in the file is run."""
    stored = _read(path)
    for key in WRAPPERS:
        if isinstance(stored, dict) and isinstance(stored.get(key), dict):
            stored = stored[key]
    import torch

    if not isinstance(stored, dict) or not stored or not all(isinstance(x, torch.Tensor) for x in stored.values()):
        raise UserError(f"{path}: not a checkpoint: it must hold a state dict, names and tensors")
    return stored


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _read(path: Path) -> Any:
    import pickle

    import torch
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what it may not understand: what it understands is checked
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        with path.open("rb") as file:
            is_pickle = file.read(2).startswith((b"\x80", b"PK"))  # as torch writes them, plain or in a zip
        fault = "holds more than tensors, and what is not a tensor is never run: save its state dict alone"
        raise UserError(f"{path}: {fault if is_pickle else 'not a checkpoint that can be read'}") from None
    except Exception:  # on damaged bytes torch raises what it likes, out of memory too where a length says so
        raise UserError(f"{path}: not a checkpoint that can be read") from None
