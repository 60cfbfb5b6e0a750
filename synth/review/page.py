"""The page that ``synth inspect --out`` draws: one HTML file, no script, nothing from elsewhere, light and dark."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from itertools import islice
from typing import Any

from clearfuse.synth.files.folders import check_html, write_file
from clearfuse.synth.review import gallery
from clearfuse.synth.shards.find import find_shards
from clearfuse.synth.shards.receipts import read_index
from clearfuse.synth.shards.sample import Sample, read_samples
from clearfuse.synth.types import UserError

MOST_THUMBNAILS = 60
"""Samples of a page: with five pictures each it stays below 3 MB."""
WIDTH, QUALITY = 200, 72
"""Of a thumbnail, in pixels, and of its lossy WebP."""
ROWS = 16
"""Of a list of counts; what is rarer is summed in one row more."""

Stats = Mapping[str, Any]


def check_page(out: str, thumbnails: int) -> None:
    """Refuse, before any work, a page that could not be written."""
    check_html(out)
    if not 0 <= thumbnails <= MOST_THUMBNAILS:
        raise UserError(f"--thumbnails {thumbnails}: must be in [0, {MOST_THUMBNAILS}]")


def write_page(out: str, paths: Sequence[str], report: Mapping[str, Any], thumbnails: int) -> None:
    """Draw ``report``, as ``inspection.inspect`` gives it, with some samples of the shards. Raises UserError."""
    try:
        samples = list(_some(paths, thumbnails))
    except ValueError as error:
        raise UserError(f"{error}; see synth verify") from None
    text = page(", ".join(paths), report, samples, _facts(paths))
    write_file(out, text.encode())


def _some(paths: Sequence[str], count: int) -> Iterator[Sample]:
    """The first samples of shards that are spread evenly."""
    shards, _ = find_shards(paths)
    used = min(len(shards), count)
    for i in range(used):
        share = count * (i + 1) // used - count * i // used
        yield from islice(read_samples(shards[i * len(shards) // used]), share)


def _facts(paths: Sequence[str]) -> dict[str, str]:
    """What the index of a single build says of how it was made."""
    _, folders = find_shards(paths)
    if len(folders) != 1 or not (folders[0] / "dataset.json").is_file():
        return {}
    index = read_index(folders[0] / "dataset.json")
    settings = index.settings
    recipe = settings.get("recipe", {})
    said = {
        "task": settings.get("task"),
        "recipe": recipe.get("name") if isinstance(recipe, dict) else recipe,
        "seed": settings.get("seed"),
        "variants": index.variants,
        "codec": settings.get("codec"),
        "shard size": settings.get("shard_size"),
        "digest": index.digest[:16],
    }
    return {name: str(value) for name, value in said.items() if value is not None}


def page(title: str, report: Mapping[str, Any], samples: Sequence[Sample], facts: Mapping[str, str]) -> str:
    """The page's text."""
    operators = _operators(report) if report["operators"] else ""
    parts = [
        _section("Samples", _gallery(samples)) if samples else "",
        _section("Operators", operators, "A bar is split by target; the small one has severity from mild to strong."),
        _section("Combinations", _combinations(report)),
        _section("Parameters", _parameters(report["parameters"]), "Lowest, median and highest of what was drawn."),
        _section("Pairs", _pairs(report)),
        _section("Prompts", _prompts(report)),
        _section("Ground truth", _metrics(report["metrics"]), "Its quality as a fusion of the clean pair."),
        _section("Rejects", _rejects(report)),
    ]
    chips = "".join(f"<li><b>{escape(name)}</b> {escape(value)}</li>" for name, value in facts.items())
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>",
            f"<header><h1>{escape(title)}</h1><p>{escape(_summary(report))}</p><ul class=chips>{chips}</ul></header>",
            "<main>",
            *(part for part in parts if part),
            "</main></body></html>\n",
        ]
    )


def _summary(report: Mapping[str, Any]) -> str:
    size = report["bytes"]
    units = ["B", "kB", "MB", "GB", "TB"]
    while size >= 1000 and len(units) > 1:
        size /= 1000
        units.pop(0)
    kinds = [f"{report[kind]} {kind}" for kind in ("lean", "given", "real") if report[kind]]
    counts = f"{report['samples']} samples in {report['shards']} shards, {size:.3g} {units[0]}"
    return "; ".join(
        [counts, f"{len(report['operators'])} operators", f"{report['prompts']} different prompts", *kinds]
    )


def _section(title: str, content: str, note: str = "") -> str:
    if not content:
        return ""
    return f"<section><h2>{title}</h2>{f'<p class=note>{note}</p>' if note else ''}{content}</section>"


def _gallery(samples: Sequence[Sample]) -> str:
    shown: list[str] = []
    for sample in samples:
        row = gallery.sample_row(sample)
        pictures = "".join(
            f'<figure><img loading=lazy alt="{escape(name)}" src="{gallery.data_uri(image, WIDTH, QUALITY)}">'
            f"<figcaption>{escape(name)}</figcaption></figure>"
            for name, image in row.cells
        )
        lines = "".join(f"<p>{escape(line)}</p>" for line in row.lines if line != '""')
        shown.append(f"<article><div class=pictures>{pictures}</div>{lines}</article>")
    return "".join(shown)


