"""Plugins: what they add, what is refused, what workers get, and what is said where one is missing or another."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clearfuse.synth import plugins
from clearfuse.synth.execute.run import run_tasks
from clearfuse.synth.operators import OPERATORS, operator_class, physical_order
from clearfuse.synth.plugins import Own, adopt, load_plugins, loaded, own, require, require_same
from clearfuse.synth.prompts.pools import load_pool
from clearfuse.synth.samples.chain import degrade
from clearfuse.synth.tables import Table
from clearfuse.synth.types import UserError
from conftest import ROOT, Ran, save, textured

VIGNETTE = ROOT / "examples/vignette.py"
DIM = """
from dataclasses import dataclass
from typing import ClassVar
from clearfuse import OPERATORS
from clearfuse.synth.operators.base import Operator, severe

__version__ = "2.1"

@dataclass(frozen=True)
class Dim(Operator):
    \"\"\"Darker.\"\"\"
    name: ClassVar[str] = "dim"
    stage: ClassVar[str] = "exposure"
    source: ClassVar[str] = "none"
    factor: float = severe(1.0, 0.5, "of all light", low=0.0, high=1.0)

    def __call__(self, image, rng, scene):
        return image * self.factor

OPERATORS["dim"] = Dim
"""
METRIC = """
from clearfuse.train.metrics import METRICS, Metric
gap = Metric("Gap", lambda f, a, b: abs(f - (a + b) / 2).mean(), "lower", "fusion", "from the mean")
object.__setattr__(gap, "%s", "%s")  # as without the type checks of tests
METRICS["Gap"] = gap
"""


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """No plugin outlives its test."""
    yield
    adopt(Own((), {}))


@pytest.fixture
def dim(tmp_path: Path) -> Path:
    path = tmp_path / "dim.py"
    path.write_text(DIM)
    return path


def name_and_value(common: Any, number: int) -> tuple[str, float]:
    """A worker's task: what it knows, and an object of a plugin's class."""
    return operator_class("dim").__module__, common.factor * number


def test_a_plugin_adds_and_goes_without_a_trace(dim: Path) -> None:
    before = dict(OPERATORS)
    (plugin,) = load_plugins(dim)
    assert load_plugins([dim, str(dim)]) == [plugin]
    assert (plugin.name, plugin.version, len(plugin.sha256)) == ("dim.py", "2.1", 64)
    assert physical_order(["jpeg", "dim", "haze"]) == ["haze", "dim", "jpeg"]
    adopt(Own((), {}))
    assert dict(OPERATORS) == before and loaded() == [] and "clearfuse_plugin_dim" not in sys.modules


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("x = 1", "adds nothing: it must set an entry of one of OPERATORS,"),
        ("x = 1\n1 / 0", "ZeroDivisionError: division by zero (line 2)"),
        ("def", "SyntaxError: invalid syntax"),
        ("import sys\nsys.exit(3)", "SystemExit: 3 (line 2)"),
        (DIM.replace('OPERATORS["dim"]', 'OPERATORS["haze"]'), "operator 'haze': is there already, of clearfuse"),
        (DIM.replace('OPERATORS["dim"]', 'OPERATORS["HAZE"]'), "operator 'HAZE': is there already"),
        (DIM.replace('OPERATORS["dim"]', 'OPERATORS["dimmer"]'), "operator 'dimmer': its own name is 'dim'"),
        (DIM.replace('OPERATORS["dim"]', 'OPERATORS["a b"]'), "operator 'a b': a name is of letters"),
        (DIM + '\nOPERATORS["dim"]()', "missing 1 required keyword-only argument"),
        (
            DIM.replace('"exposure"', '"camera"'),
            "operator 'dim': its stage is 'camera': must be one of scene, optics, ",
        ),
        (DIM.replace("source:", "sauce:"), "operator 'dim': its class sets no source"),
        (DIM.replace("@dataclass(frozen=True)", ""), "operator 'dim': needs @dataclass(frozen=True) above its class"),
        (
            DIM.replace('severe(1.0, 0.5, "of all light", low=0.0, high=1.0)', "1.0"),
            "operator 'dim': its parameter factor has no range: declare it by severe",
        ),
        (
            METRIC % ("kind", "reference"),
            "metric 'Gap': its kind is 'reference': must be one of full-reference, fusion, ",
        ),
        (METRIC % ("direction", "less"), "metric 'Gap': its direction is 'less': must be one of higher, lower"),
    ],
)
def test_what_is_refused_leaves_nothing(tmp_path: Path, source: str, said: str) -> None:
    before = dict(OPERATORS)
    (tmp_path / "one.py").write_text(source)
    with pytest.raises(UserError) as refused:
        load_plugins(tmp_path / "one.py")
    assert said in str(refused.value) and "one.py" in str(refused.value) and "\n" not in str(refused.value)
    assert dict(OPERATORS) == before and not loaded() and "clearfuse_plugin_one" not in sys.modules


def test_an_operator_keeps_the_shape_of_its_image(tmp_path: Path) -> None:
    (tmp_path / "half.py").write_text(DIM.replace("return image *", "return image[1:] *"))
    load_plugins(tmp_path / "half.py")
    with pytest.raises(ValueError, match=r"dim made \(63, 96, 3\) of an image of \(64, 96, 3\): an operator keeps"):
        degrade(textured(1, 96, 64), "dim")


def test_an_operator_without_words_says_where_they_belong(dim: Path) -> None:
    load_plugins(dim)
    with pytest.raises(UserError, match=r"operator 'dim' has no words: write a dim\.toml \(docs/extending.md\)"):
        load_pool("dim")


def test_two_files_of_a_name_and_a_name_of_two_files(dim: Path, tmp_path: Path) -> None:
    load_plugins(dim)
    (tmp_path / "more").mkdir()
    (tmp_path / "more/dim.py").write_text(DIM + "\n")
    with pytest.raises(UserError, match=r"another plugin of the name dim.py is loaded"):
        load_plugins(tmp_path / "more/dim.py")
    (tmp_path / "again.py").write_text(DIM)
    with pytest.raises(UserError, match=r"operator 'dim': is there already, of dim.py"):
        load_plugins(tmp_path / "again.py")
    with pytest.raises(UserError, match=r"away.py: there is no such file"):
        load_plugins(tmp_path / "away.py")


def test_entry_points_of_an_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dimpack.py").write_text(DIM.replace('OPERATORS["dim"] = Dim', ""))
    info = tmp_path / "dimpack-3.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: dimpack\nVersion: 3.2\n")
    (info / "entry_points.txt").write_text("[clearfuse.operators]\ndim = dimpack:Dim\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        (plugin,) = load_plugins()
        assert OPERATORS["dim"].__module__ == "dimpack"
        assert (plugin.name, plugin.version, plugin.source) == ("dimpack", "3.2", None)
        given = own()
        adopt(Own((), {}))
        assert "dim" not in OPERATORS
        adopt(given)
        assert "dim" in OPERATORS
        (tmp_path / "dimpack.py").write_text("# another\n")
        adopt(Own((), {}))
        with pytest.raises(UserError, match="plugin dimpack: has other contents here"):
            adopt(given)
    finally:
        sys.modules.pop("dimpack", None)


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["processes", "ray"])
def test_workers_run_the_bytes_that_the_command_read(dim: Path, executor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the file has gone: the common object is of the plugin's class, and workers must know it to get it."""
    if executor == "ray":
        pytest.importorskip("ray")
        monkeypatch.setenv("RAY_ADDRESS", "local")
        monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
    load_plugins(dim)
    common = OPERATORS["dim"](factor=0.5)
    dim.unlink()
    done = list(run_tasks(name_and_value, common, range(4), workers=2, executor=executor))
    assert done == [("clearfuse_plugin_dim", number / 2) for number in range(4)]


