"""Where the pages of prompts lie: a user's folder over those that ship, page by page."""

from __future__ import annotations

import re
from pathlib import Path

from clearfuse.synth.files.resources import resource_dir
from clearfuse.synth.files.storage import read_small
from clearfuse.synth.operators import OPERATORS
from clearfuse.synth.types import UserError, unknown


def find_page(name: str, folder: Path | None = None) -> Path:
    """A page such as ``haze.toml``: the one of ``folder`` where it has it, else the one that ships, if any."""
    own = None if folder is None else folder / name
    return own if own is not None and own.is_file() else resource_dir("prompts") / name


def all_pages(folder: Path | None = None) -> list[Path]:
    """The pages that ship and those of ``folder``, which stand in place of these, in name order."""
    shipped = {path.name: path for path in resource_dir("prompts").glob("*.toml")}
    own = {} if folder is None else {path.name: path for path in folder.glob("*.toml")}
    return sorted((shipped | own).values(), key=lambda path: path.name)


def page_bytes(path: Path) -> bytes:
    """A page without its first line where that tells editors its JSON Schema, which is no part of what it says."""
    return re.sub(rb"\A#:schema [^\n]*\n", b"", read_small(path))


def check_pages(folder: Path) -> None:
    """Raise UserError for a page that nothing would ever read: its name is no operator's and none that ships."""
    known = {path.name.removesuffix(".toml").removesuffix(".zh") for path in all_pages()} | set(OPERATORS)
    for path in sorted(folder.glob("*.toml")):
        if (name := path.name.removesuffix(".toml").removesuffix(".zh")) not in known:
            raise UserError(f"--prompts {folder}: {path.name}: {unknown('operator', name, sorted(known))}")
