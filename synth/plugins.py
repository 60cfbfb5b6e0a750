"""Plugins: a user's own operators, fusers, depth sources, models, metrics and more, without a change of the package.

A plugin is a Python file named by ``--plugin`` that sets entries of the package's tables, or an installed package with
entry points in ``GROUPS``. Nothing else is ever run: what data, models or the hub name is only asked for. A worker runs
the very bytes that the command read. Entry points are of packages that the user installed.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

from pydantic import Field

from clearfuse.synth import console
from clearfuse.synth.files.schema import StrictModel, validate
from clearfuse.synth.files.storage import read_small
from clearfuse.synth.tables import MANIFESTS, Plugin, Table, added_by, adding, take_out
from clearfuse.synth.types import UserError

GROUPS: dict[str, tuple[str, str]] = {
    "clearfuse.operators": ("clearfuse.synth.operators", "OPERATORS"),
    "clearfuse.fusers": ("clearfuse.synth.fusers", "FUSERS"),
    "clearfuse.depths": ("clearfuse.synth.depth", "DEPTHS"),
    "clearfuse.models": ("clearfuse.train.models", "MODELS"),
    "clearfuse.presets": ("clearfuse.train.designs.presets", "PRESETS"),
    "clearfuse.objectives": ("clearfuse.train.objectives", "OBJECTIVES"),
    "clearfuse.losses": ("clearfuse.train.objectives.pixels", "PIXEL_LOSSES"),
    "clearfuse.metrics": ("clearfuse.train.metrics", "METRICS"),
    "clearfuse.encoders": ("clearfuse.train.semantics.networks", "KINDS"),
}
"""Groups of entry points, each with its table: the module and its name there. A plugin file sets the same tables."""

PREFIX = "clearfuse_plugin_"
"""Of the names under which files are modules: ``fog.py`` is ``clearfuse_plugin_fog``."""

_loaded: list[Plugin] = []
_said: set[str] = set()


class PluginRecord(StrictModel):
    """A plugin that something was made with."""

    name: Annotated[str, Field(min_length=1, max_length=255)]
    """The file's name, or the module of a package."""
    version: Annotated[str, Field(max_length=255)] | None = None
    """Its __version__, or its package's; null where it has none."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """Of its source."""


def load_plugins(files: str | Path | Iterable[str | Path] = ()) -> list[Plugin]:
    """Run plugin files and load the entry points of installed packages; what is loaded already stays.

    Returns all that are loaded now. Raises UserError, one line that names the file, where there is none, it fails, it
    adds nothing, or a name is taken; nothing of it stays.
    """
    for plugin in _installed():
        _add(plugin)
    for file in [files] if isinstance(files, str | Path) else files:
        _add(_read(Path(file)))
    return loaded()


def loaded() -> list[Plugin]:
    """The plugins of this process, in the order in which they were loaded."""
    return list(_loaded)


@dataclass(frozen=True)
class Own:
    """What a user has added to the package in one process, which its workers need too."""

    plugins: tuple[Plugin, ...]
    manifests: dict[str, tuple[str, bytes]]
    said: frozenset[str] = frozenset()


def own() -> Own:
    """What this process has of the user's own, for ``adopt``."""
    return Own(tuple(_loaded), dict(MANIFESTS), frozenset(_said))


def adopt(given: Own) -> None:
    """Have the same as another process: what a worker does before it is given work. Raises UserError as a load does."""
    _said.update(given.said)
    MANIFESTS.clear()
    MANIFESTS.update(given.manifests)
    for plugin in [one for one in _loaded if one not in given.plugins]:
        _unload(plugin)
    for plugin in given.plugins:
        _add(plugin)


def _unload(plugin: Plugin) -> None:
    _loaded.remove(plugin)
    take_out(plugin)
    if plugin.source is not None:
        sys.modules.pop(_module_name(plugin), None)


def _add(plugin: Plugin) -> None:
    if any((one.name, one.sha256, one.entries) == (plugin.name, plugin.sha256, plugin.entries) for one in _loaded):
        return
    if any(one.name == plugin.name for one in _loaded):
        raise UserError(f"--plugin {plugin.path}: another plugin of the name {plugin.name} is loaded: rename one")
    with adding(plugin):
        try:
            _enter(plugin) if plugin.source is None else _run(plugin)
        except UserError:
            raise
        except (Exception, SystemExit) as error:
            said = f"{type(error).__name__}: {' '.join(str(error).split())}{_line_of(error, plugin)}"
            raise UserError(f"--plugin {plugin.path}: {said}") from error
        if not added_by(plugin):
            sys.modules.pop(_module_name(plugin), None)
            tables = ", ".join(table for _, table in GROUPS.values())
            raise UserError(f"--plugin {plugin.path}: adds nothing: it must set an entry of one of {tables}")
    _loaded.append(plugin)


