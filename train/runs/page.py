"""The page that ``train compare`` draws: curves of several runs in one HTML file, with nothing from elsewhere."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from importlib.resources import files
from itertools import pairwise
from typing import Any

from clearfuse.synth.console import plural
from clearfuse.synth.files.folders import write_file
from clearfuse.synth.types import TASKS
from clearfuse.train.runs.compare import HEADS, LOSSES, Curve, Run, cells, differing, shown

POINTS = 400
"""Of a curve on the page, at most: where there are more steps, each is the mean of several, with least and most."""
METRICS = ("PSNR", "SSIM", "error")

MAIN = (
    ("train/loss", "Training loss"),
    ("validation/loss", "Validation loss"),
    ("validation/PSNR", "PSNR, dB (higher is better)"),
    ("validation/SSIM", "SSIM (higher is better)"),
    ("train/lr", "Learning rate"),
    ("train/grad_norm", "Norm of the gradients"),
)
EXPERTS = (
    ("train/balance", "Load-balancing loss (1: all experts alike)"),
    ("train/least_load", "Least loaded expert's share of the tokens"),
    ("train/most_load", "Most loaded expert's share of the tokens"),
    ("entropy", "Entropy of the load, least even layer (1: all alike)"),
)
SPEED_CHARTS = (
    ("speed/samples_per_second", "Samples a second"),
    ("speed/data_wait", "Share of the time waiting for data"),
)


def page(runs: Sequence[Run]) -> str:
    """The whole page."""
    sections = [
        _section("Curves", MAIN, runs),
        _groups(runs),
        _section("Experts", EXPERTS, runs, _layers(runs)),
        _section("Speed", SPEED_CHARTS, runs),
        _section("Other losses", _others(runs), runs),
    ]
    drawn = [chart for one in sections for chart in one[1]]
    data = json.dumps({"runs": [run.name for run in runs], "charts": drawn}, allow_nan=False, separators=(",", ":"))
    data = data.replace("<", "\\u003c")  # or a run's name could end the script
    names = ", ".join(run.name for run in runs)
    return "".join(
        (
            "<!doctype html><html lang=en><meta charset=utf-8>",
            '<meta name=viewport content="width=device-width,initial-scale=1">',
            f"<title>{escape(names)}</title><style>{_text('page.css')}</style>",
            f"<header><h1>{plural(len(runs), 'run')}</h1>{_controls(runs)}</header>",
            "<noscript><p>The curves need JavaScript; the tables do not.</p></noscript>",
            f"<section>{_table(runs)}</section>{_differ(runs)}",
            *(text for text, _ in sections),
            f'<div id=tip hidden></div><script type="application/json" id=data>{data}</script>',
            f"<script>{_text('page.js')}</script></html>\n",
        )
    )


def _text(name: str) -> str:
    """A file of the page's, which lies beside this module."""
    return files("clearfuse.train.runs").joinpath(name).read_text(encoding="utf-8")


def _controls(runs: Sequence[Run]) -> str:
    legend = "".join(
        f'<label class=run><input type=checkbox checked data-run="{number}"><i style="--run:var(--c{number % 8})"></i>'
        f"{escape(run.name)}</label>"
        for number, run in enumerate(runs)
    )
    return (
        f"<div class=controls><div class=legend>{legend}</div><div class=settings>"
        "<label>Smoothing <input id=smooth type=range min=0 max=0.99 step=0.01 value=0.6><output id=amount></output>"
        "</label><label><input id=log type=checkbox> logarithmic</label></div></div>"
    )


def _table(runs: Sequence[Run]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in HEADS)
    rows = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells(run)) + "</tr>" for run in runs)
    return f"<div class=scroll><table><tr>{head}</tr>{rows}</table></div>"


def _differ(runs: Sequence[Run]) -> str:
    """The settings that are not the same in all."""
    if len(runs) < 2:
        return ""
    found = differing(runs)
    if not found:
        return "<section><h2>Settings that differ</h2><p>None.</p></section>"
    head = "".join(f"<th>{escape(run.name)}</th>" for run in runs)
    rows = "".join(
        f"<tr><td>{escape(name)}</td>"
        + "".join(f"<td title='{escape(json.dumps(value))}'>{escape(shown(value))}</td>" for value in values)
        + "</tr>"
        for name, values in found.items()
    )
    table = f"<div class=scroll><table><tr><th>setting</th>{head}</tr>{rows}</table></div>"
    return f"<section><h2>Settings that differ</h2>{table}</section>"


def _section(
    title: str, wanted: Sequence[tuple[str, str]], runs: Sequence[Run], more: str = ""
) -> tuple[str, list[dict[str, Any]]]:
    """A section's HTML, with a place for each chart, and the charts; nothing where no run has any."""
    found = [_chart(key, name, runs) for key, name in wanted]
    charts = [chart for chart in found if any(chart["curves"])]
    if not charts:
        return "", []
    places = "".join(_place(chart) for chart in charts)
    return f"<section><h2>{escape(title)}</h2><div class=charts>{places}</div>{more}</section>", charts


def _place(chart: Mapping[str, Any], metric: str = "") -> str:
    shown_with = f" data-metric={metric}" if metric else ""
    title = f"<figcaption>{escape(chart['title'])}</figcaption>"
    return f'<figure data-chart="{escape(chart["id"])}"{shown_with}>{title}</figure>'


