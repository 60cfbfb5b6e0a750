"""The modules in ``examples/``, as a user runs them: an operator, a metric, a model, a loss through every command."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from clearfuse import OnTheFly, open_shards
from clearfuse.synth.builder.run import build
from clearfuse.synth.plugins import Own, adopt, load_plugins
from clearfuse.synth.samples.recipe import load_recipe
from clearfuse.synth.shards.sample import read_samples
from clearfuse.train.metrics import METRICS
from conftest import ROOT, Ran, save, textured

EXAMPLES = ROOT / "examples"


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    adopt(Own((), {}))


def with_plugins(*names: str) -> list[str]:
    """The options."""
    return [part for name in names for part in ("--plugin", str(EXAMPLES / f"{name}.py"))]


def test_colourfulness_of_two_colours() -> None:
    """Half pure red, half pure blue: rg is 255 and 0, yb 127.5 and −255; eq. 7 by hand."""
    load_plugins(EXAMPLES / "colourfulness.py")
    image = np.zeros((4, 4, 3))
    image[:2, :, 0] = image[2:, :, 2] = 255.0
    spread, mean = np.hypot(127.5, 191.25), np.hypot(127.5, -63.75)
    assert METRICS["Colourfulness"].function(image) == pytest.approx(spread + 0.3 * mean)
    assert METRICS["Colourfulness"].function(np.full((4, 4, 1), 90.0)) == 0


@pytest.mark.slow
def test_an_operator_a_metric_and_a_model_go_the_whole_way(
    synth: Callable[..., Ran], train: Callable[..., Ran], tmp_path: Path
) -> None:
    shards, run = tmp_path / "shards", tmp_path / "run"

    def alone(command: Callable[..., Ran], *line: object) -> Ran:
        adopt(Own((), {}))  # a command begins with what its own line names
        return command(*line)

    operator, model = with_plugins("vignette"), with_plugins("three_layers", "edge_loss")
    drawn = ["--recipe", EXAMPLES / "vignette.toml", "--prompts", EXAMPLES / "prompts"]
    made = ["build", "--task", "vif", "--limit", 4, "--workers", 2, "--codec", "pnm", "--out", shards]
    ran = alone(synth, *made, *drawn, *operator)
    assert ran.code == 0, ran.error
    record = json.loads((shards / "dataset.json").read_text())["settings"]["plugins"]
    assert [(one["name"], one["version"]) for one in record] == [("vignette.py", "1.0")]
    assert f"`vignette.py` (sha256 `{record[0]['sha256'][:12]}`)" in (shards / "README.md").read_text()

    assert alone(synth, "verify", "--replay", shards, "--workers", 1, *operator).code == 0
    ran = alone(synth, "verify", shards, "--workers", 1)
    assert ran.code == 2 and "needs the plugin vignette.py 1.0 (sha256 " in ran.error
    (tmp_path / "vignette.py").write_text((EXAMPLES / "vignette.py").read_text() + "\n# another\n")
    ran = alone(synth, "verify", "--replay", shards, "--workers", 1, "--plugin", tmp_path / "vignette.py")
    assert ran.code == 2 and "name the same file" in ran.error

    fit = [
        "fit", shards, "--preset", "three-layers", "--steps", 2, "--batch", 2, "--crop", 32, "--device", "cpu",
        "--workers", 1, "--tracker", "none", "--set", "objective.pixel=0.1", "--set", "objective.pixels={edges = 1.0}",
        "--out", run,
    ]  # fmt: skip
    assert "unknown preset 'three-layers'" in alone(train, *fit).error
    ran = alone(train, *fit, *model)
    assert ran.code == 0, ran.error
    named = [one["name"] for one in json.loads((run / "pipeline.json").read_text())["plugins"]]
    assert named == ["edge_loss.py", "three_layers.py"]
    assert [one["name"] for one in json.loads((run / "run.json").read_text())["plugins"]] == named

    for number, name in enumerate(("a.png", "b.png")):
        save(tmp_path / name, textured(number))
    fuse = ["fuse", tmp_path / "a.png", tmp_path / "b.png", "-o", tmp_path / "o.png", "--task", "vif", "--model", run]
    ran = alone(train, *fuse)
    assert ran.code == 2 and "needs the plugin edge_loss.py 1.0" in ran.error and ran.err.count("\n") == 1
    (tmp_path / "edge_loss.py").write_text((EXAMPLES / "edge_loss.py").read_text() + "\n# another\n")
    ran = alone(train, *fuse, "--plugin", tmp_path / "edge_loss.py", *with_plugins("three_layers"))
    assert ran.code == 0 and ran.err.count("was made with the plugin edge_loss.py 1.0") == 1

    scored = ["eval", shards, "--model", run, "--metrics", "PSNR,colourfulness", "--out", tmp_path / "report"]
    ran = alone(train, *scored, *model, *with_plugins("colourfulness"))
    assert ran.code == 2 and "vif-train-000000.tar: needs the plugin vignette.py" in ran.error
    ran = alone(train, *scored, "--workers", 2, *model, *operator, *with_plugins("colourfulness"), "--json")
    assert ran.code == 0, ran.error
    report = json.loads(ran.out)
    assert {one["name"] for one in report["plugins"]} >= {"vignette.py", "colourfulness.py", "three_layers.py"}
    assert report["groups"]["task"]["vif"]["methods"]["run"]["Colourfulness"]["count"] == 4


@pytest.fixture(scope="module")
def lean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four built-in scenes, lean and full, and one shard a pair of them."""
    root = tmp_path_factory.mktemp("lean")
    common = {"limit": 4, "shard_size": 2, "codec": "pnm", "executor": "serial"}
    build("vif", out=str(root / "full"), **common)  # type: ignore[arg-type]
    build("vif", out=str(root / "lean"), lean=True, **common)  # type: ignore[arg-type]
    return root


