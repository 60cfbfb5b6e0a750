"""``train fuse``: fuses image files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from clearfuse.synth.datasets.read import read_image
from clearfuse.synth.execute.tasks import limit_threads
from clearfuse.synth.files.storage import landing
from clearfuse.synth.types import TASKS, BadPair, UserError, WorkIncomplete, unknown
from clearfuse.train.designs.design import AS_DESIGNED, Parts
from clearfuse.train.device import find_device, keep_freed_memory
from clearfuse.train.pipeline.fusion import FusionPipeline
from clearfuse.train.runs.folder import the_only_run

Progress = Callable[[int, int], None]
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
    """Load a model by name; None: that of the only run. parts, compiled: see ``FusionPipeline.from_pretrained``."""
    limit_threads()
    where = find_device(device)
    keep_freed_memory(where)
    model = str(the_only_run()) if name is None else name
    return FusionPipeline.from_pretrained(model, where, parts=parts, compiled=compiled)


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
    seed: int = 0,
    device: str | None = None,
    parts: Parts = AS_DESIGNED,
    compiled: bool = False,
    progress: Progress = lambda done, total: None,
) -> list[str]:
    """Fuse two images or two folders of images; return the paths written.

    Raises UserError before work begins, and WorkIncomplete at the end, naming the pairs that could not be fused.
    """
    if task not in TASKS:
        raise unknown("task", task, TASKS)
    pairs = find_images(Path(a), Path(b), Path(out))
    pipeline = load_pipeline(model, device, parts, compiled)
    written: list[str] = []
    failed: list[str] = []
    for number, (first, second, target) in enumerate(pairs):
        try:
            image = pipeline(
                *(read_image(str(path))[0] for path in (first, second)),
                task=task, prompt=prompt, seed=seed, steps=steps, sampler=sampler, guidance=guidance,
            )  # fmt: skip
            write_image(target, image)
            written.append(str(target))
        except (BadPair, UserError, WorkIncomplete) as error:
            if len(pairs) == 1:
                kind = WorkIncomplete if isinstance(error, WorkIncomplete) else UserError
                raise kind(f"{first.name}, {second.name}: {error}") from None
            failed.append(f"{first.name}: {error}")
        progress(number + 1, len(pairs))
    if failed:
        raise WorkIncomplete(f"{len(failed)} of {len(pairs)} pairs could not be fused: {'; '.join(failed[:5])}")
    return written


def find_images(a: Path, b: Path, out: Path) -> list[tuple[Path, Path, Path]]:
    """(a, b, output) for two files, or for the files of two folders with the same name up to the extension."""
    for path in (a, b):
        if not path.exists():
            raise UserError(f"{path}: no such file or folder")
    if a.is_dir() != b.is_dir():
        raise UserError(f"{a} and {b}: one is a file, the other a folder")
    if not a.is_dir():
        if out.suffix.lower() not in FORMATS:
            raise UserError(f"-o {out}: must end in {', '.join(FORMATS)}")
        return [(a, b, out)]
    if out.exists() and not out.is_dir():
        raise UserError(f"-o {out}: is a file, must be a folder")
    firsts, seconds = _by_stem(a), _by_stem(b)
    unpaired = sorted(firsts.keys() ^ seconds.keys())
    if unpaired:
        raise UserError(
            f"{a} and {b}: {len(unpaired)} images have no partner of the same name: {', '.join(unpaired[:5])}"
        )
    if not firsts:
        raise UserError(f"{a}: no images in this folder")
    return [(firsts[stem], seconds[stem], out / f"{stem}.png") for stem in sorted(firsts)]


def _by_stem(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in FORMATS and path.is_file():
            if path.stem in found:
                raise UserError(f"{folder}: {found[path.stem].name} and {path.name} share a name")
            found[path.stem] = path
    return found


def write_image(path: Path, image: np.ndarray) -> None:
    """Write an image atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    format = FORMATS[path.suffix.lower()]
    with landing(path) as file:
        Image.fromarray(image).save(file, format, **OPTIONS.get(format, {}))
