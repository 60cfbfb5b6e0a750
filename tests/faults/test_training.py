"""Faults of a training run: kills at any moment, in a checkpoint too, signals, a full disk. It goes on bit for bit.

One kill for each number of loader workers, of a small network; ``CLEARFUSE_TRAIN_KILLS=5`` for more,
``CLEARFUSE_TRAIN_PRESET=tiny-fm`` for another.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from kills import make_pairs
from training import EVERY, STEPS

from clearfuse.synth.builder.run import build
from clearfuse.synth.seeds import generator
from clearfuse.train.training import checkpoint
from clearfuse.train.weights.tensors import read_tensors

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("CLEARFUSE_TRAIN_KILLS", "1"))


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight pairs, two variants."""
    root = tmp_path_factory.mktemp("shards")
    build(
        "vif", data=[f"msrs={make_pairs(root / 'MSRS')}"], out=str(root / "vif"), variants=2, n="1", executor="serial"
    )
    return root / "vif"


Train = Callable[[Sequence[dict[str, Any]]], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def train(shards: Path) -> Iterator[Train]:
    """Carries out orders, each in a child of one process, and says how the children ended."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(Path(__file__).parent / "training.py")]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    with subprocess.Popen(command, env=environment, **pipes) as process:

        def carry_out(orders: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
            assert process.stdin is not None and process.stdout is not None
            ends = []
            for order in orders:
                print(json.dumps({"paths": [str(shards)], "workers": 0, "kill": None} | order), file=process.stdin)
                ends.append(json.loads(process.stdout.readline()))
            return ends

        yield carry_out


@pytest.fixture(scope="module")
def whole(train: Train, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupts."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert train([{"out": str(out)}]) == [{"code": 0, "said": ""}]
    return out


def same(one: Path, other: Path) -> None:
    """The loss curve, the model and the last checkpoint, bit for bit; nothing half made."""
    assert (one / "log.jsonl").read_bytes() == (other / "log.jsonl").read_bytes()
    for name in ("model.safetensors", f"checkpoints/step-{STEPS:07d}/rank-000.safetensors"):
        a, b = (read_tensors(run / name)[0] for run in (one, other))
        assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a), name
    assert not list(other.rglob(".tmp-*"))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_killed_at_random_steps_is_the_run(train: Train, whole: Path, tmp_path: Path, workers: int) -> None:
    rng, out = generator(2026 + workers), str(tmp_path / "run")
    steps = sorted(rng.choice(STEPS, KILLS, replace=False).tolist())
    orders = [{"out": out, "kill": ["step", step, float(rng.uniform(0, 0.1)), "SIGKILL"]} for step in steps]
    ends = train([order | {"workers": workers} for order in [*orders, {"out": out}]])
    assert [end["code"] for end in ends].count(-9) >= len(orders) - 1 and ends[-1]["code"] == 0
    same(whole, tmp_path / "run")


def test_a_kill_in_a_checkpoint_leaves_the_one_before(train: Train, whole: Path, tmp_path: Path) -> None:
    """At each call that changes what is on the disk: a run apart for each, and one that is killed at all of them."""
    out = str(tmp_path / "run")
    orders: list[dict[str, Any]] = [{"out": out, "kill": ["checkpoint", number]} for number in range(6)]
    ends = train([*orders, {"out": out}])
    assert [end["code"] for end in ends].count(-9) >= 4 and ends[-1]["code"] == 0
    same(whole, tmp_path / "run")


def test_sigterm_saves_and_is_a_good_end(train: Train, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    ends = train([{"out": str(out), "kill": ["step", 4, 0.0, "SIGTERM"]}])
    assert ends == [{"code": 0, "said": ""}]
    assert EVERY * 2 < int(checkpoint.found(out / "checkpoints")[-1].name[-7:]) < STEPS
    assert train([{"out": str(out)}])[0]["code"] == 0
    same(whole, out)


def test_a_full_disk_stops_with_the_last_checkpoint_whole(train: Train, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    (end,) = train([{"out": str(out), "kill": ["full"]}])
    assert end["code"] == 1 and "can't be written: " in end["said"] and "File too large" in end["said"], end
    assert [path.name for path in (out / "checkpoints").iterdir()] == [f"step-{EVERY:07d}"]
    assert train([{"out": str(out)}])[0]["code"] == 0
    same(whole, out)
