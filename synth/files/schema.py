"""What comes from outside (JSON, TOML, settings) as pydantic models: types, bounds and help stand beside the field.

Everything is validated in JSON's terms, whatever it was written in: a whole number is a number, nothing else is
converted, an array becomes a tuple or a list as the field says, and no number is infinite or not a number. An error is
one line for the user: the place, what is wrong with it, what is allowed and the nearest name.
"""

from __future__ import annotations

import json
import math
import sys
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema
from pydantic_core.core_schema import custom_error_schema, literal_schema, no_info_wrap_validator_function

from clearfuse.synth.tables import Table
from clearfuse.synth.types import SCHEMA, UserError, check_name, shorten, unknown

LARGEST = int(sys.float_info.max)
"""Of whole numbers: what a float holds."""
LONGEST_TEXT = 1_000_000
"""Characters of the longest text that any file may hold."""


STRICT = ConfigDict(
    extra="forbid",
    strict=True,
    allow_inf_nan=False,
    str_max_length=LONGEST_TEXT,
    use_attribute_docstrings=True,
)
"""Unknown fields are refused, and nothing is converted: the config of pydantic's dataclasses too."""


class StrictModel(BaseModel):
    """The base of all that is read; values are frozen."""

    model_config = ConfigDict(**STRICT, frozen=True)


@dataclass(frozen=True)
class OneOf:
    """An annotation of a text that is one of a table's names: ``Annotated[str, OneOf(SAMPLERS)]``.

    Of a ``Table``, those that plugins have added since are names too.
    """

    names: Iterable[str]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        fixed = literal_schema(list(self.names))
        return no_info_wrap_validator_function(self._admit, fixed) if isinstance(self.names, Table) else fixed

    def _admit(self, value: Any, check: Callable[[Any], Any]) -> Any:
        added = isinstance(value, str) and value in self.names.added  # pyright: ignore[reportAttributeAccessIssue]
        return value if added else check(value)


Schema = Annotated[int, Field(alias="schema", ge=1, le=SCHEMA, description="The version of this file's form.")]
"""A file's schema, as a field ``schema_``: ``schema`` is a method of pydantic's."""

Model = TypeVar("Model")
Options = TypeVar("Options", bound=BaseModel)


@dataclass(frozen=True)
class MustBe:
    """An annotation: whatever is wrong with a value, which may have several forms, is told in these words alone."""

    what: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        said = f"must be {self.what}"
        return custom_error_schema(handler(source), custom_error_type="must_be", custom_error_message=said)


class NewerSchema(UserError):
    """A file of a schema that this version does not know."""


def finite(value: Any) -> Any:
    """JSON as it is. Raises ValueError where a number in it is infinite, not a number, or too large for a float."""
    if isinstance(value, str) or value is None:  # most are: a million receipts have a hundred each
        return value
    if isinstance(value, int):
        if abs(value) > LARGEST:
            raise ValueError("must be a number that a float holds")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"must be a finite number, not {value}")
    elif isinstance(value, (dict, Mapping)):
        for name, one in value.items():
            try:
                finite(one)
            except ValueError as error:
                raise ValueError(f"{shorten(str(name))}: {error}") from None
    elif isinstance(value, (list, tuple)):
        for one in value:
            finite(one)
    return value


def validate(model: type[Model], data: Any, where: str) -> Model:
    """The model of an object as ``json.loads`` or ``tomllib.load`` gives it, or of JSON text as bytes.

    model: one of pydantic's models or dataclasses. Raises UserError, one line that begins with ``where``, for the first
    fault.
    """
    validator: Any = getattr(model, "__pydantic_validator__")  # noqa: B009 - as no type checker knows it
    try:
        return validator.validate_json(data if isinstance(data, bytes) else json.dumps(data, default=str))
    except ValidationError as error:
        kind = NewerSchema if _newer(error) else UserError
        raise kind(f"{where}: {explain(error, model, data)}") from None
    except RecursionError:
        raise UserError(f"{where}: is nested too deeply") from None


def check_options(model: type[Options], given: Mapping[str, Any]) -> Options:
    """The model of a command's options, from the command line or from a caller's keywords.

    Raises UserError, one line that names the option: ``--seed -1: must be at least 0``.
    """
    for name in given:
        check_name("option", name, model.model_fields)
    try:
        return model.model_validate(dict(given))
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        said = _expected(fault, model)
        if said is None and fault["loc"] and fault["type"] in ("value_error", "must_be"):
            said = fault["msg"].removeprefix("Value error, ")
        if said is None:
            raise UserError(explain(error, model)) from None
        value = fault.get("input")
        shown = f"{value:g}" if isinstance(value, float) else _short(value)
        raise UserError(f"{option_name(model, str(fault['loc'][0]))} {shown}: {said}") from None


