"""Trains in children of one process, so that all of them share one import; what kills them is part of the order.

``python training.py``: reads lines of JSON, {"paths", "out", "workers", "kill"}, and answers each with the child's end.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clearfuse.synth.files import jsonstream

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "train"))
import torch
import torch._dynamo  # these are what a run imports late: here once for all children
import torch.utils.tensorboard
from tiny import SMALL

from clearfuse.synth.types import WorkIncomplete
from clearfuse.train.designs.presets import PRESETS
from clearfuse.train.runs.options import RunOptions
from clearfuse.train.runs.settings import Settings
from clearfuse.train.training import checkpoint, trainer
from clearfuse.train.training.trainer import fit
from clearfuse.train.weights import tensors

STEPS, EVERY = 12, 2
PRESET = os.environ.get("CLEARFUSE_TRAIN_PRESET", "small-fm")


def main() -> None:
    """Carry out all orders, one after the other."""
    PRESETS.update(SMALL)
    for line in sys.stdin:
        print(json.dumps(child(json.loads(line))), flush=True)


def child(order: dict[str, Any]) -> dict[str, Any]:
    """How the child of an order ended: its exit status as ``waitstatus`` has it, and what it said."""
    heard, says = os.pipe()
    number = os.fork()
    if number == 0:
        os.close(heard)
        signal.alarm(600)  # a child that hangs ends
        os._exit(work(order, says))
    os.close(says)
    with os.fdopen(heard) as file:
        said = file.read()
    return {"code": os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]), "said": said}


def work(order: dict[str, Any], says: int) -> int:
    """Train in this process."""
    kind, *more = order["kill"] or ["none"]
    KILLS[kind](*more)
    settings = Settings.of(PRESET, steps=STEPS, batch=2, crop=32, warmup=1)
    try:
        run_options = RunOptions(workers=order["workers"], validate_every=6, checkpoint_every=EVERY)
        fit(order["paths"], order["out"], settings, run_options=run_options, device="cpu")
    except WorkIncomplete as error:
        os.write(says, str(error).encode())
        return 1
    return 0


def at_step(number: int, after: float, how: str) -> None:
    """A signal some seconds after a step begins."""
    step = trainer._Run._step

    def stepping(run: Any, *more: Any) -> float:
        if run.state.step == number:
            threading.Timer(after, os.kill, (os.getpid(), getattr(signal, how))).start()
        return step(run, *more)

    trainer._Run._step = stepping


def in_checkpoint(number: int) -> None:
    """A kill before the n-th call, in the second checkpoint, of all that decides what is on the disk."""
    calls = [0]
    begun = [0]

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*args: Any, **more: Any) -> Any:
            if begun[0] == 2:
                if calls[0] == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                calls[0] += 1
            return call(*args, **more)

        return counting

    save = checkpoint.save

    def saving(*args: Any) -> Any:
        begun[0] += 1
        return save(*args)

    checkpoint.save = saving
    checkpoint.sync_folder = counted(checkpoint.sync_folder)
    tensors.save_file = counted(tensors.save_file)
    jsonstream.write_json = counted(jsonstream.write_json)
    Path.rename = counted(Path.rename)
    shutil.rmtree = counted(shutil.rmtree)


def full_disk() -> None:
    """After the first checkpoint no file may grow beyond 64 kB."""
    save = checkpoint.save

    def saving(*args: Any) -> Any:
        path = save(*args)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, resource.RLIM_INFINITY))
        return path

    checkpoint.save = saving


KILLS: dict[str, Callable[..., None]] = {
    "none": lambda: None,
    "step": at_step,
    "checkpoint": in_checkpoint,
    "full": full_disk,
}

if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
