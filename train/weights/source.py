"""Networks that others trained: where their files lie, and which they are.

A reference is ``NAME`` (a published network), ``NAME=DIR`` (its files in a folder), ``DIR``, or a repository of the
Hugging Face hub, ``OWNER/NAME[/SUBFOLDER]``; a name and a repository may end in ``@REVISION``. Where neither the table
nor the user says a revision, the newest commit is taken and said, and the reference that is recorded names it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from clearfuse.synth import console
from clearfuse.synth.files.schema import Model, MustBe, validate
from clearfuse.synth.files.storage import read_small
from clearfuse.synth.types import UserError, reason_of, unknown

Needed = Callable[[Sequence[str]], Sequence[str]]
"""Of the names of a network's tensors, those that are read."""

CONFIG, VOCABULARY = "config.json", "tokenizer.json"
INDEX = "*.safetensors.index.json"
"""Which file has which tensor, where weights are published in several."""

FileName = Annotated[
    str, Field(pattern=r"^[\w-][\w.-]*\.safetensors$"), MustBe("the name of a safetensors file of this folder")
]


class WeightIndex(BaseModel):
    """What ``*.safetensors.index.json`` says, of which only this is read."""

    model_config = ConfigDict(strict=True)

    weight_map: dict[str, FileName]
    """Which file has which tensor."""


@dataclass(frozen=True)
class Published:
    """A network on the hub. revision: the commit that is meant; None where it is not known: the newest.

    files: what is needed of it, as patterns.
    """

    repo: str
    revision: str | None
    subfolder: str = ""
    files: tuple[str, ...] = ("config.json", "diffusion_pytorch_model*.safetensors*")
    licence: str = ""


@dataclass(frozen=True)
class Source:
    """A network's files. reference: finds it again from anywhere on this machine, or, of the hub, on any machine.

    name: its name in the table, None for a stranger's; local: a folder of the user's, which only its content names.
    """

    reference: str
    name: str | None
    folder: Path
    local: bool

    def paths(self, patterns: Sequence[str]) -> list[Path]:
        """The files there that match, each once, in the order of their names."""
        return sorted({path for pattern in patterns for path in self.folder.glob(pattern) if path.is_file()})


def find_source(
    option: str,
    reference: str,
    table: Mapping[str, Published],
    *,
    files: tuple[str, ...],
    extra: Sequence[str] = (),
    what: str | None = None,
    needed: Needed | None = None,
) -> Source:
    """The files of a reference, fetched where they are not on disk.

    option: of the command line; what: it chooses, where that is not its name; extra: names beside the table's, for
    the error's sake; files: patterns of those of a stranger's repository; needed: where the hub has the weights in
    several files, only those with these tensors are fetched. Raises UserError, one line that says which files to put
    where, when there is no such network or no way to it.
    """
    mistake = what or option
    if os.path.isdir(reference):  # unlike Path.is_dir, false of a name that is too long
        return Source(str(Path(reference).resolve()), None, Path(reference), True)
    name, given, folder = reference.partition("=")
    if given:
        if name not in table and name not in extra:
            raise unknown(mistake, name, (*extra, *table))
        if not os.path.isdir(folder):
            raise UserError(f"--{option} {reference}: no such folder: {folder}")
        return Source(f"{name}={Path(folder).resolve()}", name, Path(folder), True)
    base, _, revision = reference.partition("@")
    if base in table:
        one = table[base]
        folder, commit = _fetched(option, base, one, revision or one.revision, needed)
        return Source(base if commit == one.revision else f"{base}@{commit}", base, folder, False)
    parts = base.split("/")
    if len(parts) < 2 or not all(parts) or base.startswith((".", "~")):
        if "/" in reference or "\\" in reference:
            raise UserError(f"--{option} {reference}: no such folder")
        raise unknown(mistake, reference, (*extra, *table))
    one = Published("/".join(parts[:2]), revision or None, "/".join(parts[2:]), files)
    folder, commit = _fetched(option, base, one, one.revision, needed)
    return Source(f"{base}@{commit}", None, folder, False)


