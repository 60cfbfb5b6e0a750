"""Checkpoints of other people's networks: what there is, where it lies, and that it is what it should be.

A file lies in the cache folder as ``NAME.pth`` or ``NAME.safetensors``. Nothing in it is ever run: of pickles the
tensors alone are read.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synth.storage import is_url
from synth.types import UserError, unknown

if TYPE_CHECKING:
    from torch import Tensor, nn

SUFFIXES = (".safetensors", ".pth")
WRAPPERS = ("params", "state_dict")
"""Keys under which a checkpoint may hold its state dict."""

CHUNK = 1 << 20

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Weights:
    """A published checkpoint. url: where it can be fetched, None where it is a local file only.

    blob: sha1 of ``blob SIZE\\0`` and the content, git's id of the file at the pinned commit. page: for people.
    """

    network: str
    about: str
    page: str
    licence: str
    url: str | None = None
    blob: str | None = None


_SWINFUSION = "https://github.com/Linfeng-Tang/SwinFusion"
_PINNED = "https://raw.githubusercontent.com/Linfeng-Tang/SwinFusion/ceeec3fe935630b4d1f2f545984a7a6cb5133f62/Model"


def _swinfusion(about: str, folder: str, blob: str) -> Weights:
    url = f"{_PINNED}/{folder}/{folder}/models/10000_E.pth"
    return Weights("swinfusion", about, _SWINFUSION, "none stated", url, blob)


WEIGHTS: dict[str, Weights] = {
    "swinfusion-vif": _swinfusion(
        "SwinFusion for visible and infrared", "Infrared_Visible_Fusion", "67788c10509e2e63b81190ad56c206de5eb514c5"
    ),
    "swinfusion-mef": _swinfusion(
        "SwinFusion for two exposures", "Multi_Exposure_Fusion", "ee088a419cf3cc4aabe49d523a16f644dea1b71f"
    ),
    "swinfusion-mff": _swinfusion(
        "SwinFusion for two focus distances", "Multi_Focus_Fusion", "6c4865ecf3c2388c4fbe6d2162d6367f0d6957f3"
    ),
    "defuse": Weights(
        "defuse",
        "DeFuse, one for all tasks",
        "https://drive.google.com/file/d/1CUoFLiV3mugvbfBcMcwgXbDF6bWPhdd9",
        "MIT",
    ),
}


def cache_folder() -> Path:
    """``weights`` below $CLEARFUSE_CACHE where that is a local folder, else below ``clearfuse`` in the user's cache."""
    own = os.environ.get("CLEARFUSE_CACHE")
    if own and not is_url(own):
        return Path(own) / "weights"
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "clearfuse" / "weights"


def find_weights(name: str) -> Path | None:
    """The file in the cache folder, None where there is none. Raises UserError for a name of no ``WEIGHTS``."""
    _known(name)
    for path in (cache_folder() / f"{name}{suffix}" for suffix in SUFFIXES):
        if path.is_file():
            return path
    return None


def need_weights(name: str) -> Path:
    """The file in the cache folder. Raises UserError, with the command that would bring it, where there is none."""
    path = find_weights(name)
    if path is None:
        raise UserError(f"no weights '{name}' in {cache_folder()}: {how_to_get(name)}")
    return path


def how_to_get(name: str) -> str:
    """The command that brings a checkpoint."""
    one = _known(name)
    if one.url is None:
        return f"download it from {one.page} and run synth weights add {name} FILE"
    return f"run synth weights get {name}"


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


def get_weights(name: str, progress: Progress = lambda done, total: None) -> Path:
    """Download a checkpoint, check it, and put it in the cache folder; one that is there is kept.

    Raises UserError, which names the file and its place, where it cannot be had or is another file than the pinned one.
    """
    one = _known(name)
    there = find_weights(name)
    if there is not None:
        return there
    if one.url is None:
        raise UserError(f"'{name}' has no address of its own: {how_to_get(name)}")
    target = cache_folder() / f"{name}.pth"
    with _Landing(target) as part:
        try:
            _download(one.url, part, progress)
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            raise UserError(f"{one.url}: {reason}: get this file elsewhere and put it at {target}") from None
        found = blob_id(part)
        if one.blob is not None and found != one.blob:
            raise UserError(
                f"{one.url}: not the pinned file (git blob {found}, not {one.blob}): get it elsewhere and put it at "
                f"{target}"
            )
    return target


def add_weights(name: str, file: str | Path) -> Path:
    """Copy a local checkpoint to the cache folder once it fits its network. Raises UserError where it does not."""
    one, source = _known(name), Path(file)
    if not source.is_file():
        raise UserError(f"{source}: no such file")
    load_into(network(one.network), source)
    suffix = ".safetensors" if source.suffix == ".safetensors" else ".pth"
    target = cache_folder() / f"{name}{suffix}"
    with _Landing(target) as part:
        shutil.copyfile(source, part)
    for other in (target.with_suffix(suffix) for suffix in SUFFIXES):
        if other != target:
            other.unlink(missing_ok=True)
    return target


def network(name: str) -> nn.Module:
    """An untrained network by its name."""
    if name == "swinfusion":
        from synth.fusers.swinfusion import SwinFusion

        return SwinFusion()
    if name == "defuse":
        from synth.fusers.defuse import DeFuse

        return DeFuse()
    raise unknown("network", name, {one.network for one in WEIGHTS.values()})


def load_into(module: nn.Module, path: Path) -> None:
    """Load a checkpoint into its network, every entry by name and shape. Raises UserError, one line, else."""
    state = read_state(path)
    wanted = module.state_dict()
    missing, extra = [k for k in wanted if k not in state], [k for k in state if k not in wanted]
    wrong = [k for k in wanted if k in state and state[k].shape != wanted[k].shape]
    faults = [
        f"{len(names)} entries {what}, such as {names[0]}"
        for names, what in ((missing, "missing"), (extra, "too many"), (wrong, "of another shape"))
        if names
    ]
    if faults:
        raise UserError(f"{path}: not a checkpoint of {type(module).__name__}: {'; '.join(faults)}")
    module.load_state_dict(state, strict=True)


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


def _read(path: Path) -> Any:
    import pickle

    import torch
    from safetensors import SafetensorError
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
    except (SafetensorError, RuntimeError, EOFError, KeyError, ValueError, OSError):
        raise UserError(f"{path}: not a checkpoint that can be read") from None


def _known(name: str) -> Weights:
    if name not in WEIGHTS:
        raise unknown("weights", name, WEIGHTS)
    return WEIGHTS[name]


def _download(url: str, part: Path, progress: Progress) -> None:
    from urllib.request import urlopen

    if not url.startswith(("https://", "http://")):
        raise ValueError("not a web address")
    with urlopen(url, timeout=60) as answer, part.open("wb") as file:
        total, done = int(answer.headers.get("Content-Length") or 0), 0
        while chunk := answer.read(CHUNK):
            file.write(chunk)
            done += len(chunk)
            progress(done, max(total, done))
    if total and done < total:
        raise ValueError(f"ended after {done} of {total} bytes")


class _Landing:
    """A file beside its place, which takes it by rename where all went well, and is gone where not."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __enter__(self) -> Path:
        try:
            self.target.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self.target.parent, prefix=f".{self.target.name}.")
        except OSError as error:
            raise UserError(f"{self.target.parent}: {error.strerror}: name another folder in CLEARFUSE_CACHE") from None
        os.close(handle)
        self.part = Path(name)
        return self.part

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.part.replace(self.target)
        else:
            self.part.unlink(missing_ok=True)
