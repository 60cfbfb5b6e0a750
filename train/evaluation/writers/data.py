"""A report as data: JSON, and CSV with a line per sample or per group."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

from clearfuse.synth.plugins import loaded
from clearfuse.train.evaluation.bootstrap import INTERVAL, LEVEL, RESAMPLES, Stat
from clearfuse.train.evaluation.scoring import FAITHFULNESS, Method, Record
from clearfuse.train.evaluation.summary import Evaluation, Group
from clearfuse.train.evaluation.writers.papers import ABSENT, PaperComparison
from clearfuse.train.evaluation.writers.tables import notes
from clearfuse.train.metrics import Metric
from clearfuse.train.metrics.faithfulness import ORIGINS
from clearfuse.train.metrics.marks import rewards


def csv_line(*cells: Any) -> bytes:
    """A line of CSV."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue().encode()


def csv_header(metrics: Sequence[Metric]) -> bytes:
    """The first line of report.csv."""
    about = ("shard", "key", "dataset", "pair", "task", "n", "steps", "severity", "ground_truth", "method")
    return csv_line(*about, *(metric.name for metric in metrics), *(f"from {one}" for one in ORIGINS))


def csv_lines(record: Record, methods: Sequence[Method]) -> Iterator[bytes]:
    """A record's lines of report.csv: one per method, with empty values where it had no image."""
    steps = "+".join(f"{op}[{target}]" for op, target, _ in record.steps)
    severity = "" if record.severity is None else f"{record.severity:.6g}"
    about = (record.shard, record.key, record.dataset, record.pair, record.task, record.n, steps, severity)
    for method, row, missing in zip(methods, record.values.tolist(), record.missing, strict=True):
        shares = record.noted.get(method.name, {}).get(FAITHFULNESS, ("",) * len(ORIGINS))
        cells = ("" if missing else f"{value:.10g}" for value in row)
        yield csv_line(
            *about, record.truth or "", method.name, *cells, *(f"{one:.6g}" if one != "" else "" for one in shares)
        )


def summary_csv(evaluation: Evaluation) -> Iterator[bytes]:
    """The lines of summary.csv: one per group, method and metric."""
    columns = ("mean", "low", "high", "count", "infinite", "undefined", "missing", "rank", "p")
    yield csv_line("by", "group", "samples", "method", "metric", *columns)
    for by in evaluation.groups:
        for name, group in evaluation.ordered(by):
            for i, method in enumerate(evaluation.methods):
                for k, metric in enumerate(evaluation.metrics):
                    stat = _stat_json(group.stat(i, k))
                    cells = ("" if stat.get(column) is None else stat[column] for column in columns)
                    yield csv_line(by, name, group.samples, method.name, metric.name, *cells)


def to_json(evaluation: Evaluation, papers: Sequence[PaperComparison] = ()) -> dict[str, Any]:
    """The object in ``report.json``, which ``--json`` prints; null for infinite or undefined numbers."""

    def stats(group: Group) -> dict[str, Any]:
        return {
            method.name: {metric.name: _stat_json(group.stat(i, k)) for k, metric in enumerate(evaluation.metrics)}
            for i, method in enumerate(evaluation.methods)
        }

    def ranks(group: Group) -> dict[str, float | None]:
        named = zip(evaluation.methods, group.ranks, strict=True)
        return {method.name: None if rank is None else round(rank, 6) for method, rank in named}

    return {
        "schema": 1,
        "profile": evaluation.profile,
        **({"real": True} if evaluation.real else {}),
        "samples": evaluation.samples,
        "shards": [{"shard": p.path.name, "samples": p.take, "of": p.total} for p in evaluation.portions],
        "methods": [{"name": method.name, "ceiling": method.upper_bound} for method in evaluation.methods],
        "metrics": [_metric_json(m, evaluation.profile) for m in evaluation.metrics],
        **({"not_run": not_run_at_all} if (not_run_at_all := {**evaluation.absent, **evaluation.left_out}) else {}),
        **({"plugins": plugins} if (plugins := [plugin.record() for plugin in loaded()]) else {}),
        "bootstrap": {"resamples": RESAMPLES, "interval": INTERVAL, "of": "pairs"},
        "significance": {"test": "paired bootstrap", "correction": "Holm", "level": LEVEL},
        "groups": {
            by: {
                name: {"samples": group.samples, "methods": stats(group), "mean_rank": ranks(group)}
                for name, group in evaluation.ordered(by)
            }
            for by in evaluation.groups
        },
        "faithfulness": {
            method: {
                group: dict(zip(ORIGINS, (round(one, 6) for one in means), strict=True)) for group, means in of.items()
            }
            for method, of in evaluation.faithfulness.items()
        },
        **({"noted": evaluation.noted} if evaluation.noted else {}),
        **({"differs": evaluation.differs} if evaluation.differs else {}),
        **({"preferences": evaluation.preferences} if evaluation.preferences else {}),
        **({"papers": [_comparison_json(comparison) for comparison in papers]} if papers else {}),
        "notes": notes(evaluation),
    }


def json_text(data: dict[str, Any]) -> bytes:
    """The bytes of report.json."""
    return json.dumps(data, ensure_ascii=False, indent=1, allow_nan=False).encode() + b"\n"


def _metric_json(metric: Metric, profile: str) -> dict[str, Any]:
    """A metric, with what it gains at best by noise or haze that is left in, where it does."""
    found = {
        name: None if one.best is None else round(one.best, 6) for name, one in rewards(metric.name, profile).items()
    }
    about = {"name": metric.name, "direction": metric.direction, "kind": metric.kind}
    return {**about, **({"rewards": found} if found else {})}


def _comparison_json(comparison: PaperComparison) -> dict[str, Any]:
    columns = [{"group": column.group, "metric": column.metric} for column in comparison.columns]
    rows = [
        {
            "method": row.name,
            "published": row.published,
            "values": [None if text == ABSENT else float(text) for text in row.texts],
            **({"not_run": row.why} if row.why else {}),
        }
        for row in comparison.rows
    ]
    about = {"table": comparison.table.source, "paper": comparison.table.paper, "about": comparison.table.about}
    return {**about, "columns": columns, "rows": rows, "notes": list(comparison.notes)}


def _stat_json(stat: Stat) -> dict[str, float | int | None]:
    """The statistics rounded to six decimals."""
    mean = stat.mean if math.isfinite(stat.mean) else None
    numbers = {"mean": mean, "low": stat.low, "high": stat.high}
    rounded = {name: None if value is None else round(value, 6) for name, value in numbers.items()}
    counts = {"count": stat.count, "infinite": stat.infinite, "undefined": stat.undefined}
    more = {"missing": stat.missing} if stat.missing else {}
    tested = {"rank": stat.rank, "p": None if stat.p is None else round(stat.p, 6)}
    return {**rounded, **counts, **more, **tested}
