"""Groups, ranks, tests and tables from records, without images."""

from __future__ import annotations

import csv
import json
import math
import re
import tracemalloc
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clearfuse.synth.seeds import generator
from clearfuse.synth.shards.sample import Sample
from clearfuse.train.evaluation.aggregate import aggregate, of_records
from clearfuse.train.evaluation.bootstrap import MIN_PAIRS, PERMUTATIONS, holm, permutation_p
from clearfuse.train.evaluation.samples import Portion
from clearfuse.train.evaluation.scoring import Method, Record
from clearfuse.train.evaluation.summary import Evaluation
from clearfuse.train.evaluation.writers import data as facts
from clearfuse.train.evaluation.writers.latex import to_latex
from clearfuse.train.evaluation.writers.markdown import to_markdown
from clearfuse.train.evaluation.writers.page import to_html
from clearfuse.train.evaluation.writers.papers import ABSENT, compare_with_papers, papers_metrics, published_tables
from clearfuse.train.metrics import METRICS, Metric


def nothing(sample: Sample) -> np.ndarray | None:
    """A method that is never called."""
    return None


NAMES = ("good", "same", "bad", "pyramid on clean")
METHODS = tuple(Method(name, nothing, upper_bound=name == "pyramid on clean") for name in NAMES)
USED = (METRICS["VIF"], METRICS["Qcv"])


def record(i: int, rng: np.random.Generator, n: int = 1, dataset: str = "msrs", pairs: int = 10**6) -> Record:
    """A synthetic record: "same" is "good" with other noise, "bad" is worse by 0.3; for Qcv lower is better."""
    base, noise = rng.normal(1, 0.2), rng.normal(0, 0.1, 4)
    vif = base + noise * [1, 1, 1, 0] + [0, 0, -0.3, 1]
    values = np.stack([vif, 100 - vif], axis=1)
    ops = ("haze", "rain", "jpeg")[:n]
    steps = tuple((op, "a", (i % 10) / 10) for op in ops)
    return Record(
        "s.tar", f"{i:09d}", dataset, f"p{i % pairs}", "vif", n, steps, "pyramid", False, values, (False,) * 4
    )


def evaluation(records: Sequence[Record], metrics: tuple[Metric, ...] = USED) -> Evaluation:
    portion = Portion(Path("s.tar"), len(records), len(records))
    return aggregate(Evaluation(METHODS, metrics, (portion,)), of_records(records))


def made(count: int, **more: int) -> Evaluation:
    rng = generator(11)
    return evaluation([record(i, rng, **more) for i in range(count)])


def test_a_record_is_its_line_again() -> None:
    one = record(3, generator(1), n=2)
    values = one.values.copy()
    values[1] = np.inf, -0.0
    values[2] = np.nan, 1e-12
    odd = Record(*(getattr(one, name) for name in list(Record.__dataclass_fields__)[:9]), values, (True, *[False] * 3))
    back = Record.parse(odd.line(), 2)
    assert back.line() == odd.line() and back.missing == odd.missing and back.steps == odd.steps
    assert np.isnan(back.values[0]).all() and back.values[1, 0] == np.inf and back.values[2, 1] == 1e-12
    assert json.loads(odd.line())[-2][0] is None


def test_a_record_belongs_to_its_groups() -> None:
    groups = set(record(5, generator(1), n=2).groups())
    assert groups == {
        ("overall", "all"), ("task", "vif"), ("data set", "vif msrs"), ("operator", "haze"), ("operator", "rain"),
        ("combination", "haze + rain"), ("n", "2"), ("severity", "0.33 to 0.67"), ("ground truth", "pyramid"),
        ("cell", "vif msrs n=2"), ("category", "fusion"),
    }  # fmt: skip
    assert ("cell", "vif msrs haze alone") in set(record(5, generator(1)).groups())


def test_categories_are_groups_where_there_are_others_than_fusion() -> None:
    rng = generator(11)
    records = [record(i, rng) for i in range(12)]
    assert "category" not in evaluation(records).groups
    mixed = [replace(one, category="control") if i % 3 == 0 else one for i, one in enumerate(records)]
    groups = evaluation(mixed).groups["category"]
    assert {name: group.samples for name, group in groups.items()} == {"control": 4, "fusion": 8}
    back = Record.parse(mixed[0].line(), 2)
    assert (back.category, back.line()) == ("control", mixed[0].line())
    assert Record.parse(records[0].line(), 2).category == "fusion"


def test_holm_is_holm() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []


