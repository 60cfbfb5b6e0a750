"""Every reader of outside data on mutated and generated inputs, from fixed seeds.

200 of each here; ``CLEARFUSE_FUZZ=10000`` for more, ``CLEARFUSE_FUZZ=7341-7342`` for those from one number on.
What fails is kept beside the other files of the test, and named with its number.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path

import pytest

from clearfuse.synth.seeds import generator, seed_of
from faults.fuzz.guard import Fails, attempt
from faults.fuzz.targets import TARGETS

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

FIRST, _, LAST = os.environ.get("CLEARFUSE_FUZZ", "0-200").rpartition("-")


@pytest.mark.parametrize("name", TARGETS)
def test_every_input_is_used_or_refused_by_one_line(name: str, tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    target = TARGETS[name](tmp_path / "made")
    counts: Counter[str] = Counter()
    failed: list[str] = []
    for number in range(int(FIRST or 0), int(LAST)):
        work = tmp_path / "work"
        work.mkdir()
        file, data = target.make(generator(seed_of("fuzz", name, number)))
        (work / file).write_bytes(data)
        try:
            attempt(lambda work=work, file=file: target.use(work / file), file, counts)
        except Fails as error:
            counts["failed"] += 1
            kept = tmp_path / f"failed-{number}-{file}"
            (work / file).replace(kept)
            failed.append(f"{number}: {error} ({kept})")
        shutil.rmtree(work)
    print(f"{name}: {dict(counts)}")
    if failed:
        pytest.fail(f"{len(failed)} of {name}:\n" + "\n".join(failed[:40]), pytrace=False)
