"""Networks that others trained: where their files lie, and which they are.

A reference is ``NAME`` (a published network), ``NAME=DIR`` (its files in a folder), ``DIR``, or a repository of the
Hugging Face hub, ``OWNER/NAME[/SUBFOLDER]``; a name and a repository may end in ``@REVISION``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from clearfuse.synth.types import UserError, unknown


@dataclass(frozen=True)
class Published:
    """A network on the hub. revision: the commit that is meant; None where it is not known, and the user says it.

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
) -> Source:
    """The files of a reference, fetched where they are not on disk.

    option: of the command line; what: it chooses, where that is not its name; extra: names beside the table's, for
    the error's sake; files: patterns of those of a stranger's repository. Raises UserError, one line that says which
    files to put where, when there is no such network or no way to it.
    """
    mistake = what or option
    if Path(reference).is_dir():
        return Source(str(Path(reference).resolve()), None, Path(reference), True)
    name, given, folder = reference.partition("=")
    if given:
        if name not in table and name not in extra:
            raise unknown(mistake, name, (*extra, *table))
        if not Path(folder).is_dir():
            raise UserError(f"--{option} {reference}: no such folder: {folder}")
        return Source(f"{name}={Path(folder).resolve()}", name, Path(folder), True)
    base, _, revision = reference.partition("@")
    if base in table:
        one = table[base]
        pinned = revision or one.revision
        if pinned is None:
            raise UserError(
                f"--{option} {base}: no commit of {one.repo} is known here that could be pinned; say which is meant, "
                f"--{option} {base}@COMMIT ({base}@main: the newest), or give its folder, --{option} {base}=DIR"
            )
        folder, commit = _fetched(option, base, one, pinned)
        return Source(base if commit == one.revision else f"{base}@{commit}", base, folder, False)
    parts = base.split("/")
    if len(parts) < 2 or not all(parts) or base.startswith((".", "~")):
        if "/" in reference or "\\" in reference:
            raise UserError(f"--{option} {reference}: no such folder")
        raise unknown(mistake, reference, (*extra, *table))
    one = Published("/".join(parts[:2]), revision or None, "/".join(parts[2:]), files)
    folder, commit = _fetched(option, base, one, one.revision)
    return Source(f"{base}@{commit}", None, folder, False)


def named(reference: str, names: Collection[str]) -> str | None:
    """The name that a reference begins with; None of a folder or a stranger's repository."""
    base = reference.partition("=")[0] if "=" in reference else reference.partition("@")[0]
    return base if base in names and not Path(reference).is_dir() else None


def _fetched(option: str, name: str, one: Published, revision: str | None) -> tuple[Path, str]:
    """(folder of the files, commit): from the hub's cache where all of them are there, else from the hub."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    below = f"{one.subfolder}/" if one.subfolder else ""
    patterns = [below + pattern for pattern in one.files]

    def fetch(offline: bool) -> Path:
        options = {"revision": revision, "allow_patterns": patterns, "local_files_only": offline}
        return Path(snapshot_download(one.repo, **options))

    def whole(root: Path) -> bool:
        return all(any((root / one.subfolder).glob(pattern)) for pattern in one.files)

    try:
        if revision is not None and whole(kept := fetch(offline=True)):
            return kept / one.subfolder, kept.name
    except (LocalEntryNotFoundError, HFValidationError, OSError):
        pass  # not in the cache: what the hub says is what counts
    try:
        root = fetch(offline=False)
    except HFValidationError:
        raise UserError(f"--{option} {name}: neither a folder nor a hub id") from None
    except Exception as error:  # the library, its transport and xet have errors of their own
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"--{option} {name}: {one.repo} cannot be fetched ({said}); download {', '.join(patterns)} from "
            f"https://huggingface.co/{one.repo} and give their folder: --{option} {_as_folder(name)}"
        ) from None
    if not whole(root):
        raise UserError(f"--{option} {name}: {one.repo} has no {' and '.join(patterns)}")
    return root / one.subfolder, root.name


def _as_folder(name: str) -> str:
    return "DIR" if "/" in name else f"{name}=DIR"


def digest_of(paths: Sequence[Path]) -> str:
    """Which files these are: blake2b over their names and contents, 16 hex digits."""
    whole = hashlib.blake2b(digest_size=8)
    for path in paths:
        with path.open("rb") as file:
            whole.update(path.name.encode() + b"\0" + hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()
