"""What ``train fuse`` is to fuse: files, folders, data sets or shards, as jobs, checked before work begins."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from clearfuse.synth import console
from clearfuse.synth.datasets.find import check_split, find_all, of_split, own_task
from clearfuse.synth.datasets.manifest import load_manifest, natural
from clearfuse.synth.datasets.match import key_pattern
from clearfuse.synth.datasets.select import Match, folders, with_match
from clearfuse.synth.files.folders import check_folder
from clearfuse.synth.files.pictures import EXTENSIONS, upright_header
from clearfuse.synth.files.storage import same
from clearfuse.synth.shards.receipts import sample_offsets
from clearfuse.synth.shards.sample import read_meta
from clearfuse.synth.shards.tar import read_members
from clearfuse.synth.types import TASKS, BadPair, Task, UserError
from clearfuse.train.data.find import find_local_shards
from clearfuse.train.pipeline.pictures.jobs import Files, Job, ShardSample
from clearfuse.train.pipeline.pictures.write import FORMATS
from clearfuse.train.pipeline.task import as_task


def find_jobs(inputs: Sequence[str], out: Path, *, match: Match = None, frames: bool = False) -> list[Job]:
    """The jobs of a command line: two or more files, two or more folders, a folder of frames or of stacks, shards.

    match: patterns of the names in two folders, see ``images_by_key``. frames: the folders hold frames of a video, in
    the natural order of their names. Raises UserError where there is nothing to fuse, an output would take an input's
    place, or can't be written. Other entries of the folders are counted in a note.
    """
    if not inputs:
        raise UserError("nothing to fuse: name two pictures, two folders or shards, or a data set by --data NAME=DIR")
    if len(inputs) == 1 and _is_shards(inputs[0]):
        if match is not None or frames:
            option = "--match" if match else "--frames"
            raise UserError(f"{option}: is for folders of pictures, and {inputs[0]} holds shards")
        jobs: list[Job] = [*_of_shards(inputs, out)]
    else:
        jobs = [*_of_paths([Path(text) for text in inputs], out, match, frames)]
    check_outputs(out, jobs)
    return jobs


def find_data(
    data: Sequence[str],
    task: str | None,
    out: Path,
    split: str | None,
    limit: int | None,
    match: Match,
    stacks: bool = False,
) -> list[Job]:
    """The jobs of data sets, ``NAME=DIR``: the degraded pictures of those that have such, of others the pair itself.

    task: of sets that are for any task. split: None for all. stacks: of sequences all frames, from dark to bright, not
    the two at the ends alone. Raises UserError, see ``datasets.find.find_all``.
    """
    check_folder(out, "-o")
    jobs: list[Job] = []
    sets = folders(with_match(data, match), "--data ")
    for name, location in sets.items():
        manifest = load_manifest(name)
        if manifest.builtin or manifest.single:
            kind = "is built in" if manifest.builtin else "holds single pictures"
            raise UserError(f"--data {name}={location}: {kind}: there are no pairs of files to fuse")
        of: Task = own_task(manifest) if task not in TASKS else as_task(task)
        found = find_all(manifest, location, of)
        if split is not None:
            check_split(manifest, of, split)
        pairs = found.pairs if split is None else of_split(manifest, location, found, split)
        if stacks and not manifest.sequence:
            raise UserError(f"--data {name}={location}: --stacks is for sets of sequences, and these are pairs")
        brighter: dict[str, str] = {}
        if stacks:
            steps = find_all(manifest, location, of, "adjacent").pairs
            brighter = {ref.sources["a"]: ref.sources["b"] for ref in steps}
        for ref in list(pairs)[:limit]:
            paths = tuple(ref.sources.get(f"degraded_{side}", ref.sources[side]) for side in ("a", "b"))
            if stacks:
                paths = _upwards(paths[0], brighter)
            stem = f"{name}/{ref.key}" if len(sets) > 1 else ref.key
            known = None if manifest.task == "any" else of
            jobs.append(Files(paths, _in_folder(out, stem, paths), known, ref.scale))
    seen: dict[Path, Job] = {}
    for job in jobs:
        if job.target in seen:
            raise UserError(f"--data {' '.join(data)}: two pairs would both be {job.target}: name a split by --split")
        seen[job.target] = job
    check_outputs(out, jobs)
    return jobs[:limit]


def _upwards(darkest: str, brighter: Mapping[str, str]) -> tuple[str, ...]:
    """The frames of a sequence, from the darkest on. brighter: of each frame the next one."""
    frames = [darkest]
    while frames[-1] in brighter:
        frames.append(brighter[frames[-1]])
    return tuple(frames)


def _is_shards(text: str) -> bool:
    """Whether an argument names shards: a tar, a pattern, a URL, or a folder with tars in it."""
    path = Path(text)
    if path.is_dir():
        return any(entry.suffix == ".tar" for entry in path.iterdir())
    return text.endswith(".tar") or "://" in text or (not path.exists() and any(sign in text for sign in "*{"))


def _of_shards(paths: Sequence[str], out: Path) -> list[ShardSample]:
    """The samples of shards, to ``TASK/KEY.png``: the names that ``train eval --results`` reads."""
    check_folder(out, "-o")
    jobs: list[ShardSample] = []
    for shard in find_local_shards(paths):
        try:
            offsets = sample_offsets(shard)
            with shard.open("rb") as file:
                key, members = next(read_members(file, 0), ("", {}))
            if not members:
                continue
            task = read_meta(key, members).task
        except ValueError as error:
            raise UserError(f"{shard}: {error}; see synth verify") from None
        jobs += [ShardSample(shard, key, at, out / task / f"{key}.png", task) for key, at in offsets.items()]
    if not jobs:
        raise UserError(f"{', '.join(paths)}: no samples in these shards")
    if len({job.target for job in jobs}) < len(jobs):
        raise UserError(f"{', '.join(paths)}: two builds of one task, whose keys are the same: fuse each apart")
    return jobs


def _of_paths(paths: Sequence[Path], out: Path, match: Match, frames: bool) -> list[Files]:
    for path in paths:
        if not path.exists():
            raise UserError(f"{path}: no such file or folder")
        if not path.is_dir() and not path.is_file():
            raise UserError(f"{path}: is a pipe, socket or device, must be an image or a folder of images")
    kinds = {path.is_dir() for path in paths}
    if len(kinds) > 1:
        one, other = next(path for path in paths if path.is_file()), next(path for path in paths if path.is_dir())
        raise UserError(f"{one} and {other}: one is a file, the other a folder")
    if kinds == {False}:
        if match is not None or frames:
            raise UserError(f"{'--match' if match else '--frames'}: is for folders, and {paths[0]} is a file")
        if len(paths) < 2:
            raise UserError(f"{paths[0]}: is one picture: name two to fuse, or more of a stack")
        return [_one(tuple(map(str, paths)), out)]
    if len(paths) == 1:
        if match is not None or frames:
            raise UserError(f"{'--match' if match else '--frames'}: needs two folders, and {paths[0]} is one")
        return _stacks(paths[0], out)
    _check_folder(out, paths)
    if match is not None and len(paths) != 2:
        raise UserError(f"--match: has two patterns, and these are {len(paths)} folders")
    return _paired(paths, out, match, frames)


def _one(paths: tuple[str, ...], out: Path) -> Files:
    if out.suffix.lower() not in FORMATS:
        raise UserError(f"-o {out}: must end in {', '.join(FORMATS)}")
    return Files(paths, out)


def _stacks(folder: Path, out: Path) -> list[Files]:
    """The frames of a folder as one stack, or the stacks of its subfolders."""
    images, others = images_by_key(folder)
    if images:
        if len(images) < 2:
            raise UserError(f"{folder}: has one picture, {next(iter(images.values())).name}: a stack has two or more")
        ordered = sorted(images, key=natural)
        return [_one(tuple(str(images[stem]) for stem in ordered), out)]
    stacks = {
        path: images_by_key(path)[0]
        for path in sorted(folder.iterdir())
        if path.is_dir() and not path.name.startswith(".")
    }
    stacks = {path: found for path, found in stacks.items() if len(found) > 1}
    if not stacks:
        what = f"no images in this folder, which end in {_endings()}, and no stacks of them below"
        raise UserError(f"{folder}: {what}: it has {some_names(others)}")
    _check_folder(out, [folder, *stacks])
    jobs: list[Files] = []
    for path, found in stacks.items():
        frames = tuple(str(found[stem]) for stem in sorted(found, key=natural))
        jobs.append(Files(frames, _in_folder(out, path.name, frames)))
    return jobs


def _check_folder(out: Path, paths: Iterable[Path]) -> None:
    check_folder(out, "-o")
    if any(same(out, path) for path in paths):
        raise UserError(f"-o {out}: is a folder of the images to fuse; choose another")


def _paired(paths: Sequence[Path], out: Path, match: Match, frames: bool) -> list[Files]:
    """The pictures of two or more folders, by the keys of their names."""
    patterns = match or (None,) * len(paths)
    found = [images_by_key(path, pattern) for path, pattern in zip(paths, patterns, strict=True)]
    images, others = [one for one, _ in found], [other for _, other in found]
    keys = sorted(images[0], key=natural)
    if (
        frames
        and match is None
        and len({len(one) for one in images}) == 1
        and any(one.keys() != images[0].keys() for one in images)
    ):
        ordered = [[one[key] for key in sorted(one, key=natural)] for one in images]
        first, last = ([names[at].name for names in ordered] for at in (0, -1))
        console.note(f"frames: paired by their order, from {' with '.join(first)} to {' with '.join(last)}")
        images = [dict(zip(keys, names, strict=True)) for names in ordered]
    common = set.intersection(*(set(one) for one in images))
    alone = [[path.name for key, path in one.items() if key not in common] for one in images]
    if any(alone) or not keys:
        names = "; ".join(
            f"{path} has {some_names(lone or other)}" for path, lone, other in zip(paths, alone, others, strict=True)
        )
        if not any(images):
            raise UserError(
                f"{paths[0]}: no images in this folder, which end in {_endings()}{_matching(match)}: {names}"
            )
        hint = "" if match else "; names that differ at their ends: --match '{key}-A' '{key}-B'"
        raise UserError(
            f"{sum(map(len, alone))} images have no partner of the same name{_matching(match)}: {names}{hint}"
        )
    for path, pattern, ignored in zip(paths, patterns, others, strict=True):
        if ignored:
            why = "as no images" if pattern is None else f"as no images {pattern}"
            console.note(f"{path}: {len(ignored)} ignored, {why}: {some_names(ignored)}")
    jobs: list[Files] = []
    for key in keys:
        files = tuple(str(one[key]) for one in images)
        jobs.append(Files(files, _in_folder(out, key, files)))
    return jobs


def _matching(match: Match) -> str:
    return f" by --match {' '.join(map(repr, match))}" if match else ""


def _in_folder(out: Path, stem: str, paths: Sequence[str]) -> Path:
    """The file of a fused image in a folder: PNG, or TIFF where the first picture is in floating point."""
    try:
        deep = Path(paths[0]).suffix.lower() in (".tif", ".tiff") and upright_header(paths[0]).bits == 32
    except (BadPair, OSError):  # said later, with what else is wrong
        deep = False
    return out / f"{stem}{'.tif' if deep else '.png'}"


def images_by_key(folder: Path, pattern: str | None = None) -> tuple[dict[str, Path], list[str]]:
    """A folder's images by key, and its other entries. What is hidden is none (``._x`` of macOS).

    pattern: a name without extension in which ``{key}`` stands for the key, such as ``{key}-A``; None: ``{key}``.
    Raises UserError where two images have one key.
    """
    wanted = re.compile(r"(?P<key>.+)\.[^.]+\Z") if pattern is None else key_pattern(pattern)
    found: dict[str, Path] = {}
    ignored: list[str] = []
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise UserError(f"{folder}: cannot be read: {error.strerror}") from None
    for path in entries:
        hit = wanted.match(path.name)
        if path.name.startswith(".") or path.suffix.lower() not in EXTENSIONS or hit is None or not path.is_file():
            ignored.append(path.name)
        elif hit["key"] in found:
            raise UserError(f"{folder}: {found[hit['key']].name} and {path.name} share a name")
        else:
            found[hit["key"]] = path
    return found, ignored


def _endings() -> str:
    return ", ".join(sorted(EXTENSIONS))


def some_names(names: Iterable[str], most: int = 5) -> str:
    """The first of some names, on one line."""
    shown = [name if name.isprintable() else ascii(name) for name in names]
    return ", ".join(shown[:most]) + (", ..." if len(shown) > most else "") or "no file"


def check_outputs(out: Path, jobs: Sequence[Job]) -> None:
    """Raise UserError where an output is one of the inputs, under whatever name, or can't be written."""
    local = [Path(path) for job in jobs if isinstance(job, Files) for path in job.paths]
    inputs = {(found.st_dev, found.st_ino) for path in local if path.exists() for found in (path.stat(),)}
    for job in jobs:
        if not job.target.exists():
            continue
        if not job.target.is_file():
            raise UserError(f"-o {out}: {job.target} is there and is no file")
        if (found := job.target.stat()) and (found.st_dev, found.st_ino) in inputs:
            raise UserError(f"-o {out}: {job.target} is one of the images to fuse and would be written over")
    folder = jobs[0].target.parent
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"-o {out}: {there} is no folder that can be written to")
