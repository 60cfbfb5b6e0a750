"""The curves of the shipped models' training, ``docs/models/NAME.svg``, from ``models/NAME/log.jsonl``.

    python docs/curves.py

Left the loss of training, the mean of each thirtieth of the steps, and of validation; right the PSNR of the
validations, of all held-out crops and by task. Losses that are natural logarithms are drawn in dB.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from clearfuse.train.runs.compare import Run, read_run

DOCS = Path(__file__).resolve().parent
MODELS = DOCS.parent / "models"
WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 420, 260, 52, 30, 14, 34
MEANS = 30
"""Points of the curve of training."""
COLOURS = ("#1f6fb2", "#d1701f", "#3a8f3a", "#8a4fa3")
Points = Sequence[tuple[float, float]]


def svg(run: Run) -> str:
    """The picture of a run's loss and PSNR."""
    unit = f", {run.unit.name}" if run.unit.name else ""
    losses = {"training": means(points(run, "train/loss")), "validation": points(run, "validation/loss")}
    names = {"all": "", "vif": "/vif", "mef": "/mef", "mff": "/mff"}
    psnr = {name: points(run, f"validation/PSNR{ending}") for name, ending in names.items()}
    parts = [panel(0, f"Loss{unit}", losses), panel(WIDTH, "PSNR of held-out crops, dB", psnr)]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="11">\n<rect width="100%" height="100%" fill="white"/>\n' + "".join(parts) + "</svg>\n"
    )


def points(run: Run, name: str) -> list[tuple[float, float]]:
    """A curve's steps and values."""
    curve = run.curves.get(name)
    return [] if curve is None else list(zip(curve.steps, curve.values, strict=True))


def means(curve: Points) -> list[tuple[float, float]]:
    """At most ``MEANS`` points: each is the mean of as many steps, at the last of them."""
    size = -(-len(curve) // MEANS)
    parts = [curve[i : i + size] for i in range(0, len(curve), size or 1)]
    return [(part[-1][0], fmean(value for _, value in part)) for part in parts]


def panel(left: int, title: str, curves: dict[str, Points]) -> str:
    """A chart with its axes, a colour a curve; what has no points is left out."""
    drawn = {name: curve for name, curve in curves.items() if curve}
    if not drawn:
        return ""
    last = max(step for curve in drawn.values() for step, _ in curve)
    values = sorted(value for curve in drawn.values() for _, value in curve)
    low, high = values[0], values[-1]
    span = (high - low) or 1.0

    def place(step: float, value: float) -> str:
        x = left + LEFT + (WIDTH - LEFT - RIGHT) * step / last
        y = HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - low) / span
        return f"{x:.1f},{y:.1f}"

    lines = [f'<text x="{left + LEFT}" y="16" font-weight="bold">{title}</text>\n']
    for share in (0, 0.25, 0.5, 0.75, 1):
        value = low + share * span
        x, y = place(0, value).split(",")
        lines.append(f'<path d="M{x},{y}H{left + WIDTH - RIGHT}" stroke="#ddd"/>')
        lines.append(f'<text x="{float(x) - 6:.1f}" y="{float(y) + 4:.1f}" text-anchor="end">{value:.1f}</text>\n')
    for step, anchor in ((0, "start"), (last, "end")):
        x = place(step, low).split(",")[0]
        lines.append(f'<text x="{x}" y="{HEIGHT - BOTTOM + 16}" text-anchor="{anchor}">step {step:g}</text>\n')
    for number, (name, curve) in enumerate(drawn.items()):
        colour, route = COLOURS[number], " ".join(place(*point) for point in curve)
        lines.append(f'<polyline points="{route}" fill="none" stroke="{colour}" stroke-width="1.5"/>\n')
        lines.append(f'<text x="{left + LEFT + 80 + 70 * number}" y="{HEIGHT - 6}" fill="{colour}">{name}</text>\n')
    return "".join(lines)


def pictures() -> dict[str, str]:
    """The picture of each shipped model that has a log, by the name of its file."""
    folders = sorted(path.parent for path in MODELS.glob("*/log.jsonl"))
    return {f"{folder.name}.svg": svg(read_run(folder, folder.name)) for folder in folders}


def main() -> None:
    """Write all of them."""
    (DOCS / "models").mkdir(exist_ok=True)
    for name, text in pictures().items():
        (DOCS / "models" / name).write_text(text)
        print(f"wrote docs/models/{name}")


if __name__ == "__main__":
    main()