def _read(path: Path) -> Plugin:
    if path.suffix != ".py" or not path.is_file():
        raise UserError(f"--plugin {path}: " + ("must be a .py file" if path.exists() else "there is no such file"))
    source = read_small(path, f"--plugin {path}")
    return Plugin(path.name, _version_in(source), hashlib.sha256(source).hexdigest(), str(path.resolve()), source)


def _version_in(source: bytes) -> str | None:
    """The text that ``__version__`` is set to at the top of a module, read without running it."""
    import ast

    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):  # told when it is run
        return None
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
            if "__version__" in names and isinstance(node.value.value, str):
                return node.value.value[:255]
    return None


def _module_name(plugin: Plugin) -> str:
    return PREFIX + plugin.name.removesuffix(".py")


def _run(plugin: Plugin) -> None:
    """The file as a module of its own name, which pickles of its classes and functions name too."""
    assert plugin.source is not None
    module = ModuleType(_module_name(plugin))
    module.__file__ = plugin.path
    sys.modules[module.__name__] = module
    try:
        exec(compile(plugin.source, plugin.path, "exec"), module.__dict__)
    except BaseException:
        del sys.modules[module.__name__]
        raise


def _line_of(error: BaseException, plugin: Plugin) -> str:
    """Where in the file it went wrong, as `` (line 12)``."""
    lines: list[int] = []
    trace = error.__traceback__
    while trace is not None:
        lines += [trace.tb_lineno] if trace.tb_frame.f_code.co_filename == plugin.path else []
        trace = trace.tb_next
    return f" (line {lines[-1]})" if lines else ""


def _installed() -> list[Plugin]:
    """The plugins of installed packages, one a module, sorted."""
    modules: dict[str, list[tuple[str, str, str]]] = {}
    versions: dict[str, str | None] = {}
    for group in GROUPS:
        for entry in entry_points(group=group):
            modules.setdefault(entry.module, []).append((group, entry.name, entry.value))
            versions[entry.module] = None if entry.dist is None else entry.dist.version
    return [_of_package(name, versions[name], tuple(sorted(set(found)))) for name, found in sorted(modules.items())]


def _of_package(name: str, version: str | None, entries: tuple[tuple[str, str, str], ...]) -> Plugin:
    try:
        spec = find_spec(name)
    except ImportError:
        spec = None
    if spec is None or spec.origin is None:
        raise UserError(f"plugin {name}: an installed package names this module as a plugin, and it is not there")
    return Plugin(name, version, hashlib.sha256(Path(spec.origin).read_bytes()).hexdigest(), name, None, entries)


def _enter(plugin: Plugin) -> None:
    """Set the entry points of a package's module in their tables; on a worker's machine it must be the same module."""
    here = _of_package(plugin.name, plugin.version, plugin.entries)
    if here.sha256 != plugin.sha256:
        raise UserError(f"plugin {plugin.name}: has other contents here than where the work began: install the same")
    module = import_module(plugin.name)
    for group, name, value in plugin.entries:
        found: Any = module
        for attribute in value.partition(":")[2].split(".") if ":" in value else ():
            found = getattr(found, attribute)
        place, table = GROUPS[group]
        entries: Table[Any] = getattr(import_module(place), table)
        if name not in entries.added or entries.added[name] != plugin:  # it may have set it itself
            entries[name] = found


def require(wanted: Sequence[Any], where: str) -> list[str]:
    """What differs of the plugins that something was made with, a line each; empty where all are here, as they were.

    wanted: their records, as a file has them. Raises UserError, one line that names the first that is not loaded:
    nothing is looked for or run, whatever a file says.
    """
    changed: list[str] = []
    for entry in wanted:
        record = entry if isinstance(entry, PluginRecord) else validate(PluginRecord, entry, f"{where}: plugins")
        if any(one.sha256 == record.sha256 for one in _loaded):
            continue
        same = next((one for one in _loaded if one.name == record.name), None)
        what = f"the plugin {record.name}{'' if record.version is None else f' {record.version}'}"
        if same is None:
            how = "name its file by --plugin" if record.name.endswith(".py") else "install its package"
            raise UserError(f"{where}: needs {what} (sha256 {record.sha256[:12]}), which is not loaded: {how}")
        changed.append(
            f"{where}: was made with {what} of sha256 {record.sha256[:12]}, and {same.path} has {same.sha256[:12]}"
        )
    return changed


def warn_changed(wanted: Sequence[Any], where: str) -> None:
    """Say, once each, which plugins differ from those that something was made with. Raises UserError as ``require``."""
    for line in require(wanted, where):
        if line not in _said:
            _said.add(line)
            console.note(f"warning: {line}")


def require_same(wanted: Sequence[Any], where: str) -> None:
    """Raises UserError, one line, for a plugin that is not loaded, and for one with another hash."""
    for line in require(wanted, where):
        raise UserError(f"{line}: name the same file")
