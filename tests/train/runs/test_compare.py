"""``train compare``: reading runs, the table, the page, and error messages."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from clearfuse.synth.types import UserError
from clearfuse.train.runs.compare import Curve, differing, read_runs, to_json, to_text
from clearfuse.train.runs.page import POINTS, page, points
from conftest import Ran

pytestmark = pytest.mark.slow

Train = Callable[..., Ran]


def made(folder: Path, lr: float = 0.1, steps: int = 100, done: int = 60, bytes_: int = 10, **more: Any) -> Path:
    """The log of a run whose loss is lr / step, with a validation every 20 steps."""
    folder.mkdir(parents=True)
    settings = {"preset": "tiny-fm", "steps": steps, "lr": lr, **more}
    record = {"schema": 1, "settings": settings, "degrade": None, "shards": [[0, "vif-train-000000.tar", bytes_]]}
    (folder / "run.json").write_text(json.dumps(record))
    with (folder / "log.jsonl").open("w") as log, (folder / "speed.jsonl").open("w") as speed:
        for step in range(1, done + 1):
            loss = lr / step
            line = {"step": step, "kind": "train", "loss": loss, "pixel": 2 * loss, "lr": lr, "grad_norm": 1.0}
            log.write(json.dumps({**line, "least_load": 0.1}) + "\n")
            speed.write(json.dumps({"step": step, "samples_per_second": 50.0 + step % 3, "data_wait": 0.01}) + "\n")
            if step % 20 == 0:
                seen = {"loss": loss, "PSNR": 20 + step / 10, "SSIM": 0.5, "PSNR/haze": 21.0, "samples/haze": 9}
                seen |= {"PSNR/vif": 22.0, "samples/vif": 12, "entropy/layer-0": 0.9, "entropy/layer-1": 0.25}
                log.write(json.dumps({"step": step, "kind": "validation", **seen}) + "\n")
        log.write('{"step": 61, "kind": "tr')  # it goes on just now
    return folder


def test_the_table_says_where_runs_stand(tmp_path: Path) -> None:
    made(tmp_path / "one")
    made(tmp_path / "two", lr=0.2, done=20, cautious=False)
    runs = read_runs([str(tmp_path), str(tmp_path / "one")])
    assert [run.name for run in runs] == ["one", "two"]
    first = to_json(runs)["runs"][0]
    assert first["loss"] == pytest.approx(sum(0.1 / step for step in range(11, 61)) / 50)
    expected = {"step": 60, "steps": 100, "validation": 0.1 / 60, "validation_step": 60, "PSNR": 26.0}
    assert {key: first[key] for key in expected} == expected and first["samples_per_second"] == 51.0
    assert differing(runs) == {"lr": [0.1, 0.2], "cautious": [None, False]}
    lines = to_text(runs).splitlines()
    assert lines[0].split() == ["run", "steps", "last", "loss", "best", "validation", "PSNR", "SSIM", "samples/s"]
    assert lines[2].split() == [
        "two",
        "20",
        "of",
        "100",
        *lines[2].split()[4:5],
        "0.01",
        "at",
        "20",
        "22.00",
        "0.500",
        "51",
    ]
    assert lines[4].split() == ["setting", "one", "two"] and lines[6].split() == ["cautious", "-", "false"]


def test_other_shards_differ_and_names_that_clash_are_paths(tmp_path: Path) -> None:
    runs = read_runs([str(made(tmp_path / "x/run")), str(made(tmp_path / "y/run", bytes_=11))])
    assert [run.name for run in runs] == [str(tmp_path / "x/run"), str(tmp_path / "y/run")]
    said = differing(runs)["shards"]
    assert said[0] != said[1] and said[0].endswith(": 1 shard, 10 bytes")


def test_the_size_of_shards_is_their_bytes(tmp_path: Path) -> None:
    """Not the hash behind it, of runs that record one."""
    folder = made(tmp_path / "run")
    record = json.loads((folder / "run.json").read_text())
    record["shards"] = [[0, "vif-train-000000.tar", 2000, "0" * 64, None]]
    (folder / "run.json").write_text(json.dumps(record))
    runs = read_runs([str(folder), str(made(tmp_path / "other"))])
    assert [said.partition(": ")[2] for said in differing(runs)["shards"]] == ["1 shard, 2 kB", "1 shard, 10 bytes"]


def test_a_run_without_speed_or_validation_has_dashes(tmp_path: Path) -> None:
    run = made(tmp_path / "one", done=10)
    (run / "speed.jsonl").unlink()
    (row,) = to_text(read_runs([str(run)])).splitlines()[1:]
    assert row.split()[-4:] == ["-", "-", "-", "-"]
    assert "Speed" not in page(read_runs([str(run)]))


def test_many_steps_become_runs_of_them() -> None:
    curve = Curve()
    for step in range(1, 10 * POINTS + 1):
        curve.add(step, float(step % 10))
    drawn = list(points(curve))
    assert len(drawn) == POINTS and drawn[-1][0] == 10 * POINTS and drawn[1] == [20, 4.5, 0.0, 9.0]
    short = Curve()
    for step, value in ((1, 0.123456789), (2, math.inf), (3, 1e-9), (4, math.nan)):
        short.add(step, value)
    assert list(points(short)) == [[1, 0.12346], [3, 1e-9]]


class Tags(HTMLParser):
    """Counts tags, and collects the references in them."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.references += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_holds_all_it_needs(tmp_path: Path) -> None:
    made(tmp_path / "one")
    made(tmp_path / "<b>&two", lr=0.2)
    text = page(read_runs([str(tmp_path)]))
    tags = Tags()
    tags.feed(text)
    assert tags.open == [] and tags.references == [] and "http" not in text and "<b>" not in text
    found = re.search(r'<script type="application/json" id=data>(.*?)</script>', text)
    assert found is not None
    data = json.loads(found[1])
    assert data["runs"] == ["<b>&two", "one"]
    curves = {chart["id"]: chart["curves"] for chart in data["charts"]}
    assert curves["validation/PSNR"] == [[[20, 22.0], [40, 24.0], [60, 26.0]]] * 2
    assert curves["entropy"][0][-1] == [60, 0.25] and len(curves["train/loss"][1]) == 60
    assert {"train/lr", "train/grad_norm", "train/pixel", "validation/PSNR/haze", "speed/data_wait"} < curves.keys()
    assert set(re.findall(r'data-chart="([^"]+)"', text)) == set(curves)
    assert re.search(r"<tr><td>haze</td><td>9</td><td class=top>21.00</td>", text)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium to open the page with")
