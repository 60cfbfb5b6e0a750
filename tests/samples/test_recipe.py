"""Recipes: the paper's operators per task, the largest n, and errors for typos."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from clearfuse.synth.files.resources import resource_names
from clearfuse.synth.samples.recipe import load_recipe
from clearfuse.synth.types import TASKS, UserError

COMMON = {"gaussian_blur", "motion_blur", "downsample", "gaussian_noise", "rain", "haze", "snow", "jpeg"}
PAPER = {
    "vif": COMMON | {"low_exposure", "low_contrast", "ir_stripes"},
    "mef": COMMON | {"low_contrast"},
    "mff": COMMON | {"low_exposure", "high_exposure"},
}


@pytest.mark.parametrize("task", TASKS)
def test_the_paper_recipes_draw_what_the_paper_draws(task: str) -> None:
    recipe = load_recipe(task)
    assert set(recipe.operators) == PAPER[task]
    assert set(recipe.n) == {1, 2, 3}
    assert set(recipe.ratios) == {"16:9", "4:3", "1:1"}


@pytest.mark.parametrize("name", resource_names("manifests/recipes"))
def test_max_n_is_exact_by_brute_force(name: str) -> None:
    import itertools

    recipe = load_recipe(name)
    sizes = [
        size
        for size in range(1, len(recipe.operators) + 1)
        if any(recipe.allows(frozenset(names)) for names in itertools.combinations(recipe.operators, size))
    ]
    assert recipe.max_n() == max(sizes)


def test_n_and_set_lay_over_the_recipe() -> None:
    recipe = load_recipe("vif", n="2-3", sets=["operators.haze.weight=0", 'ratios={"1:1"=1}'])
    assert set(recipe.n) == {2, 3}
    assert recipe.operators["haze"].weight == 0
    assert set(recipe.ratios) == {"1:1"}
    fixed = load_recipe("vif", sets=["operators.haze.params.visibility=[200,400]"]).operators["haze"]
    assert (fixed.ranges["visibility"].mild, fixed.ranges["visibility"].strong) == (400, 200)


REFUSED = [
    ('task = "vif"\nopperators = {}', "{file}: unknown key 'opperators': did you mean 'operators'? allowed: "),
    ('task = "vfi"', "{file}: unknown task 'vfi': did you mean 'vif'? allowed: mef, mff, vif"),
    (
        'task = "vif"\n[operators.hase]\nweight = 1',
        "{file}: operators.hase: unknown operator 'hase': did you mean 'haze'? allowed: ",
    ),
    (
        'task = "vif"\n[operators.haze]\ntarget = { c = 1 }',
        "{file}: operators.haze.target: unknown key 'c': allowed: a, b, both",
    ),
    (
        'task = "vif"\n[operators.ir_stripes]\ntarget = { a = 1 }',
        "{file}: operators.ir_stripes.target: ir_stripes does not act on the visible image",
    ),
    (
        'task = "vif"\n[operators.haze]\nparams = { visiblity = 10 }',
        "{file}: operators.haze.params: unknown parameter of haze 'visiblity': did you mean 'visibility'? allowed: ",
    ),
    (
        'task = "vif"\n[operators.haze]\nseverity = 2',
        "{file}: operators.haze.severity = 2: must be a number in [0, 1], [low, high], or a schedule of these",
    ),
    ('task = "vif"\nn = [4]\n[operators.haze]', "{file}: n asks for 4, but it can combine at most 1"),
    ('task = "vif"\nn = [0]\n[operators.haze]', "{file}: n = [0]: must be 1 or more"),
    ('task = "vif"\nratios = { "4x3" = 1 }\n[operators.haze]', "{file}: ratios: '4x3' must be a ratio such as 4:3"),
    ('task = "vif"\nexclusive = [["haze", "rian"]]\n[operators.haze]', "{file}: exclusive: unknown operator 'rian': "),
    ('task = "vif"\n[operators]', "{file}: operators: at least one must have a weight above 0"),
    ('task = "vif"\nn = [1', "{file}: not valid TOML: "),
    ("a = " + "[" * 20_000, "{file}: not valid TOML: nested too deeply"),
    ("n = " + "9" * 6_000, "{file}: not valid TOML: "),
]


@pytest.mark.parametrize(("text", "message"), REFUSED)
def test_a_typo_is_named(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(f"schema = 1\n{text}\n")
    with pytest.raises(UserError) as error:
        load_recipe(str(file))
    assert str(error.value).startswith(message.format(file=file))
    assert "\n" not in str(error.value)


def _load(**options: object) -> Callable[[], object]:
    return lambda: load_recipe("vif", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("load", "message"),
    [
        (_load(n="0"), "--n 0: must be at least 1 and rise; recipe 'vif' allows 1 to 8"),
        (_load(n="9"), "--n 9: recipe 'vif' can combine at most 8 degradations"),
        (_load(n="3-1"), "--n 3-1: must be at least 1 and rise; recipe 'vif' allows 1 to 8"),
        (_load(n="many"), "--n many: must be a number like 3, or a range like 1-3"),
        (_load(task="mef"), "recipe 'vif' is for vif, not for mef"),
        (_load(sets=["haze"]), "--set haze: must be key=value, such as operators.haze.weight=2"),
        (
            lambda: load_recipe("vfi"),
            "unknown recipe 'vfi': did you mean 'vif'? allowed: " + ", ".join(resource_names("manifests/recipes")),
        ),
        (lambda: load_recipe("no/such.toml"), "recipe file no/such.toml does not exist"),
    ],
)
def test_options_are_refused_in_one_line(load: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError) as error:
        load()
    assert str(error.value) == message


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "new.toml"
    file.write_text('schema = 2\ntask = "vif"\n')
    with pytest.raises(UserError, match=r"schema 2 is newer than this version reads \(1\)"):
        load_recipe(str(file))
