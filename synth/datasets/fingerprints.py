"""Pictures made small: their brightness, and a fingerprint by which one scene is known in another set.

A thumbnail is 32x32 grey code values. The fingerprint is a difference hash (signs of the differences of neighbours,
both ways, on a 16x16 grid: 512 bits): blur, size, coding and exposure keep the order of neighbours. Measured over the
frames of 500 scenes of 14 sets: pictures of one scene in two sets (blurred, fused, resized, another exposure) differ in
0.08 of the bits or less at their nearest, those of different scenes in 0.17 or more.
"""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache
from typing import Annotated, NamedTuple

import numpy as np
from pydantic import ConfigDict, Field

from clearfuse.synth.datasets.manifest import load_manifest
from clearfuse.synth.files import storage
from clearfuse.synth.files.cache import cache_folder
from clearfuse.synth.files.pictures import check_header
from clearfuse.synth.files.remote import Remote, StoreError
from clearfuse.synth.files.resources import read_toml, resource_dir
from clearfuse.synth.files.schema import MustBe, StrictModel, validate
from clearfuse.synth.files.storage import Location
from clearfuse.synth.types import SCHEMA

SIDE = 32
GRID = 16
BITS = 2 * GRID * GRID
SAME = 0.125
"""Share of bits up to which two fingerprints are of one scene."""

FLAT = 2.0
"""Standard deviation in code values below which a thumbnail shows nothing: a black frame looks like every other."""


def thumbnail(path: str) -> np.ndarray:
    """A picture, by its path or URL, as (32, 32) uint8 grey code values.

    Raises BadPair, or what decoders raise, where it can't be decoded.
    """
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        with Image.open(io.BytesIO(storage.read_bytes(path)) if storage.is_url(path) else path) as file:
            check_header(file, path)
            file.draft("L", (4 * SIDE, 4 * SIDE))  # JPEG: decoded at an eighth where that suffices
            wide = file.mode.startswith(("I", "F"))
            small = file.convert("F" if wide else "L").resize((SIDE, SIDE), Image.Resampling.BOX)
    pixels = np.asarray(small, np.float32)
    if wide:
        low, high = float(pixels.min()), float(pixels.max())
        pixels = (pixels - low) * (255 / max(high - low, 1e-6))
    return np.floor(pixels + 0.5).clip(0, 255).astype(np.uint8)


def thumbnails(paths: Sequence[str], folder: str) -> dict[str, np.ndarray]:
    """Thumbnails by path, of those that decode; kept in the user's cache folder by path, size and time.

    folder: the data set's, whose thumbnails lie in one file of the cache.
    """
    facts = storage.facts(dict.fromkeys(paths))
    stamps = {path: f"{_whole(path)}|{facts[path].size}|{facts[path].stamp}" for path in facts}
    store = _cache_file(_whole(folder))
    kept = _load(store)
    found = {path: kept[stamp] for path, stamp in stamps.items() if stamp in kept}
    missing = [path for path in stamps if path not in found]
    threads = storage.THREADS if storage.is_url(folder) else min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(threads) as pool:
        made = {path: one for path, one in zip(missing, pool.map(_try, missing), strict=True) if one is not None}
    if made:
        _save(store, kept | {stamps[path]: one for path, one in made.items()})
    return found | made


def _try(path: str) -> np.ndarray | None:
    try:
        return thumbnail(path)
    except StoreError:
        raise
    except Exception:  # decoders raise what they like; whoever asked sees that it is missing
        return None


def _whole(path: str) -> str:
    return path if storage.is_url(path) else os.path.abspath(path)


def _cache_file(folder: str) -> Location:
    digest = hashlib.blake2b(folder.encode(errors="surrogateescape"), digest_size=8).hexdigest()
    return cache_folder() / "thumbnails" / f"{digest}.npz"


def _load(store: Location) -> dict[str, np.ndarray]:
    try:
        with np.load(io.BytesIO(store.read_bytes()), allow_pickle=False) as data:
            names, images = data["names"], data["images"]
    except Exception:  # absent, damaged or of another version: made anew
        return {}
    if images.shape[1:] != (SIDE, SIDE) or len(names) != len(images):
        return {}
    return {str(name): image for name, image in zip(names, images, strict=True)}


