"""``--dry-run``: what a build would take, from samples made and thrown away; and plans too large to hold."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clearfuse.synth import console
from clearfuse.synth.builder.estimate import Estimate, estimate
from clearfuse.synth.builder.options import Options
from clearfuse.synth.builder.run import build, plan_build
from clearfuse.synth.types import UserError
from conftest import Ran, folder_bytes, save, textured

pytestmark = pytest.mark.slow

Synth = Callable[..., Ran]


def planned(msrs: Path, **options: Any) -> Any:
    """A build of the made MSRS folder, planned."""
    return plan_build(Options(task="vif", data=(f"msrs={msrs}",), n="2", **options))[0]


@pytest.mark.parametrize("variants", [1, 3])
def test_bytes_are_near_what_the_build_takes(tmp_path: Path, msrs: Path, variants: int) -> None:
    found = estimate(planned(msrs, variants=variants), 2)
    assert isinstance(found, Estimate) and found.workers == 2 and 1 <= found.measured <= 6
    assert (found.pair_seconds > 0) == (variants > 1) and found.seconds > 0
    out = tmp_path / "out"
    build("vif", out=str(out), data=[f"msrs={msrs}"], n="2", variants=variants, executor="serial")
    assert found.bytes == pytest.approx(sum(p.stat().st_size for p in out.glob("*.tar")), rel=0.3)


def test_nothing_is_written_and_json_has_it(synth: Synth, tmp_path: Path, msrs: Path) -> None:
    before = folder_bytes(tmp_path / "MSRS/train/vi")
    args = ["build", "--task", "vif", "--data", f"msrs={msrs}", "--limit", "2", "--dry-run", "--out", tmp_path / "o"]
    data = json.loads(synth(*args, "--json").out)
    assert set(data["estimate"]) == {
        *("bytes", "seconds", "workers", "measured", "sample_bytes", "sample_seconds", "pair_seconds"),
    }
    lines = synth(*args, "--workers", "1").out.splitlines()
    assert lines[0] == f"would build 2 samples in 1 shard in {tmp_path / 'o'}; nothing written"
    assert lines[1].startswith("estimate from 2 samples made here: ") and lines[1].endswith(" with 1 worker")
    assert not (tmp_path / "o").exists() and folder_bytes(tmp_path / "MSRS/train/vi") == before


def test_pairs_that_make_no_sample_give_no_estimate(synth: Synth, tmp_path: Path) -> None:
    for name in ("a", "b"):
        save(tmp_path / name / "x.png", textured(1)).write_bytes(b"no picture")
    data = f"folder={tmp_path / 'a'},{tmp_path / 'b'}"
    for split in ("train", "val", "test"):
        ran = synth("build", "--task", "vif", "--data", data, "--split", split, "--dry-run")
        if ran.code == 0:
            assert "no estimate: no pair that was tried makes a sample: folder/x: x.png: " in ran.out
            break
    else:
        pytest.fail("in no split")


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs /proc to see the memory")
def test_ten_million_samples_are_planned_in_a_moment_and_not_held(tmp_path: Path, msrs: Path) -> None:
    # A process's own high water mark: getrusage's would count what the parent held when it forked.
    code = (
        "import sys; from clearfuse.synth.cli.app import main\n"
        "try: main()\n"
        "finally: print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0], file=sys.stderr)"
    )
    args = ["build", "--task", "vif", "--limit", "40", "--variants", "250000", "--dry-run", "--json"]
    command = [sys.executable, "-c", code, *args]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, cwd=tmp_path)
    assert json.loads(ran.stdout)["samples"] == 10_000_000
    assert int(ran.stderr.split()[-1]) < 500 * 1024


def test_a_plan_whose_names_would_not_sort_is_refused(msrs: Path) -> None:
    with pytest.raises(UserError, match=r"--shard-size 1 --variants 200000: 1200000 shards in train, at most 1000000"):
        planned(msrs, variants=200000, shard_size=1)
    with pytest.raises(UserError, match=r"--shard-size 1000000000: 2 shards of it number samples past 1000000000"):
        planned(msrs, variants=2, shard_size=10**9)


def test_shards_are_found_by_name_and_counted_without_their_plan(msrs: Path) -> None:
    one = planned(msrs, split="train,test", variants=3, shard_size=4)
    assert one.shard_count == 9 and one.sample_count == 24
    for shard in range(9):
        assert one.find(one.path(shard).name) == shard == one.find(one.path(shard).with_suffix(".json").name)
        assert one.shard_samples(shard) == len(one.task(shard).samples)
    for name in ("vif-train-000006.tar", "vif-val-000000.tar", "mef-train-000000.tar", "notes.json"):
        assert one.find(name) is None
    assert len(one._last) == 1


@pytest.mark.parametrize(
    ("size", "said"), [(12, "12 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (42e6, "42 MB"), (123.4e12, "123 TB")]
)
def test_sizes(size: float, said: str) -> None:
    assert console.format_bytes(size) == said


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.2, "1 s"), (89, "89 s"), (600, "10 min"), (9000, "2.5 h"), (10**6, "12 days")]
)
def test_times(seconds: float, said: str) -> None:
    assert console.format_duration(seconds) == said
