"""Recipes: which degradations a task draws, how often, how strong, and which never meet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clearfuse.synth.files.resources import read_toml, resource_dir, resource_names
from clearfuse.synth.files.schema import parse_setting
from clearfuse.synth.files.storage import local
from clearfuse.synth.operators import albumentations as bridge
from clearfuse.synth.operators import operator_class
from clearfuse.synth.operators.base import Range
from clearfuse.synth.prompts.pools import load_pool, load_tasks
from clearfuse.synth.types import MODALITIES, TASKS, Target, Task, UserError, check_schema, unknown

_TOP = ("schema", "task", "n", "severity", "ratios", "exclusive", "at_most", "operators")
_RULE = ("weight", "target", "severity", "params")
MOST_WEIGHT = 1e9
_TARGETS: tuple[Target, ...] = ("a", "b", "both")


@dataclass(frozen=True)
class Rule:
    """How a recipe draws one operator."""

    weight: float
    target: Mapping[Target, float]
    severity: tuple[tuple[float, float], ...]
    """Bounds, turn by turn: variant v of a pair has those of turn v modulo their number."""
    ranges: Mapping[str, Range]


@dataclass(frozen=True)
class Recipe:
    """A recipe, checked. ``source`` is its plain form: what receipts record and the digest covers."""

    name: str
    task: Task
    n: Mapping[int, float]
    ratios: Mapping[str, float]
    limits: tuple[tuple[frozenset[str], int], ...]
    operators: Mapping[str, Rule]
    source: Mapping[str, Any]
    _reached: dict[tuple[frozenset[str], int], bool] = field(
        default_factory=dict[tuple[frozenset[str], int], bool], compare=False, repr=False
    )

    def allows(self, names: frozenset[str]) -> bool:
        """Whether these operators may meet in one sample."""
        return all(len(names & group) <= most for group, most in self.limits)

    def reaches(self, chosen: frozenset[str], n: int) -> bool:
        """Whether a sample that holds ``chosen``, which may meet, can hold n operators: by search, remembered."""
        if (chosen, n) not in self._reached:
            limited = {name for group, _ in self.limits for name in group}
            rest = [name for name in self.operators if name not in chosen and self.operators[name].weight > 0]
            tight = [name for name in rest if name in limited]
            missing = n - len(chosen) - (len(rest) - len(tight))
            self._reached[chosen, n] = self._adds(chosen, tight, missing)
        return self._reached[chosen, n]

    def _adds(self, chosen: frozenset[str], names: Sequence[str], count: int) -> bool:
        """Whether ``count`` of these names may join."""
        if count <= 0:
            return True
        return any(
            self.allows(chosen | {name}) and self._adds(chosen | {name}, names[i + 1 :], count - 1)
            for i, name in enumerate(names[: max(len(names) - count + 1, 0)])
        )

    def max_n(self) -> int:
        """The most degradations that one sample can hold."""
        return next(n for n in range(len(self.operators), -1, -1) if self.reaches(frozenset(), n))


def load_recipe(
    name: str | Path, *, task: Task | None = None, n: str | None = None, sets: Sequence[str] = ()
) -> Recipe:
    """A shipped recipe by name or a TOML file by path, with ``--set`` and ``--n`` laid over it.

    name: ``vif`` or a path. n: ``"3"`` exactly three, ``"1-3"`` uniform. sets: ``a.b=c`` with TOML values. Raises
    UserError naming the file, the key, what is allowed and the nearest name.
    """
    path = _find(str(name))
    data = read_toml(path)
    for item in sets:
        _lay(data, item)
    check_schema(data.get("schema"), str(path))
    # With --n the recipe's own n must not stand in the way of what is left after --set.
    recipe = parse_recipe(data if n is None else data | {"n": [1]}, path.stem, str(path))
    if task is not None and recipe.task != task:
        raise UserError(f"recipe '{recipe.name}' is for {recipe.task}, not for {task}")
    return with_n(recipe, n) if n is not None else recipe


def with_n(recipe: Recipe, text: str) -> Recipe:
    """The recipe with another number of degradations a pair, refused above what it can combine."""
    first, dash, last = text.partition("-")
    try:
        low, high = int(first), int(last) if dash else int(first)
    except ValueError:
        raise UserError(f"--n {text}: must be a number like 3, or a range like 1-3") from None
    most = recipe.max_n()
    if low < 1 or high < low:
        raise UserError(f"--n {text}: must be at least 1 and rise; recipe '{recipe.name}' allows 1 to {most}")
    if high > most:
        raise UserError(f"--n {text}: recipe '{recipe.name}' can combine at most {most} degradations")
    n = dict.fromkeys(range(low, high + 1), 1.0)
    return parse_recipe({**recipe.source, "n": list(n)}, recipe.name, recipe.name)


def _find(name: str) -> Path:
    if name.endswith(".toml") or "/" in name:
        path = local(name, "--recipe")
        if not path.is_file():
            raise UserError(f"recipe file {name} does not exist")
        return path
    shipped = resource_names("manifests/recipes")
    if name not in shipped:
        raise unknown("recipe", name, shipped)
    return resource_dir("manifests/recipes") / f"{name}.toml"


def _lay(data: dict[str, Any], item: str) -> None:
    """Lay one ``a.b=c`` over the recipe; c is a TOML value, or a bare word."""
    parts, value = parse_setting(item, "operators.haze.weight=2")
    for part in parts[:-1]:
        data = data.setdefault(part, {})
        if not isinstance(data, dict):
            raise UserError(f"--set {item}: '{part}' is not a table")
    data[parts[-1]] = value


def parse_recipe(data: Mapping[str, Any], name: str, where: str) -> Recipe:
    """A recipe from its plain form; every fault is one line that names the key."""
    _only(data, _TOP, where)
    task = data.get("task")
    if task not in TASKS:
        raise UserError(f"{where}: task is {task!r}: allowed: {', '.join(TASKS)}")
    operators: dict[str, Rule] = {}
    names: dict[str, str] = {}  # as the recipe writes them -> as steps do
    severity = _severity(data.get("severity", [0, 1]), where)
    for op, entry in _table(data.get("operators", {}), f"{where}: operators").items():
        names[op], rule = _staged(op, entry, f"{where}: operators.{op}")
        if names[op] in operators:
            raise UserError(f"{where}: operators.{op}: {names[op]} is there twice")
        operators[names[op]] = _rule(names[op], rule, task, severity, f"{where}: operators.{op}")
    if not any(rule.weight > 0 for rule in operators.values()):
        raise UserError(f"{where}: operators: at least one must have a weight above 0")
    limits = [(_group(group, names, f"{where}: exclusive"), 1) for group in _list(data, "exclusive", where)]
    limits += [_at_most(entry, names, f"{where}: at_most") for entry in _list(data, "at_most", where)]
    recipe = Recipe(
        name=name,
        task=task,
        n=_counts(data.get("n", [1]), where),
        ratios=_ratios(data.get("ratios", {"4:3": 1}), where),
        limits=tuple(limits),
        operators=operators,
        source=dict(data),
    )
    if max(recipe.n) > recipe.max_n():
        raise UserError(f"{where}: n asks for {max(recipe.n)}, but it can combine at most {recipe.max_n()}")
    return recipe


def _only(data: Mapping[str, Any], allowed: Iterable[str], where: str) -> None:
    for key in data:
        if key not in allowed:
            error = unknown("key", key, allowed)
            raise UserError(f"{where}: {error}")


def _table(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{where}: must be a table, not {value!r}")
    return value


def _weights(value: Any, where: str) -> dict[str, float]:
    table = _table(value, where)
    for key, weight in table.items():
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight <= MOST_WEIGHT:
            raise UserError(f"{where}.{key} = {weight!r}: must be a weight in [0, {MOST_WEIGHT:g}]")
    if not sum(table.values()) > 0:
        raise UserError(f"{where}: at least one weight must be above 0")
    return {key: float(weight) for key, weight in table.items()}


def _list(data: Mapping[str, Any], key: str, where: str) -> list[Any]:
    value = data.get(key, [])
    if not isinstance(value, list):
        raise UserError(f"{where}: {key} = {value!r}: must be a list")
    return value


def _at_most(value: Any, names: Mapping[str, str], where: str) -> tuple[frozenset[str], int]:
    entry = _table(value, where)
    _only(entry, ("of", "n"), where)
    most = entry.get("n")
    if isinstance(most, bool) or not isinstance(most, int) or most < 0:
        raise UserError(f"{where}.n = {most!r}: must be a whole number of 0 or more")
    return _group(entry.get("of"), names, f"{where}.of"), most


def _counts(value: Any, where: str) -> dict[int, float]:
    if isinstance(value, int) and not isinstance(value, bool):
        value = [value]
    table = dict.fromkeys(map(str, value), 1.0) if isinstance(value, list) else value
    try:
        counts = {int(n): weight for n, weight in _weights(table, f"{where}: n").items() if weight > 0}
    except ValueError:
        raise UserError(f"{where}: n = {value!r}: must be whole numbers, as [1, 2, 3]") from None
    if min(counts) < 1:
        raise UserError(f"{where}: n = {value!r}: must be 1 or more")
    return counts


def _ratios(value: Any, where: str) -> dict[str, float]:
    ratios = _weights(value, f"{where}: ratios")
    for text in ratios:
        left, colon, right = text.partition(":")
        sides = [int(side) for side in (left, right) if side.isascii() and side.isdigit()]
        if not colon or len(sides) != 2 or not all(0 < side < 1000 for side in sides):
            raise UserError(f"{where}: ratios: '{text}' is not a ratio such as 4:3")
    return ratios


def _group(value: Any, names: Mapping[str, str], where: str) -> frozenset[str]:
    if not isinstance(value, list):
        raise UserError(f"{where}: must be a list of operators, not {value!r}")
    for name in value:
        if not isinstance(name, str) or name not in names:
            raise UserError(f"{where}: {unknown('operator', str(name), names)}")
    return frozenset(names[name] for name in value)


def _staged(name: str, entry: Any, where: str) -> tuple[str, Any]:
    """The name that steps record and the rule without its stage, which is a part of a bridge operator's name."""
    try:
        if not isinstance(entry, dict) or "stage" not in entry:
            return operator_class(name).name, entry
        return bridge.staged(name, entry["stage"]), {key: entry[key] for key in entry if key != "stage"}
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _rule(name: str, value: Any, task: Task, severity: tuple[tuple[float, float], ...], where: str) -> Rule:
    cls = operator_class(name)
    rule = _table(value, where)
    _only(rule, _RULE, where)
    target = _weights(rule.get("target", {"both": 1}), f"{where}.target")
    for image in target:
        if image not in _TARGETS:
            raise UserError(f"{where}.target: {unknown('target', image, _TARGETS)}")
        reached = ("a", "b") if image == "both" else (image,)
        wrong = [i for i in reached if MODALITIES[task][i] not in cls.modalities]
        if wrong and target[image] > 0:
            raise UserError(f"{where}.target: {name} does not act on the {MODALITIES[task][wrong[0]]} image")
    params = _table(rule.get("params", {}), f"{where}.params")
    try:
        ranges = cls.narrowed(params)
    except UserError as error:
        raise UserError(f"{where}.params: {error}") from None
    if "severity" in rule and not any(declared.kind == "severe" for declared in ranges.values()):
        raise UserError(f"{where}.severity: {name} has none: set its params")
    weight = _weights({"weight": rule.get("weight", 1.0), "any": 1}, where)["weight"]
    if "severity" in rule:
        severity = _severity(rule["severity"], where)
    return Rule(weight, target, severity, ranges)  # type: ignore[arg-type]


