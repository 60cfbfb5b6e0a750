"""``train eval``: from shards to report.md, .tex, .json, .html with images, report.csv and summary.csv."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

from clearfuse.synth.execute.tasks import one_thread
from clearfuse.synth.files.folders import check_folder, folder_lock, make_folder, remove_temporary
from clearfuse.synth.files.storage import landing
from clearfuse.synth.types import UserError
from clearfuse.train.evaluation.aggregate import aggregate, of_records
from clearfuse.train.evaluation.methods.fusers import CLASSICAL, METHODS, on_gpu, trained_on
from clearfuse.train.evaluation.parts import (
    Progress,
    Work,
    first_records,
    forget,
    planned,
    processes,
    records,
    score_parts,
)
from clearfuse.train.evaluation.samples import Portion, plan_portions, spread
from clearfuse.train.evaluation.scoring import (
    Method,
    Methods,
    Record,
    Scored,
    absent_metrics,
    choose_metrics,
    fuse_sample,
    score_sample,
    select_applicable,
)
from clearfuse.train.evaluation.summary import Evaluation
from clearfuse.train.evaluation.writers.data import csv_header, csv_lines, json_text, summary_csv, to_json
from clearfuse.train.evaluation.writers.latex import to_latex
from clearfuse.train.evaluation.writers.markdown import to_markdown
from clearfuse.train.evaluation.writers.page import to_html
from clearfuse.train.evaluation.writers.papers import compare_with_papers, papers_metrics
from clearfuse.train.metrics import Metric, find_metric, find_profile

FILES = ("report.csv", "summary.csv", "report.json", "report.html", "report.tex", "report.md")
STANDARD = (CLASSICAL, *METHODS.values())
"""The methods in every evaluation: fusion after classical restoration, without restoration, and the upper bound."""


def evaluate_shards(paths: Sequence[str], out: str, *, limit: int | None = None, **options: Any) -> Evaluation:
    """``evaluate_portions`` of the samples of shards, or ``limit`` spread evenly over them."""
    check_folder(out)
    return evaluate_portions(plan_portions(paths, limit), out, **options)


def evaluate_portions(
    portions: Sequence[Portion],
    out: str,
    *,
    metrics: str | None = None,
    profile: str = "strict",
    examples: int = 6,
    methods: Sequence[Method] | Methods = STANDARD,
    left_out: Mapping[str, str] | None = None,
    papers: bool = False,
    workers: int | None = 1,
    device: str | None = None,
    progress: Progress = lambda done, total: None,
    note: Callable[[str], None] = lambda line: None,
) -> Evaluation:
    """Score methods on samples and write the report to ``out``: all of its files, or none.

    metrics: names of the profile's metrics, or ``all``; None: the default ones; those that can't run are named in the
    notes. papers: also measure what the papers' tables need, and add these tables. workers: number of processes; None:
    all cores. device: where metrics are computed, a torch device, all methods of a sample in a batch; None: on arrays.
    The report's bytes depend neither on workers nor on interruptions: scores stay in a subfolder of ``out`` until the
    report is written. left_out: methods that could not run, and why. Raises UserError before work begins,
    WorkIncomplete if a sample can't be read or scored.
    """
    folder = check_folder(out)
    portions = tuple(portions)
    chosen, absent = _metrics(metrics, profile, papers)
    candidates = methods(portions) if callable(methods) else methods
    compared, chosen = select_applicable(portions, check_names(candidates), chosen, profile)
    seen = trained_on(compared, portions)
    for name, what in seen.items():
        note(f"{name} {what}")
    work = planned(folder, portions, compared, chosen, profile, device)
    done = Evaluation(
        compared, chosen, portions, profile=profile, absent=absent, left_out=left_out or {}, trained_on=seen
    )
    with locked(folder):
        score_parts(work, portions, processes(workers, on_gpu(compared) or device is not None), progress)
        aggregate(done, lambda: records(work, portions))
        with one_thread():
            done.examples = fuse_examples(work, portions, examples)
        _write(folder, work, done, papers)
        forget(work)
    return done


def check_names(methods: Sequence[Method]) -> tuple[Method, ...]:
    """Return the methods. Raises UserError if two have the same name."""
    names = [method.name for method in methods]
    duplicate = next((name for name in names if names.count(name) > 1), None)
    if duplicate is not None:
        raise UserError(
            f"two methods are called '{duplicate}': give --results another NAME, or rename the model's folder"
        )
    return tuple(methods)


@contextmanager
def locked(folder: Path, what: str = "evaluation") -> Iterator[None]:
    """The folder, made, swept and one evaluation's; gone again where it was made for nothing."""
    made = make_folder(folder)
    try:
        with folder_lock(folder, what):
            remove_temporary(folder)
            yield
    except BaseException:
        with suppress(OSError):  # parts that are done stay
            for one in made:
                one.rmdir()
        raise


def _metrics(text: str | None, profile: str, papers: bool) -> tuple[tuple[Metric, ...], dict[str, str]]:
    """The metrics to measure, and those wanted that can't run, with the reasons."""
    chosen, absent = choose_metrics(text, profile), absent_metrics(text, profile)
    if not papers:
        return chosen, absent
    if profile not in ("strict", "papers"):
        raise UserError(f"--papers: goes with the profiles strict and papers, not {profile}")
    available = find_profile(profile).metrics
    wanted = [find_metric(name, profile) for name in papers_metrics() if name in available]
    absent |= {metric.name: reason for metric in wanted if (reason := metric.missing())}
    runnable = {metric.name: metric for metric in (*chosen, *wanted) if not metric.missing()}
    return tuple(runnable.values()), absent


def fuse_examples(work: Work, portions: Sequence[Portion], examples: int) -> list[Scored]:
    """``examples`` samples spread over the shards, fused once more, since images are not kept while samples are scored;
    their values are those of the records.
    """
    takes = spread(examples, [portion.take for portion in portions])
    known, found = first_records(work, portions, takes), list[Scored]()
    for portion, take in zip(portions, takes, strict=True):
        for sample, record in zip(islice(portion.part(0, 0, take).read(), take), known, strict=False):
            fused, _ = fuse_sample(sample, work.methods)
            found.append(Scored(portion.path.name, sample, fused, record.values, record.noted))
    return found


def _write(folder: Path, work: Work, done: Evaluation, papers: bool) -> None:
    """Write the report's files, which appear together at the end."""
    tables = compare_with_papers(done) if papers else []
    with ExitStack() as stack:
        files = {name: stack.enter_context(landing(folder / name)) for name in FILES}
        files["report.csv"].write(csv_header(done.metrics))
        for part in records(work, done.portions):
            for record in part:
                files["report.csv"].writelines(csv_lines(record, done.methods))
        files["summary.csv"].writelines(summary_csv(done))
        files["report.json"].write(json_text(to_json(done, tables)))
        files["report.html"].write(to_html(done, tables).encode())
        files["report.tex"].write(to_latex(done, tables).encode())
        files["report.md"].write(to_markdown(done, tables).encode())


def in_memory(
    portions: Sequence[Portion], methods: Sequence[Method], metrics: Sequence[Metric], profile: str = "strict"
) -> tuple[Evaluation, list[Scored]]:
    """Evaluate a few samples without writing files; return the scored samples too."""
    scored: list[Scored] = []
    for portion in portions:
        for sample in portion.part(0, 0, portion.take).read():
            scored.append(score_sample(sample, portion.path.name, methods, metrics, profile))
    done = Evaluation(tuple(methods), tuple(metrics), tuple(portions), profile=profile)
    return aggregate(done, of_records([Record.of(sample, methods) for sample in scored])), scored
