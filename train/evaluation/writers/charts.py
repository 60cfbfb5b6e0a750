"""Charts of a report as SVG: grouped bars and a radar."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence

COLOURS = ("#2b6cb0", "#c05621", "#2f855a", "#805ad5", "#b7791f", "#b83280", "#4a5568", "#0987a0")
WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 420, 240, 34, 24, 22
RADIUS, CENTRE = 90, (210, 130)
STYLE = "font:11px system-ui,sans-serif"


def bars(groups: Mapping[str, Sequence[float]]) -> str:
    """A group of bars for each name, a bar for each value, from 0 up; values are shares or activations, 0 or more."""
    top = max(max(values) for values in groups.values()) or 1.0
    ceiling = math.ceil(10 * top) / 10
    plot, wide = HEIGHT - TOP - BOTTOM, (WIDTH - LEFT) / len(groups)
    parts = [_line(LEFT, y, WIDTH, y) for y in (TOP, TOP + plot / 2, TOP + plot)]
    parts += [_text(LEFT - 4, TOP + plot * (1 - part) + 4, f"{ceiling * part:.2f}", "end") for part in (0, 0.5, 1)]
    for place, (name, values) in enumerate(groups.items()):
        left, each = LEFT + place * wide + 0.1 * wide, 0.8 * wide / len(values)
        for number, value in enumerate(values):
            high = plot * value / ceiling
            parts.append(
                f"<rect x={left + number * each:.1f} y={TOP + plot - high:.1f} width={max(each - 1, 1):.1f} "
                f"height={high:.1f} fill={_colour(number)}><title>{number}: {value:.3f}</title></rect>"
            )
        parts.append(_text(left + 0.4 * wide, HEIGHT - 6, name, "middle"))
    count = max(len(values) for values in groups.values())
    return _svg([*parts, *_legend([str(number) for number in range(count)])])


def radar(series: Mapping[str, Mapping[str, float]]) -> str:
    """A polygon for each name over the axes, which all have, from 0 in the centre; the circle is at 1."""
    axes = list(next(iter(series.values())))
    top = max(1.0, *(value for row in series.values() for value in row.values()))
    parts = [
        f"<circle cx={CENTRE[0]} cy={CENTRE[1]} r={RADIUS * share / top:.1f} fill=none stroke={colour} />"
        for share, colour in ((top, "#ddd"), (1.0, "#888"))
    ]
    for number, axis in enumerate(axes):
        x, y = _at(number, len(axes), RADIUS)
        parts.append(_line(*CENTRE, x, y))
        x, y = _at(number, len(axes), RADIUS + 12)
        anchor = "middle" if abs(x - CENTRE[0]) < 9 else "start" if x > CENTRE[0] else "end"
        parts.append(_text(x, y + 4, axis, anchor))
    for number, row in enumerate(series.values()):
        corners = (_at(i, len(axes), RADIUS * row[axis] / top) for i, axis in enumerate(axes))
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)
        parts.append(f"<polygon points='{points}' fill=none stroke={_colour(number)} stroke-width=2 />")
    return _svg([*parts, *_legend(list(series))])


def _at(number: int, count: int, radius: float) -> tuple[float, float]:
    angle = 2 * math.pi * number / count - math.pi / 2
    return CENTRE[0] + radius * math.cos(angle), CENTRE[1] + radius * math.sin(angle)


def _legend(names: Sequence[str]) -> list[str]:
    parts: list[str] = []
    x = LEFT
    for number, name in enumerate(names):
        parts += [f"<rect x={x} y=3 width=9 height=9 fill={_colour(number)} />", _text(x + 13, 11, name, "start")]
        x += 26 + 6 * len(name)
    return parts


def _colour(number: int) -> str:
    return f"'{COLOURS[number % len(COLOURS)]}'"


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f"<line x1={x1:.1f} y1={y1:.1f} x2={x2:.1f} y2={y2:.1f} stroke='#ddd' />"


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f"<text x={x:.1f} y={y:.1f} text-anchor={anchor}>{html.escape(text)}</text>"


def _svg(parts: Sequence[str]) -> str:
    return f"<svg width={WIDTH} height={HEIGHT} viewBox='0 0 {WIDTH} {HEIGHT}' style='{STYLE}'>{''.join(parts)}</svg>"
