"""``train fuse``: fuses image files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from clearfuse.synth import console
from clearfuse.synth.datasets.read import as_grey, read_image
from clearfuse.synth.estimation.prompt import estimate_pair, write_prompt
from clearfuse.synth.execute.tasks import limit_threads
from clearfuse.synth.files.pictures import upright_size
from clearfuse.synth.files.storage import landing, same
from clearfuse.synth.types import (
    MODALITIES,
    OTHER,
    TASKS,
    BadPair,
    ImageName,
    Modality,
    UserError,
    WorkIncomplete,
    check_name,
)
from clearfuse.train.designs.design import AS_DESIGNED, Parts
from clearfuse.train.device import find_device, keep_freed_memory
from clearfuse.train.models.attention import attention_kernel, find_kernel
from clearfuse.train.pipeline.fusion import FusionPipeline
from clearfuse.train.pipeline.mask import mask_of
from clearfuse.train.pipeline.shipped import default_model
from clearfuse.train.pipeline.task import FoundTask, find_task

Progress = Callable[[int, int], None]
AUTO = "auto"
"""The task, or the prompt, that the pictures themselves tell."""
FORMATS = {
    ".png": "PNG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
}
"""The format of a fused image by file extension; WebP is lossless, JPEG has quality 95."""
OPTIONS = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95}}


def load_pipeline(
    name: str | None, device: str | None = None, parts: Parts = AS_DESIGNED, compiled: bool = False
) -> FusionPipeline:
    """Load a model by name; None: see ``default_model``. parts, compiled: see ``FusionPipeline.from_pretrained``."""
    limit_threads()
    where = find_device(device)
    keep_freed_memory(where)
    return FusionPipeline.from_pretrained(name or default_model(), where, parts=parts, compiled=compiled)


def fuse_files(
    a: str,
    b: str,
    out: str,
    task: str,
    *,
    prompt: str | None = None,
    model: str | None = None,
    steps: int | None = None,
    sampler: str | None = None,
    guidance: float | None = None,
    guidance_images: float | None = None,
    seed: int = 0,
    device: str | None = None,
    parts: Parts = AS_DESIGNED,
    compiled: bool = False,
    tile: int | None = None,
    attention: str = "auto",
    scale: int | None = None,
    mask: bool = False,
    progress: Progress = lambda done, total: None,
) -> list[str]:
    """Fuse two images or two folders of images; return the paths written.

    prompt: None: only to fuse; ``AUTO``: to remove what is found wrong with each pair, which is said in a line.
    mask: write what the prompt had marked as well, white on black, as ``NAME-mask.png``: see ``pipeline.mask``.

    Raises UserError before work begins, also where no pair can be read, before the model is loaded; WorkIncomplete at
    the end, naming the pairs that could not be fused.
    """
    check_name("task", task, (AUTO, *TASKS, OTHER))
    if mask and prompt in (None, AUTO):
        raise UserError("--mask: is of what a --prompt has marked, such as 'segment the car'")
    if prompt == AUTO and task == OTHER:
        raise UserError(f"--prompt auto: is for pairs of {', '.join(TASKS)}, not of --task {OTHER}")
    kernel = find_kernel(attention)
    pairs = find_images(Path(a), Path(b), Path(out))
    if task == AUTO:
        found = _found_task(pairs, scale)
        task, pairs = found.task, [(y, x, target) if found.swapped else (x, y, target) for x, y, target in pairs]
    failed = _unreadable(pairs, task, scale)
    if len(failed) == len(pairs):
        reasons = "; ".join([*failed.values()][:5])
        raise UserError(
            reasons if len(pairs) == 1 else f"{a} and {b}: none of {len(pairs)} pairs can be read: {reasons}"
        )
    pipeline = load_pipeline(model, device, parts, compiled)
    written: list[str] = []
    for number, (first, second, target) in enumerate(pairs):
        try:
            if number not in failed:
                images = _read_both(first, second, task, scale)
                how = {"steps": steps, "sampler": sampler, "guidance": guidance, "guidance_images": guidance_images}
                how |= {"task": task, "seed": seed, "tile": tile}
                wanted = _prompt_for(first, second, task, images) if prompt == AUTO else prompt
                with attention_kernel(kernel):
                    image = pipeline(*images, prompt=wanted, **how)
                    plain = pipeline(*images, **how) if mask else None
                write_image(target, image)
                written.append(str(target))
                if plain is not None:
                    beside = target.with_name(f"{target.stem}-mask.png")
                    write_image(beside, mask_of(image, plain).astype(np.uint8) * 255)
                    written.append(str(beside))
        except (BadPair, UserError, WorkIncomplete) as error:
            if len(pairs) == 1:
                kind = WorkIncomplete if isinstance(error, WorkIncomplete) else UserError
                raise kind(f"{first.name}, {second.name}: {error}") from None
            failed[number] = f"{first.name}: {error}"
        progress(number + 1, len(pairs))
    if failed:
        reasons = [failed[number] for number in sorted(failed)]
        raise WorkIncomplete(f"{len(failed)} of {len(pairs)} pairs could not be fused: {'; '.join(reasons[:5])}")
    return written


def _prompt_for(first: Path, second: Path, task: str, images: tuple[np.ndarray, np.ndarray]) -> str | None:
    """The prompt that asks to remove what is wrong with a pair, said in a line; None where nothing is found."""
    kind = next(one for one in TASKS if one == task)
    try:
        found = estimate_pair(kind, *images)
    except ValueError as error:
        raise BadPair(str(error)) from None
    prompt = write_prompt(kind, found)
    told = ", ".join(
        f"{one.finding.op} in {one.target}, {one.finding.strength()}, {100 * one.finding.certainty:.0f} % sure"
        for one in found
    )
    what = "nothing found" if prompt is None else f"{told}; prompt: {prompt.text}"
    console.note(f"{first.name}, {second.name}: {what}")
    return None if prompt is None else prompt.text


def _found_task(pairs: list[tuple[Path, Path, Path]], scale: int | None) -> FoundTask:
    """The task of the first pair that can be read, for all, said in one line."""
    for first, second, _ in pairs:
        try:
            found = find_task(*(read_image(str(path), scale=scale)[0] for path in (first, second)))
        except BadPair:
            continue
        others = " or ".join(one for one in TASKS if one != found.task)
        order = "; the second picture is taken first" if found.swapped else ""
        console.note(f"task: {found.task}, as {found.why}{order}; else --task {others}")
        return found
    raise UserError(f"{pairs[0][0].name}, {pairs[0][1].name}: cannot be read, so no task is told; say it by --task")


def _unreadable(pairs: list[tuple[Path, Path, Path]], task: str, scale: int | None) -> dict[int, str]:
    """What is wrong with pairs, by number: a single pair is read, of more the headers are."""
    failed: dict[int, str] = {}
    for number, (first, second, _) in enumerate(pairs):
        try:
            sizes = [upright_size(str(path)) for path in (first, second)]
            if sizes[0] != sizes[1]:
                raise BadPair("the two images differ in size: {} and {}".format(*(f"{w}x{h}" for w, h in sizes)))
            if len(pairs) == 1:
                _read_both(first, second, task, scale)
        except (BadPair, OSError) as error:
            names = f"{first.name}, {second.name}" if len(pairs) == 1 else first.name
            failed[number] = f"{names}: {error}"
    return failed


def _read_both(a: Path, b: Path, task: str, scale: int | None) -> tuple[np.ndarray, np.ndarray]:
    """The images of a pair as builds read them: an infrared one has one channel, those of another task as stored."""
    others: dict[ImageName, Modality] = {"a": "visible", "b": "visible"}
    kinds = next((kinds for known, kinds in MODALITIES.items() if known == task), others)
    first, second = (read_image(str(path), kinds[name], scale)[0] for name, path in (("a", a), ("b", b)))
    return first, as_grey(second) if kinds["b"] == "infrared" else second


def find_images(a: Path, b: Path, out: Path) -> list[tuple[Path, Path, Path]]:
    """(a, b, output) for two files, or for the files of two folders with the same name up to the extension.

    Raises UserError where there are none, an output would take an input's place, or can't be written. Other entries of
    the folders are counted in a note.
    """
    for path in (a, b):
        if not path.exists():
            raise UserError(f"{path}: no such file or folder")
        if not path.is_dir() and not path.is_file():
            raise UserError(f"{path}: is a pipe, socket or device, must be an image or a folder of images")
    if a.is_dir() != b.is_dir():
        raise UserError(f"{a} and {b}: one is a file, the other a folder")
    if not a.is_dir():
        if out.suffix.lower() not in FORMATS:
            raise UserError(f"-o {out}: must end in {', '.join(FORMATS)}")
        pairs = [(a, b, out)]
    else:
        if out.exists() and not out.is_dir():
            raise UserError(f"-o {out}: is a file, must be a folder")
        if same(out, a) or same(out, b):
            raise UserError(f"-o {out}: is a folder of the images to fuse; choose another")
        pairs = _paired(a, b, out)
    _check_outputs(out, pairs)
    return pairs


def _paired(a: Path, b: Path, out: Path) -> list[tuple[Path, Path, Path]]:
    (firsts, others), (seconds, more) = images_by_stem(a), images_by_stem(b)
    alone = [
        [path.name for stem, path in x.items() if stem not in y] for x, y in ((firsts, seconds), (seconds, firsts))
    ]
    if alone[0] or alone[1]:
        names = f"{a} has {some_names(alone[0] or others)}; {b} has {some_names(alone[1] or more)}"
        raise UserError(f"{len(alone[0] + alone[1])} images have no partner of the same name: {names}")
    if not firsts:
        names = f"it has {some_names(others)}; {b} has {some_names(more)}"
        raise UserError(f"{a}: no images in this folder, which end in {', '.join(FORMATS)}: {names}")
    for folder, ignored in ((a, others), (b, more)):
        if ignored:
            console.note(f"{folder}: {len(ignored)} ignored, as no images: {some_names(ignored)}")
    return [(firsts[stem], seconds[stem], out / f"{stem}.png") for stem in firsts]


def images_by_stem(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """A folder's images by name without extension, and its other entries. What is hidden is none (``._x`` of macOS)."""
    found: dict[str, Path] = {}
    ignored: list[str] = []
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise UserError(f"{folder}: cannot be read: {error.strerror}") from None
    for path in entries:
        if path.name.startswith(".") or path.suffix.lower() not in FORMATS or not path.is_file():
            ignored.append(path.name)
        elif path.stem in found:
            raise UserError(f"{folder}: {found[path.stem].name} and {path.name} share a name")
        else:
            found[path.stem] = path
    return found, ignored


def some_names(names: Iterable[str], most: int = 5) -> str:
    """The first of some names, on one line."""
    shown = [name if name.isprintable() else ascii(name) for name in names]
    return ", ".join(shown[:most]) + (", ..." if len(shown) > most else "") or "no file"


def _check_outputs(out: Path, pairs: list[tuple[Path, Path, Path]]) -> None:
    """Raise UserError where an output is one of the inputs, under whatever name, or can't be written."""
    inputs = {(found.st_dev, found.st_ino) for *images, _ in pairs for found in (path.stat() for path in images)}
    for *_, target in pairs:
        if not target.exists():
            continue
        if not target.is_file():
            raise UserError(f"-o {out}: {target} is there and is no file")
        if (found := target.stat()) and (found.st_dev, found.st_ino) in inputs:
            raise UserError(f"-o {out}: {target} is one of the images to fuse and would be written over")
    folder = pairs[0][2].parent
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"-o {out}: {there} is no folder that can be written to")


def write_image(path: Path, image: np.ndarray) -> None:
    """Write an image atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    format = FORMATS[path.suffix.lower()]
    with landing(path) as file:
        Image.fromarray(image).save(file, format, **OPTIONS.get(format, {}))