@pytest.mark.slow
def test_a_browser_draws_every_curve(tmp_path: Path) -> None:
    made(tmp_path / "runs/one")
    made(tmp_path / "runs/two", lr=0.2)
    (tmp_path / "page.html").write_text(page(read_runs([str(tmp_path / "runs")])))
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    dumped = subprocess.run(
        [*command, "--dump-dom", (tmp_path / "page.html").as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout
    drawn = dumped.split("<script>")[0]
    figures = drawn.count("<figure") - drawn.count('hidden=""><figcaption')
    assert figures > 10 and drawn.count('class="curve"') == 2 * figures and "NaN" not in drawn


def test_from_the_command_line(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path / "runs/one")
    monkeypatch.chdir(tmp_path)
    ran = train("compare")
    assert ran.code == 0 and ran.out.startswith("run ") and (tmp_path / "compare.html").is_file()
    ran = train("compare", "runs/one", "--out", "page/of.html", "--json")
    assert json.loads(ran.out)["runs"][0]["folder"] == "runs/one" and (tmp_path / "page/of.html").is_file()
    made(tmp_path / "bad").joinpath("log.jsonl").write_text('{"step": 1, "kind": "train", "loss": 1}\n[]\n')
    (tmp_path / "empty").mkdir()
    for arguments, said in (
        (["nowhere"], "nowhere: no such folder"),
        (["empty"], "empty: neither a run's folder, which has a run.json, nor a folder of such"),
        (["bad"], "bad/log.jsonl: line 2: must be a table, not []"),
        (["runs", "--out", "page.pdf"], "--out page.pdf: must end in .html"),
    ):
        ran = train("compare", *arguments)
        assert (ran.code, ran.out) == (2, "") and ran.error == f"train: error: {said}", ran.err
    (tmp_path / "bad/run.json").write_text('{"schema": 1}')
    with pytest.raises(UserError, match=r"bad/run\.json: settings is missing"):
        read_runs(["bad"])
