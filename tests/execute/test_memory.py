"""Available memory, also in a container."""

from __future__ import annotations

from pathlib import Path

import pytest

from clearfuse.synth.execute.memory import memory_limit


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