def bars(counts: Mapping[str, int], title: str, total: int = 0) -> str:
    """A list of counts as bars, the share of ``total`` (or of all) beside each."""
    if not counts:
        return ""
    whole = total or sum(counts.values())
    rows = list(counts.items())
    if len(rows) > ROWS + 1:
        rest = sum(count for _, count in rows[ROWS:])
        rows = [*rows[:ROWS], (f"{len(counts) - ROWS} others", rest)]
    most = max(count for _, count in rows)
    lines = "".join(
        f"<tr><th>{escape(name)}</th><td class=bar><i style='width:{100 * count / most:.1f}%'></i></td>"
        f"<td class=number>{count}</td><td class=share>{100 * count / whole:.1f} %</td></tr>"
        for name, count in rows
    )
    return f"<div class=block><h3>{escape(title)}</h3><table class=bars>{lines}</table></div>"


def histogram(bins: Sequence[int], label: str) -> str:
    """Counts as a small picture of columns."""
    most = max(max(bins, default=0), 1)
    step = 100 / len(bins)
    columns = "".join(
        f'<rect x="{i * step + 0.5:.2f}" y="{30 - 30 * count / most:.2f}" width="{step - 1:.2f}" '
        f'height="{30 * count / most:.2f}"><title>{count}</title></rect>'
        for i, count in enumerate(bins)
    )
    return (
        f'<svg class=histogram viewBox="0 0 100 30" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(label)}: {", ".join(map(str, bins))}">{columns}</svg>'
    )


def _operators(report: Mapping[str, Any]) -> str:
    most = max(report["operators"].values())
    rows: list[str] = []
    for name, count in report["operators"].items():
        targets = report["targets"][name]
        parts = "".join(
            f"<i class='{escape(target)}' style='width:{100 * held / most:.2f}%' title='{escape(target)}: {held}'></i>"
            for target, held in targets.items()
        )
        severity = report["severities"].get(name)
        drawn = histogram(severity, f"severity of {name}") if severity else ""
        said = ", ".join(f"{target} {held}" for target, held in targets.items())
        rows.append(
            f"<tr><th>{escape(name)}</th><td class=bar>{parts}</td><td class=number>{count}</td>"
            f"<td class=severity>{drawn}</td><td class=said>{escape(said)}</td></tr>"
        )
    legend = "".join(f"<li><i class='{target}'></i>{target}</li>" for target in ("a", "b", "both"))
    return (
        f"<ul class=legend>{legend}</ul><div class=scroll><table class='bars operators'>{''.join(rows)}</table></div>"
    )


def _combinations(report: Mapping[str, Any]) -> str:
    if not report["operators"]:
        return ""
    parts = bars(report["n"], "Degradations a pair") + bars(report["combinations"], "Most frequent combinations")
    return f"<div class=blocks>{parts}</div>{_matrix(report)}"


def _matrix(report: Mapping[str, Any]) -> str:
    """Which operators meet: samples that have both, the darker the more."""
    names = list(report["operators"])
    together = report["together"]
    most = max((count for held in together.values() for count in held.values()), default=0)
    if most == 0:
        return ""
    head = "".join(f"<th><span>{escape(name)}</span></th>" for name in names)
    rows: list[str] = []
    for one in names:
        cells = "".join(
            f"<td class=own>{report['operators'][one]}</td>"
            if one == other
            else f"<td style='--share:{70 * together[one].get(other, 0) / most:.0f}%' "
            f"title='{escape(one)} with {escape(other)}'>{together[one].get(other, 0) or ''}</td>"
            for other in names
        )
        rows.append(f"<tr><th>{escape(one)}</th>{cells}</tr>")
    table = f"<table class=matrix><tr><td></td>{head}</tr>{''.join(rows)}</table>"
    return f"<h3>Samples that have both</h3><div class=scroll>{table}</div>"


def _parameters(parameters: Mapping[str, Mapping[str, Stats]]) -> str:
    blocks: list[str] = []
    for op, held in parameters.items():
        cells = "".join(_measure(name, stats) for name, stats in held.items())
        blocks.append(f"<details><summary>{escape(op)}</summary><div class=measures>{cells}</div></details>")
    return "".join(blocks)


def _measure(name: str, stats: Stats) -> str:
    drawn = ""
    if "bins" in stats:
        ends = " · ".join(f"{stats[end]:.3g}" for end in ("low", "median", "high"))
        drawn = f"{histogram(stats['bins'], name)}<p class=ends>{ends}</p>"
    names = ", ".join(f"{escape(value)} {count}" for value, count in islice(stats.get("names", {}).items(), 8))
    return f"<div class=measure><h4>{escape(name)}</h4>{drawn}{f'<p class=ends>{names}</p>' if names else ''}</div>"


def _pairs(report: Mapping[str, Any]) -> str:
    titles = {"datasets": "Data sets", "splits": "Splits", "ratios": "Crop ratios", "sizes": "Crop sizes"}
    parts = "".join(bars(report[name], title) for name, title in titles.items())
    return f"<div class=blocks>{parts}{bars(report['fusers'], 'Ground truth by')}</div>"