def test_a_difference_that_is_there_is_found_and_chance_is_not() -> None:
    group = made(80).groups["overall"]["all"]
    vif = [group.stat(i, 0) for i in range(4)]
    best = next(i for i in (0, 1) if vif[i].rank == 1)
    assert {vif[0].rank, vif[1].rank, vif[2].rank, vif[3].rank} == {1, 2, 3, None}
    assert vif[best].p is None and vif[2].p == pytest.approx(2 * 2 / 1001, abs=1e-6), "of two, Holm doubles the least"
    assert (vif[1 - best].p or 0) > 0.05 and group.not_worse(1 - best, 0) and not group.not_worse(2, 0)
    assert group.with_rank(0, 1) == {best} and group.with_rank(0, 2) == {1 - best}
    assert group.ranks[2] == 3.0 and group.ranks[3] is None
    assert [group.stat(i, 1).rank for i in range(4)] == [vif[i].rank for i in range(4)], "lower is better there"


@pytest.mark.slow
def test_the_test_holds_its_level() -> None:
    rng, found = generator(5), 0
    for trial in range(20):
        some = [record(1000 * trial + i, rng) for i in range(40)]
        group = evaluation(some).groups["overall"]["all"]
        worse = 0 if group.stat(0, 0).rank == 2 else 1
        found += not group.not_worse(worse, 0)
    assert found <= 4, "of 20 differences by chance alone, about 1 is found at 0.05"


def test_few_pairs_are_not_tested_and_one_pair_has_no_interval() -> None:
    assert all(made(MIN_PAIRS - 1).groups["overall"]["all"].stat(i, 0).p is None for i in range(4))
    one = made(30, pairs=1).groups["overall"]["all"].stat(0, 0)
    assert (one.count, one.low, one.high, one.p) == (30, None, None, None), "30 variants of a pair are one pair"
    wide, narrow = (made(60, pairs=pairs).groups["overall"]["all"].stat(0, 0) for pairs in (6, 60))
    assert wide.low and wide.high and narrow.low and narrow.high


@pytest.mark.slow
def test_memory_does_not_grow_with_the_samples() -> None:
    peaks: list[int] = []
    for count in (120, 960):

        def parts(count: int = count) -> Iterator[list[Record]]:
            rng = generator(1)
            for start in range(0, count, 30):
                yield [record(i, rng, n=1 + i % 3) for i in range(start, start + 30)]

        tracemalloc.start()
        done = aggregate(Evaluation(METHODS, USED, (Portion(Path("s.tar"), count, count),)), parts)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert done.samples == count
    assert peaks[1] < 1.1 * peaks[0]


def test_more_groups_than_a_pass_holds_are_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = facts.to_json(made(40))
    monkeypatch.setattr("clearfuse.train.evaluation.aggregate.MEMORY", 1)
    assert facts.to_json(made(40)) == whole


def test_the_tables_mark_best_second_and_level() -> None:
    done = made(80)
    text, tex, page = to_markdown(done), to_latex(done), to_html(done)
    row = next(line for line in text.splitlines() if "| bad |" in line)
    assert "**" not in row and "<ins>" not in row and "†" not in row
    assert re.search(r"\*\*0\.\d{4} \[|\*\*1\.\d{4} \[", text) and re.search(r"<ins>.* †</ins>", text)
    assert tex.count(r"\begin{table}") == tex.count(r"\end{table}") == tex.count(r"\toprule")
    assert r"\textbf{" in tex and r"\underline{" in tex and r"VIF $\uparrow$" in tex and r"Qcv $\downarrow$" in tex
    for block in re.findall(r"\\begin\{tabular\}\{(\w+)\}\n(.*?)\\end", tex, re.DOTALL):
        rows = [line for line in block[1].splitlines() if line.endswith(r"\\")]
        assert rows and all(line.count(" & ") == len(block[0]) - 1 for line in rows)
    assert "<span class=second>" in page and "<script>" not in page, "there are no pictures"
    lines = b"".join(facts.summary_csv(done)).decode().splitlines()
    assert lines[0].startswith("by,group,samples,method,metric,mean,low,high") and len(lines) > 8 * 8


def test_published_tables_are_whole() -> None:
    tables = {table.name: table for table in published_tables()}
    sizes = {name: (len(table.rows), len(table.columns)) for name, table in tables.items()}
    assert sizes == {
        "evafusion": (14, 12), "mdaif-1": (5, 6), "mmaif-1": (3, 2), "mmaif-2": (12, 15), "mmaif-3-mef": (7, 5),
        "mmaif-3-mff": (7, 5),
        "mmaif-4": (2, 15), "mmaif-5": (4, 3), "mmaif-6": (14, 5), "videofusion": (10, 12),
        "vifb": (10, 13),
    }  # fmt: skip
    rows = {row.name: row.values for row in tables["mmaif-2"].rows}
    assert rows["MMAIF (flow matching)"][:5] == (0.604, 0.384, 27.535, 53.277, 0.330)
    assert rows["DRMF"][10:] == (0.538, 0.390, 42.012, 34.713, 0.132)
    assert set(papers_metrics()) <= set(METRICS)


