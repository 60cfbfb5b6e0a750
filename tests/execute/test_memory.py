"""Available memory, also in a container."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from clearfuse.synth.execute.memory import memory_limit

FAULTS = """
import resource, sys
from clearfuse.synth.execute.memory import keep_freed_memory

if sys.argv[1] != "never" and not keep_freed_memory(large=sys.argv[1] == "large"):
    sys.exit(3)
for _ in range(2):
    bytearray(64 << 20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(8):
    bytearray(b"1") * (64 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.slow
def test_freed_memory_is_kept_as_asked() -> None:
    """Page faults of eight blocks of 64 MiB in pages of 4 kB: requested anew each time, or kept."""
    found = {}
    for way in ("small", "large"):
        ran = subprocess.run(
            [sys.executable, "-c", FAULTS, way], capture_output=True, text=True, timeout=60, check=False
        )
        if ran.returncode == 3:
            pytest.skip("the C library is not glibc")
        found[way] = int(ran.stdout)
    assert found["small"] > 8 * 10_000 and found["large"] < 20_000


@pytest.mark.parametrize(("said", "expected"), [("max", None), ("1073741824", 1 << 30), (str(1 << 62), None)])
def test_a_container_s_limit_counts_where_it_is_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, expected: int | None
) -> None:
    monkeypatch.setattr("clearfuse.synth.execute.memory.CGROUPS", ())
    machine = memory_limit()
    assert machine > 1 << 30
    (tmp_path / "memory.max").write_text(f"{said}\n")
    monkeypatch.setattr("clearfuse.synth.execute.memory.CGROUPS", (tmp_path / "memory.max", tmp_path / "absent"))
    assert memory_limit() == (expected or machine)