def test_what_something_was_made_with_is_required(dim: Path) -> None:
    (plugin,) = load_plugins(dim)
    require_same([plugin.record()], "here")
    other = {**plugin.record(), "sha256": "0" * 64}
    assert require([other], "here") == [
        f"here: was made with the plugin dim.py 2.1 of sha256 000000000000, and {dim} has {plugin.sha256[:12]}"
    ]
    with pytest.raises(UserError, match=r"has [0-9a-f]{12}: name the same file$"):
        require_same([other], "here")
    adopt(Own((), {}))
    with pytest.raises(UserError, match=r"^here: needs the plugin dim.py 2.1 \(sha256 .*--plugin$"):
        require([plugin.record()], "here")
    with pytest.raises(UserError, match=r"^here: plugins: sha256"):
        require([{"name": "x.py", "sha256": "../../x"}], "here")


def test_a_model_folder_runs_nothing(tmp_path: Path, train: Callable[..., Ran]) -> None:
    """Not even a file beside it of the very name and hash."""
    from clearfuse.train.designs.presets import find_preset

    trap = tmp_path / "model/trap.py"
    trap.parent.mkdir()
    trap.write_text("raise SystemExit('it ran')")
    record = plugins._read(trap).record()
    design = find_preset("nafnet").design.to_json() | {"model": "trap", "plugins": [record]}
    (tmp_path / "model/pipeline.json").write_text(json.dumps(design))
    (tmp_path / "model/model.safetensors").write_bytes(b"")
    for name in ("a.png", "b.png"):
        save(tmp_path / name, textured(1))
    ran = train(
        "fuse", tmp_path / "a.png", tmp_path / "b.png", "-o", tmp_path / "o.png", "--task", "vif",
        "--model", tmp_path / "model",
    )  # fmt: skip
    assert ran.code == 2 and "needs the plugin trap.py" in ran.error and "it ran" not in ran.error


