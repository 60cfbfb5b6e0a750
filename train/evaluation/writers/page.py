"""A report as a self-contained HTML page: tables, and images to zoom into and to compare with a slider."""

from __future__ import annotations

import html
from collections.abc import Sequence

from clearfuse.synth.review.gallery import data_uri, describe_step
from clearfuse.synth.types import ROLES
from clearfuse.train.evaluation.scoring import Scored
from clearfuse.train.evaluation.summary import Evaluation
from clearfuse.train.evaluation.writers.charts import bars, radar
from clearfuse.train.evaluation.writers.papers import PaperComparison
from clearfuse.train.evaluation.writers.tables import (
    LEVEL_SIGN,
    Cell,
    Table,
    faithfulness_table,
    group_kinds,
    notes,
    table,
)

WIDTH = 1280
"""Maximum width of images in pixels; wider ones are downsampled."""
QUALITY = 90
HOW = (
    "Wheel: zoom. Drag: move the slider, or the picture where it is zoomed (Shift: the slider). Double click: the "
    "whole. A click on a small picture puts it at the right, with Shift at the left."
)

STYLE = """
body{font:14px/1.45 system-ui,sans-serif;margin:1.5em auto;max-width:1500px;padding:0 1em;color:#222}
h1{font-size:1.4em}h2{font-size:1.1em;margin:1.8em 0 .3em}h3{font-size:1em;margin:1.4em 0 .2em}
.scroll{overflow-x:auto}table{border-collapse:collapse;margin:.4em 0 .4em;font-variant-numeric:tabular-nums}
th,td{padding:.22em .8em;text-align:right;white-space:nowrap}th{border-bottom:1px solid #888}
.text{text-align:left}.over{text-align:center}tr.first td{border-top:1px solid #bbb}
td{vertical-align:top}tr:hover td{background:#f3f6fa}
.second{text-decoration:underline}.published td{color:#555;font-style:italic}
li{margin:.15em 0}.small,small{color:#555;font-size:11px;font-weight:normal}td small{display:block}
.viewer{margin:.6em 0 2em}.stage{position:relative;overflow:hidden;background:#111;touch-action:none;cursor:grab}
.stage.held{cursor:grabbing}.layer{position:absolute;inset:0;overflow:hidden}
.layer img{position:absolute;left:0;top:0;width:100%;transform-origin:0 0;user-select:none;pointer-events:none}
.layer.near img{image-rendering:pixelated}
.bar,.tag{position:absolute;pointer-events:none}
.bar{top:0;bottom:0;width:2px;margin-left:-1px;background:#fff;box-shadow:0 0 3px #000}
.tag{top:6px;background:#000a;color:#fff;font-size:12px;padding:1px 7px;border-radius:3px}
.tag.l{left:6px}.tag.r{right:6px}.controls{display:flex;gap:.8em;align-items:center;margin:.4em 0;flex-wrap:wrap}
.controls input{flex:1;min-width:10em}.strip{display:flex;gap:6px;overflow-x:auto;padding-bottom:4px}
.strip figure{margin:0;flex:0 0 150px;cursor:pointer}.strip img{width:150px;display:block;border:2px solid transparent}
.strip .on img{border-color:#2b6cb0}
.charts{display:flex;flex-wrap:wrap;gap:1.5em}.charts figure{margin:0}
figcaption{font-size:11px;color:#555;white-space:nowrap;overflow:hidden;text-overflow:ellipsis}
"""