def named(reference: str, names: Collection[str]) -> str | None:
    """The name that a reference begins with; None of a folder or a stranger's repository."""
    base = reference.partition("=")[0] if "=" in reference else reference.partition("@")[0]
    return base if base in names and not os.path.isdir(reference) else None


def _fetched(option: str, name: str, one: Published, revision: str | None, needed: Needed | None) -> tuple[Path, str]:
    """(folder of the files, commit): from the hub's cache where all of them are there, else from the hub."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    below = f"{one.subfolder}/" if one.subfolder else ""
    patterns = [below + pattern for pattern in one.files]

    def download(revision: str | None, patterns: Sequence[str], offline: bool) -> Path:
        options = {"revision": revision, "allow_patterns": [*patterns], "local_files_only": offline}
        return Path(snapshot_download(one.repo, **options))

    def fetch(offline: bool) -> Path:
        root = download(revision, patterns, offline)
        if needed is not None and (shards := shards_of(root / one.subfolder, needed)):
            return download(root.name, [*patterns, *(below + name for name in set(shards.values()))], offline)
        return root

    def whole(root: Path) -> bool:
        folder = root / one.subfolder
        shards = shards_of(folder, needed).values() if needed is not None else ()
        return all(any(folder.glob(pattern)) for pattern in (*one.files, *shards))

    try:
        if revision is not None and whole(kept := fetch(offline=True)):
            return kept / one.subfolder, kept.name
    except (LocalEntryNotFoundError, HFValidationError, OSError):
        pass  # not in the cache: what the hub says is what counts
    try:
        root = fetch(offline=False)
    except UserError:
        raise
    except HFValidationError:
        raise UserError(f"--{option} {name}: neither a folder nor a hub id") from None
    except Exception as error:  # the library, its transport and xet have errors of their own
        also = " and the files that its index names" if needed is not None else ""
        raise UserError(
            f"--{option} {name}: {one.repo} cannot be fetched ({reason_of(error)}); download "
            f"{', '.join(patterns)}{also} from https://huggingface.co/{one.repo} and give their folder: "
            f"--{option} {_as_folder(name)}"
        ) from None
    if not whole(root):
        raise UserError(f"--{option} {name}: {one.repo} has no {' and '.join(patterns)}")
    if revision is None:
        console.note(f"--{option} {name}: the newest commit of {one.repo} is taken: --{option} {name}@{root.name}")
    return root / one.subfolder, root.name


def read_config(model: type[Model], folder: Path, where: str, name: str = CONFIG) -> Model:
    """What a network's ``config.json``, or another such file, says.

    Raises UserError, ``where`` first, if it is missing or wrong.
    """
    path = folder / name
    if not path.exists():
        raise UserError(f"{where}: {name} is missing in {folder}")
    return validate(model, read_small(path, f"{where}: {path}"), f"{where}: {path}")


def read_vocabulary(folder: Path, where: str) -> Any:
    """The tokenizer of ``VOCABULARY`` in a folder. Raises UserError, ``where`` first, if it is missing or wrong."""
    from tokenizers import Tokenizer

    path = folder / VOCABULARY
    if not path.is_file():
        raise UserError(f"{where}: {VOCABULARY} is missing in {folder}")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises no class of its own
        raise UserError(f"{where}: {path}: {reason_of(error)}") from None


def shards_of(folder: Path, needed: Needed) -> dict[str, str]:
    """Each tensor that is needed, and which file of the folder has it, where an index there says so; else nothing.

    Raises UserError where the index names none of them, or a file elsewhere.
    """
    index = next(folder.glob(INDEX), None)
    if index is None or index.with_suffix("").with_suffix("").is_file():  # model.safetensors itself
        return {}
    places = validate(WeightIndex, read_small(index), str(index)).weight_map
    found = {name: places[name] for name in needed(list(places))}
    if not found:
        raise UserError(f"{index}: names none of the weights that are needed")
    return found


def _as_folder(name: str) -> str:
    return "DIR" if "/" in name else f"{name}=DIR"


def digest_of(paths: Sequence[Path]) -> str:
    """Which files these are: blake2b over their names and contents, 16 hex digits."""
    whole = hashlib.blake2b(digest_size=8)
    for path in paths:
        with path.open("rb") as file:
            whole.update(path.name.encode() + b"\0" + hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()
