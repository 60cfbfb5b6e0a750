"""Clean pairs: manifests (a data set's layout as data), the folders that they match, and decoding."""

from __future__ import annotations

import hashlib
import io
import os
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from synth import color
from synth.resources import read_toml, resource_dir, resource_names
from synth.seeds import unit_hash
from synth.types import MODALITIES, TASKS, BadPair, PairRef, Task, UserError, unknown

SPLITS = {"train": 157_500, "val": 31_500, "test": 6_300}
"""Shares of a set that has no split of its own: the paper's counts (MMAIF, section 4.1)."""

EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"})
_KEYS = (
    *("schema", "title", "task", "a", "b", "gt", "ignore_case", "splits", "scene", "counts"),
    *("licence", "citation", "url", "builtin"),
)


@dataclass(frozen=True)
class Manifest:
    """A data set's layout. ``a``, ``b``, ``gt``: path templates below its folder, with {split}, {key} and *."""

    name: str
    title: str
    task: str
    a: str
    b: str
    gt: str
    ignore_case: bool
    splits: Mapping[str, str]
    scene: str
    counts: Mapping[str, int]
    licence: str
    citation: str
    url: str
    builtin: bool


At = tuple[str, str]


@dataclass(frozen=True)
class Found:
    """What a folder holds of one split: its pairs in natural order, and what was left out."""

    pairs: tuple[PairRef, ...]
    ignored: int
    unpaired: tuple[str, ...]
    splits: Mapping[str, int]


@dataclass(frozen=True)
class CleanPair:
    """A decoded clean pair: uint8 ``(h, w, c)``, with the sha256 of each source. depth: metres along the ray."""

    a: np.ndarray
    b: np.ndarray
    gt: np.ndarray | None
    depth: np.ndarray | None
    sha256: Mapping[str, str]


def load_manifest(name: str, path: Path | None = None) -> Manifest:
    """The manifest of a data set by name, checked; or the TOML file at ``path``."""
    names = resource_names("manifests/datasets")
    if path is None:
        if name not in names:
            raise unknown("data set", name, names)
        path = resource_dir("manifests/datasets") / f"{name}.toml"
    data = read_toml(path)
    for key in data:
        if key not in _KEYS:
            raise UserError(f"{path}: {unknown('key', key, _KEYS)}")
    if data.get("task") not in (*TASKS, "any"):
        raise UserError(f"{path}: task is {data.get('task')!r}: allowed: {', '.join(TASKS)}, any")
    builtin = bool(data.get("builtin", False))
    for key in () if builtin else ("a", "b"):
        if "{key}" not in str(data.get(key, "")):
            raise UserError(f"{path}: {key} must be a path template with {{key}} in it")
    for split in data.get("splits", {}):
        if split not in SPLITS:
            raise UserError(f"{path}: {unknown('split', split, SPLITS)}")
    texts = {k: str(data.get(k, "")) for k in ("title", "task", "a", "b", "gt", "licence", "citation", "url")}
    return Manifest(
        name=name,
        ignore_case=bool(data.get("ignore_case", False)),
        splits=data.get("splits", {}),
        scene=data.get("scene", "{key}"),
        counts=data.get("counts", {}),
        builtin=builtin,
        **texts,
    )


def natural(text: str) -> list[Any]:
    """A sort key under which frame2 comes before frame10."""
    parts = re.split(r"([0-9]+)", text)
    return [(1, 0, part) if i % 2 == 0 else (0, int(part), "") for i, part in enumerate(parts) if part]


def template_regex(template: str, splits: Iterable[str], ignore_case: bool) -> re.Pattern[str]:
    """A path template as a regular expression.

    {key} is captured once and repeated after that, {split} is one of the folders, * a piece of a name; a last .* is
    the extension, so that a key may hold dots.
    """
    out, seen = "", set[str]()
    for part in re.split(r"(\{key\}|\{split\}|\.\*\Z|\*)", template):
        if part in ("{key}", "{split}"):
            name = part[1:-1]
            body = "[^/]+?" if name == "key" else "|".join(re.escape(s) for s in splits)
            out += f"(?P={name})" if name in seen else f"(?P<{name}>{body})"
            seen.add(name)
        else:
            out += {"*": "[^/]*?", ".*": r"\.[^/.]+"}.get(part) or re.escape(part)
    return re.compile(out + r"\Z", re.IGNORECASE if ignore_case else 0)


