"""The notebooks of ``examples/``: each is generated from the module beside it, a cell a part of the module."""

from __future__ import annotations

import ast
import hashlib
import json
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"

INSTALL = "# In Colab: torch is there already. A GPU: Runtime, Change runtime type.\n%pip install -q {packages}"
EXTRAS = {"build_on_ray": "'clearfuse[ray]'"}

BUILD = "!synth build --task vif --n 1-2 --limit 8 --out shards/vif"
BEFORE: dict[str, list[str]] = {
    "own_loader": [BUILD],
    "other_method": ["!synth build --task vif --n 1-2 --split test --limit 4 --out shards/vif-test"],
    "build_on_ray": ["%%writefile vignette.py\n{vignette.py}", "%%writefile vignette.toml\n{vignette.toml}"],
}
"""Cells before the module's: its input, and files beside it."""

STRIPS = """
import numpy as np
from PIL import Image

from clearfuse import degrade
from clearfuse.synth.scenes import scene_pair

scene = scene_pair("vif", 2)  # visible, infrared and depth of a built-in scene
strips = [degrade(scene.a, "vignette", severity=s, seed=0) for s in (0.0, 0.5, 1.0)]
Image.fromarray(np.concatenate(strips, 1))
"""
SCORE = """
from clearfuse import evaluate
from clearfuse.synth.fusers import PyramidFuser
from clearfuse.synth.scenes import scene_pair

scene = scene_pair("vif", 2)
fused = PyramidFuser()(scene.a, scene.b, "vif")
evaluate(fused, scene.a, scene.b, metrics=["Colourfulness", "Qabf"])
"""
COUNT = """
model = ThreeLayers(ThreeLayersConfig(width=16))
model.initialise(torch.Generator().manual_seed(0))
sum(parameter.numel() for parameter in model.parameters())
"""
COMPARE = """
from IPython.display import Markdown

report = compare("shards/vif-test", Path("out"))
Markdown((report / "report.md").read_text())
"""
SMALL = "--batch 2 --crop 64 --steps 20 --out runs/mine"
FIT_MODEL = f"{BUILD}\n!train fit shards/vif --plugin three_layers.py --preset three-layers {SMALL}"
FIT_LOSS = f"""{BUILD}
!train fit shards/vif --plugin edge_loss.py --preset nafnet {SMALL} \\
    --set objective.pixel=0.1 --set 'objective.pixels={{edges = 1.0}}'"""

TRY: dict[str, list[str]] = {
    "vignette": [STRIPS],
    "colourfulness": [SCORE],
    "three_layers": [COUNT, "%%writefile three_layers.py\n{three_layers.py}", FIT_MODEL],
    "edge_loss": ["%%writefile edge_loss.py\n{edge_loss.py}", FIT_LOSS],
    "own_loader": ['mean_error(["shards/vif"])  # of the mean of both pictures: what any network should beat'],
    "other_method": [COMPARE],
    "build_on_ray": ['build("shards/ray", workers=2, limit=4)'],
}
"""Cells after the module's, in place of what its ``__main__`` does: the names of the examples that have notebooks."""


def notebooks() -> dict[str, str]:
    """The text of each notebook by its path below docs/."""
    return {
        f"../examples/{name}.ipynb": json.dumps(notebook(name), indent=1, ensure_ascii=False) + "\n" for name in TRY
    }


def notebook(name: str) -> dict[str, Any]:
    """A notebook of format 4.5 without outputs."""
    source = (EXAMPLES / f"{name}.py").read_text()
    about, parts = _parts(source)
    title, _, rest = about.partition("\n")
    heading = f"# {title.rstrip('.')}\n"
    made = f"Generated from `examples/{name}.py` by `make docs`: change it there."
    usage = rest.strip("\n")
    shown = f"\n```text\n{usage}\n```\n" if usage else ""
    install = INSTALL.format(packages=EXTRAS.get(name, "clearfuse"))
    cells = [("code", install), ("markdown", f"{heading}{shown}\n{made}")]
    cells += [("code", _filled(one)) for one in BEFORE.get(name, [])]
    cells += [("code", part) for part in parts]
    cells += [("markdown", "## Try it"), *(("code", _filled(one)) for one in TRY[name])]
    return {
        "cells": [_cell(kind, text, f"{name}-{number}") for number, (kind, text) in enumerate(cells)],
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def _filled(text: str) -> str:
    """Names in braces stand for the examples' files of that name."""
    for path in (*EXAMPLES.glob("*.py"), *EXAMPLES.glob("*.toml")):
        text = text.replace(f"{{{path.name}}}", path.read_text())
    return text.strip()


def _parts(source: str) -> tuple[str, list[str]]:
    """The module's docstring, and its code: imports, then a part for each class and function with what follows it."""
    tree = ast.parse(source)
    lines = source.splitlines()
    starts: list[int] = []
    for node in tree.body[1:]:
        if isinstance(node, ast.If) and "__name__" in ast.unparse(node.test):
            lines = lines[: node.lineno - 1]
            break
        first = min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", []))])
        if not starts or isinstance(node, ast.FunctionDef | ast.ClassDef):
            starts.append(first)
    ends = [*(start - 1 for start in starts[1:]), len(lines)]
    code = ["\n".join(lines[start - 1 : end]).strip() for start, end in zip(starts, ends, strict=True)]
    return ast.get_docstring(tree) or "", [part for part in map(_placed, code) if part]


def _placed(part: str) -> str:
    """A cell has no ``__file__``, and evaluates its annotations."""
    part = part.replace("from __future__ import annotations", "").replace("Path(__file__).parent", 'Path(".")')
    return part.strip()


def _cell(kind: str, text: str, seed: str) -> dict[str, Any]:
    cell: dict[str, Any] = {"cell_type": kind, "id": hashlib.sha256(seed.encode()).hexdigest()[:8], "metadata": {}}
    if kind == "code":
        cell |= {"execution_count": None, "outputs": []}
    return cell | {"source": text.splitlines(keepends=True)}
