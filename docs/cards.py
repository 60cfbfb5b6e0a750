"""The front matter of the model cards, with their scores as the hub's ``model-index``, from the card's own table."""

from __future__ import annotations

import json
import re
from pathlib import Path

MODELS = Path(__file__).resolve().parent.parent / "models"
SCORED = ("clearfuse-small",)
"""Models whose cards have a table of scores with a row "this model": a column a task, PSNR and SSIM in each cell."""

FIXED = """library_name: clearfuse
pipeline_tag: image-to-image
license: other
license_name: research
tags:
- image-fusion
- image-restoration
"""
METRICS = (("psnr", "PSNR, dB"), ("ssim", "SSIM"))


def cards() -> dict[str, str]:
    """The text of each card by its path below docs/."""
    found = {name: MODELS / name / "README.md" for name in SCORED}
    return {f"../models/{name}/README.md": card(name, path.read_text()) for name, path in found.items()}


def card(name: str, text: str) -> str:
    """A card with the front matter that its table gives."""
    body = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
    results = "".join(_result(task, values) for task, values in scores(body).items())
    return f"---\n{FIXED}model-index:\n- name: {name}\n  results:\n{results}---\n{body}"


def _result(task: str, values: list[float]) -> str:
    metrics = "".join(
        f"    - type: {kind}\n      name: {json.dumps(title)}\n      value: {value:g}\n"
        for (kind, title), value in zip(METRICS, values, strict=True)
    )
    return (
        "  - task:\n      type: image-to-image\n"
        f"      name: {json.dumps(f'Fusion and restoration: {task}')}\n"
        "    dataset:\n      type: clearfuse\n      name: Unseen pairs, degraded by synth build; see the card\n"
        f"    metrics:\n{metrics}"
    )


def scores(body: str) -> dict[str, list[float]]:
    """PSNR and SSIM by column, of the row "this model" in the section Scores. Raises ValueError where it has none."""
    section = body.partition("\n## Scores\n")[2].partition("\n## ")[0]
    rows = [
        [cell.strip(" *") for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"
    ]
    ours = next((row for row in rows if row[0] == "this model"), None)
    if ours is None:
        raise ValueError('the card has no row "this model" below "## Scores"')
    return {
        task: [float(value.strip(" *")) for value in cell.split(",")]
        for task, cell in zip(rows[0][1:], ours[1:], strict=True)
    }
