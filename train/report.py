"""An evaluation as files: report.md, report.csv (a row a sample and method), report.html with pictures, report.json."""

from __future__ import annotations

import csv
import html
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from synth.gallery import Row, describe_step, page
from synth.storage import landing
from synth.types import ROLES, UserError
from train.evaluate import (
    METHODS,
    Evaluation,
    Method,
    Progress,
    Scored,
    absent_metrics,
    choose_metrics,
    plan_portions,
    score_shards,
    suited,
)
from train.metrics import Metric, find_profile
from train.tally import INTERVAL, RESAMPLES, Stat, Tally

FILES = ("report.csv", "report.json", "report.html", "report.md")
LEAST = 64
"""No sample has a smaller side."""
KINDS = ("full-reference", "fusion", "no-reference")
TITLES = {
    "overall": "Overall",
    "task": "By task",
    "operator": "By degradation",
    "n": "By number of degradations",
    "ground truth": "By what made the ground truth",
}


@dataclass(frozen=True)
class Table:
    """Rows of (text, is it the best of its column) below a header."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[tuple[str, bool], ...], ...]


def evaluate_shards(
    paths: Sequence[str],
    out: str,
    *,
    metrics: str | None = None,
    profile: str = "strict",
    limit: int | None = None,
    examples: int = 6,
    methods: Sequence[Method] = tuple(METHODS.values()),
    progress: Progress = lambda done, total: None,
) -> Evaluation:
    """Score ``methods`` on shards and write the report into ``out``: all its files, or none.

    metrics: names of the profile's, ``all``, or the usual ones; what of these can't run is named in the notes. Raises
    UserError before work begins, WorkIncomplete where a sample can't be read or scored.
    """
    if examples < 0:
        raise UserError(f"--examples {examples}: must be at least 0")
    if "://" in out:
        raise UserError(f"--out {out}: must be a local folder")
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--out {out}: is a file, must be a folder")
    asked, portions = choose_metrics(metrics, profile), plan_portions(paths, limit)
    methods, chosen = suited(portions, methods, asked, profile)
    with _landing_in(folder) as files:
        record = _csv(files["report.csv"], methods, chosen)
        done = score_shards(
            *(portions, methods, chosen), profile=profile, examples=examples, record=record, progress=progress
        )
        done.absent = absent_metrics(metrics, profile)
        files["report.json"].write(json.dumps(to_json(done), indent=1, allow_nan=False).encode() + b"\n")
        files["report.html"].write(to_html(done).encode())
        files["report.md"].write(to_markdown(done).encode())
    return done


@contextmanager
def _landing_in(folder: Path) -> Iterator[Mapping[str, IO[bytes]]]:
    """The report's files, open; they appear together at the end. A folder made for nothing goes again."""
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with ExitStack() as stack:
            yield {name: stack.enter_context(landing(folder / name)) for name in FILES}
    except BaseException:
        if made and not any(folder.iterdir()):
            folder.rmdir()
        raise


def _csv(file: IO[bytes], methods: Sequence[Method], metrics: Sequence[Metric]) -> Callable[[Scored], None]:
    """Write the header; return what writes a sample's rows."""

    def write(*cells: Any) -> None:
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow(cells)
        file.write(line.getvalue().encode())

    def record(scored: Scored) -> None:
        sample, meta = scored.sample, scored.sample.meta
        steps = "+".join(f"{step.op}[{step.target}]" for step in sample.steps)
        about = (scored.shard, sample.key, meta["dataset"], meta["pair"], meta["task"], meta["n"], steps)
        for method, row in zip(methods, scored.values, strict=True):
            write(*about, meta["fuser"]["name"], method.name, *(f"{value:.6f}" for value in row))

    write(
        *("shard", "key", "dataset", "pair", "task", "n", "steps", "ground_truth", "method"), *(m.name for m in metrics)
    )
    return record


