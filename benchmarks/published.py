"""The profiles ``vifb`` and ``tang`` against the tables that the toolboxes publish, metric by metric.

    python benchmarks/published.py [--vifb DIR]
    python benchmarks/published.py --tang DIR

DIR of Tang's toolbox is its repository: nine methods on its TNO images 1, 11, 21, 31 and 41 against Metric_TNO.xlsx,
whose SD, SF, VIF and Qabf come from other code than the toolbox's. DIR of VIFB contains ``input/{VI,IR}``,
``output/fused_images`` and ``published_metrics.csv``; SwinFusion and YDTR, whose stored images are not the measured
ones, are listed separately. Relative errors: the median, the largest, for VIFB the share within 2e-4.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import zipfile
from collections import defaultdict
from pathlib import Path

import numpy as np
from PIL import Image

from clearfuse.train.metrics import evaluate

SHARED = Path(os.environ.get("CLEARFUSE_SHARED", Path(__file__).resolve().parent.parent.parent / "shared"))


def sheets(book: Path) -> dict[str, dict[str, float | str]]:
    """The cells of a spreadsheet, by the sheets' names."""
    with zipfile.ZipFile(book) as file:
        parts = {name: file.read(name).decode() for name in file.namelist() if name.endswith((".xml", ".rels"))}
    words = re.findall(r"<si><t[^>]*>([^<]*)</t></si>", parts["xl/sharedStrings.xml"])
    named = re.findall(r'<sheet [^>]*name="([^"]+)"[^>]*r:id="([^"]+)"', parts["xl/workbook.xml"])
    places = re.findall(r'<Relationship Target="([^"]+)"[^>]*Id="([^"]+)"', parts["xl/_rels/workbook.xml.rels"])
    where = {key: target for target, key in places}
    found: dict[str, dict[str, float | str]] = {}
    for name, key in named:
        cells = re.findall(r'<c r="([A-Z]+\d+)"([^>]*)><v>([^<]+)</v>', parts[f"xl/{where[key]}"])
        found[name] = {place: words[int(text)] if 't="s"' in about else float(text) for place, about, text in cells}
    return found


def tang(root: Path) -> None:
    """Print the relative errors of the profile ``tang``."""
    table = sheets(root / "Metric" / "Metric_TNO.xlsx")
    errors: dict[str, list[float]] = defaultdict(list)
    for number in range(1, 42, 10):
        name = f"{number:02d}.png"
        a, b = (np.asarray(Image.open(root / "Image" / "Source-Image" / "TNO" / side / name)) for side in ("vi", "ir"))
        for column in "ABCDEFGHI":
            fused = np.asarray(Image.open(root / "Image" / "Algorithm" / f"{table['EN'][f'{column}2']}_TNO" / name))
            found = evaluate(fused, a, b, metrics=list(table), profile="tang")
            for metric, cells in table.items():
                errors[metric].append(abs(found[metric] / float(cells[f"{column}{number + 2}"]) - 1))
    print(f"{'metric':<8} {'median':>8} {'largest':>8} {'of':>4}")
    for metric, of_it in errors.items():
        print(f"{metric:<8} {np.median(of_it):>8.1e} {max(of_it):>8.1e} {len(of_it):>4}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vifb", type=Path, default=SHARED / "data" / "vif" / "VIFB")
    parser.add_argument("--tang", type=Path)
    args = parser.parse_args()
    if args.tang:
        tang(args.tang)
        return
    root: Path = args.vifb
    with (root / "published_metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    names = [name for name in rows[0] if name not in ("image", "method")]
    errors: dict[tuple[str, bool], list[float]] = defaultdict(list)
    for row in rows:
        stem = f"{row['image']}_{row['method']}"
        fused = np.asarray(Image.open(root / "output" / "fused_images" / f"{stem}.jpg"))
        sources = (np.asarray(Image.open(root / "input" / side / f"{row['image']}.jpg")) for side in ("VI", "IR"))
        found = evaluate(fused, *sources, metrics=names, profile="vifb")
        for name in names:
            remade = row["method"] in ("SwinFusion", "YDTR")
            errors[name, remade].append(abs(found[name] / float(row[name]) - 1))
    print(f"{'metric':<20} {'median':>8} {'largest':>8} {'within 2e-4':>12} {'of':>4} {'remade: median':>15}")
    for name in names:
        kept, other = np.array(errors[name, False]), np.array(errors[name, True])
        share = f"{np.mean(kept <= 2e-4):.1%}"
        figures = f"{np.median(kept):>8.1e} {kept.max():>8.1e} {share:>12} {len(kept):>4} {np.median(other):>15.1e}"
        print(f"{name:<20} {figures}")


if __name__ == "__main__":
    main()
