"""Tables of what there is to choose from, which plugins add to, and whose each entry is."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from clearfuse.synth.types import UserError

Entry = TypeVar("Entry")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
"""What an entry of a plugin may be called: a word of a command line and of a report."""


@dataclass(frozen=True)
class Plugin:
    """A user's module that adds to the tables: a file, or a module of an installed package.

    name: ``fog.py``, or a package's module; version: its ``__version__``, or the package's; sha256: of its source.
    path: where a file lay, for messages and tracebacks; source: a file's bytes, which other processes and machines run;
    None for a package's module. entries: the package's entry points, (group, name, object).
    """

    name: str
    version: str | None
    sha256: str
    path: str
    source: bytes | None
    entries: tuple[tuple[str, str, str], ...] = ()

    def record(self) -> dict[str, Any]:
        """What data, runs and reports that used it say of it."""
        return {"name": self.name, "version": self.version, "sha256": self.sha256}


MANIFESTS: dict[str, tuple[str, bytes]] = {}
"""Data sets of the user's own, ``--data my.toml=DIR``: path and content by name."""

_tables: list[Table[Any]] = []
_loading: list[Plugin] = []


class Table(dict[str, Entry]):
    """Entries by name. What a plugin sets while it is loaded is noted as its own, in ``added``.

    A plugin adds and replaces nothing: data and models that name an entry must mean the same everywhere.
    """

    def __init__(
        self, what: str, entries: Mapping[str, Entry], own: str = "", fault: Callable[[Entry], str] = lambda _: ""
    ) -> None:
        """own: the attribute by which an entry knows its name, empty for none. fault: what is wrong with one, or ""."""
        super().__init__(entries)
        self.what, self.own, self.fault = what, own, fault
        self.added: dict[str, Plugin] = {}
        _tables.append(self)

    def __setitem__(self, name: str, entry: Entry) -> None:
        """Raises UserError where a plugin gives a name that is taken, is none, or is not the entry's own."""
        if _loading:
            self._check(_loading[-1], name, entry)
            self.added[name] = _loading[-1]
        super().__setitem__(name, entry)

    def update(self, *others: Any, **more: Entry) -> None:
        """As of a dict, entry by entry."""
        for name, entry in dict(*others, **more).items():
            self[name] = entry

    def __ior__(self, other: Any) -> Table[Entry]:  # type: ignore[override]
        self.update(other)
        return self

    def _check(self, plugin: Plugin, name: Any, entry: Entry) -> None:
        where = f"plugin {plugin.path}: {self.what} {name!r}"
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise UserError(f"{where}: a name is of letters, digits and _ . - alone, 64 at most")
        if any(name.lower() == taken.lower() for taken in self):
            owner = self.added[name].name if name in self.added else "clearfuse"
            raise UserError(f"{where}: is there already, of {owner}: give it another name")
        if self.own and (said := getattr(entry, self.own, None)) != name:
            raise UserError(f"{where}: its own {self.own} is {said!r}: give it one name")
        if fault := self.fault(entry):
            raise UserError(f"{where}: {fault}")

    def remove(self, plugin: Plugin) -> None:
        """Take out what a plugin added."""
        for name in [name for name, owner in self.added.items() if owner == plugin]:
            del self.added[name], self[name]


@contextmanager
def adding(plugin: Plugin) -> Iterator[None]:
    """What tables get within is the plugin's; where that fails, nothing stays of it."""
    _loading.append(plugin)
    try:
        yield
    except BaseException:
        take_out(plugin)
        raise
    finally:
        _loading.pop()


def added_by(plugin: Plugin) -> dict[str, list[str]]:
    """The names that a plugin added, by what they are names of."""
    names = {table.what: [name for name, owner in table.added.items() if owner == plugin] for table in _tables}
    return {what: found for what, found in names.items() if found}


def take_out(plugin: Plugin) -> None:
    """Take what a plugin added out of all tables."""
    for table in _tables:
        table.remove(plugin)


def plugins_of(*used: tuple[Table[Any], Iterable[str]]) -> list[dict[str, Any]]:
    """The records of the plugins whose entries these names are, by table, sorted: empty where all are the package's."""
    found = {table.added[name] for table, names in used for name in names if name in table.added}
    return sorted((plugin.record() for plugin in found), key=lambda record: record["name"])
