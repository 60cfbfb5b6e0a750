"""Networks that others trained and that a model changes by adapters alone: its base.

A base is found and named as tokenizers and encoders are: see ``weights.source``. A model refers to it.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from clearfuse.synth.files.checkpoints import check_weights, read_state
from clearfuse.synth.types import UserError
from clearfuse.train.weights.source import CONFIG, Published, Source, digest_of, find_source, named, read_config

WEIGHTS = "diffusion_pytorch_model*.safetensors"
FILES = (CONFIG, f"{WEIGHTS}*")
"""The files of a base; the last matches an index too, where the weights are in several files."""

PUBLISHED: dict[str, Published] = {
    "omnigen": Published("Shitao/OmniGen-v1-diffusers", None, "transformer", files=FILES, licence="MIT"),
}
"""No commit is pinned: the newest one is used, said and recorded."""

NONE = "none"
NAMES = (NONE, *PUBLISHED)


class LoadedBase:
    """A base as it is found. reference: how to find it again; folder: of its files, None where there is none.

    files, digest: see ``tokenizers.LoadedTokenizer``; the files are read when they are asked for.
    """

    def __init__(self, reference: str, source: Source | None = None) -> None:
        self.reference = reference
        self.folder = None if source is None else source.folder
        self.files: tuple[Path, ...] = () if source is None else tuple(source.paths(FILES))
        self._local = source is not None and source.local

    @cached_property
    def digest(self) -> str | None:
        """The hash of the files, if they are local."""
        return digest_of(self.files) if self._local else None

    def tensors(self) -> dict[str, Tensor]:
        """Its tensors as they are stored. Raises UserError where they can't be read, or are not finite."""
        assert self.folder is not None
        paths = sorted(self.folder.glob(WEIGHTS))
        if not paths:
            raise UserError(f"--base {self.reference}: {WEIGHTS} is missing in {self.folder}")
        out: dict[str, Tensor] = {}
        for path in paths:
            state = read_state(path)
            check_weights(state, path, {name: tensor.dtype for name, tensor in state.items()})
            out |= state
        return out


def find_base(reference: str, kind: Any) -> LoadedBase:
    """The base of a reference, fetched where it is not on disk. kind: see ``Family.base``.

    Raises UserError, one line, where there is no such base, or the family takes none, or must have one.
    """
    if kind is None and reference != NONE:
        raise UserError(f"--base {reference}: networks of this family have no base")
    if kind is None:
        return LoadedBase(NONE)
    if reference == NONE:
        raise UserError(f"the network changes a base: --base NAME, ID or DIR; by name {', '.join(PUBLISHED)}")
    source = _source(reference, FILES)
    return LoadedBase(source.reference, source)


def sizes_of(reference: str, kind: Any) -> dict[str, Any]:
    """A config's fields that are the base's: from its config.json; nothing for a name, whose sizes are the defaults.

    Raises UserError as ``find_base``.
    """
    if kind is None or reference == NONE:
        return {}
    name, folder = named(reference, PUBLISHED), reference.partition("=")[2]
    if name is not None and not (folder and (Path(folder) / CONFIG).is_file()):
        return {}
    return sizes_in(_source(reference, (CONFIG,)).folder, kind, reference)


def sizes_in(folder: Path, kind: Any, reference: str) -> dict[str, Any]:
    """The same of a folder."""
    return read_config(kind, folder, f"--base {reference}").sizes()


def _source(reference: str, files: tuple[str, ...]) -> Source:
    return find_source("base", reference, PUBLISHED, files=files, extra=(NONE,))