def _groups(runs: Sequence[Run]) -> tuple[str, list[dict[str, Any]]]:
    """By task and degradation: the last validation as a table, and the curves of one metric at a time."""
    names = dict.fromkeys(
        key.removeprefix("validation/samples/") for run in runs for key in run.curves if "/samples/" in key
    )
    if not names:
        return "", []
    order = [name for name in TASKS if name in names] + sorted(name for name in names if name not in TASKS)
    found = [
        (metric, _chart(f"validation/{metric}/{name}", name.replace("_", " "), runs))
        for metric in METRICS
        for name in order
    ]
    drawn = [(metric, chart) for metric, chart in found if any(chart["curves"])]
    places = "".join(_place(chart, metric) for metric, chart in drawn)
    choices = "".join(f"<option>{metric}</option>" for metric in METRICS)
    return (
        f"<section><h2>By task and degradation</h2>{_last(order, runs)}<label class=settings>Curves of "
        f"<select id=metric>{choices}</select></label><div class=charts>{places}</div></section>",
        [chart for _, chart in drawn],
    )


def _last(order: Sequence[str], runs: Sequence[Run]) -> str:
    """The last validation: PSNR of each group and run, and of how many samples."""
    rows: list[str] = []
    for name in order:
        counts = [run.last(f"validation/samples/{name}") for run in runs]
        most = max((count for count in counts if count is not None), default=0)
        values = [run.last(f"validation/PSNR/{name}") for run in runs]
        known = [value for value in values if value is not None]
        tops = {max(known)} if len(known) > 1 else set()
        row = "".join(
            f"<td{' class=top' if value in tops else ''}>{'-' if value is None else f'{value:.2f}'}</td>"
            for value in values
        )
        rows.append(f"<tr><td>{escape(name.replace('_', ' '))}</td><td>{most:.0f}</td>{row}</tr>")
    head = "".join(f"<th>{escape(run.name)}</th>" for run in runs)
    return (
        f"<div class=scroll><table><tr><th>PSNR, dB, last validation</th><th>samples</th>{head}</tr>{''.join(rows)}"
        "</table></div>"
    )


def _layers(runs: Sequence[Run]) -> str:
    """The entropy of each layer's load at the last validation; the darker, the less even."""
    count = max((len(_entropies(run)) for run in runs), default=0)
    if not count:
        return ""
    rows: list[str] = []
    for layer in range(count):
        row: list[str] = []
        for run in runs:
            value = run.last(f"validation/entropy/layer-{layer}")
            least, most = (run.last(f"validation/{end}/layer-{layer}") for end in ("least", "most"))
            said = "" if least is None or most is None else f" title='shares {least:.3f} to {most:.3f}'"
            shade = "" if value is None else f" style='--share:{min(max(100 * (1 - value), 0), 80):.0f}%'"
            row.append(f"<td{said}{shade}>{'-' if value is None else f'{value:.3f}'}</td>")
        rows.append(f"<tr><td>layer {layer}</td>{''.join(row)}</tr>")
    head = "".join(f"<th>{escape(run.name)}</th>" for run in runs)
    table = f"<table class=shaded><tr><th>entropy of the load, last validation</th>{head}</tr>{''.join(rows)}</table>"
    return f"<details><summary>By layer</summary><div class=scroll>{table}</div></details>"


def _others(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """What else was logged in training: the parts of the loss."""
    known = {key for key, _ in (*MAIN, *EXPERTS)}
    keys = dict.fromkeys(key for run in runs for key in run.curves if key.startswith("train/") and key not in known)
    return [(key, f"{key.removeprefix('train/').replace('_', ' ').capitalize()} (training)") for key in keys]


def _chart(key: str, title: str, runs: Sequence[Run]) -> dict[str, Any]:
    curves = [_evenness(run) if key == "entropy" else run.curves.get(key) for run in runs]
    if key != "entropy" and key.split("/")[1] in LOSSES and (units := _units(runs)):
        title += f" ({units})"
    return {"id": key, "title": title, "curves": [list(points(curve)) if curve else [] for curve in curves]}


def _units(runs: Sequence[Run]) -> str:
    """The unit of the runs' losses, or which runs have one; "" where none has."""
    named = [run.name for run in runs if run.unit.name]
    units = ", ".join(dict.fromkeys(run.unit.name for run in runs if run.unit.name))
    return units if len(named) == len(runs) else f"{units} of {', '.join(named)}" if named else ""


def _entropies(run: Run) -> list[Curve]:
    return [curve for key, curve in run.curves.items() if key.startswith("validation/entropy/")]


def _evenness(run: Run) -> Curve | None:
    """The least even layer's entropy at each validation."""
    layers = _entropies(run)
    if not layers:
        return None
    least = Curve()
    for step, *values in zip(layers[0].steps, *(layer.values for layer in layers), strict=False):
        least.add(step, min(values))
    return least


def points(curve: Curve) -> Iterator[list[float]]:
    """[step, value], or of more than ``POINTS`` values [last step, mean, least, most] of runs of them.

    What is not finite is left out.
    """
    finite = [(s, v) for s, v in zip(curve.steps, curve.values, strict=True) if math.isfinite(v)]
    if len(finite) <= POINTS:
        yield from ([step, _short(value)] for step, value in finite)
        return
    bounds = [len(finite) * i // POINTS for i in range(POINTS + 1)]
    for start, stop in pairwise(bounds):
        values = [value for _, value in finite[start:stop]]
        mean = math.fsum(values) / len(values)
        yield [finite[stop - 1][0], *map(_short, (mean, min(values), max(values)))]


def _short(value: float) -> float:
    return float(f"{value:.5g}")


def write_page(out: str, runs: Sequence[Run]) -> None:
    """Write the curves. Raises UserError."""
    write_file(out, page(runs).encode())