def option_name(model: type[BaseModel], name: str) -> str:
    """What the command line calls a field: ``--shard-size``, or as a ``typer.Option`` beside the field says."""
    said = (str(getattr(each, "default", "")) for each in model.model_fields[name].metadata)
    return next((one for one in said if one.startswith("-")), f"--{name.replace('_', '-')}")


def parse_setting(item: str, example: str) -> tuple[list[str], Any]:
    """The path and the value of ``--set a.b=c``; c is a TOML value, or a bare word. example: one that is right."""
    key, equals, text = item.partition("=")
    path = [part.strip() for part in key.split(".")]
    if not equals or not all(path):
        raise UserError(f"--set {item}: must be key=value, such as {example}")
    try:
        return path, tomllib.loads(f"v = {text}")["v"]
    except RecursionError:
        raise UserError(f"--set {key.strip()}: the value is nested too deeply") from None
    except ValueError:  # no TOML value, or a number of thousands of digits
        return path, text.strip()


def validate_python(model: type[Options], data: Any, where: str) -> Options:
    """As ``validate``, of an object without lists: what need not be written as JSON first."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise UserError(f"{where}: {explain(error, model)}") from None


def explain(error: ValidationError, model: type, data: Any = None) -> str:
    """The first fault of a model in one line, without the file's name. Where several forms are allowed, the deepest.

    data: what was validated, whose entries with an id are called by it.
    """
    if (schema := _newer(error)) is not None:
        return f"schema {schema['input']} is newer than this version reads ({schema['ctx']['le']}); upgrade clearfuse"
    faults = error.errors(include_url=False)
    first = faults[0]["loc"][:1]
    fault = max((one for one in faults if one["loc"][:1] == first), key=lambda one: len(one["loc"]))
    if fault["type"] == "missing":  # a key that is there under another name says more
        beside = (one for one in faults if one["type"] == "extra_forbidden" and one["loc"][:-1] == fault["loc"][:-1])
        fault = next(beside, fault)
    kind, given, context = fault["type"], fault.get("input"), fault.get("ctx", {})
    path, _ = _walk(model, fault["loc"])
    _, holder = _walk(model, fault["loc"][:-1])
    of_key = path[-1:] == ["[key]"]
    if of_key:  # a fault of a table's key is told as one of the table's value there
        path = path[:-1]
    name, above = _place(path, data), _place(path[:-1], data)
    if kind == "missing":
        return f"{name} is missing"
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        return _told(above, unknown("key", path[-1], _fields(holder)))
    if kind == "union_tag_not_found":
        return f"{_place([*path, context['discriminator'].strip(QUOTE)], data)} is missing"
    if kind == "union_tag_invalid":
        choices = [part.strip(QUOTE) for part in context["expected_tags"].split(", ")]
        return _told(name, unknown(context["discriminator"].strip(QUOTE), context["tag"], choices))
    if kind == "literal_error":
        choices = [part.strip(QUOTE) for part in context["expected"].replace(" or ", ", ").split(", ")]
        if not isinstance(given, str):
            return f"{name} = {_short(given)}: allowed: {', '.join(choices)}"
        if of_key:
            return _told(above, unknown("key", given, choices))
        if path and _fields(holder):
            return _told(above, unknown(path[-1], given, choices))
        return _told(name, unknown("value", given, choices))
    said = _expected(fault, model) or fault["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    if kind == "json_invalid":
        return f"not valid JSON: {context.get('error', said)}"
    if of_key:
        return _told(above, f"{_short(given)} {said}")
    if kind in ("value_error", "assertion_error"):
        return _told(name, said)
    if not name:
        return f"{said}, not {_short(given)}"
    return f"{name} {_short(given)}: {said}" if name.endswith(":") else f"{name} = {_short(given)}: {said}"


def _told(place: str, said: object) -> str:
    return f"{place}{' ' if place.endswith(':') else ': ' if place else ''}{said}"


def _newer(error: ValidationError) -> Mapping[str, Any] | None:
    """The fault of a schema that is too high: what else is wrong may be what is new."""
    faults = (fault for fault in error.errors(include_url=False) if fault["loc"][-1:] == ("schema",))
    return next((dict(fault) for fault in faults if fault["type"] == "less_than_equal"), None)


QUOTE = "'"

_EXPECTED: dict[str, str] = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "a text",
    "string_too_short": "a text of {min_length} characters or more",
    "string_too_long": "a text of {max_length} characters at most",
    "string_pattern_mismatch": "a text that matches {pattern}",
    "dataclass_type": "a table",
    "list_type": "a list",
    "tuple_type": "a list",
    "frozen_set_type": "a list",
    "set_type": "a list",
    "dict_type": "a table",
    "mapping_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
    "none_required": "null",
    "too_short": "a list of {min_length} or more",
    "too_long": "a list of {max_length} at most",
    "greater_than_equal": "at least {ge}",
    "greater_than": "above {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "below {lt}",
    "multiple_of": "a multiple of {multiple_of}",
}
"""pydantic's kinds of faults in plain words."""