@pytest.mark.slow
def test_open_shards_gives_what_is_stored(lean: Path) -> None:
    from torch.utils.data import DataLoader, IterableDataset

    stored = {one.key: one for path in sorted((lean / "full").glob("*.tar")) for one in read_samples(path)}
    shards = open_shards(str(lean / "full"))
    found = list(shards)
    assert isinstance(shards, IterableDataset) and [one["__key__"] for one in found] == sorted(stored)
    for one in found:
        sample = stored[one["__key__"]]
        assert one["meta"] == sample.meta and one["prompt"] == sample.prompt
        assert all(np.array_equal(one[name], image) for name, image in sample.images.items())
        assert one["depth"].shape == sample.images["a"].shape[:2] and one["depth"].dtype == np.float32
    loader = DataLoader(open_shards(str(lean / "full"), tensors=True, names=["a", "b"]), batch_size=None, num_workers=2)
    tensors = {one["__key__"]: one for one in loader}
    assert set(tensors) == set(stored) and {tuple(one["b"].shape[:1]) for one in tensors.values()} == {(3,)}
    key = next(iter(stored))
    assert "gt" not in tensors[key] and float(tensors[key]["a"].max()) <= 1
    assert np.array_equal(tensors[key]["a"].mul(255).round().byte().permute(1, 2, 0), stored[key].images["a"])
    orders = {
        tuple(one["__key__"] for one in open_shards(str(lean / "full"), names=["a"], shuffle=4, seed=seed))
        for seed in range(6)
    }
    assert len(orders) > 1 and all(sorted(order) == sorted(stored) for order in orders)


@pytest.mark.slow
def test_on_the_fly_is_a_data_set_of_the_full_build(lean: Path) -> None:
    degrade = OnTheFly(load_recipe("vif"))
    full = list(open_shards(str(lean / "full")))
    for one, same in zip(full, degrade.dataset(str(lean / "lean"), tensors=False), strict=True):
        assert same["meta"] == one["meta"] and np.array_equal(same["a"], one["a"]) and same["prompt"] == one["prompt"]
    later = list(degrade.dataset(str(lean / "lean"), tensors=False, epoch=1, names=["a", "gt"]))
    assert [one["meta"].steps for one in later] != [one["meta"].steps for one in full]
    assert all(np.array_equal(one["gt"], same["gt"]) for one, same in zip(full, later, strict=True))


@pytest.mark.slow
def test_the_loader_and_the_other_method(lean: Path, tmp_path: Path) -> None:
    module = runpy.run_path(str(EXAMPLES / "own_loader.py"))
    assert 0 < module["mean_error"]([str(lean / "full")]) < 0.5
    report = runpy.run_path(str(EXAMPLES / "other_method.py"))["compare"](str(lean / "full"), tmp_path / "out")
    assert "| Brighter |" in (report / "report.md").read_text()


@pytest.mark.slow
def test_a_build_on_ray_is_the_build_of_one_process(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    make = runpy.run_path(str(EXAMPLES / "build_on_ray.py"))["build"]
    for executor in ("ray", "serial"):
        make(str(tmp_path / executor), executor, None if executor == "serial" else 2, limit=2)
    one, other = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("ray", "serial"))
    assert one == other and any(name.endswith(".tar") for name in one)
