"""Thumbnails of images: their brightness, and fingerprints that identify a scene in several data sets.

A thumbnail is 32x32 grey code values. The fingerprint is a difference hash (signs of the differences of horizontal and
vertical neighbours on a 16x16 grid: 512 bits), which blur, resizing, compression and exposure hardly change. Measured
on 500 scenes of 14 data sets: the most similar images of one scene in two sets (blurred, fused, resized, at another
exposure) differ in at most 0.08 of the bits, those of different scenes in at least 0.17.
"""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache
from typing import Annotated, NamedTuple

import numpy as np
from pydantic import ConfigDict, Field

from clearfuse.synth.datasets.manifest import load_manifest
from clearfuse.synth.files import storage
from clearfuse.synth.files.cache import cache_folder
from clearfuse.synth.files.pictures import check_header, decode
from clearfuse.synth.files.remote import Remote, StoreError
from clearfuse.synth.files.resources import read_toml, resource_dir
from clearfuse.synth.files.schema import MustBe, Schema, StrictModel, validate
from clearfuse.synth.files.storage import Location
from clearfuse.synth.files.wide import HEADER, float_tiff, is_wide
from clearfuse.synth.types import Modality

SIDE = 32
GRID = 16
BITS = 2 * GRID * GRID
SAME = 0.125
"""Largest share of differing bits of two fingerprints of one scene."""

FLAT = 2.0
"""Standard deviation in code values below which a thumbnail is not compared: black frames are all alike."""


def thumbnail(path: str, modality: Modality = "visible", scale: int | None = None) -> np.ndarray:
    """The thumbnail of an image, by its path or URL: (32, 32) uint8 grey code values.

    A visible image of more than 8 bits is decoded as for a build, so that the brightness of exposures can be compared;
    an infrared one is stretched to its range. scale: see ``decode``.

    Raises BadPair, or an error of the decoder, where it can't be decoded.
    """
    from PIL import Image

    if not storage.is_url(path):
        with open(path, "rb") as source:
            if float_tiff(source) is not None:
                return _reduced(decode(path, modality, scale).image)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        with Image.open(io.BytesIO(storage.read_bytes(path)) if storage.is_url(path) else path) as file:
            check_header(file, path)
            if modality == "visible" and is_wide(file, _header(path)):
                return _reduced(decode(path, scale=scale).image)
            file.draft("L", (4 * SIDE, 4 * SIDE))  # JPEG: decoded at an eighth where that suffices
            high_depth = file.mode.startswith(("I", "F"))
            small = file.convert("F" if high_depth else "L").resize((SIDE, SIDE), Image.Resampling.BOX)
    pixels = np.asarray(small, np.float32)
    if high_depth:
        low, high = float(pixels.min()), float(pixels.max())
        pixels = (pixels - low) * (255 / max(high - low, 1e-6))
    return np.floor(pixels + 0.5).clip(0, 255).astype(np.uint8)


def _header(path: str) -> bytes:
    if storage.is_url(path):
        return storage.read_bytes(path)
    with open(path, "rb") as file:
        return file.read(HEADER)


def _reduced(image: np.ndarray) -> np.ndarray:
    """The thumbnail of a decoded image, uint8 (h, w, c)."""
    from PIL import Image

    small = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).convert("L")
    return np.asarray(small.convert("F").resize((SIDE, SIDE), Image.Resampling.BOX)).round().astype(np.uint8)


def thumbnails(
    paths: Sequence[str], folder: str, infrared: Collection[str] = (), scale: int | None = None
) -> dict[str, np.ndarray]:
    """Thumbnails by path, without images that can't be decoded; cached by path, size and modification time.

    folder: the data set's, for which the user's cache folder has one file of thumbnails. infrared: those of the paths
    that are not visible images. scale: see ``decode``.
    """
    facts = storage.facts(dict.fromkeys(paths))
    others = frozenset(infrared)
    kinds: dict[str, Modality] = {path: "infrared" if path in others else "visible" for path in facts}
    end = f"|{scale}" if scale else ""
    stamps = {path: f"{_absolute(path)}|{facts[path].size}|{facts[path].stamp}|{kinds[path]}{end}" for path in facts}
    store = _cache_file(_absolute(folder))
    cached = _load(store)
    found = {path: cached[stamp] for path, stamp in stamps.items() if stamp in cached}
    missing = [path for path in stamps if path not in found]
    threads = storage.THREADS if storage.is_url(folder) else min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(threads) as pool:
        computed = {
            path: thumb
            for path, thumb in zip(
                missing, pool.map(lambda path: _try_thumbnail(path, kinds[path], scale), missing), strict=True
            )
            if thumb is not None
        }
    if computed:
        _save(store, cached | {stamps[path]: thumb for path, thumb in computed.items()})
    return found | computed


