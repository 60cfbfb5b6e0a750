"""Recipes: which degradations a task draws, how often, how strong, and which never meet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from clearfuse.synth.files.resources import read_toml, resource_dir, resource_names
from clearfuse.synth.files.schema import MustBe, Schema, StrictModel, parse_setting, validate
from clearfuse.synth.files.storage import local
from clearfuse.synth.operators import AUTHORS, OPERATORS, operator_class
from clearfuse.synth.operators import albumentations as bridge
from clearfuse.synth.operators.authors import our_name
from clearfuse.synth.operators.base import LINEAR_STAGES, Range, Stage
from clearfuse.synth.prompts.pools import languages_of, load_pool, load_tasks
from clearfuse.synth.types import MODALITIES, ImageName, Target, Task, UserError, check_name, shorten, unknown

MOST_WEIGHT = 1e9


def some_weight(weights: dict[Any, float]) -> dict[Any, float]:
    """Weights of which at least one is above 0, else a ValueError."""
    if not sum(weights.values()) > 0:
        raise ValueError("at least one weight must be above 0")
    return weights


def _rising(ends: tuple[float, float]) -> tuple[float, float]:
    if ends[0] > ends[1]:
        raise ValueError("low is above high")
    return ends


Weight = Annotated[float, Field(ge=0, le=MOST_WEIGHT), MustBe(f"a weight in [0, {MOST_WEIGHT:g}]")]
Count = Annotated[int, Field(ge=1)]
Ratio = Annotated[str, Field(pattern=r"^[1-9][0-9]{0,2}:[1-9][0-9]{0,2}$"), MustBe("a ratio such as 4:3")]
Counts = Annotated[
    Count | Annotated[list[Count], Field(min_length=1)] | Annotated[dict[Count, Weight], AfterValidator(some_weight)],
    MustBe("1 or more: a number, a list as [1, 2, 3], or weights as { 1 = 2, 2 = 1 }"),
]
Unit = Annotated[float, Field(ge=0, le=1)]
Bounds = Unit | Annotated[tuple[Unit, Unit], AfterValidator(_rising)]


class Turns(StrictModel):
    """Severities by turn: variant v of a pair has that of turn v modulo their number."""

    schedule: Annotated[list[Bounds], Field(min_length=1)]
    """A severity for each turn."""


Severity = Annotated[Bounds | Turns, MustBe("a number in [0, 1], [low, high], or a schedule of these")]


class RuleEntry(StrictModel):
    """How often and how strong one operator is drawn, and in which image."""

    weight: Weight = 1.0
    """How often, beside the other operators' weights; 0: never."""
    target: Annotated[dict[Target, Weight], AfterValidator(some_weight)] = {"both": 1.0}  # noqa: RUF012
    """The image that it degrades, by weight: a, b or both."""
    severity: Severity | None = None
    """Its own severity in place of the recipe's: 0 is mild, 1 strong."""
    params: dict[str, Any] = {}  # noqa: RUF012
    """Its parameters' ranges in place of the declared ones: a value, or [low, high]. See docs/operators.md."""
    stage: Stage | None = None
    """Of an albumentations transform: where in the imaging chain it acts; processing without it."""


class LimitEntry(StrictModel):
    """The most operators of a group that one sample may have."""

    of: list[str]
    """Operators of the recipe."""
    n: Annotated[int, Field(ge=0)]
    """How many of them may meet."""


def _complete_operators(schema: dict[str, Any]) -> None:
    """Name every operator and its parameters in the JSON Schema, for editors to complete."""
    (rule,) = (schema.pop("additionalProperties"),)
    schema["patternProperties"] = {f"^{bridge.PREFIX}": rule}
    schema["additionalProperties"] = False
    schema["properties"] = {
        name: {
            "description": (cls.__doc__ or "").strip().splitlines()[0],
            "allOf": [rule, {"properties": {"params": _params_schema(cls.ranges())}}],
        }
        for name, cls in {**OPERATORS, **AUTHORS}.items()
    }


def _params_schema(ranges: Mapping[str, Range]) -> dict[str, Any]:
    told = {name: " ".join(f"{one.doc} {f'({one.unit})' if one.unit else ''}".split()) for name, one in ranges.items()}
    return {"properties": {name: {"description": text} for name, text in told.items()}, "additionalProperties": False}


class RecipeFile(StrictModel):
    """A recipe as TOML has it: which degradations a task draws, how often, how strong, and which never meet."""

    schema_: Schema
    task: Task
    """vif, mef or mff."""
    n: Counts = 1
    """Degradations a sample: one number, several as likely, or weights by number."""
    severity: Severity = (0.0, 1.0)
    """How strong: 0 mild to 1 strong; a number, [low, high], or { schedule = [...] } by variant."""
    ratios: Annotated[dict[Ratio, Weight], AfterValidator(some_weight)] = {"4:3": 1.0}  # noqa: RUF012
    """Shapes of the crop, width:height, by weight."""
    reproduction: bool = False
    """Whether it follows the MMAIF authors' published pipeline: their operators, in the order in which they are drawn,
    and prompts that at times do not say what is wrong. See docs/authors-recipe.md."""
    exclusive: list[list[str]] = []  # noqa: RUF012
    """Groups of operators of which one sample has one at most."""
    at_most: list[LimitEntry] = []  # noqa: RUF012
    """Groups of operators of which one sample has n at most."""
    protect: bool = True
    """Fit draws to the picture, draw a sample again whose structure would be lost; a reproduction does neither."""
    operators: Annotated[dict[str, RuleEntry], Field(json_schema_extra=_complete_operators)] = {}  # noqa: RUF012
    """The operators that are drawn, by name; albumentations:NAME too."""


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
    reproduction: bool = False
    """Whether operators act in the order of the draw, and a vague request at times takes a prompt's place."""
    protect: bool = True
    """Fit the draws to the clean picture, and draw again what would lose its structure."""
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

    def without(self, names: frozenset[str]) -> Recipe:
        """The recipe without these operators."""
        if not names:
            return self
        rest = {name: rule for name, rule in self.operators.items() if name not in names}
        return replace(self, operators=rest, _reached={})

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
        lay_over(data, item)
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
    check_name("recipe", name, shipped)
    return resource_dir("manifests/recipes") / f"{name}.toml"


