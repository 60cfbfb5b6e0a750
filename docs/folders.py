"""The picture of the folders, docs/folders.svg: a row a floor, an arrow from a folder to each that it imports directly.

An import that another one implies (a imports b, b imports c, so a may import c) has no arrow of its own, so that the
picture shows the order and not every thread. Arrows go down: import-linter keeps it so.
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from html import escape
from itertools import pairwise

import grimp

PACKAGE = "clearfuse"
GROUND = ("types", "seeds", "color", "console", "version", "device")
"""Single modules at the bottom of ``synth`` and ``train``: one box each."""
WIDTH, HEIGHT, GAP, RISE, MARGIN, THREAD = 132, 44, 18, 44, 16, 30
SWEEPS = 8
COLOURS = {"synth": "#d9e8f6", "train": "#fbe6cf", "bench": "#e0efd8"}


def folder_of(module: str) -> str | None:
    """The box of a module: ``synth.shards`` of ``clearfuse.synth.shards.tar``; None for faces and entry points."""
    parts = module.split(".")[1:]
    if len(parts) < 2 or parts[1] == "__main__":
        return None
    if parts[0] == "bench":  # a folder without others in it
        return "bench.ground"
    return f"{parts[0]}.{'ground' if parts[1] in GROUND else parts[1]}"


def edges(graph: grimp.ImportGraph) -> dict[str, set[str]]:
    """For each folder those that its modules import."""
    found: dict[str, set[str]] = {}
    for module in graph.modules:
        here = folder_of(module)
        if here is None:
            continue
        imported = {folder_of(name) for name in graph.find_modules_directly_imported_by(module)}
        found.setdefault(here, set()).update(name for name in imported if name not in (None, here))  # type: ignore[misc]
    return found


def reduced(below: dict[str, set[str]]) -> dict[str, set[str]]:
    """The edges without those that a longer way implies."""

    @cache
    def reach(name: str) -> frozenset[str]:
        return frozenset().union(*({one} | reach(one) for one in below.get(name, ())))

    return {
        name: {one for one in to if not any(one in reach(other) for other in to - {one})} for name, to in below.items()
    }


def floors_of(below: dict[str, set[str]]) -> dict[str, int]:
    """The floor of each folder: one above the highest that it stands on, 0 the ground."""

    @cache
    def floor(name: str) -> int:
        return 1 + max((floor(one) for one in below.get(name, ())), default=-1)

    return {name: floor(name) for name in below}


def threads(arrows: dict[str, set[str]], floors: dict[str, int]) -> dict[tuple[str, str], list[str]]:
    """For each arrow the places that it passes, from its folder down: a free place in each row between, so that it
    runs beside the boxes, never behind one."""
    return {
        (name, other): [
            name,
            *(f"{name}>{other}>{level}" for level in range(floors[name] - 1, floors[other], -1)),
            other,
        ]
        for name, to in sorted(arrows.items())
        for other in sorted(to)
    }


def layout(paths: dict[tuple[str, str], list[str]], floors: dict[str, int]) -> dict[str, tuple[float, float]]:
    """The middle of each place, from the left; rows by floor. Each is near those below it, then near those above."""
    level = dict(floors)
    near: dict[str, set[str]] = {name: set() for name in floors}
    for path in paths.values():
        for upper, lower in pairwise(path):
            level.setdefault(lower, level[upper] - 1)
            near.setdefault(upper, set()).add(lower)
            near.setdefault(lower, set()).add(upper)
    found = [sorted(name for name in level if level[name] == number) for number in range(max(level.values()) + 1)]
    x: dict[str, float] = {}
    for sweep in range(SWEEPS):
        for number in range(len(found)) if sweep % 2 == 0 else reversed(range(len(found))):
            row = found[number]

            def wanted(name: str) -> tuple[str, float, str]:
                around = [x[one] for one in near[name] if one in x]
                return (_side(name), sum(around) / len(around) if around else 0.0, name)

            row.sort(key=wanted)
            total = sum(map(_width, row))
            left = -total / 2
            for name in row:
                x[name] = left + _width(name) / 2
                left += _width(name)
    return {name: (x[name], float(level[name])) for name in x}


def _side(name: str) -> str:
    """``synth`` stands left, ``train`` right; a thread stands on the side that it comes from."""
    return name.partition(".")[0]


def _width(name: str) -> float:
    return THREAD if ">" in name else WIDTH + GAP


def svg() -> str:
    """The picture as SVG text, the same for the same imports."""
    graph = grimp.build_graph(PACKAGE, cache_dir=None)
    counts = Counter(name for module in graph.modules if (name := folder_of(module)) is not None)
    below = edges(graph)
    floors = floors_of(below)
    paths = threads(reduced(below), floors)
    places = layout(paths, floors)
    left = min(x - _width(name) / 2 for name, (x, _) in places.items()) - MARGIN
    width = max(x + _width(name) / 2 for name, (x, _) in places.items()) + MARGIN - left
    top = max(floors.values())
    height = 2 * MARGIN + (top + 1) * (HEIGHT + RISE) - RISE
    at = {name: (x - left, MARGIN + (top - level) * (HEIGHT + RISE)) for name, (x, level) in places.items()}
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" font-family="sans-serif">',
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="#777"/></marker></defs>',
        f'<rect width="{width:g}" height="{height:g}" fill="white"/>',
    ]
    for path in paths.values():
        lines.append(
            f'<path d="{_curve([at[name] for name in path])}" fill="none" stroke="#999" stroke-width="1.2" '
            'marker-end="url(#arrow)"/>'
        )
    for name in sorted(floors):
        x, y = at[name]
        side, _, short = name.partition(".")
        title = f"{side}/*.py" if short == "ground" else f"{side}/{short}"
        noun = "module" if counts[name] == 1 else "modules"
        lines += [
            f'<rect x="{x - WIDTH / 2:g}" y="{y:g}" width="{WIDTH}" height="{HEIGHT}" rx="6" fill="{COLOURS[side]}" '
            'stroke="#666"/>',
            f'<text x="{x:g}" y="{y + 19:g}" text-anchor="middle" font-size="13">{escape(title)}</text>',
            f'<text x="{x:g}" y="{y + 35:g}" text-anchor="middle" font-size="10" fill="#555">'
            f"{counts[name]} {noun}</text>",
        ]
    return "\n".join([*lines, "</svg>\n"])


def _curve(places: list[tuple[float, float]]) -> str:
    """From the bottom of the first box to the top of the last, straight through the rows between."""
    (x, y), *rest = places
    parts, y = [f"M{x:g} {y + HEIGHT:g}"], y + HEIGHT
    for number, (u, v) in enumerate(rest):
        bend = (v - y) / 2
        parts.append(f"C{x:g} {y + bend:g} {u:g} {v - bend:g} {u:g} {v:g}")
        if number < len(rest) - 1:
            parts.append(f"V{v + HEIGHT:g}")
        x, y = u, v + HEIGHT
    return "".join(parts)


if __name__ == "__main__":
    print(svg())
