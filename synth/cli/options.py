"""Options of a command from the fields of a model, where each is declared once: type, bounds, default and help."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from copy import copy
from functools import wraps
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin

import typer
from pydantic import BaseModel
from typer.models import OptionInfo, ParameterInfo

from clearfuse.synth.files.schema import option_name

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]


def _load(files: list[str]) -> list[str]:
    """Load plugins before any other option is looked at: these may name what plugins add."""
    from clearfuse.synth.plugins import load_plugins

    load_plugins(files)
    return files


PluginOption = Annotated[
    list[str],
    typer.Option(
        "--plugin", metavar="FILE", help="A Python file that adds to the tables; repeatable.", callback=_load,
        is_eager=True, show_default=False,
    ),
]  # fmt: skip
"""Of every command that reads the tables."""
PLUGIN = inspect.Parameter("plugin", inspect.Parameter.KEYWORD_ONLY, default=[], annotation=PluginOption)

Command = TypeVar("Command", bound=Callable[..., None])


def takes(model: type[BaseModel], *names: str) -> Callable[[Command], Command]:
    """A decorator of a command that has ``**options``: these become an option for each field of the model.

    names: the fields that the command takes, in their order; without them, all, a model's own before its bases'. A
    parameter of the command with the name of a field stands in the field's place, the others stand behind them. The
    values arrive as they were given: ``files.schema.check_options`` makes the model of them.
    """

    def decorate(command: Command) -> Command:
        own = dict(inspect.signature(command, eval_str=True).parameters)
        taken = {name: own.pop(name, None) or _parameter(model, name) for name in names or _own_first(model)}
        rest = [one for one in own.values() if one.kind is not inspect.Parameter.VAR_KEYWORD]
        keywords = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in (*taken.values(), *rest)]

        @wraps(command)
        def run(*, plugin: Sequence[str] = (), **options: Any) -> None:
            del plugin  # loaded as the line was read
            command(**options)

        run.__signature__ = inspect.Signature([*keywords, PLUGIN])  # type: ignore[attr-defined]
        return cast(Command, run)

    return decorate


def _own_first(model: type[BaseModel]) -> list[str]:
    declared = (name for cls in model.__mro__ for name in inspect.get_annotations(cls))
    return [name for name in dict.fromkeys(declared) if name in model.model_fields]


def option(model: type[BaseModel], name: str) -> ParameterInfo:
    """A field as typer's ``Annotated`` takes it: ``seed: Annotated[int, option(Options, "seed")] = 0``.

    The help is the field's docstring. A ``typer.Option`` or ``typer.Argument`` among the field's annotations says what
    else there is to say, such as another name or a metavar.
    """
    field = model.model_fields[name]
    info = copy(next((each for each in field.metadata if isinstance(each, ParameterInfo)), typer.Option()))
    if isinstance(info, OptionInfo) and info.default is ...:  # in Annotated, the first of the option's names
        info.default = option_name(model, name)
    info.help = " ".join((field.description or "").split())
    return info


def _parameter(model: type[BaseModel], name: str) -> inspect.Parameter:
    field = model.model_fields[name]
    default = inspect.Parameter.empty if field.is_required() else field.get_default(call_default_factory=True)
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=list(default) if isinstance(default, tuple) else default,
        annotation=Annotated[_parsed(field.annotation), option(model, name)],
    )


def _parsed(annotation: Any) -> Any:
    """The type to which the command line turns a text; what else the annotation says is for the model to check."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _parsed(args[0])
    if origin is Literal:
        return type(args[0])
    if origin is tuple and args[-1] is not ...:  # so many values behind one option
        return tuple[tuple(_parsed(arg) for arg in args)]  # type: ignore[misc]
    if origin in (tuple, list):
        return list[_parsed(args[0])]
    if origin in (Union, UnionType):
        (one,) = (arg for arg in args if arg is not type(None))
        return _parsed(one) | None
    return annotation