SCRIPT = """
for (const box of document.querySelectorAll('.viewer')) {
  const stage = box.querySelector('.stage'), layers = box.querySelectorAll('.layer');
  const bar = box.querySelector('.bar'), slide = box.querySelector('input'), picks = box.querySelectorAll('select');
  const shots = [...box.querySelectorAll('.strip img')], figures = box.querySelectorAll('.strip figure');
  let zoom = 1, x = 0, y = 0, held = null;
  const draw = () => {
    const w = stage.clientWidth, h = stage.clientHeight;
    x = Math.min(0, Math.max(x, w * (1 - zoom))); y = Math.min(0, Math.max(y, h * (1 - zoom)));
    layers.forEach((layer, i) => {
      const img = layer.firstElementChild, shot = shots[picks[i].value];
      if (img.src !== shot.src) img.src = shot.src;
      img.style.transform = `translate(${x}px,${y}px) scale(${zoom})`;
      layer.classList.toggle('near', zoom * w > 2 * shot.naturalWidth);
      box.querySelectorAll('.tag')[i].textContent = shot.alt;
    });
    const at = slide.value / 10;
    layers[1].style.clipPath = `inset(0 0 0 ${at}%)`;
    bar.style.left = at + '%';
    figures.forEach((f, i) => f.classList.toggle('on', [...picks].some(p => +p.value === i)));
    box.querySelector('output').textContent = zoom.toFixed(1) + '\\u00d7';
  };
  const size = () => {
    const ratio = shots[0].naturalWidth / shots[0].naturalHeight;
    const wide = Math.min(box.clientWidth, 2 * shots[0].naturalWidth, 0.8 * innerHeight * ratio);
    stage.style.width = wide + 'px';
    stage.style.height = wide / ratio + 'px';
    box.querySelector('.controls').style.maxWidth = Math.max(wide, 560) + 'px';
    draw();
  };
  const to = (factor, px, py) => {
    const next = Math.min(32, Math.max(1, zoom * factor));
    x = px - (px - x) * next / zoom; y = py - (py - y) * next / zoom; zoom = next; draw();
  };
  stage.addEventListener('wheel', e => {
    e.preventDefault();
    const r = stage.getBoundingClientRect();
    to(Math.exp(-e.deltaY / 400), e.clientX - r.left, e.clientY - r.top);
  }, {passive: false});
  stage.addEventListener('pointerdown', e => {
    held = [e.clientX - x, e.clientY - y];
    stage.setPointerCapture(e.pointerId);
    stage.classList.add('held');
  });
  stage.addEventListener('pointermove', e => {
    if (!held) return;
    if (zoom > 1 && !e.shiftKey) { x = e.clientX - held[0]; y = e.clientY - held[1]; }
    else { const r = stage.getBoundingClientRect(); slide.value = 1000 * (e.clientX - r.left) / r.width; }
    draw();
  });
  stage.addEventListener('pointerup', () => { held = null; stage.classList.remove('held'); });
  stage.addEventListener('dblclick', () => { zoom = 1; x = y = 0; draw(); });
  box.querySelectorAll('button').forEach(b =>
    b.addEventListener('click', () => to(+b.value, stage.clientWidth / 2, stage.clientHeight / 2)));
  slide.addEventListener('input', draw);
  picks.forEach(p => p.addEventListener('change', draw));
  figures.forEach((f, i) => f.addEventListener('click', e => { picks[e.shiftKey ? 0 : 1].value = i; draw(); }));
  addEventListener('resize', size);
  shots[0].complete ? size() : shots[0].addEventListener('load', size);
}
"""


def to_html(evaluation: Evaluation, papers: Sequence[PaperComparison] = ()) -> str:
    """The page: notes, the overall table and that by task, images, the other tables, comparisons with papers."""
    kinds = group_kinds(evaluation)
    first = [by for by in kinds if by in ("overall", "task")]
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>",
        f"<title>Fused images, scored</title><style>{STYLE}</style><h1>Fused images, scored</h1>",
        "<ul>", *(f"<li>{html.escape(line)}</li>" for line in notes(evaluation)), "</ul>",
        *(_table(table(evaluation, by)) for by in first),
        *([_table(origins)] if (origins := faithfulness_table(evaluation)) else []),
    ]  # fmt: skip
    if evaluation.examples:
        parts += ["<h2>Pictures</h2>", f"<p class=small>{HOW}</p>"]
        parts += [_viewer(evaluation, scored) for scored in evaluation.examples]
    parts += [_table(table(evaluation, by)) for by in kinds if by not in first]
    parts += [_noted(evaluation, method.name) for method in evaluation.methods if method.name in evaluation.noted]
    parts += [_comparison(comparison) for comparison in papers]
    if evaluation.examples:
        parts.append(f"<script>{SCRIPT}</script>")
    return "\n".join([*parts, "</html>"]) + "\n"


def _table(table_: Table) -> str:
    lines = [f"<h2>{html.escape(table_.title)}</h2><div class=scroll><table><tr>"]
    lines += [_tag("th", k < table_.text, html.escape(text)) for k, text in enumerate(table_.header)]
    for row in table_.rows:
        lines.append("<tr class=first>" if row[0].text else "<tr>")
        lines += [_tag("td", k < table_.text, _format_cell(cell)) for k, cell in enumerate(row)]
    cut = f"<p class=small>{table_.omitted} more are in report.json and summary.csv.</p>" if table_.omitted else ""
    return "".join(lines) + "</table></div>" + cut


def _tag(kind: str, text: bool, inner: str) -> str:
    return f"<{kind} class=text>{inner}</{kind}>" if text else f"<{kind}>{inner}</{kind}>"