def _try_thumbnail(path: str, modality: Modality, scale: int | None) -> np.ndarray | None:
    try:
        return thumbnail(path, modality, scale)
    except StoreError:
        raise
    except Exception:  # decoders raise various errors; the caller sees that it is missing
        return None


def _absolute(path: str) -> str:
    return path if storage.is_url(path) else os.path.abspath(path)


def _cache_file(folder: str) -> Location:
    digest = hashlib.blake2b(folder.encode(errors="surrogateescape"), digest_size=8).hexdigest()
    return cache_folder() / "thumbnails" / f"{digest}.npz"


def _load(store: Location) -> dict[str, np.ndarray]:
    try:
        with np.load(io.BytesIO(store.read_bytes()), allow_pickle=False) as data:
            names, images = data["names"], data["images"]
    except Exception:  # missing, damaged or of another version: ignored
        return {}
    if images.shape[1:] != (SIDE, SIDE) or len(names) != len(images):
        return {}
    return {str(name): image for name, image in zip(names, images, strict=True)}


def _save(store: Location, kept: Mapping[str, np.ndarray]) -> None:
    """Write the cached thumbnails; a read-only cache folder is no error."""
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
    """(512,) bool from a thumbnail: whether each cell of the grid is brighter than the one left of or above it."""
    from PIL import Image

    image = Image.fromarray(small.astype(np.float32))
    across = np.asarray(image.resize((GRID + 1, GRID), Image.Resampling.BOX))
    down = np.asarray(image.resize((GRID, GRID + 1), Image.Resampling.BOX))
    return np.concatenate([(np.diff(across, axis=1) > 0).ravel(), (np.diff(down, axis=0) > 0).ravel()])


def to_hex(bits: np.ndarray) -> str:
    """A fingerprint as 128 hexadecimal digits."""
    return np.packbits(bits).tobytes().hex()


def from_hex(text: str) -> np.ndarray:
    """The fingerprint written by ``to_hex``."""
    return np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8)).astype(bool)


def distances(first: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Shares of differing bits, in [0, 1]: (n, 512) and (m, 512) give (n, m)."""
    signs, against = 2.0 * first.astype(np.float32) - 1, 2.0 * others.astype(np.float32) - 1
    return (1 - signs @ against.T / BITS) / 2


Print = Annotated[str, Field(pattern=f"^[0-9a-f]{{{BITS // 4}}}$"), MustBe(f"{BITS // 4} hexadecimal digits")]


class Fingerprints(StrictModel):
    """``manifests/fingerprints.toml``: by set and key, the fingerprints of a scene's images."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, dict[str, list[Print]]] = Field(init=False)  # pyright: ignore[reportIncompatibleVariableOverride]

    schema_: Schema


class Known(NamedTuple):
    """A scene of another data set, and its split there where that set has splits of its own."""

    scene: str
    split: str | None


@lru_cache(maxsize=8)
def known_scenes(names: tuple[str, ...]) -> tuple[tuple[Known, ...], np.ndarray]:
    """The scenes in ``manifests/fingerprints.toml`` of these data sets, and their fingerprints, (m, 512).

    Keys are prefixed by the split where a data set has splits of its own. A scene shared with a third data set has that
    one's name.
    """
    path = resource_dir("manifests") / "fingerprints.toml"
    table = validate(Fingerprints, read_toml(path), str(path)).__pydantic_extra__
    scenes: list[Known] = []
    prints: list[np.ndarray] = []
    for name in names:
        manifest = load_manifest(name)
        for label, digits in table.get(name, {}).items():
            split, _, key = label.rpartition("/")
            fingerprints = [from_hex(text) for text in digits]
            known = _nearest(fingerprints, manifest.like) or Known(manifest.scene_of(key), split or None)
            scenes += [known] * len(fingerprints)
            prints += fingerprints
    return tuple(scenes), np.array(prints, bool).reshape(len(prints), BITS)


def known_scene(images: Iterable[np.ndarray], names: tuple[str, ...]) -> Known | None:
    """The scene of one of the data sets ``names`` that these thumbnails of one scene show, or None."""
    return _nearest([fingerprint(small) for small in images if small.std() > FLAT], names)


def _nearest(fingerprints: Sequence[np.ndarray], names: tuple[str, ...]) -> Known | None:
    if not fingerprints or not names:
        return None
    scenes, prints = known_scenes(names)
    distance = distances(np.array(fingerprints), prints).min(axis=0, initial=1.0)
    return scenes[int(distance.argmin())] if len(distance) and distance.min() <= SAME else None
