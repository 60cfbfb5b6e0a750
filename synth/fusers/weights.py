"""Published checkpoints of fusion networks: the table, the cache folder, download and verification.

A checkpoint is stored in the cache folder as ``NAME.pth`` or ``NAME.safetensors``. No code in it is ever executed: of
pickles only the tensors are read.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clearfuse.synth.files.checkpoints import CHUNK, SUFFIXES, blob_id, load_into
from clearfuse.synth.files.storage import is_url
from clearfuse.synth.types import UserError, look_up, unknown

if TYPE_CHECKING:
    from torch import nn


Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Weights:
    """A published checkpoint. url: the download address, None where it must be downloaded by hand from ``page``.

    blob: sha1 of ``blob SIZE\\0`` and the content, git's id of the file at the pinned commit.
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
    configured = os.environ.get("CLEARFUSE_CACHE")
    if configured and not is_url(configured):
        return Path(configured) / "weights"
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "clearfuse" / "weights"


def find_weights(name: str) -> Path | None:
    """The file in the cache folder, None where there is none. Raises UserError for a name not in ``WEIGHTS``."""
    _lookup(name)
    for path in (cache_folder() / f"{name}{suffix}" for suffix in SUFFIXES):
        if path.is_file():
            return path
    return None


def need_weights(name: str) -> Path:
    """The file in the cache folder. Raises UserError, with the command to get it, where there is none."""
    path = find_weights(name)
    if path is None:
        raise UserError(f"no weights '{name}' in {cache_folder()}: {how_to_get(name)}")
    return path


def how_to_get(name: str) -> str:
    """The command that installs a checkpoint."""
    weights = _lookup(name)
    if weights.url is None:
        return f"download it from {weights.page} and run synth weights add {name} FILE"
    return f"run synth weights get {name}"


def get_weights(name: str, progress: Progress = lambda done, total: None) -> Path:
    """Download a checkpoint to the cache folder and verify it; an existing file is kept. Returns its path.

    Raises UserError, which names the file and its destination, where the download fails or is not the pinned file.
    """
    weights = _lookup(name)
    installed = find_weights(name)
    if installed is not None:
        return installed
    if weights.url is None:
        raise UserError(f"'{name}' has no address of its own: {how_to_get(name)}")
    target = cache_folder() / f"{name}.pth"
    with _AtomicFile(target) as temporary:
        try:
            _download(weights.url, temporary, progress)
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            raise UserError(f"{weights.url}: {reason}: get this file elsewhere and put it at {target}") from None
        blob = blob_id(temporary)
        if weights.blob is not None and blob != weights.blob:
            raise UserError(
                f"{weights.url}: not the pinned file (git blob {blob}, not {weights.blob}): get it elsewhere and put "
                f"it at {target}"
            )
    return target


def add_weights(name: str, file: str | Path) -> Path:
    """Copy a local checkpoint to the cache folder. Raises UserError where it does not fit its network."""
    weights, source = _lookup(name), Path(file)
    if not source.is_file():
        raise UserError(f"{source}: no such file")
    load_into(network(weights.network), source)
    suffix = ".safetensors" if source.suffix == ".safetensors" else ".pth"
    target = cache_folder() / f"{name}{suffix}"
    with _AtomicFile(target) as temporary:
        shutil.copyfile(source, temporary)
    for other in (target.with_suffix(suffix) for suffix in SUFFIXES):
        if other != target:
            other.unlink(missing_ok=True)
    return target


def network(name: str) -> nn.Module:
    """An untrained network, by name. Raises UserError for an unknown name."""
    if name == "swinfusion":
        from clearfuse.synth.fusers.swinfusion import SwinFusion

        return SwinFusion()
    if name == "defuse":
        from clearfuse.synth.fusers.defuse import DeFuse

        return DeFuse()
    raise unknown("network", name, {weights.network for weights in WEIGHTS.values()})


def _lookup(name: str) -> Weights:
    return look_up("weights", name, WEIGHTS)


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


class _AtomicFile:
    """A temporary file beside the target, renamed to it on success and deleted on failure."""

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