def _place(path: Iterable[str], data: Any) -> str:
    """The keys that lead to a value, with dots; an entry with an id is called by it: ``phrase haze-01: text``."""
    place = ""
    for part in path:
        above = data
        data = data.get(part) if isinstance(data, dict) else None
        if isinstance(above, list) and part.isdecimal() and int(part) < len(above):
            data = above[int(part)]
            if isinstance(data, dict) and isinstance(data.get("id"), str):
                place += f" {data['id']}:"
                continue
        place += f"{' ' if place.endswith(':') else '.' if place else ''}{shorten(part)}"
    return place


def _expected(fault: Any, model: type) -> str | None:
    """What a value must be; None where the fault is not one of its type or its bounds."""
    said = _EXPECTED.get(fault["type"])
    if said is None:
        return None
    bounds = {key: _number(bound) for key, bound in fault.get("ctx", {}).items()}
    place = fault["loc"]
    in_range = bool(set(bounds) & {"ge", "gt", "le", "lt"})
    field = _fields(_walk(model, place[:-1])[1]).get(str(place[-1])) if in_range and place else None
    if field is not None and (span := _span(field.metadata)):
        return f"must be {field.title or ''} in {span}".replace("  ", " ")
    return f"must be {said.format(**bounds)}"


def _span(metadata: Iterable[Any]) -> str | None:
    """The range of a number as ``[0, 1)``; None where it is open on a side."""
    ends = {name: getattr(each, name) for each in metadata for name in ("ge", "gt", "le", "lt") if hasattr(each, name)}
    low = next((f"{sign}{_number(ends[name])}" for name, sign in (("ge", "["), ("gt", "(")) if name in ends), None)
    high = next((f"{_number(ends[name])}{sign}" for name, sign in (("le", "]"), ("lt", ")")) if name in ends), None)
    return f"{low}, {high}" if low and high else None


def _number(bound: Any) -> str:
    if isinstance(bound, int) and bound > 2**31 and bound.bit_count() == 1:
        return f"2^{bound.bit_length() - 1}"
    return f"{bound:g}" if isinstance(bound, float) else str(bound)


def _short(value: Any) -> str:
    return shorten(repr(value))


def _is_tag(part: int | str) -> bool:
    """Whether a part of a place names a member of a union, not a key of the file."""
    return isinstance(part, str) and (
        part.startswith(("function-", "constrained-", "list[", "dict[", "tuple[", "lax-"))
    )


def _fields(model: Any) -> dict[str, FieldInfo]:
    """The fields of a model or a dataclass by their names in the file; none of anything else."""
    fields: dict[str, FieldInfo] = getattr(model, "__pydantic_fields__", {})
    return {field.alias or name: field for name, field in fields.items()}


def _walk(model: type, place: Iterable[int | str]) -> tuple[list[str], Any]:
    """The keys of the file that lead to a place, and the type declared there; None where that is not known.

    pydantic's places also name the members of unions, which the file does not.
    """
    path: list[str] = []
    root = _fields(model).get("root")
    at, tag = (model, None) if root is None else _declared(root)
    for part in place:
        if tag is not None:
            members = (one for one in get_args(at) if part in get_args(_fields(one)[tag].annotation))
            at, tag = next(members, None), None
        elif not _is_tag(part):
            path.append(str(part))
            if str(part) in _fields(at):
                at, tag = _declared(_fields(at)[str(part)])
            else:
                at, tag = _entries(at), None
    return path, at


def _declared(field: FieldInfo) -> tuple[Any, str | None]:
    """The type of a field, and the key that tells the members of a union apart."""
    return _given(field.annotation), field.discriminator if isinstance(field.discriminator, str) else None


def _entries(at: Any) -> Any:
    """The type of the values of a table, or of a list's first entry."""
    args = get_args(at)
    return _given(args[1] if get_origin(at) in (dict, Mapping) else args[0]) if args else None


def _given(at: Any) -> Any:
    """A type without its annotations and the None that is allowed beside it."""
    while get_origin(at) is Annotated or type(None) in get_args(at):
        at = next(arg for arg in get_args(at) if arg is not type(None))
    return at
