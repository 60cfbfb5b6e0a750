"""Checkpoints of other people's networks: what there is, where it lies, and that it is what it should be.

A file lies in the cache folder as ``NAME.pth`` or ``NAME.safetensors``. Nothing in it is ever run: of pickles the
tensors alone are read.
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
from clearfuse.synth.types import UserError, unknown

if TYPE_CHECKING:
    from torch import nn


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
        from clearfuse.synth.fusers.swinfusion import SwinFusion

        return SwinFusion()
    if name == "defuse":
        from clearfuse.synth.fusers.defuse import DeFuse

        return DeFuse()
    raise unknown("network", name, {one.network for one in WEIGHTS.values()})


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
