"""Evaluation on small shards: recomputed numbers, intervals, parallel work, marks, complete and reproducible files."""

from __future__ import annotations

import csv
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made import made_shards

from clearfuse.synth.fusers import PyramidFuser
from clearfuse.synth.seeds import generator
from clearfuse.synth.shards.sample import Sample, read_samples
from clearfuse.synth.types import UserError, WorkIncomplete
from clearfuse.train.evaluation import scoring
from clearfuse.train.evaluation.bootstrap import RunningSums, resample_weights
from clearfuse.train.evaluation.evaluate import FILES, evaluate_shards
from clearfuse.train.evaluation.measure import measure
from clearfuse.train.evaluation.methods.fusers import METHODS
from clearfuse.train.evaluation.samples import count_samples, plan_portions, spread
from clearfuse.train.evaluation.scoring import Method
from clearfuse.train.evaluation.writers.data import to_json
from clearfuse.train.evaluation.writers.markdown import to_text
from clearfuse.train.metrics import PROFILES, evaluate
from conftest import folder_bytes

USUAL = PROFILES["strict"].usual

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_shards(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def report(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "report"
    evaluate_shards([str(shards / "vif"), str(shards / "mef")], str(out), examples=4, methods=list(METHODS.values()))
    return out


def tars(shards: Path) -> list[Path]:
    return [*sorted((shards / "vif").glob("*.tar")), *sorted((shards / "mef").glob("*.tar"))]


def recomputed(shards: Path) -> list[tuple[Sample, str, dict[str, float]]]:
    """Scores of every sample and method, computed by public functions only."""
    rows: list[tuple[Sample, str, dict[str, float]]] = []
    for path in tars(shards):
        for sample in read_samples(path):
            i = sample.images
            for name, pair in (("pyramid on degraded", ("a", "b")), ("pyramid on clean", ("clean_a", "clean_b"))):
                fused = PyramidFuser()(i[pair[0]], i[pair[1]], sample.meta.task)
                rows.append((sample, name, evaluate(fused, i["clean_a"], i["clean_b"], i["gt"], list(USUAL))))
    return rows


def test_the_csv_holds_every_sample_and_method(shards: Path, report: Path) -> None:
    with (report / "report.csv").open() as file:
        rows = list(csv.DictReader(file))
    expected = recomputed(shards)
    assert len(rows) == len(expected) == 8 * 2
    for row, (sample, method, values) in zip(rows, expected, strict=True):
        meta = sample.meta
        assert (row["key"], row["dataset"], row["pair"]) == (sample.key, meta.dataset, meta.pair)
        assert (row["task"], row["n"], row["method"]) == (meta.task, str(meta.n), method)
        assert row["steps"] == "+".join(f"{step.op}[{step.target}]" for step in sample.meta.steps)
        assert {name: float(row[name]) for name in USUAL} == pytest.approx(values, abs=1e-6)


def test_the_means_are_those_of_the_groups(shards: Path, report: Path) -> None:
    groups: dict[str, Any] = json.loads((report / "report.json").read_text())["groups"]
    rows = recomputed(shards)
    operators = {step.op for sample, _, _ in rows for step in sample.meta.steps}
    kinds = {"overall", "task", "data set", "operator", "combination", "n", "severity", "ground truth", "cell"}
    assert set(groups) == kinds
    assert set(groups["operator"]) == operators and set(groups["task"]) == {"mef", "vif"}
    for by, name in [("overall", "all"), ("task", "vif"), *(("operator", op) for op in sorted(operators))]:
        for method in METHODS:
            members = [
                values
                for sample, m, values in rows
                if m == method and name in ("all", sample.meta.task, *(step.op for step in sample.meta.steps))
            ]
            for metric in USUAL:
                stat = groups[by][name]["methods"][method][metric]
                finite = [values[metric] for values in members if math.isfinite(values[metric])]
                assert groups[by][name]["samples"] == len(members)
                assert (stat["count"], stat["infinite"]) == (len(finite), len(members) - len(finite))
                assert stat["mean"] == (pytest.approx(np.mean(finite), abs=1e-6) if finite else None)
                if len(finite) > 1:
                    assert min(finite) - 1e-6 <= stat["low"] <= stat["high"] <= max(finite) + 1e-6


def test_the_page_is_self_contained_and_has_every_picture(report: Path) -> None:
    page = (report / "report.html").read_text()
    assert page.count("<figure>") == page.count("data:image/webp;base64,") == 4 * 5
    markup = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert not re.search(r'(src|href)=(?!"data:)', markup) and page.endswith("</html>\n")
    assert page.count("<script>") == 1 and not re.search(r"https?:|import |fetch", page)
    for text in ("degraded visible", "degraded infrared", "degraded under-exposed", "pyramid on clean", "By task"):
        assert text in page
    assert sorted(path.name for path in report.iterdir()) == sorted(FILES)


def test_the_report_is_the_same_bytes_again(shards: Path, report: Path, tmp_path: Path) -> None:
    again = {"examples": 4, "methods": list(METHODS.values())}
    evaluate_shards([str(shards / "vif"), str(shards / "mef")], str(tmp_path / "again"), **again)
    assert folder_bytes(tmp_path / "again") == folder_bytes(report)


def test_the_markdown_says_what_the_numbers_are(report: Path) -> None:
    text = (report / "report.md").read_text()
    assert "- 8 of 8 samples in 3 shards (mef 3, vif 5).\n" in text
    assert "| samples | method | PSNR ↑ | SSIM ↑ | VIF ↑ | Qabf ↑ | MEF-SSIM ↑ | mean rank |\n" in text
    assert "- VIF, Qabf, MEF-SSIM: the clean pair as the two sources.\n" in text
    assert "**" not in text, "nobody is best where one competes"


def truth(sample: Sample) -> np.ndarray:
    return sample.images["gt"]


def black(sample: Sample) -> np.ndarray:
    return np.zeros_like(sample.images["gt"])


def test_examples_are_fused_again_and_not_measured_again(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their values are those of their lines in report.csv."""
    measured: list[int] = []
    monkeypatch.setattr(scoring, "measure", lambda *given: measured.append(1) or measure(*given))
    where = [str(shards / "vif"), str(shards / "mef")]
    done = evaluate_shards(where, str(tmp_path), metrics="PSNR,Qabf", methods=list(METHODS.values()), examples=3)
    assert len(measured) == done.samples and len(done.examples) == 3
    with (tmp_path / "report.csv").open(newline="") as file:
        lines = {(row["task"], row["key"], row["method"]): row for row in csv.DictReader(file)}
    for one in done.examples:
        assert set(one.fused) == {method.name for method in done.methods}
        for method, values in zip(done.methods, one.values, strict=True):
            line = lines[one.sample.meta.task, one.sample.key, method.name]
            assert [float(line[name]) for name in ("PSNR", "Qabf")] == pytest.approx(values.tolist(), rel=1e-8)


def test_the_best_is_marked_and_a_ceiling_never(shards: Path, tmp_path: Path) -> None:
    methods = [Method("black", black), *METHODS.values(), Method("truth", truth)]
    done = evaluate_shards([str(shards / "mef")], str(tmp_path), metrics="psnr,SSIM", methods=methods, examples=0)
    lines = to_text(done).splitlines()
    assert lines[0].split() == ["samples", "method", "PSNR", "SSIM", "mean", "rank"]
    starred = [line for line in lines if "*" in line]
    assert starred == [lines[4]] and lines[4].split() == ["truth", "inf*", "1.0000*", "1.00"]
    markdown = (tmp_path / "report.md").read_text()
    assert re.search(r"\|  \| truth \| \*\*inf\*\* \| \*\*1\.0000 \[1\.0000, 1\.0000\]\*\* \|", markdown)
    assert "- truth, PSNR: 3 values are infinite, left out of the mean.\n" in markdown
    stat = to_json(done)["groups"]["overall"]["all"]["methods"]["truth"]["PSNR"]
    assert stat == {
        "mean": None,
        "low": None,
        "high": None,
        "count": 0,
        "infinite": 3,
        "undefined": 0,
        "rank": 1,
        "p": None,
    }
    assert "<b>1.0000" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("wanted", "totals", "takes"),
    [
        (0, [3, 2], [0, 0]),
        (2, [5, 5, 5], [1, 1, 0]),
        (7, [1, 9, 2], [1, 4, 2]),
        (99, [1, 2], [1, 2]),
        (5, [], []),
        (4, [0, 8], [0, 4]),
    ],
)
def test_samples_are_spread_over_shards(wanted: int, totals: list[int], takes: list[int]) -> None:
    assert spread(wanted, totals) == takes


def test_limit_takes_of_every_shard(shards: Path) -> None:
    portions = plan_portions([str(shards / "vif"), str(shards / "mef")], 4)
    assert [(portion.take, portion.total) for portion in portions] == [(2, 3), (1, 2), (1, 3)]
    twice = plan_portions([str(shards / "vif"), str(tars(shards)[0])])
    assert [portion.path for portion in twice] == tars(shards)[:2]


def test_bootstrap_interval_is_the_normal_one_where_samples_are_many() -> None:
    values = generator(5).normal(20, 3, 4000)
    sums = RunningSums(1, 1)
    for start in range(0, len(values), 500):
        some = range(start, start + 500)
        weights = np.stack([resample_weights(0, i) for i in some])
        sums.add(values[start : start + 500].reshape(-1, 1, 1), weights, list(some))
    stat = sums.stat(0, 0)
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert stat.mean == pytest.approx(values.mean()) and stat.low is not None and stat.high is not None
    assert stat.low == pytest.approx(stat.mean - half, abs=0.25 * half)
    assert stat.high == pytest.approx(stat.mean + half, abs=0.25 * half)


def test_infinite_and_undefined_values_are_counted_apart() -> None:
    sums = RunningSums(1, 2)
    for i, value in enumerate((1.0, math.inf, math.nan, 3.0)):
        sums.add(np.array([[[value, math.nan]]]), resample_weights(i)[None], [i])
    stat = sums.stat(0, 0)
    assert (stat.mean, stat.count, stat.infinite, stat.undefined) == (2.0, 2, 1, 1)
    assert math.isnan(sums.stat(0, 1).mean) and sums.stat(0, 1).undefined == 4


def test_a_shard_cut_anywhere_is_refused_before_work_begins(shards: Path, tmp_path: Path) -> None:
    whole = tars(shards)[0].read_bytes()
    assert count_samples(tars(shards)[0]) == (3, False)
    path = tmp_path / "cut.tar"
    for size in (700, len(whole) // 2, len(whole) // 2 // 512 * 512, 512 * 3):
        path.write_bytes(whole[:size])
        with pytest.raises(UserError, match=r"cut\.tar: not a whole shard: "):
            evaluate_shards([str(path)], str(tmp_path / "report"))
    assert [p.name for p in tmp_path.iterdir()] == ["cut.tar"]


def test_a_damaged_sample_leaves_no_report(shards: Path, tmp_path: Path) -> None:
    data = bytearray(tars(shards)[0].read_bytes())
    at = data.index(b"RIFF", len(data) // 2)
    data[at : at + 4] = b"FFIR"
    path = tmp_path / "vif-train-000000.tar"
    path.write_bytes(data)
    with pytest.raises(WorkIncomplete) as error:
        evaluate_shards([str(path)], str(tmp_path / "report"))
    assert re.fullmatch(
        r"vif-train-000000\.tar: sample 00000000\d: \w+ does not decode: .*; no report was written", str(error.value)
    )
    (kept,) = (tmp_path / "report").iterdir()
    assert kept.name.startswith("parts-"), "what was scored before it stays, and no report is there"
    (tmp_path / "old").mkdir()
    (tmp_path / "old/report.md").write_text("the last one")
    with pytest.raises(WorkIncomplete):
        evaluate_shards([str(path)], str(tmp_path / "old"))
    assert [p.name for p in (tmp_path / "old").iterdir() if not p.is_dir()] == ["report.md"]
    assert (tmp_path / "old/report.md").read_text() == "the last one"


def test_a_method_of_the_wrong_size_is_named(shards: Path, tmp_path: Path) -> None:
    half = Method("half", lambda sample: sample.images["gt"][::2])
    with pytest.raises(WorkIncomplete) as error:
        evaluate_shards([str(shards / "mef")], str(tmp_path / "r"), methods=[half])
    assert re.fullmatch(
        r"mef-train-000000\.tar: sample 000000000: half: a is \d+x\d+, fused \d+x\d+: all images must have one size; "
        r"no report was written",
        str(error.value),
    )


def test_a_report_names_its_profile_and_what_could_not_run(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clearfuse.train.metrics.noreference.find_spec", lambda name: None)
    done = evaluate_shards([str(shards / "mef")], str(tmp_path / "r"), profile="papers", limit=1, examples=0)
    facts = to_json(done)
    assert facts["profile"] == "papers" and {"MUSIQ", "CLIPIQA"} <= set(facts["not_run"])
    assert [metric["name"] for metric in facts["metrics"]][:3] == ["VIF", "VIF-authors", "Qabf"]
    notes = "\n".join(facts["notes"])
    assert (
        "Not run: MUSIQ needs pyiqa (for non-commercial use): pip install 'clearfuse[iqa]'." in notes
        and "Profile papers: " in notes
    )
    asked = "SCD,ms_ssim,FMI-dct"
    done = evaluate_shards([str(shards / "mef")], str(tmp_path / "t"), metrics=asked, profile="tang", limit=1)
    assert [metric.name for metric in done.metrics] == ["SCD", "MS-SSIM", "FMI-dct"]
    with pytest.raises(UserError, match="--metrics MUSIQ: needs pyiqa"):
        evaluate_shards([str(shards / "mef")], str(tmp_path / "m"), metrics="MUSIQ")
    with pytest.raises(UserError, match="unknown profile 'tank': did you mean 'tang'"):
        evaluate_shards([str(shards / "mef")], str(tmp_path / "m"), profile="tank")


def test_a_metric_is_undefined_on_samples_that_are_too_small(shards: Path, tmp_path: Path) -> None:
    done = evaluate_shards([str(shards / "mef")], str(tmp_path), metrics="PSNR,MS-SSIM", limit=2, examples=0)
    group = done.groups["overall"]["all"]
    assert group.stat(0, 0).count == 2 and group.stat(0, 1).undefined == 2
    text = (tmp_path / "report.md").read_text()
    assert "MS-SSIM: 2 values are undefined" in text and "Undefined: MS-SSIM of images under 161x161." in text