def best_of(evaluation: Evaluation, tally: Tally, metric: int) -> set[int]:
    """The methods with the best mean. Ceilings take no part; nobody is best where nobody competes."""
    means = {
        i: tally.stat(i, metric).mean
        for i, method in enumerate(evaluation.methods)
        if not method.ceiling and not math.isnan(tally.stat(i, metric).mean)
    }
    if len(means) < 2:
        return set()
    top = (max if evaluation.metrics[metric].direction == "higher" else min)(means.values())
    return {i for i, mean in means.items() if mean == top}


def cell(stat: Stat, digits: int, interval: bool) -> str:
    """``17.81 [17.02, 18.60]``."""
    text = "undefined" if math.isnan(stat.mean) else f"{stat.mean:.{digits}f}"
    if interval and stat.low is not None and stat.high is not None:
        text += f" [{stat.low:.{digits}f}, {stat.high:.{digits}f}]"
    return text


def table(evaluation: Evaluation, by: str, *, interval: bool = True, arrows: bool = True) -> Table:
    """One group a few rows, one row a method."""
    signs = {"higher": " ↑", "lower": " ↓"} if arrows else {"higher": "", "lower": ""}
    header = (by, "samples", "method", *(m.name + signs[m.direction] for m in evaluation.metrics))
    rows: list[tuple[tuple[str, bool], ...]] = []
    for name, tally in evaluation.ordered(by):
        best = [best_of(evaluation, tally, k) for k in range(len(evaluation.metrics))]
        for i, method in enumerate(evaluation.methods):
            group = ((name, False), (str(tally.samples), False)) if i == 0 else (("", False), ("", False))
            shown = method.name + (" (ceiling)" if method.ceiling else "")
            cells = (
                (cell(tally.stat(i, k), metric.digits, interval), i in best[k])
                for k, metric in enumerate(evaluation.metrics)
            )
            rows.append((*group, (shown, False), *cells))
    if by == "overall":
        return Table(TITLES[by], header[1:], tuple(row[1:] for row in rows))
    return Table(TITLES[by], header, tuple(rows))


def notes(evaluation: Evaluation) -> list[str]:
    """What a reader must know to read the numbers."""
    tasks = ", ".join(f"{name} {tally.samples}" for name, tally in evaluation.ordered("task"))
    held = sum(portion.total for portion in evaluation.portions)
    kinds = {kind: [m.name for m in evaluation.metrics if m.kind == kind] for kind in KINDS}
    shards = "1 shard" if len(evaluation.portions) == 1 else f"{len(evaluation.portions)} shards"
    lines = [f"{evaluation.samples} of {held} samples in {shards} ({tasks})."]
    if kinds["full-reference"]:
        lines.append(f"{', '.join(kinds['full-reference'])}: against the ground truth.")
    if evaluation.real:
        lines += _of_real(evaluation)
    elif kinds["fusion"]:
        lines.append(f"{', '.join(kinds['fusion'])}: the clean pair as the two sources.")
    if kinds["no-reference"]:
        lines.append(f"{', '.join(kinds['no-reference'])}: of the fused image alone.")
    lines += [f"Not run: {name} {reason}." for name, reason in evaluation.absent.items()]
    lines.append(
        f"Profile {evaluation.profile}: {find_profile(evaluation.profile).doc}. "
        f"Brackets: {INTERVAL:.0%} bootstrap interval of the mean, {RESAMPLES} resamples. "
        "Bold (* as plain text): the best mean, ceilings aside."
    )
    same = evaluation.groups.get("ground truth", {}).get("pyramid")
    if same is not None:
        lines.append(
            f"The ground truth of {same.samples} samples is the pyramid fuser's own, on the whole image: there the "
            "ceiling differs from it only by what lies outside the crop."
        )
    if evaluation.partial:
        lines.append(
            f"{evaluation.partial} prompts ask for a part of the steps: their ground truth keeps the rest, and the "
            "clean pair is no ceiling."
        )
    return lines + _left_out(evaluation)