def test_tables_are_dicts_to_all_but_plugins() -> None:
    table: Table[int] = Table("number", {"one": 1})
    table |= {"one": 2}
    table.update(two=2)
    assert table == {"one": 2, "two": 2} and not table.added


def test_vignettes_corners_follow_the_law(synth: Callable[..., Ran], tmp_path: Path) -> None:
    """tan of the half angle at the middle of the right side is 1 for 90°: cos⁴ 45° = 1/4 there, 1 in the centre."""
    load_plugins(VIGNETTE)
    from clearfuse.synth.operators.base import Scene

    made = OPERATORS["vignette"](angle=90.0)(np.ones((401, 401, 3), np.float32), np.random.default_rng(0), Scene())
    assert made[200, 200] == pytest.approx(1) and made[200, 400] == pytest.approx(0.25, rel=0.01)
    assert made.dtype == np.float32
    adopt(Own((), {}))
    save(tmp_path / "in.png", textured(3))
    asked = ("degrade", tmp_path / "in.png", "--op", "vignette", "--severity", "1", "--out", tmp_path / "out")
    assert "unknown operator 'vignette'" in synth(*asked).error
    assert synth(*asked, "--plugin", VIGNETTE).code == 0
    assert "optics: The corners darken" in synth("list", "operators").out


def test_own_sets_and_prompts_lie_over_those_that_ship(synth: Callable[..., Ran], tmp_path: Path) -> None:
    manifest = ROOT / "examples/my_set.toml"
    for number in range(2):
        save(tmp_path / f"pics/train/visible/{number}.png", textured(number))
        save(tmp_path / f"pics/train/thermal/{number}.png", textured(9 + number, channels=1))
    (tmp_path / "words").mkdir()
    page = (ROOT / "prompts/gaussian_noise.toml").read_text().partition("[[phrase]]")[0]
    phrase = '[[phrase]]\nid = "mine"\nkind = "terse"\ntext = "no noise"\nclause = "no noise"\n'
    (tmp_path / "words/gaussian_noise.toml").write_text(page + phrase)
    drawn = "schema = 1\ntask = 'vif'\n[operators]\ngaussian_noise.target.b = 1\njpeg.target.a = 1\n"
    (tmp_path / "two.toml").write_text(drawn)
    asked = (
        "build", "--task", "vif", "--data", f"{manifest}={tmp_path / 'pics'}", "--n", "1", "--variants", "4",
        "--recipe", tmp_path / "two.toml", "--prompts", tmp_path / "words", "--executor", "serial",
    )  # fmt: skip
    ran = synth(*asked, "--out", tmp_path / "out")
    assert ran.code == 0, ran.error
    settings = json.loads((tmp_path / "out/dataset.json").read_text())["settings"]
    assert len(settings["data"]["my_set"]["manifest"]) == 64
    from clearfuse.synth.shards.sample import read_samples

    samples = [one for path in sorted((tmp_path / "out").glob("*.tar")) for one in read_samples(path)]
    by_op = {one.meta.steps[0].op: one.meta.prompt.templates[0] for one in samples}
    assert {one.meta.dataset for one in samples} == {"my_set"} and set(by_op) == {"gaussian_noise", "jpeg"}
    assert by_op["gaussian_noise"] == "mine" and by_op["jpeg"].startswith("jpeg-")
    (tmp_path / "words/hase.toml").write_text(page)
    assert "hase.toml: unknown operator 'hase': did you mean 'haze'?" in synth(*asked, "--out", tmp_path / "x").error
    copy = tmp_path / "msrs.toml"
    copy.write_text(manifest.read_text())
    ran = synth("build", "--task", "vif", "--data", f"{copy}={tmp_path}", "--dry-run")
    assert ran.code == 2 and "'msrs' is a data set that ships: rename the file" in ran.error
