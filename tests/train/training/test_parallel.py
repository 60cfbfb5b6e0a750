"""Several ranks: the same numbers as one with the whole batch, replicated or with sharded weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from made import made_shards
from torch import nn

from clearfuse.synth.types import UserError
from clearfuse.train.training.parallel import blocks_of, recompute
from clearfuse.train.training.ranks import Ranks, join_ranks

SCRIPT = """
import gc, sys
sys.path[:0] = [{tests!r}, {here!r}]
from dataclasses import replace
from tiny import SMALL
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from clearfuse.train.designs.presets import PRESETS
from clearfuse.train.runs.folder import Settings
from clearfuse.train.runs.options import RunOptions
from clearfuse.train.training.trainer import fit
PRESETS.update(SMALL)
leave = dist.destroy_process_group
def left():
    # It would hold the group last, and end gloo's thread with the GIL in hand, for which that thread may wait.
    assert not any(type(one) is DistributedDataParallel for one in gc.get_objects()), "DDP outlives its group"
    leave()
dist.destroy_process_group = left
if __name__ == "__main__":
    out, preset, steps, sharded, recompute, precision = sys.argv[1:]
    settings = Settings.of(preset, batch=4, steps=10, warmup=0, lr=2e-4)
    # Cautious AdamW moves by signs, and where a gradient is rounding alone, rounding decides them.
    settings = settings.model_copy(update=dict(recompute=recompute == "True", precision=precision, cautious=False))
    run_options = RunOptions(validate_every=5, checkpoint_every=5, sharded=sharded == "True")
    if steps == "5":
        import clearfuse.train.training.trainer as trainer
        class Enough(trainer.Stop):
            steps = 0
            def _requested(self):
                Enough.steps += 1
                return 15 if Enough.steps == 5 else 0
            requested = property(_requested, lambda self, value: None)
        trainer.Stop = Enough
    fit({paths!r}, out, settings, run_options=run_options)
"""


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_shards(tmp_path_factory.mktemp("made"))


def launch(
    shards: Path, out: Path, world: int, preset: str = "small-fm", *, stops: bool = False, sharded: bool = False,
    recompute: bool = False, precision: str = "auto",
) -> None:  # fmt: skip
    here = Path(__file__).resolve().parent
    script = out.parent / "script.py"
    paths = [str(shards / "vif"), str(shards / "mef")]
    script.write_text(SCRIPT.format(tests=str(here.parents[1]), here=str(here.parent), paths=paths))
    command = [sys.executable, str(script)]
    if world > 1:
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world)]
        command = [sys.executable, *launcher, str(script)]
    arguments = [str(out), preset, "5" if stops else "10", str(sharded), str(recompute), precision]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, env=environment, timeout=900)
    assert done.returncode == 0, done.stderr


def lines(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


LOSSES, COUNTS = ("loss", "error", "PSNR"), ("balance", "least_load", "most_load")


def differences(one: Path, other: Path, bar: float, names: tuple[str, ...]) -> list[tuple[float, str]]:
    """The steps and values in which two runs differ by more than ``bar``."""
    a, b = lines(one), lines(other)
    assert [(line["step"], line["kind"]) for line in a] == [(line["step"], line["kind"]) for line in b]
    both = [(x["step"], name, x[name], y[name]) for x, y in zip(a, b, strict=True) for name in names if name in x]
    return [(step, name) for step, name, x, y in both if x != pytest.approx(y, rel=bar, abs=bar)]


@pytest.fixture(scope="module")
def one(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in one process."""
    out = tmp_path_factory.mktemp("alone") / "one"
    launch(shards, out, 1)
    assert len(lines(out)) >= 10
    return out


@pytest.mark.slow
def test_two_processes_are_one_with_the_whole_batch(shards: Path, one: Path, tmp_path: Path) -> None:
    launch(shards, tmp_path / "two", 2)
    assert differences(one, tmp_path / "two", 1e-5, LOSSES + COUNTS) == []
    assert all(step > 1 for step, _ in differences(one, tmp_path / "two", 1e-6, LOSSES + COUNTS))


@pytest.mark.slow
def test_two_processes_of_a_learned_prior_and_routed_images_are_one(shards: Path, tmp_path: Path) -> None:
    """Pairs of two tasks, of which one is told by both pictures: a process may have either."""
    for name, world in (("one", 1), ("two", 2)):
        launch(shards, tmp_path / name, world, "small-mdaif")
    assert differences(tmp_path / "one", tmp_path / "two", 1e-5, LOSSES + COUNTS) == []


@pytest.mark.slow
def test_weights_shared_out_are_the_same_run_and_go_on_in_one_process(shards: Path, one: Path, tmp_path: Path) -> None:
    launch(shards, tmp_path / "two", 2, sharded=True, recompute=True, stops=True)
    files = sorted(path.name for path in (tmp_path / "two/checkpoints/step-0000005").iterdir())
    assert files == ["rank-000.safetensors", "rank-001.safetensors", "state.json"]
    launch(shards, tmp_path / "two", 1)
    # Gradients are summed in another order, AdamW divides them by small numbers, and a token may change its expert.
    assert differences(one, tmp_path / "two", 1e-3, LOSSES) == []


@pytest.mark.slow
def test_weights_shared_out_compute_in_bf16_what_copies_do(shards: Path, tmp_path: Path) -> None:
    """Times, residual stream, router and residual scales stay in fp32, under FSDP2 as under DDP."""
    for name, sharded in (("copied", False), ("shared", True)):
        launch(shards, tmp_path / name, 2, sharded=sharded, precision="bf16")
    assert differences(tmp_path / "copied", tmp_path / "shared", 1e-3, LOSSES) == []
    first = [lines(tmp_path / name)[0] for name in ("copied", "shared")]
    assert first[0]["loss"] == pytest.approx(first[1]["loss"], rel=1e-6)


def test_recomputing_gives_the_same_gradients() -> None:
    class Layer(nn.Module):
        calls = 0

        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Sequential(nn.Linear(3, 3), nn.Tanh())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            Layer.calls += 1
            return self.inner(x)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(Layer() for _ in range(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for block in self.blocks:
                x = block(x)
            return x

    net, x = Net(), torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    assert blocks_of(net) == list(net.blocks)
    net(x).square().sum().backward()
    wanted = [p.grad.clone() for p in net.parameters() if p.grad is not None]
    recompute(net)
    net.zero_grad()
    Layer.calls = 0
    net(x).square().sum().backward()
    assert Layer.calls == 4
    assert all(torch.equal(p.grad, g) for p, g in zip(net.parameters(), wanted, strict=True) if p.grad is not None)
    net.eval()(x)
    assert Layer.calls == 6


def test_alone_it_is_all_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with join_ranks("cpu") as ranks:
        assert ranks == Ranks(torch.device("cpu")) and ranks.main and str(ranks) == "cpu"
        assert ranks.gather({"a": 1}) == [{"a": 1}] and ranks.share(range(4)) == range(4)
        assert not ranks.any(False) and ranks.any(True)


def test_half_a_launcher_s_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with (
        pytest.raises(UserError, match="RANK is '': torchrun or accelerate launch set it to a number"),
        join_ranks("cpu"),
    ):
        pass
