"""A pipeline's folder: ``pipeline.json``, ``model.safetensors``, and the parts that are embedded.

The folder of a run of ``train fit`` is one.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from clearfuse.synth.files.jsonstream import write_json
from clearfuse.synth.files.storage import landing, read_small
from clearfuse.synth.types import UserError
from clearfuse.train.designs.design import Assembly, Design, FoundParts
from clearfuse.train.designs.file import DesignFields, read_design
from clearfuse.train.models import find_model
from clearfuse.train.weights import base as bases
from clearfuse.train.weights.source import CONFIG, digest_of
from clearfuse.train.weights.tensors import write_tensors
from clearfuse.train.weights.torchscript import read_archive

DESIGN, WEIGHTS = "pipeline.json", "model.safetensors"
FILES = (DESIGN, WEIGHTS, "tokenizer/*", "text/*", "semantics/*", "base/*")
"""The files of a pipeline, with its embedded parts."""


def save(assembly: Assembly, folder: Path, weights: dict[str, Any], embed: bool = False) -> None:
    """Write a pipeline: its parts if ``embed``, the design, then the weights, each by rename."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {kind: _embed(folder / kind, kind, part.files) for kind, part in assembly.found._asdict().items() if embed}
    write_design(folder, assembly.design, assembly.found, files)
    write_tensors(folder / WEIGHTS, weights, {"format": "pt"})


def save_merged(assembly: Assembly, folder: Path, embed: bool) -> None:
    """Write a pipeline whose base has the adapters in it, and no adapters. Raises UserError where there is no base."""
    base, config = assembly.found.base, assembly.design.config
    if base.folder is None or not config.rank:
        raise UserError(f"{folder}: the model has no adapters to merge into a base")
    made = folder / "base"
    made.mkdir(parents=True, exist_ok=True)
    network: Any = assembly.network
    write_tensors(made / "diffusion_pytorch_model.safetensors", network.merged(), {"format": "pt"})
    with landing(made / CONFIG) as file:
        file.write((base.folder / CONFIG).read_bytes())
    found = assembly.found._replace(base=bases.find_base(str(made), find_model(assembly.design.model).base))
    files = {
        kind: _embed(folder / kind, kind, part.files)
        for kind, part in found._asdict().items()
        if embed and kind != "base"
    }
    design = dataclasses.replace(assembly.design, config=dataclasses.replace(config, rank=0), base="base")
    write_design(folder, design, found, files)
    write_tensors(folder / WEIGHTS, {}, {"format": "pt"})


def _embed(folder: Path, kind: str, files: Sequence[Path]) -> list[Path]:
    """Copy a part's files into a folder, TorchScript archives as safetensors; the copies."""
    copies: list[Path] = []
    for path in files:
        if not path.is_file():
            raise UserError(f"the {kind} can't be embedded: {path} is gone")
        folder.mkdir(parents=True, exist_ok=True)
        copies.append(folder / path.name)
        if path.suffix == ".jit":
            copies[-1] = copies[-1].with_suffix(".safetensors")
            write_tensors(copies[-1], read_archive(path), {"format": "pt"})
            continue
        with landing(copies[-1]) as file, path.open("rb") as source:
            shutil.copyfileobj(source, file)
    return copies


def write_design(
    folder: Path, design: Design, found: FoundParts, embedded: Mapping[str, Sequence[Path]] = MappingProxyType({})
) -> None:
    """Write ``pipeline.json``: the design, and the digests of the parts that are local folders.

    found: these parts. embedded: the files of the parts that are embedded in the folder.
    """
    digests = {
        kind: digest_of(sorted(embedded[kind])) if embedded.get(kind) else part.digest
        for kind, part in found._asdict().items()
        if part.digest is not None
    }
    write_json(folder / DESIGN, {**design.to_json(), "digests": digests})


def with_recorded_commits(folder: Path, design: Design) -> Design:
    """The design of a run to resume in a folder: networks of the hub are pinned to the commits recorded there."""
    if not (folder / DESIGN).is_file():
        return design
    recorded = read_folder(folder)
    pinned = {
        kind: reference
        for kind in ("tokenizer", "text", "semantics", "base")
        for reference in (getattr(recorded, kind),)
        if reference.partition("@")[0] == getattr(design, kind).partition("@")[0]
    }
    return dataclasses.replace(design, **pinned)


def check_parts(folder: Path, assembly: Assembly) -> None:
    """Raise UserError if a part differs from the one that the pipeline in the folder was trained with."""
    if not (folder / DESIGN).is_file():
        return
    recorded = read_folder(folder).digests
    for kind, part in assembly.found._asdict().items():
        digest = recorded.get(kind)
        if part.digest is not None and digest is not None and digest != part.digest:
            raise UserError(
                f"{folder}: its {kind} is not the '{part.reference}' of its training: that had the files of digest "
                f"{digest}, and these have {part.digest}"
            )


def read_folder(folder: Path) -> DesignFields:
    """The design file of a pipeline's folder. Raises UserError, naming the file."""
    return read_design(read_small(folder / DESIGN), str(folder / DESIGN))
