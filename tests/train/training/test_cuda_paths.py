"""Every preset's CUDA branches, on fake tensors: see ``fakecuda``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from clearfuse.train.designs.presets import PRESETS


@pytest.mark.slow
def test_every_preset_trains_validates_and_fuses_on_cuda_tensors() -> None:
    """In a process of its own: torch is patched there."""
    script = Path(__file__).parents[1] / "fakecuda.py"
    ran = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, f"{ran.stdout}{ran.stderr[-2000:]}"
    assert [line.split()[0] for line in ran.stdout.splitlines()] == list(PRESETS)