def walk_files(root: Path) -> list[str]:
    """Every file below a folder as a relative path with forward slashes, sorted; links are followed, loops are not."""
    found: list[str] = []
    seen: set[str] = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders[:] = []
            continue
        seen.add(real)
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        below = Path(folder).relative_to(root).as_posix()
        found += [name if below == "." else f"{below}/{name}" for name in files if not name.startswith(".")]
    return sorted(found)


def scene_split(scene: str) -> str:
    """The split of a scene of a set without splits: by hash, in the paper's proportions, the same in every build."""
    edges = np.cumsum(list(SPLITS.values())) / sum(SPLITS.values())
    return list(SPLITS)[int(np.searchsorted(edges, unit_hash("split", scene), side="right"))]


def find_pairs(manifest: Manifest, location: str, task: Task, split: str) -> Found:
    """The pairs of a split below a folder.

    location: the data set's folder, or for ``folder`` ``DIR_A,DIR_B[,DIR_GT]``. Raises UserError where the folder is
    missing, the set is for another task, has no such split, or nothing matches its layout.
    """
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    if manifest.task not in (task, "any"):
        raise UserError(f"data set '{manifest.name}' is for {manifest.task}, not for {task}")
    if manifest.splits and split not in manifest.splits:
        raise UserError(f"data set '{manifest.name}' has no split '{split}': it has {', '.join(manifest.splits)}")
    roots = _roots(manifest, location)
    files = {root: walk_files(root) for root, _ in roots.values()}
    left = {root: set(names) for root, names in files.items()}
    sides: dict[str, dict[At, tuple[str, str]]] = {}
    for image, (root, template) in roots.items():
        pattern = template_regex(template, manifest.splits.values(), manifest.ignore_case)
        sides[image] = _match(files[root], root, pattern, manifest.ignore_case, left[root])
    return _pair_up(manifest, sides, task, split, sum(map(len, left.values())), location)


def _roots(manifest: Manifest, location: str) -> dict[str, tuple[Path, str]]:
    images = {"a": manifest.a, "b": manifest.b} | ({"gt": manifest.gt} if manifest.gt else {})
    if manifest.name == "folder":
        parts = [part for part in location.split(",") if part]
        if len(parts) not in (2, 3):
            raise UserError(f"--data folder={location}: must be folder=DIR_A,DIR_B or folder=DIR_A,DIR_B,DIR_GT")
        if len({Path(part).resolve() for part in parts}) < len(parts):
            raise UserError(f"--data folder={location}: the same folder is named twice")
        roots = dict(zip(images, parts, strict=False))
    else:
        roots = dict.fromkeys(images, location)
    for root in roots.values():
        if not Path(root).is_dir():
            raise UserError(f"--data {manifest.name}={location}: folder {root} does not exist")
    return {image: (Path(root), images[image]) for image, root in roots.items()}


def _match(
    files: Sequence[str], root: Path, pattern: re.Pattern[str], ignore_case: bool, left: set[str]
) -> dict[At, tuple[str, str]]:
    """(split folder, key) -> (key as written, path) of the images that a template takes; they leave ``left``."""
    matched: dict[At, tuple[str, str]] = {}
    for name in files:
        match = pattern.match(name) if os.path.splitext(name)[1].lower() in EXTENSIONS else None
        if match is None or not name.isprintable() or not os.path.isfile(root / name):
            continue  # also undecodable names, dangling links, pipes: left, and counted as ignored
        groups = match.groupdict()
        at = (groups.get("split") or "", groups["key"])
        if ignore_case:
            at = (at[0].casefold(), at[1].casefold())
        if at in matched:
            raise UserError(f"{root}: two files for one image: {Path(matched[at][1]).name} and {Path(name).name}")
        matched[at] = (groups["key"], str(root / name))
        left.discard(name)
    return matched


