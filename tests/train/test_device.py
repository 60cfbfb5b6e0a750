"""The device to compute on."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest
import torch

from clearfuse.synth.types import UserError
from clearfuse.train.device import find_device


def test_a_device_by_name_or_the_machines_own() -> None:
    assert find_device("cpu") == torch.device("cpu")
    assert find_device().type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "meta:x"])
def test_a_device_that_is_not_there_is_one_line(name: str) -> None:
    with pytest.raises(UserError, match=f"--device {name}: .") as told:
        find_device(name)
    assert "\n" not in str(told.value)


FAULTS = """
import resource, sys
import torch
from clearfuse.train.device import keep_freed_memory

keep_freed_memory(torch.device(sys.argv[1]))
for _ in range(2):
    bytearray(64 << 20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(8):
    bytearray(b"1") * (64 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.slow
def test_freed_memory_is_kept_on_a_cpu_alone() -> None:
    """Blocks of 64 MiB, eight times, in pages of 4 kB: asked for anew each time, or kept."""
    if not hasattr(ctypes.CDLL(None), "mallopt"):
        pytest.skip("the C library is not glibc")
    found: dict[str, int] = {}
    for device in ("cuda", "cpu"):
        command = [sys.executable, "-c", FAULTS, device]
        found[device] = int(subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout)
    assert found["cuda"] > 8 * 10_000 and found["cpu"] < 20_000
