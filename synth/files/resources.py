"""The TOML files that ship with the package: data sets, recipes, papers' tables, and phrasings."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any

from clearfuse.synth.files.storage import read_small
from clearfuse.synth.types import UserError, check_schema

_DATA = Path(str(files("clearfuse"))) / "data"


def resource_dir(name: str) -> Path:
    """The folder ``prompts`` or ``manifests/…`` of the package."""
    if not (_DATA / name).is_dir():
        raise FileNotFoundError(f"{name}/ is missing from this installation of clearfuse; reinstall it")
    return _DATA / name


def resource_names(name: str) -> list[str]:
    """The stems of the TOML files of a resource folder, sorted."""
    return sorted(path.stem for path in resource_dir(name).glob("*.toml"))


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file with its schema checked; a user's error names the file and the place."""
    return parse_toml(read_small(path), str(path))


def parse_toml(content: bytes, where: str) -> dict[str, Any]:
    """The same of a file's bytes."""
    try:
        data = tomllib.loads(content.decode())
    except RecursionError:
        raise UserError(f"{where}: not valid TOML: nested too deeply") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: cannot be read: {error}") from None
    except ValueError as error:  # of the parser, or of Python for a number of thousands of digits
        raise UserError(f"{where}: not valid TOML: {error}") from None
    check_schema(data.get("schema"), where)
    return data
