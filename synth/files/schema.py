"""What comes from outside (JSON, TOML, settings) as pydantic models: types, bounds and help stand beside the field.

Everything is validated in JSON's terms, whatever it was written in: a whole number is a number, nothing else is
converted, an array becomes a tuple or a list as the field says, and no number is infinite or not a number. An error is
one line for the user: the place, what is wrong with it, what is allowed and the nearest name.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, ValidationError
from pydantic_core import CoreSchema
from pydantic_core.core_schema import custom_error_schema

from clearfuse.synth.types import UserError, unknown

LONGEST_TEXT = 1_000_000
"""Characters of the longest text that any file may hold."""


class StrictModel(BaseModel):
    """The base of all that is read: unknown fields are refused, nothing is converted, and values are frozen."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        allow_inf_nan=False,
        str_max_length=LONGEST_TEXT,
        use_attribute_docstrings=True,
    )


Model = TypeVar("Model", bound=BaseModel)


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
    """JSON as it is. Raises ValueError where a number in it is infinite or not a number."""
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"must be a finite number, not {value}")
    elif isinstance(value, Mapping):
        for name, one in value.items():
            if not isinstance(one, (int, str)):
                try:
                    finite(one)
                except ValueError as error:
                    raise ValueError(f"{name}: {error}") from None
    elif isinstance(value, (list, tuple)):
        for one in value:
            finite(one)
    return value


def validate(model: type[Model], data: Any, where: str) -> Model:
    """The model of an object as ``json.loads`` or ``tomllib.load`` gives it, or of JSON text as bytes.

    Raises UserError, one line that begins with ``where``, for the first fault.
    """
    try:
        if isinstance(data, bytes):
            return model.model_validate_json(data)
        return model.model_validate_json(json.dumps(data, default=str))
    except ValidationError as error:
        kind = NewerSchema if _newer(error) else UserError
        raise kind(f"{where}: {explain(error, model, data)}") from None
    except RecursionError:
        raise UserError(f"{where}: is nested too deeply") from None


def check_options(model: type[Model], given: Mapping[str, Any]) -> Model:
    """The model of a command's options, from the command line or from a caller's keywords.

    Raises UserError, one line that names the option: ``--seed -1: must be at least 0``.
    """
    for name in given:
        if name not in model.model_fields:
            raise unknown("option", name, model.model_fields)
    try:
        return model.model_validate(dict(given))
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        said = _expected(fault, model)
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
    except tomllib.TOMLDecodeError:
        return path, text.strip()


def validate_python(model: type[Model], data: Any, where: str) -> Model:
    """As ``validate``, of an object without lists: what need not be written as JSON first."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise UserError(f"{where}: {explain(error, model)}") from None


def explain(error: ValidationError, model: type[BaseModel], data: Any = None) -> str:
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
    path = [str(part) for part in fault["loc"] if not _is_tag(part)]
    of_key = path[-1:] == ["[key]"]
    if of_key:  # a fault of a table's key is told as one of the table's value there
        path = path[:-1]
    name, above = _place(path, data), _place(path[:-1], data)
    if kind == "missing":
        return f"{name} is missing"
    if kind == "extra_forbidden":
        found = _model_at(model, fault["loc"][:-1])
        return _told(above, unknown("key", path[-1], _names(found) if found else ()))
    if kind == "literal_error":
        choices = [part.strip("'") for part in context["expected"].replace(" or ", ", ").split(", ")]
        if not isinstance(given, str):
            return f"{name} = {_short(given)}: allowed: {', '.join(choices)}"
        if of_key:
            return _told(above, unknown("key", given, choices))
        if path and _model_at(model, fault["loc"][:-1]) is not None:
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
    faults = (fault for fault in error.errors(include_url=False) if fault["loc"] == ("schema",))
    return next((dict(fault) for fault in faults if fault["type"] == "less_than_equal"), None)


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
        place += f"{' ' if place.endswith(':') else '.' if place else ''}{part}"
    return place


def _expected(fault: Any, model: type[BaseModel]) -> str | None:
    """What a value must be; None where the fault is not one of its type or its bounds."""
    said = _EXPECTED.get(fault["type"])
    if said is None:
        return None
    bounds = {key: _number(bound) for key, bound in fault.get("ctx", {}).items()}
    parent = _model_at(model, fault["loc"][:-1]) if bounds and fault["loc"] else None
    field = parent.model_fields.get(str(fault["loc"][-1])) if parent else None
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
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _is_tag(part: int | str) -> bool:
    """Whether a part of a place names a member of a union, not a key of the file."""
    return isinstance(part, str) and (
        part.startswith(("function-", "constrained-", "list[", "dict[", "tuple[", "lax-"))
    )


def _names(model: type[BaseModel]) -> Iterable[str]:
    return (field.alias or name for name, field in model.model_fields.items())


def _model_at(model: type[BaseModel], place: Iterable[int | str]) -> type[BaseModel] | None:
    """The model that a place of the file is checked against; None where that is not one model."""
    at: Any = model
    for part in place:
        if isinstance(at, type) and issubclass(at, BaseModel):
            found = (field.annotation for name, field in at.model_fields.items() if part == (field.alias or name))
            at = next(found, None)
        elif get_origin(at) in (dict, Mapping):
            at = get_args(at)[1]
        else:
            at = next(iter(get_args(at)), None)
        while get_origin(at) is Annotated or type(None) in get_args(at):
            at = next(arg for arg in get_args(at) if arg is not type(None))
    return at if isinstance(at, type) and issubclass(at, BaseModel) else None