def _of_real(evaluation: Evaluation) -> list[str]:
    """What the numbers of real pairs mean, and which there can't be."""
    held = find_profile(evaluation.profile)
    usual = (held.metrics[name] for name in held.usual or held.metrics)
    absent = ", ".join(metric.name for metric in usual if metric.kind == "full-reference")
    ceilings = ", ".join(method.name for method in METHODS.values() if method.ceiling)
    fusion = ", ".join(metric.name for metric in evaluation.metrics if metric.kind == "fusion")
    lines = [f"Left out: {absent + ' (no ground truth) and ' if absent else ''}{ceilings} (no clean pair)."]
    if not fusion:
        return lines
    kept = "what a method keeps of noise and haze counts for it"
    return [
        f"{fusion}: the degraded pair itself as the two sources, since real pairs have no clean side: {kept}.",
        *lines,
    ]


def _left_out(evaluation: Evaluation) -> list[str]:
    lines: list[str] = []
    overall = evaluation.groups["overall"]["all"]
    for i, method in enumerate(evaluation.methods):
        for k, metric in enumerate(evaluation.metrics):
            stat = overall.stat(i, k)
            for count, what in ((stat.infinite, "infinite"), (stat.undefined, "undefined")):
                if count:
                    lines.append(f"{method.name}, {metric.name}: {count} values are {what}, left out of the mean.")
    sizes = [f"{m.name} of images under {m.smallest}x{m.smallest}" for m in evaluation.metrics if m.smallest > LEAST]
    return [*lines, f"Undefined: {', '.join(sizes)}."] if sizes else lines


def to_json(evaluation: Evaluation) -> dict[str, Any]:
    """The object that ``report.json`` holds and ``--json`` prints; null where a number is infinite or undefined."""

    def stats(tally: Tally) -> dict[str, Any]:
        return {
            method.name: {metric.name: _stat_json(tally.stat(i, k)) for k, metric in enumerate(evaluation.metrics)}
            for i, method in enumerate(evaluation.methods)
        }

    return {
        "schema": 1,
        "profile": evaluation.profile,
        **({"real": True} if evaluation.real else {}),
        "samples": evaluation.samples,
        "shards": [{"shard": p.path.name, "samples": p.take, "of": p.total} for p in evaluation.portions],
        "methods": [{"name": method.name, "ceiling": method.ceiling} for method in evaluation.methods],
        "metrics": [{"name": m.name, "direction": m.direction, "kind": m.kind} for m in evaluation.metrics],
        **({"not_run": dict(evaluation.absent)} if evaluation.absent else {}),
        "bootstrap": {"resamples": RESAMPLES, "interval": INTERVAL},
        "groups": {
            by: {name: {"samples": tally.samples, "methods": stats(tally)} for name, tally in evaluation.ordered(by)}
            for by in evaluation.groups
        },
        "notes": notes(evaluation),
    }


def _stat_json(stat: Stat) -> dict[str, float | int | None]:
    """To six decimals, like the CSV."""
    mean = stat.mean if math.isfinite(stat.mean) else None
    shown = {"mean": mean, "low": stat.low, "high": stat.high}
    rounded = {name: None if value is None else round(value, 6) for name, value in shown.items()}
    return {**rounded, "count": stat.count, "infinite": stat.infinite, "undefined": stat.undefined}


def _tabled(evaluation: Evaluation) -> list[str]:
    """What there is a table by: where no step is named there is no operator, and real pairs have no ground truth."""
    return [by for by in TITLES if by in evaluation.groups]


