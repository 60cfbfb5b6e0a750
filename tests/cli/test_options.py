"""A command's options are its model's fields: name, type, default and help, in the model's order, and its bounds."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
import typer
from pydantic import Field
from typer.testing import CliRunner

from clearfuse.synth.cli.options import takes
from clearfuse.synth.files.schema import StrictModel, check_options, parse_setting
from clearfuse.synth.types import UserError


class Chosen(StrictModel):
    """Options of each kind."""

    shards: Annotated[list[str], typer.Argument(metavar="SHARDS...")]
    """Folders of shards."""
    task: Literal["vif", "mef"]
    """Which task."""
    shard_size: Annotated[int, Field(ge=1)] = 256
    """Samples a shard."""
    sets: Annotated[tuple[str, ...], typer.Option("--set", metavar="A.B=C")] = ()
    """Change a value;
    repeatable."""
    share: Annotated[float | None, Field(ge=0, le=1)] = None
    """A share."""
    lean: bool = False
    """Less."""


def run(*args: str) -> tuple[Any, dict[str, Any]]:
    """The result of a command with these arguments, and what it was given."""
    app, given = typer.Typer(rich_markup_mode=None), {}

    @app.command()
    @takes(Chosen)
    def command(json_: Annotated[bool, typer.Option("--json", help="As JSON.")] = False, **options: Any) -> None:
        given.update(options, json_=json_)

    return CliRunner().invoke(app, args), given


def test_the_command_line_shows_what_the_model_declares() -> None:
    shown = [line.strip() for line in run("--help")[0].output.splitlines()]
    options = shown[shown.index("Options:") + 1 :]
    assert [line.split("  ")[0] for line in options if line.startswith("--")] == [
        *("--task <str>", "--shard-size <int>", "--set A.B=C", "--share <float>", "--lean", "--json"),
        *("--plugin FILE", "--install-completion", "--show-completion", "--help"),
    ]
    assert any(line.endswith("Samples a shard.  [default: 256]") for line in options)
    assert any(line.endswith("Change a value; repeatable.") for line in options)
    assert any(line.startswith("--task") and line.endswith("Which task.  [required]") for line in options)


def test_values_arrive_as_the_fields_have_them() -> None:
    result, given = run("a", "b", "--task", "vif", "--set", "x=1", "--set", "y=2", "--lean", "--json")
    assert result.exit_code == 0 and given.pop("json_")
    chosen = check_options(Chosen, given | {"sets": tuple(given["sets"])})
    assert chosen == Chosen(shards=["a", "b"], task="vif", sets=("x=1", "y=2"), lean=True)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"task": "vfi"}, "unknown task 'vfi': did you mean 'vif'? allowed: mef, vif"),
        ({"shard_size": 0}, "--shard-size 0: must be at least 1"),
        ({"shard_size": "3"}, "--shard-size '3': must be a whole number"),
        ({"share": 1.5}, "--share 1.5: must be in [0, 1]"),
        ({"share": float("nan")}, "--share nan: must be a finite number"),
        ({"lean": 1}, "--lean 1: must be true or false"),
        (
            {"leen": True},
            "unknown option 'leen': did you mean 'lean'? allowed: lean, sets, ",
        ),
    ],
)
def test_a_wrong_option_is_one_line(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as error:
        check_options(Chosen, {"shards": ["a"], "task": "vif"} | changed)
    assert str(error.value).startswith(said)


def test_a_setting_is_a_path_and_a_toml_value() -> None:
    assert parse_setting(" a.b = 2", "a.b=1") == (["a", "b"], 2)
    assert parse_setting("a=[1, 2]", "a.b=1") == (["a"], [1, 2])
    assert parse_setting("a=a word", "a.b=1") == (["a"], "a word")
    for item in ("a", "=1", "a..b=1"):
        with pytest.raises(UserError, match=r"must be key=value, such as a\.b=1"):
            parse_setting(item, "a.b=1")