def lay_over(data: dict[str, Any], item: str) -> None:
    """Lay one ``a.b=c`` over the recipe."""
    parts, value = parse_setting(item, "operators.haze.weight=2")
    for part in parts[:-1]:
        data = data.setdefault(part, {})
        if not isinstance(data, dict):
            raise UserError(f"--set {item}: '{part}' is not a table")
    data[parts[-1]] = value


def parse_recipe(data: Mapping[str, Any], name: str, where: str) -> Recipe:
    """A recipe from its plain form; every fault is one line that names the key."""
    read = validate(RecipeFile, data, where)
    operators: dict[str, Rule] = {}
    names: dict[str, str] = {}  # as the recipe writes them -> as steps do
    for op, entry in read.operators.items():
        at = f"{where}: operators.{shorten(op)}"
        names[op] = _step_name(op, entry.stage, at)
        if names[op] in operators:
            raise UserError(f"{at}: {names[op]} is there twice")
        operators[names[op]] = _rule(names[op], entry, read, at)
    if not any(rule.weight > 0 for rule in operators.values()):
        raise UserError(f"{where}: operators: at least one must have a weight above 0")
    limits = [(_group(group, names, f"{where}: exclusive"), 1) for group in read.exclusive]
    limits += [(_group(limit.of, names, f"{where}: at_most"), limit.n) for limit in read.at_most]
    recipe = Recipe(
        name=name,
        task=read.task,
        n=_counts(read.n),
        ratios=read.ratios,
        limits=tuple(limits),
        operators=operators,
        source=dict(data),
        reproduction=read.reproduction,
        protect=read.protect and not read.reproduction,
    )
    if max(recipe.n) > recipe.max_n():
        raise UserError(f"{where}: n asks for {max(recipe.n)}, but it can combine at most {recipe.max_n()}")
    return recipe


def _counts(n: int | list[int] | dict[int, float]) -> dict[int, float]:
    table = n if isinstance(n, dict) else dict.fromkeys([n] if isinstance(n, int) else n, 1.0)
    return {count: weight for count, weight in table.items() if weight > 0}


def _group(group: Iterable[str], names: Mapping[str, str], where: str) -> frozenset[str]:
    for name in group:
        if name not in names:
            raise UserError(f"{where}: {unknown('operator', name, names)}")
    return frozenset(names[name] for name in group)


def _step_name(name: str, stage: Stage | None, where: str) -> str:
    """The name that steps record: a transform of albumentations has its stage in it."""
    try:
        return operator_class(name).name if stage is None else bridge.staged(name, stage)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _rule(name: str, entry: RuleEntry, recipe: RecipeFile, where: str) -> Rule:
    """An entry with what it leaves open filled in. Raises UserError where the operator cannot do it."""
    cls = operator_class(name)
    if name in AUTHORS and not recipe.reproduction:
        raise UserError(f"{where}: {name} is for recipes with reproduction = true; ours is {our_name(name)}")
    for target, weight in entry.target.items():
        images: tuple[ImageName, ...] = ("a", "b") if target == "both" else (target,)
        wrong = [one for image in images if (one := MODALITIES[recipe.task][image]) not in cls.modalities]
        if wrong and weight > 0:
            raise UserError(f"{where}.target: {name} does not act on the {wrong[0]} image")
        seen = any(MODALITIES[recipe.task][image] == "visible" for image in images) and weight > 0
        if recipe.reproduction and seen and cls.stage in LINEAR_STAGES:
            raise UserError(f"{where}: {name} acts in linear light, before what a reproduction may draw ahead of it")
    try:
        ranges = cls.narrowed(entry.params)
    except UserError as error:
        raise UserError(f"{where}.params: {error}") from None
    if entry.severity is not None and not any(declared.kind == "severe" for declared in ranges.values()):
        raise UserError(f"{where}.severity: {name} has none: set its params")
    return Rule(
        entry.weight, entry.target, _turns(recipe.severity if entry.severity is None else entry.severity), ranges
    )


def _turns(severity: Severity) -> tuple[tuple[float, float], ...]:
    turns = severity.schedule if isinstance(severity, Turns) else [severity]
    return tuple(turn if isinstance(turn, tuple) else (turn, turn) for turn in turns)


def read_pools(recipe: Recipe, folder: Path | None = None, language: str = "en") -> None:
    """Read every pool that the recipe can draw from. Raises UserError where one is missing or wrong."""
    for spoken in languages_of(language):
        tasks = load_tasks(folder, spoken)
        if recipe.reproduction and not tasks.vague:
            raise UserError(
                f"recipe '{recipe.name}': a reproduction needs vague requests in the tasks page, '{spoken}'"
            )
        for name, rule in recipe.operators.items():
            if rule.weight > 0:
                load_pool(name, folder, spoken)