def _save(store: Location, kept: Mapping[str, np.ndarray]) -> None:
    """Keep thumbnails for the next time; a folder that can't be written costs time, not the work."""
    out = io.BytesIO()
    np.savez_compressed(out, names=np.array(list(kept)), images=np.stack(list(kept.values())))
    with suppress(OSError):
        if not isinstance(store, Remote):
            store.parent.mkdir(parents=True, exist_ok=True)
        with storage.landing(store) as file:
            file.write(out.getvalue())


def brightness(small: np.ndarray) -> float:
    """Mean code value of a thumbnail, in [0, 255]."""
    return float(small.mean())


def fingerprint(small: np.ndarray) -> np.ndarray:
    """(512,) bool of a thumbnail: whether a cell of the grid is brighter than the one to its left, or above it."""
    from PIL import Image

    image = Image.fromarray(small.astype(np.float32))
    across = np.asarray(image.resize((GRID + 1, GRID), Image.Resampling.BOX))
    down = np.asarray(image.resize((GRID, GRID + 1), Image.Resampling.BOX))
    return np.concatenate([(np.diff(across, axis=1) > 0).ravel(), (np.diff(down, axis=0) > 0).ravel()])


def to_hex(bits: np.ndarray) -> str:
    """A fingerprint as the 128 hexadecimal digits that the table holds."""
    return np.packbits(bits).tobytes().hex()


def from_hex(text: str) -> np.ndarray:
    """The fingerprint that ``to_hex`` wrote."""
    return np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8)).astype(bool)


def distances(one: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Shares of bits that differ, in [0, 1]: (n, 512) with (m, 512) gives (n, m)."""
    signs, against = 2.0 * one.astype(np.float32) - 1, 2.0 * others.astype(np.float32) - 1
    return (1 - signs @ against.T / BITS) / 2


Print = Annotated[str, Field(pattern=f"^[0-9a-f]{{{BITS // 4}}}$"), MustBe(f"{BITS // 4} hexadecimal digits")]


class Fingerprints(StrictModel):
    """``manifests/fingerprints.toml``: by set and key, the fingerprints of a scene's images."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, dict[str, list[Print]]] = Field(init=False)  # pyright: ignore[reportIncompatibleVariableOverride]

    schema_: Annotated[int, Field(alias="schema", ge=1, le=SCHEMA)]
    """The version of this file's form."""


class Known(NamedTuple):
    """A scene of another set, and the split that set has it in where it has splits of its own."""

    scene: str
    split: str | None


@lru_cache(maxsize=8)
def known_scenes(names: tuple[str, ...]) -> tuple[tuple[Known, ...], np.ndarray]:
    """The scenes of ``manifests/fingerprints.toml`` of these sets, and (m, 512) fingerprints.

    A key leads with its split's folder where the set has splits of its own. A scene that a set shares with a third one
    bears that one's name.
    """
    path = resource_dir("manifests") / "fingerprints.toml"
    table = validate(Fingerprints, read_toml(path), str(path)).__pydantic_extra__
    scenes: list[Known] = []
    prints: list[np.ndarray] = []
    for name in names:
        manifest = load_manifest(name)
        for label, texts in table.get(name, {}).items():
            split, _, key = label.rpartition("/")
            mine = [from_hex(text) for text in texts]
            known = _nearest(mine, manifest.like) or Known(manifest.scene_of(key), split or None)
            scenes += [known] * len(mine)
            prints += mine
    return tuple(scenes), np.array(prints, bool).reshape(len(prints), BITS)


def known_scene(images: Iterable[np.ndarray], names: tuple[str, ...]) -> Known | None:
    """The scene of one of the sets ``names`` that these thumbnails of one scene show, or None."""
    return _nearest([fingerprint(small) for small in images if small.std() > FLAT], names)


def _nearest(mine: Sequence[np.ndarray], names: tuple[str, ...]) -> Known | None:
    if not mine or not names:
        return None
    scenes, prints = known_scenes(names)
    apart = distances(np.array(mine), prints).min(axis=0, initial=1.0)
    return scenes[int(apart.argmin())] if len(apart) and apart.min() <= SAME else None
