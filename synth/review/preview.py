"""What ``synth preview`` and ``synth degrade`` do: contact sheets of a build before it is made, and single images."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from clearfuse.synth.builder.options import Options
from clearfuse.synth.builder.run import plan_build
from clearfuse.synth.datasets.read import read_image
from clearfuse.synth.depth import metres as depth_maps
from clearfuse.synth.depth.base import DepthInput
from clearfuse.synth.depth.choice import parse_depth
from clearfuse.synth.files import storage
from clearfuse.synth.files.folders import writing
from clearfuse.synth.files.storage import Location, landing
from clearfuse.synth.files.wide import FULL_SCALE
from clearfuse.synth.onthefly import OnTheFly
from clearfuse.synth.operators import OPERATORS, operator_class, physical_order
from clearfuse.synth.review import gallery
from clearfuse.synth.samples.chain import degrade
from clearfuse.synth.samples.prepare import Prepared, Spec, prepare
from clearfuse.synth.samples.recipe import load_recipe
from clearfuse.synth.samples.render import render
from clearfuse.synth.seeds import seed_of
from clearfuse.synth.shards.codecs import CODECS
from clearfuse.synth.shards.find import find_shards
from clearfuse.synth.shards.sample import Sample, read_samples
from clearfuse.synth.types import INSTRUCTED, MODALITIES, BadPair, UserError, WorkIncomplete, check_name

SEVERITIES = (0.0, 0.25, 0.5, 0.75, 1.0)


def preview(options: Options, out: str, samples: int, op: str | None) -> tuple[Location, Location]:
    """Draw the first samples of a build, or operators at five severities on its first pair; (PNG, HTML) paths."""
    _check_sheet(out, samples)
    build, _ = plan_build(options.model_copy(update={"executor": "serial"}))
    names = _operator_names(op) if op is not None else None
    for name in names or []:
        if build.spec.task in INSTRUCTED:
            raise UserError(
                f"--op {op}: acts on none of --task {options.task}, whose pairs are not degraded as a whole"
            )
        if op != "all" and not operator_class(name).modalities & set(MODALITIES[build.pairs.task].values()):
            raise UserError(f"{name} acts on no image of {options.task}")
    order = build.order(0)
    if names is not None and order[0].real:
        raise UserError(f"--op {op}: acts on clean images, and the pairs of '{order[0].dataset}' have none")
    rows: list[gallery.GalleryRow] = []
    refused = ""
    for index, ref in enumerate(order):
        if len(rows) >= samples:
            break
        try:
            prepared = prepare(build.spec, ref)
            if names is not None:
                rows = [row for name in names for row in operator_rows(build.spec, prepared, name, options.seed)]
                break
            rows.append(gallery.sample_row(render(build.spec, prepared, 0, f"{index:09d}")))
        except BadPair as error:
            refused = f"{ref.name}: {error}"
    if not rows:
        raise WorkIncomplete(f"no usable pair: {refused}")
    return _write_sheet(out, f"{options.task}: {len(rows)} rows, seed {options.seed}", rows)


def preview_shards(
    paths: Sequence[str], out: str, samples: int, recipe: str | None = None, language: str = "en"
) -> tuple[Location, Location]:
    """Draw ``samples`` samples of finished shards, as many of each shard; (PNG, HTML) paths.

    Lean ones are degraded here, by ``recipe`` or their task's own, with their own seeds and prompts in ``language``.
    """
    _check_sheet(out, samples)
    shards, _ = find_shards(paths)
    rows: list[gallery.GalleryRow] = []
    lean = False
    try:
        for i, shard in enumerate(shards[:samples]):
            share = samples * (i + 1) // min(len(shards), samples) - len(rows)
            for sample in islice(read_samples(shard), share):
                lean = lean or sample.meta.lean
                rows.append(gallery.sample_row(_degraded(sample, recipe, language)))
    except ValueError as error:
        raise UserError(f"{error}; see synth verify") from None
    if not rows:
        raise UserError(f"{', '.join(paths)}: no samples to draw")
    here = f" (lean ones degraded here: recipe {recipe or 'of their task'})" if lean else ""
    return _write_sheet(out, f"{len(rows)} samples of {', '.join(paths)}{here}", rows)


def _degraded(sample: Sample, recipe: str | None, language: str) -> Sample:
    if sample.meta.lean:
        return OnTheFly(load_recipe(recipe or sample.meta.task, task=sample.meta.task), language=language)(sample)
    if language != "en":
        raise UserError(f"--language {language}: these shards hold their prompts; it is for lean ones")
    if recipe is not None:
        raise UserError(f"--recipe {recipe}: these shards hold their degradations; it is for lean ones")
    return sample


def _check_sheet(out: str, samples: int) -> None:
    if samples < 1:
        raise UserError(f"--samples {samples}: must be at least 1")
    if Path(out).suffix.lower() not in ("", ".png", ".html") or not Path(out).name:
        raise UserError(f"--out {out}: must end in .png")


def _write_sheet(out: str, title: str, rows: Sequence[gallery.GalleryRow]) -> tuple[Location, Location]:
    with writing(out) as target:
        return gallery.write(target, title, rows)


def _operator_names(op: str) -> list[str]:
    names = list(OPERATORS) if op == "all" else physical_order(part.strip() for part in op.split(","))
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"--op {op}: {twice} is named twice")
    return names


def operator_rows(spec: Spec, prepared: Prepared, name: str, seed: int) -> list[gallery.GalleryRow]:
    """A row for each image that an operator can act on: clean, then the five severities with all other draws fixed."""
    cls = operator_class(name)
    metres = depth_maps.dequantise(prepared.depth(spec)) if cls.takes_depth() else None
    rows: list[gallery.GalleryRow] = []
    for image, modality in MODALITIES[prepared.ref.task].items():
        if modality not in cls.modalities or (rows and modality == "visible"):
            continue
        clean = prepared.pair.a if image == "a" else prepared.pair.b
        cells = [("clean", clean)]
        for severity in SEVERITIES:
            made = degrade(clean, name, severity=severity, seed=seed, depth=metres, modality=modality)
            cells.append((f"{name} {severity:g}", made))
        rows.append(gallery.GalleryRow(tuple(cells), (f"{name} ({cls.stage}), {modality}, {prepared.ref.name}",)))
    return rows


def degrade_files(
    images: Sequence[str],
    op: str,
    out: str,
    *,
    severity: float | None,
    seed: int,
    depth: str,
    modality: str,
    scale: int | None = None,
) -> list[str]:
    """Degrade image files into ``out`` as PNG, one seed a file name. The paths written.

    Raises UserError before anything is written, WorkIncomplete where some files could not be used.
    """
    names = _operator_names(op)
    check_name("modality", modality, ("visible", "infrared"))
    if not 0 <= seed < 2**53:
        raise UserError(f"--seed {seed}: must be in [0, 2^53)")
    if scale is not None and not 256 <= scale <= FULL_SCALE:
        raise UserError(f"--scale {scale}: must be in [256, {FULL_SCALE}]")
    if severity is not None and not 0 <= severity <= 1:
        raise UserError(f"--severity {severity:g}: must be in [0, 1]")
    paths = [storage.locate(image) for image in images]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise UserError(f"{missing[0]}: no such file")
    stems = [path.stem for path in paths]
    twice = next((stem for stem in stems if stems.count(stem) > 1), None)
    if twice is not None:
        raise UserError(f"two images are named {twice}: their results would overwrite each other")
    wanted = [name for name in names if modality not in operator_class(name).modalities]
    if wanted:
        raise UserError(f"{wanted[0]} does not act on {modality} images")
    source = parse_depth(depth, has_true=False)
    folder = storage.locate(out)
    own = next((path for path in paths if storage.same(path, folder / f"{path.stem}.png")), None)
    if own is not None:
        raise UserError(f"--out {out}: {own.name} would be written over; choose another folder")
    try:
        storage.ensure_folder(folder)
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written: {error.strerror}") from None
    written: list[str] = []
    refused: list[str] = []
    for path in paths:
        try:
            image, _ = read_image(str(path), modality, scale)
            metres = None
            if any(operator_class(name).takes_depth() for name in names):
                metres = source.estimate(DepthInput(path.stem, image, None, depth_maps.USUAL_FAR))
            made = degrade(
                *(image, names), severity=severity, seed=seed_of(seed, path.stem), depth=metres, modality=modality
            )
        except (BadPair, OSError) as error:
            refused.append(str(error))
            continue
        _write_png(folder / f"{path.stem}.png", made)
        written.append(str(folder / f"{path.stem}.png"))
    if refused:
        raise WorkIncomplete(f"{len(refused)} of {len(paths)} images could not be used: {refused[0]}")
    return written


def _write_png(path: Location, image: np.ndarray) -> None:
    try:
        with landing(path) as file:
            file.write(CODECS["png"].encode(image))
    except OSError as error:
        raise WorkIncomplete(f"{path}: cannot be written: {error.strerror}") from None