def _severity(value: Any, where: str) -> tuple[tuple[float, float], ...]:
    """``0.5``, ``[0.2, 0.8]``, or ``{ schedule = [0.25, 0.5, [0.7, 1]] }``: one of these for each turn."""
    if isinstance(value, dict):
        _only(value, ("schedule",), f"{where}.severity")
        turns = value.get("schedule")
        if not isinstance(turns, list) or not turns:
            raise UserError(f"{where}.severity.schedule = {turns!r}: must be a list of severities, one for each turn")
        return tuple(_bounds(turn, where) for turn in turns)
    return (_bounds(value, where),)


def _bounds(value: Any, where: str) -> tuple[float, float]:
    ends = value if isinstance(value, list) else [value, value]
    numbers = [v for v in ends if isinstance(v, (int, float)) and not isinstance(v, bool) and 0 <= v <= 1]
    if len(ends) != 2 or len(numbers) != 2 or ends[0] > ends[1]:
        raise UserError(
            f"{where}.severity = {value!r}: must be a number in [0, 1], [low, high], or a schedule of these"
        )
    return float(ends[0]), float(ends[1])


def read_pools(recipe: Recipe, folder: Path | None = None) -> None:
    """Read every pool that the recipe can draw from. Raises UserError where one is missing or wrong."""
    load_tasks(folder)
    for name, rule in recipe.operators.items():
        if rule.weight > 0:
            load_pool(name, folder)