def _prompts(report: Mapping[str, Any]) -> str:
    if not report["prompts"]:
        return ""
    words = f"<div class=measures>{_measure('words a prompt', report['words'])}</div>"
    titles = {"strengths": "Strength said", "asked": "Steps asked about", "templates": "Templates"}
    parts = "".join(bars(report[name], title) for name, title in titles.items())
    return f"{words}<div class=blocks>{parts}</div>"


def _metrics(metrics: Mapping[str, Stats]) -> str:
    cells = "".join(_measure(name, stats) for name, stats in metrics.items())
    return f"<div class=measures>{cells}</div>" if cells else ""


def _rejects(report: Mapping[str, Any]) -> str:
    rejects = report["rejects"]
    if not rejects:
        return "<p>None.</p>"
    whole = report["samples"] + sum(rejects.values())
    return bars(rejects, f"{sum(rejects.values())} of {whole} planned samples, by reason", whole)


_STYLE = """
:root{color-scheme:light dark;--page:#fff;--ink:#1c2024;--soft:#5b6470;--line:#dfe3e8;--card:#f6f7f9;
--bar:#3b6fd4;--a:#3b6fd4;--b:#d97a1f;--both:#7a55c7}
@media(prefers-color-scheme:dark){:root{--page:#15181c;--ink:#e6e8eb;--soft:#9aa4b0;--line:#333a42;--card:#1d2126;
--bar:#6c9bf0;--a:#6c9bf0;--b:#eba35b;--both:#a98bee}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1180px;padding:20px;background:var(--page);color:var(--ink);
font:15px/1.45 system-ui,-apple-system,"Segoe UI",sans-serif}
h1{font-size:1.35rem;margin:0;overflow-wrap:anywhere}h2{font-size:1.1rem;margin:0 0 .4em}
h3{font-size:.85rem;margin:.8em 0 .3em;color:var(--soft);font-weight:600}h4{font-size:.8rem;margin:0;font-weight:600}
header p,.note,figcaption,.ends,article p{color:var(--soft);margin:.2em 0}
.note,.ends,figcaption,article p{font-size:.82rem}
section{border-top:1px solid var(--line);padding:18px 0 6px;margin-top:18px}
ul{list-style:none;padding:0;margin:.5em 0;display:flex;flex-wrap:wrap;gap:6px 14px;font-size:.85rem}
.chips li{background:var(--card);border:1px solid var(--line);border-radius:6px;padding:1px 8px}
.chips b{color:var(--soft);font-weight:500}
article{background:var(--card);border-radius:8px;padding:10px;margin:10px 0}article p{overflow-wrap:anywhere}
.pictures{display:grid;grid-template-columns:repeat(auto-fit,minmax(104px,1fr));gap:6px;max-width:1060px}
figure{margin:0}img{width:100%;height:auto;display:block;border-radius:3px}
.blocks{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,330px),1fr));gap:4px 28px}
table{border-collapse:collapse}table.bars{width:100%;font-size:.85rem}
.bars th{text-align:left;font-weight:400;padding:2px 8px 2px 0;overflow-wrap:anywhere;max-width:46vw}
.bars .bar{width:45%;min-width:70px}
.bars i{display:block;height:10px;background:var(--bar);border-radius:2px;min-width:1px}
.operators{min-width:480px}.operators .bar{width:40%;white-space:nowrap;font-size:0}
.operators i{display:inline-block;border-radius:0}
i.a{background:var(--a)}i.b{background:var(--b)}i.both{background:var(--both)}
.legend i{display:inline-block;width:10px;height:10px;margin-right:5px;border-radius:2px}
.number,.share{text-align:right;font-variant-numeric:tabular-nums;padding-left:8px;white-space:nowrap}
.share,.said{color:var(--soft)}
.said{padding-left:10px;white-space:nowrap;font-size:.8rem}.severity{width:84px;padding-left:10px}
.histogram{width:100%;height:26px;display:block;fill:var(--bar)}.severity .histogram{height:18px}
.measures{display:grid;grid-template-columns:repeat(auto-fill,minmax(150px,1fr));gap:12px 20px;padding:8px 0}
.measure .histogram{height:44px;border-bottom:1px solid var(--line)}
details{border-bottom:1px solid var(--line)}summary{cursor:pointer;padding:5px 0}
.scroll{overflow-x:auto}.matrix{font-size:.72rem;font-variant-numeric:tabular-nums}
.matrix th{font-weight:400;text-align:right;padding:0 6px;white-space:nowrap}
.matrix tr:first-child th{vertical-align:bottom;padding:0}
.matrix span{writing-mode:vertical-rl;transform:rotate(180deg)}
.matrix td{min-width:30px;height:24px;text-align:center;border:1px solid var(--page);
background:color-mix(in srgb,var(--bar) var(--share,0%),var(--card))}
.matrix tr:first-child td{background:none}.matrix .own{background:none;color:var(--soft)}
@media(max-width:520px){body{padding:12px}.share,.said{display:none}.operators{min-width:0}.bars th{max-width:40vw}}
"""