def to_markdown(evaluation: Evaluation) -> str:
    """The page that a repository shows."""
    parts = ["# Fused images, scored", "\n".join(f"- {line}" for line in notes(evaluation))]
    for by in _tabled(evaluation):
        shown = table(evaluation, by)
        lines = ["| " + " | ".join(shown.header) + " |", "|" + "---|" * len(shown.header)]
        lines += ["| " + " | ".join(f"**{t}**" if best else t for t, best in row) + " |" for row in shown.rows]
        parts += [f"## {shown.title}", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def to_text(evaluation: Evaluation) -> str:
    """Aligned columns for a terminal, the best marked with a star: overall, then by task where there are several."""
    blocks: list[str] = []
    for by in ("overall", "task") if len(evaluation.groups["task"]) > 1 else ("overall",):
        shown = table(evaluation, by, interval=False, arrows=False)
        lines = [shown.header, *(tuple(t + ("*" if best else " ") for t, best in row) for row in shown.rows)]
        left = shown.header.index("method") + 1
        widths = [max(len(line[k].rstrip(" ")) for line in lines) + 1 for k in range(len(shown.header))]
        blocks.append("\n".join(_aligned(line, widths, left) for line in lines))
    return "\n\n".join(blocks)


def _aligned(line: tuple[str, ...], widths: Sequence[int], left: int) -> str:
    texts = [text if text.endswith(("*", " ")) else text + " " for text in line]
    pairs = enumerate(zip(texts, widths, strict=True))
    return " ".join(f"{t:<{w}}" if k < left else f"{t:>{w}}" for k, (t, w) in pairs).rstrip()


STYLE = """<style>table{border-collapse:collapse;margin:.4em 0 1.2em;font-variant-numeric:tabular-nums}
th,td{padding:.25em .8em;text-align:right}th{border-bottom:1px solid #888}.text{text-align:left}
h2{font-size:1.05em;margin:1.4em 0 .2em}tr.first td{border-top:1px solid #bbb}li{margin:.15em 0}
.row figure{flex:1 1 0;min-width:0}.row img{width:100%;max-width:none}</style>"""


def to_html(evaluation: Evaluation) -> str:
    """One self-contained page: the notes, pictures of the examples, every table."""
    tables = {by: _html_table(table(evaluation, by)) for by in _tabled(evaluation)}
    intro = [STYLE, "<ul>", *(f"<li>{html.escape(line)}</li>" for line in notes(evaluation)), "</ul>"]
    intro += [tables.pop("overall"), tables.pop("task")]
    intro += ["<h2>Examples</h2>"] if evaluation.examples else []
    text = page("Fused images, scored", [_example(evaluation, scored) for scored in evaluation.examples])
    head, mark, pictures = text.partition("</h1>")
    pictures, end, _ = pictures.rpartition("</html>")
    return "\n".join([head + mark, *intro, pictures, *tables.values(), end]) + "\n"


def _html_table(shown: Table) -> str:
    left = shown.header.index("method") + 1

    def tag(kind: str, k: int, text: str) -> str:
        return f"<{kind} class=text>{text}</{kind}>" if k < left else f"<{kind}>{text}</{kind}>"

    lines = [f"<h2>{html.escape(shown.title)}</h2><table><tr>"]
    lines += [tag("th", k, html.escape(text)) for k, text in enumerate(shown.header)]
    for row in shown.rows:
        lines.append("<tr class=first>" if row[0][0] else "<tr>")
        texts = [f"<b>{html.escape(text)}</b>" if best else html.escape(text) for text, best in row]
        lines += [tag("td", k, text) for k, text in enumerate(texts)]
    return "".join(lines) + "</table>"


def _example(evaluation: Evaluation, scored: Scored) -> Row:
    """The degraded pair, every method's image, the ground truth where there is one; steps, prompt, values below."""
    sample, meta = scored.sample, scored.sample.meta
    roles = ROLES[meta["task"]]
    degraded = tuple((f"degraded {roles[name]}", sample.images[name]) for name in ("a", "b"))
    truth = () if sample.real else ((f"ground truth ({meta['fuser']['name']})", sample.images["gt"]),)
    steps = "   ".join(describe_step(step) for step in sample.steps)
    lines = [f"{meta['task']}  {meta['dataset']}/{meta['pair']}   {steps}", f'"{sample.prompt}"']
    for method, row in zip(evaluation.methods, scored.values, strict=True):
        values = zip(evaluation.metrics, row, strict=True)
        lines.append(f"{method.name}: " + ", ".join(f"{m.name} {value:.{m.digits}f}" for m, value in values))
    return Row((*degraded, *scored.fused.items(), *truth), tuple(lines))