def test_published_figures_are_those_of_the_papers_text(shared: Path) -> None:
    printed = (shared / "seeds/mmaif-paper.txt").read_text() + (shared / "seeds/mdaif-review.txt").read_text()
    numbers = re.findall(r"\d+\.\d+", printed)
    for table in published_tables():
        for row in table.rows if table.name.startswith(("mmaif", "mdaif")) else ():
            for value in row.values:
                assert value is None or any(math.isclose(value, float(number)) for number in numbers), (table.name, row)


def test_the_means_of_vifb_are_those_of_its_table(shared: Path) -> None:
    (table,) = (table for table in published_tables() if table.name == "vifb")
    with (shared / "data/vif/VIFB/published_metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row in table.rows:
        mine = [one for one in rows if one["method"] == row.name]
        means = [np.mean([float(one[column.metric]) for one in mine]) for column in table.columns]
        assert len(mine) == 21 and row.values == pytest.approx(means, rel=1e-4)


def test_ours_stand_beside_them_where_the_samples_are() -> None:
    rng = generator(3)
    records = [record(i, rng, n=1 + i % 3, dataset="msrs" if i % 2 else "scenes") for i in range(60)]
    done = evaluation(records, (METRICS["VIF-authors"], METRICS["Qcv"]))
    tables = {one.table.name: one for one in compare_with_papers(done)}
    second = tables["mmaif-2"]
    columns = [(column.group, column.metric) for column in second.columns]
    vif = "VIF-authors"
    assert columns[:15:5] == [("LLVIP, n = 1", vif), ("M3FD", vif), ("MSRS", vif)]
    assert [name for name, _ in columns[15::5]] == ["vif scenes n=1", "vif scenes"]
    assert second.table.columns[0].of == "vif llvip n=1" == tables["mmaif-6"].columns[0].of, "the papers' is n = 1"
    ours = {line.name: line.texts for line in second.rows if not line.published}
    assert set(ours) == {*NAMES[:3], "pyramid on clean (upper bound)"}
    msrs = done.groups["data set"]["vif msrs"].stat(0, 0).mean
    assert ours["good"][10] == f"{msrs:.4f}" and ours["good"][0] == ours["good"][11] == ABSENT and ours["good"][15]
    one = done.groups["cell"]["vif scenes n=1"].stat(0, 0).mean
    assert ours["good"][15] == f"{one:.4f}"
    published = {line.name: line for line in second.rows if line.published}
    assert published["Text-IF"].texts[:2] == ("0.456", "0.394") and published["Text-IF"].texts[15] == ABSENT
    said = second.notes
    assert any("ERN + EMMA" in line and "--results NAME=DIR" in line for line in said)
    assert "Ours has no number, since there are no such samples here, in: LLVIP, n = 1, M3FD." in said
    assert "Not measured: Qabf; BRISQUE; MUSIQ; CLIPIQA." in said
    assert [column.group for column in tables["mmaif-4"].columns[15::5]] == [
        f"vif {name} n={n}" for n in (1, 2, 3) for name in ("msrs", "scenes")
    ]
    haze = tables["mdaif-1"]
    assert all(line.published for line in haze.rows), "PSNR and SSIM-sum were not measured"
    text = to_markdown(done, list(tables.values()))
    assert "| *ERN + U2Fusion* | 0.429 | 0.081 | 76.023 |" in text and "Table 6" in text
    assert "5.78 | 0.02 |" in text and "train tokenizers flux" in text
    data = facts.to_json(done, list(tables.values()))["papers"]
    assert [table["table"] for table in data if table["rows"][0]["published"]] and json.dumps(data, allow_nan=False)
    assert to_latex(done, list(tables.values())).count(r"\multicolumn") > 10


def test_p_of_permutations_is_the_share_of_them_that_tell_groups_apart_as_well() -> None:
    """Of 4 samples there are three ways to make two pairs, of which one is the groups' own."""
    assert permutation_p(np.array([[0.0], [0.1], [1.0], [1.1]]), ["a", "a", "b", "b"]) == pytest.approx(1 / 3, abs=0.02)
    rng = generator(2)  # p of noise is uniform: one seed in a hundred gives 0.01
    groups, noise = [*("haze", "rain", "snow") * 30], rng.normal(0, 1, (90, 2))
    assert permutation_p(noise, groups) > 0.05  # type: ignore[operator]
    assert permutation_p(noise + np.array([[0, 0], [0, 0], [0, 1.5]] * 30), groups) == 1 / (PERMUTATIONS + 1)
    assert permutation_p(noise, ["haze"] * 90) is None and permutation_p(noise[:2], ["haze", "rain"]) is None