def _pair_up(
    manifest: Manifest,
    sides: Mapping[str, Mapping[At, tuple[str, str]]],
    task: Task,
    split: str,
    ignored: int,
    location: str,
) -> Found:
    folder_split = {f.casefold() if manifest.ignore_case else f: name for name, f in manifest.splits.items()}
    complete = sides["a"].keys() & sides["b"].keys()
    unpaired = [path for image in ("a", "b") for at, (_, path) in sides[image].items() if at not in complete]
    counts = dict.fromkeys(manifest.splits or SPLITS, 0)
    pairs: list[PairRef] = []
    for at in sorted(complete):
        key = sides["a"][at][0]
        scene = manifest.scene.replace("{key}", key)
        own = folder_split[at[0]] if manifest.splits else scene_split(scene)
        counts[own] += 1
        if own == split:
            sources = {image: of[at][1] for image, of in sides.items() if at in of}
            pairs.append(PairRef(task, manifest.name, key, scene, split, sources))
    where = f"--data {manifest.name}={location}"
    if not complete:
        raise UserError(f"{where}: no pair found: expected {manifest.a} and {manifest.b} below it")
    if not pairs:
        has = ", ".join(f"{n} {name}" for name, n in counts.items())
        raise UserError(f"{where}: no pair in split '{split}': {has}")
    return Found(tuple(sorted(pairs, key=lambda p: natural(p.key))), ignored, tuple(sorted(unpaired)), counts)


def builtin_pairs(task: Task, split: str, count: int = 32) -> tuple[PairRef, ...]:
    """The first ``count`` built-in scenes of a split; the key is the seed, so splits never share a scene."""
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    keys = [f"{split}-{i:06d}" for i in range(count)]
    return tuple(PairRef(task, "scenes", key, key, split) for key in keys)


def read_image(path: str) -> tuple[np.ndarray, str]:
    """Decode an 8 bit image: (h, w, c) uint8 with c = 1 or 3, upright, and the sha256 of the file.

    Raises BadPair with the reason where the file is no usable picture, OSError where it can't be read at all.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    name = Path(path).name
    raw = Path(path).read_bytes()  # an OSError here is the machine's fault, not the picture's: no reject
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
            with Image.open(io.BytesIO(raw)) as file:
                if file.mode.startswith(("I", "F")):
                    raise BadPair(f"{name}: {file.mode} is not 8 bit")
                file.load()
                upright = ImageOps.exif_transpose(file)
                grey = upright.mode in ("L", "LA", "1")
                image = np.asarray(upright.convert("L" if grey else "RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError) as error:
        unknown_kind = isinstance(error, UnidentifiedImageError)
        detail = error.strerror if isinstance(error, OSError) and error.strerror else error
        reason = "is not an image" if unknown_kind else f"cannot be read: {detail}"
        raise BadPair(f"{name}: {reason}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BadPair(f"{name}: has too many pixels") from None
    return color.as_hwc(image), hashlib.sha256(raw).hexdigest()


def as_grey(image: np.ndarray) -> np.ndarray:
    """One channel: an infrared frame that is stored with three."""
    if image.shape[2] == 1:
        return image
    if np.array_equal(image[..., 0], image[..., 1]) and np.array_equal(image[..., 0], image[..., 2]):
        return np.ascontiguousarray(image[..., :1])
    return color.to_uint8(color.luma(color.code_to_float(image)))[..., None]


def read_pair(ref: PairRef) -> CleanPair:
    """Decode a pair, or make it where it is built in. Raises BadPair with the reason."""
    if not ref.sources:
        return _make_builtin(ref)
    images: dict[str, np.ndarray] = {}
    hashes: dict[str, str] = {}
    for image, path in ref.sources.items():
        images[image], hashes[image] = read_image(path)
        if image != "gt" and MODALITIES[ref.task][image] == "infrared":  # type: ignore[index]
            images[image] = as_grey(images[image])
    sizes = {image: f"{x.shape[1]}x{x.shape[0]}" for image, x in images.items()}
    if len(set(sizes.values())) > 1:
        raise BadPair("sizes differ: " + ", ".join(f"{image} {size}" for image, size in sizes.items()))
    return CleanPair(images["a"], images["b"], images.get("gt"), None, hashes)


def _make_builtin(ref: PairRef) -> CleanPair:
    from synth.scenes import scene_pair
    from synth.seeds import seed_of

    made = scene_pair(ref.task, seed_of("scene", ref.task, ref.key))
    images = {"a": made.a, "b": made.b} | ({"gt": made.gt} if made.gt is not None else {})
    hashes = {name: hashlib.sha256(x.tobytes()).hexdigest() for name, x in images.items()}
    return CleanPair(made.a, made.b, made.gt, made.depth, hashes)