def _format_cell(cell: Cell) -> str:
    mean, bracket, interval = cell.text.partition(" [")
    text = html.escape(mean) + (f" {LEVEL_SIGN}" if cell.not_worse else "")
    text = f"<b>{text}</b>" if cell.rank == 1 else f"<span class=second>{text}</span>" if cell.rank == 2 else text
    return f"{text}<small>{html.escape((bracket + interval).strip())}</small>" if bracket else text


def _noted(evaluation: Evaluation, method: str) -> str:
    """What a model's network noted, by degradation, and what its weights say of that, as charts."""
    charts = [
        f"<figure>{bars(groups)}<figcaption>{html.escape(note)}, mean by degradation</figcaption></figure>"
        for note, groups in evaluation.noted[method].items()
    ]
    if found := evaluation.preferences.get(method):
        about = "mean square response of channels by modality and level; 1: no preference"
        charts.append(f"<figure>{radar(found)}<figcaption>{about}</figcaption></figure>")
    return f"<h2>What {html.escape(method)} notes</h2><div class=charts>{''.join(charts)}</div>"


def _comparison(comparison: PaperComparison) -> str:
    source = html.escape(f"Beside the papers: {comparison.table.source}")
    about = html.escape(
        f"{comparison.table.about}. {comparison.table.paper}. Italic: as published; the rest: measured here."
    )
    over = "".join(f"<th class=over colspan={count}>{html.escape(name)}</th>" for name, count in comparison.groups())
    head = "".join(f"<th>{html.escape(column.title)}</th>" for column in comparison.columns)
    lines = [f"<h2>{source}</h2><p class=small>{about}</p><div class=scroll><table><tr><th></th>{over}"]
    lines.append(f"<tr><th class=text>method</th>{head}")
    for line in comparison.rows:
        lines.append("<tr class=published>" if line.published else "<tr>")
        lines.append(_tag("td", True, html.escape(line.name)) + "".join(f"<td>{text}</td>" for text in line.texts))
    why = "".join(f"<li class=small>{html.escape(line)}</li>" for line in comparison.notes)
    return "".join(lines) + f"</table></div><ul>{why}</ul>"


def _viewer(evaluation: Evaluation, scored: Scored) -> str:
    """A sample's images, two of them under a slider and all as thumbnails, its degradations, prompt and values."""
    sample, meta = scored.sample, scored.sample.meta
    roles = ROLES[meta.task]
    shots = {f"degraded {roles[name]}": sample.images[name] for name in ("a", "b")} | dict(scored.fused)
    if "gt" in sample.images:
        shots[f"ground truth ({meta.fuser.name})"] = sample.images["gt"]
    names = list(shots)
    options = "".join(f"<option value={i}>{html.escape(name)}</option>" for i, name in enumerate(names))
    right = next((names.index(m.name) for m in evaluation.methods if m.name in names), 1)
    sides = [options.replace(f"value={i}>", f"value={i} selected>") for i in (0, right)]
    title = f"{meta.task}  {meta.dataset}/{meta.pair}"
    steps = "   ".join(describe_step(step) for step in sample.meta.steps)
    figures = "".join(
        f'<figure><img alt="{html.escape(name)}" src="{data_uri(image, WIDTH, QUALITY)}">'
        f"<figcaption>{html.escape(name)}</figcaption></figure>"
        for name, image in shots.items()
    )
    return (
        f"<section class=viewer><h3>{html.escape(title)}</h3>"
        f"<p class=small>{html.escape(steps)}<br>“{html.escape(sample.prompt)}”</p>"
        f"<div class=controls><select>{sides[0]}</select><input type=range min=0 max=1000 value=500 "
        f"aria-label=slider><select>{sides[1]}</select><button value=1.5>+</button><button value=0.6667>−</button>"
        "<output></output></div><div class=stage><div class=layer><img alt=left></div><div class=layer>"
        "<img alt=right></div><div class=bar></div><span class='tag l'></span><span class='tag r'></span></div>"
        f"<div class=strip>{figures}</div>{_values(evaluation, scored)}</section>"
    )


def _values(evaluation: Evaluation, scored: Scored) -> str:
    head = "".join(f"<th>{html.escape(metric.name)}</th>" for metric in evaluation.metrics)
    rows: list[str] = []
    for method, row in zip(evaluation.methods, scored.values.tolist(), strict=True):
        pairs = zip(evaluation.metrics, row, strict=True)
        cells = "".join(f"<td>{f'{value:.{m.digits}f}' if value == value else ''}</td>" for m, value in pairs)
        rows.append(f"<tr><td class=text>{html.escape(method.name)}</td>{cells}")
    return f"<div class=scroll><table><tr><th class=text>method</th>{head}{''.join(rows)}</table></div>"
