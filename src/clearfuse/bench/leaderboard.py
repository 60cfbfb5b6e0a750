"""The leaderboard: one HTML page of submissions, no script, nothing from elsewhere, light and dark."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from clearfuse.bench.page import BenchmarkFile, load_page
from clearfuse.bench.submission import REAL_TRACK, Score, Submission, check_submission, read_submission
from clearfuse.synth.files.folders import check_html, write_file
from clearfuse.synth.files.storage import local
from clearfuse.synth.types import UserError
from clearfuse.train.metrics import Metric, find_metric
from clearfuse.train.metrics.marks import explain, mark

TITLES = {"vif": "Visible + infrared", "mef": "Multi-exposure", "mff": "Multi-focus", REAL_TRACK: "Real degraded pairs"}
KINDS = {
    "n": "number of degradations",
    "severity": "mean severity",
    "operator": "degradation",
    "data set": "data set",
}
ARROWS = {"higher": "↑", "lower": "↓"}

STYLE = """
:root{color-scheme:light dark;--line:#bbb;--soft:#666;--hover:#f3f6fa;--back:#fff;--text:#222}
@media(prefers-color-scheme:dark){:root{--line:#555;--soft:#aaa;--hover:#2a2f36;--back:#1b1e22;--text:#ddd}}
body{font:15px/1.5 system-ui,sans-serif;max-width:1100px;margin:2em auto;padding:0 1em}
body{background:var(--back);color:var(--text)}
h1{font-size:1.5em}h2{font-size:1.25em;margin-top:2em}h3{font-size:1.05em;margin:1.6em 0 .2em}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums;margin:.4em 0}
th,td{padding:.3em .8em;text-align:right;vertical-align:top}th{border-bottom:1px solid var(--line);white-space:nowrap}
td:first-child,th:first-child{text-align:left;min-width:15em;max-width:28em}tbody tr:hover td{background:var(--hover)}
td small{display:block;color:var(--soft);font-size:.78em}
.second{text-decoration:underline}.bound td{font-style:italic;color:var(--soft)}
details{margin:.5em 0}summary{cursor:pointer}ul{margin:.3em 0;padding-left:1.3em}
p.note,li{color:var(--soft);font-size:.9em}
code{font-size:.9em}
"""


@dataclass(frozen=True)
class Entry:
    """A submission with what was found wrong with it, and what it leaves out."""

    submission: Submission
    problems: Sequence[str]
    notes: Sequence[str]


def load_entries(places: Sequence[str]) -> list[Entry]:
    """The submissions of files, and of the JSON files of folders, each checked. Raises UserError for what is none."""
    paths: list[Path] = []
    for text in places:
        place = local(text, "leaderboard")
        if not place.exists():
            raise UserError(f"{text}: does not exist")
        inside = (path for path in place.glob("*.json") if path.is_file() and not path.name.startswith("."))
        paths += sorted(inside) if place.is_dir() else [place]
    found = [read_submission(path) for path in paths]
    return [Entry(one, *check_submission(one)) for one in found]


def write_leaderboard(places: Sequence[str], out: str) -> list[Entry]:
    """Write the page of the submissions that have no problem, and give all of them."""
    check_html(out)
    entries = load_entries(places)
    write_file(out, leaderboard(entries).encode())
    return entries


def leaderboard(entries: Sequence[Entry]) -> str:
    """The page: a section a benchmark, in it a table a task, best method first. Those with problems are left out."""
    right = [entry for entry in entries if not entry.problems]
    names = list(dict.fromkeys(entry.submission.benchmark for entry in right))
    body = "".join(_section(load_page(name), [e for e in right if e.submission.benchmark == name]) for name in names)
    body = body or "<p>No scores yet.</p>"
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>ClearFuse-Bench: leaderboard</title><style>{STYLE}</style>
<body><h1>ClearFuse-Bench: leaderboard</h1>
<p>Scores on the same pixels: each benchmark is a recipe with digests, which anybody builds again from public sets.
Figures in small print are 95&nbsp;% bootstrap intervals of the mean. <b>Bold</b>: the best of a column;
<span class="second">underlined</span>: the second. Rows in italics were given the clean pair: bounds, not methods.</p>
{body}</body></html>
"""


def _section(page: BenchmarkFile, entries: Sequence[Entry]) -> str:
    """A benchmark's part of the page."""
    tracks = [name for name in TITLES if any(name in entry.submission.tracks for entry in entries)]
    tables = "".join(_track(page, name, [e for e in entries if name in e.submission.tracks]) for name in tracks)
    said = "".join(
        f"<li>{escape(entry.submission.method)}: {escape(note)}</li>" for entry in entries for note in entry.notes
    )
    coverage = f"<details><summary>What rows leave out</summary><ul>{said}</ul></details>" if said else ""
    about = f"{escape(page.about)} {len(page.shards)} shards; <code>{page.definition[:12]}</code>."
    return f'<h2 id="{escape(page.name)}">{escape(page.title)}</h2><p>{about}</p>{tables}{coverage}'


def _track(page: BenchmarkFile, track: str, entries: Sequence[Entry]) -> str:
    """The table of a task, and the first metric by kinds of samples."""
    metrics = [find_metric(name) for name in (page.real_metrics if track == REAL_TRACK else page.metrics)]
    rows = {
        i: {metric.name: _overall(entry.submission, track).get(metric.name) for metric in metrics}
        for i, entry in enumerate(entries)
    }
    ranks = _ranks(entries, rows, metrics)
    order = sorted(rows, key=lambda i: (_mean(ranks[i]), entries[i].submission.method))
    head = "".join(f"<th>{escape(m.name)} {ARROWS[m.direction]}{mark(m.name)}</th>" for m in metrics)
    lines = "".join(_row(entries[i].submission, track, rows[i], ranks[i], metrics) for i in order)
    marks = f'<p class="note">{escape(told)}</p>' if (told := explain(m.name for m in metrics)) else ""
    kinds = "".join(
        _by(track, metrics[0], by, [entries[i].submission for i in order])
        for by in KINDS
        if any(by in entry.submission.tracks[track].groups for entry in entries)
    )
    table = f"<table><thead><tr><th>method</th><th>samples</th>{head}<th>mean rank</th></tr></thead><tbody>{lines}"
    return f'<h3>{TITLES[track]}</h3><div class="scroll">{table}</tbody></table></div>{marks}{kinds}'


def _overall(submission: Submission, track: str) -> Mapping[str, Score]:
    return submission.tracks[track].groups["overall"]["all"].metrics


def _ranks(
    entries: Sequence[Entry], rows: Mapping[int, Mapping[str, Score | None]], metrics: Sequence[Metric]
) -> dict[int, dict[str, int]]:
    """Ranks by row and metric: 1 is the best; bounds and what has no mean have none."""
    found: dict[int, dict[str, int]] = {i: {} for i in rows}
    for metric in metrics:
        sign = -1 if metric.direction == "higher" else 1
        means = {
            i: sign * score.mean
            for i, row in rows.items()
            if not entries[i].submission.ceiling and (score := row[metric.name]) is not None and score.mean is not None
        }
        for i, mean in means.items():
            found[i][metric.name] = 1 + sum(other < mean for other in means.values())
    return found


def _mean(ranks: Mapping[str, int]) -> float:
    return sum(ranks.values()) / len(ranks) if ranks else math.inf


def _row(
    submission: Submission,
    track: str,
    scores: Mapping[str, Score | None],
    ranks: Mapping[str, int],
    metrics: Sequence[Metric],
) -> str:
    scored = submission.tracks[track]
    count = f"{scored.samples}" + (f" of {scored.of}" if scored.samples < scored.of else "")
    cells = "".join(f"<td>{_cell(scores[m.name], ranks.get(m.name), m.digits)}</td>" for m in metrics)
    rank = f"{_mean(ranks):.2f}" if ranks else "–"
    style = ' class="bound"' if submission.ceiling else ""
    return f"<tr{style}><td>{''.join(_method(submission))}</td><td>{count}</td>{cells}<td>{rank}</td></tr>"


def _cell(score: Score | None, rank: int | None, digits: int) -> str:
    if score is None or score.mean is None:
        return "–"
    text = f"{score.mean:.{digits}f}"
    text = {1: f"<b>{text}</b>", 2: f'<span class="second">{text}</span>'}.get(rank or 0, text)
    if score.low is None or score.high is None:
        return text
    return f"{text}<small>{score.low:.{digits}f} – {score.high:.{digits}f}</small>"


def _method(submission: Submission) -> Iterator[str]:
    """The method's cell: name, what it is, which weights, and what it was trained on."""
    name = escape(submission.method)
    yield f'<a href="{escape(submission.url)}">{name}</a>' if submission.url else name
    facts = [submission.about] if submission.about else []
    facts += [f"weights sha256 {submission.weights[:12]}"] if submission.weights else []
    facts += [f"trained on pairs of {', '.join(submission.trained_on)}"] if submission.trained_on else []
    yield "".join(f"<small>{escape(fact)}</small>" for fact in facts)


def _by(track: str, metric: Metric, by: str, submissions: Sequence[Submission]) -> str:
    """A metric by the groups of a kind, a row a method."""
    tables = [one.tracks[track].groups.get(by, {}) for one in submissions]
    names = list(dict.fromkeys(name for table in tables for name in table))
    if len(names) < 2:
        return ""
    head = "".join(f"<th>{escape(name.removeprefix(f'{track} '))}</th>" for name in names)
    lines = "".join(
        f"<tr><td>{escape(one.method)}</td>{''.join(_plain(table, name, metric) for name in names)}</tr>"
        for one, table in zip(submissions, tables, strict=True)
    )
    table = f"<table><thead><tr><th>method</th>{head}</tr></thead><tbody>{lines}</tbody></table>"
    return f'<details><summary>{metric.name} by {KINDS[by]}</summary><div class="scroll">{table}</div></details>'


def _plain(table: Mapping[str, object], name: str, metric: Metric) -> str:
    group = table.get(name)
    score: Score | None = getattr(group, "metrics", {}).get(metric.name)
    return f"<td>{'–' if score is None or score.mean is None else f'{score.mean:.{metric.digits}f}'}</td>"


def summary(entries: Iterable[Entry]) -> str:
    """A line an entry: taken, or why not."""
    return "\n".join(
        f"{one.submission.benchmark}: {one.submission.method}: {one.problems[0] if one.problems else 'ok'}"
        for one in entries
    )
