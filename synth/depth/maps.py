"""A folder of the user's own maps: metric, or of relative inverse depth."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from clearfuse.synth.depth.base import DepthInput, DepthSource
from clearfuse.synth.depth.inverse import metric, resized
from clearfuse.synth.depth.metres import Metres, decode_any, dequantise
from clearfuse.synth.files import storage
from clearfuse.synth.types import BadPair, UserError, reason_of

UNITS = {"m": 1, "cm": 100, "mm": 1000, "m/64": 64, "m/256": 256}
"""Units of metric maps, by how many of them are a metre."""


@dataclass(frozen=True)
class Maps(DepthSource):
    """Metric maps, one for a pair, named by its key.

    unit: of ``UNITS``; empty where none was given: 1/64 m of a PNG's codes, metres of an array's.
    """

    name: ClassVar[str] = "maps"
    help: ClassVar[str] = (
        "maps=DIR[,unit=mm|cm|m|m/64|m/256]: your metric maps, DIR/KEY.png (16 bit, 1/64 m, 65535 sky, 0 unknown) or "
        "DIR/KEY.npy (metres); both in the unit where it is given"
    )
    takes: ClassVar[Literal["a folder"]] = "a folder"
    cached: ClassVar[bool] = False
    relative: ClassVar[bool] = False
    """Whether the maps are of inverse depth."""
    nothing: ClassVar[str] = "all of it is 0, negative or not a number, which is unknown"
    """What a map holds that says nothing."""

    unit: str = ""

    @classmethod
    def open(cls, folder: str, unit: str = "") -> DepthSource:
        """The maps below a folder, in a unit."""
        given = f"--depth {cls.name}={folder}"
        if not storage.locate(folder).is_dir():
            raise UserError(f"{given}: no folder {folder}")
        maps = cls(folder, unit=unit)
        if not maps.files():
            raise UserError(f"{given}: no .png or .npy map in {folder}")
        try:
            return cls(folder, maps.digest(), unit)
        except BadPair as error:
            raise UserError(f"{given}: {error}") from None

    def recorded(self) -> dict[str, str | None]:
        """As of any source, and the unit where it is given."""
        return super().recorded() | ({"unit": self.unit} if self.unit else {})

    def estimate(self, pair: DepthInput) -> Metres:
        """The pair's map at the picture's size."""
        return resized(self.load(pair.key), *pair.image.shape[:2])

    def load(self, key: str) -> np.ndarray:
        """The pair's map as it is stored."""
        for suffix in (".png", ".npy"):
            try:
                return self._load(f"{key}{suffix}")
            except (FileNotFoundError, IsADirectoryError):
                continue
        raise BadPair(f"no depth map {key}.png")

    def digest(self) -> str:
        """Which maps these are: blake2b of their sorted names and contents and a given unit, 16 hex digits.

        Contents, since a .npy of other depths has the same size.
        """
        whole = hashlib.blake2b(self.unit.encode(), digest_size=8)
        for name in sorted(self.files(), key=lambda name: name.split("/")):
            whole.update(name.encode() + b"\0")
            whole.update(hashlib.blake2b(self._read(name)).digest())
        return whole.hexdigest()

    def files(self) -> list[str]:
        """The maps below the folder, by relative path."""
        return [name for name in storage.walk_files(storage.locate(self.folder)) if name.endswith((".png", ".npy"))]

    def _read(self, name: str) -> bytes:
        try:
            return storage.read_bytes(f"{self.folder.rstrip('/')}/{name}")
        except storage.UnfitFile as error:
            raise BadPair(f"depth map {Path(name).name} {error.strerror}") from None

    def _load(self, relative: str) -> np.ndarray:
        found = self._decoded(relative)
        known = np.isfinite(found) if self.relative else ~np.isnan(found)
        if not known.any():
            raise BadPair(f"depth map {Path(relative).name} holds no depth: {self.nothing}")
        return found

    def _decoded(self, relative: str) -> np.ndarray:
        data, name = self._read(relative), Path(relative).name
        if name.endswith(".npy"):
            try:
                found = np.load(io.BytesIO(data), allow_pickle=False)
            except Exception as error:  # a damaged header may ask for any memory, or be no Python
                raise BadPair(f"depth map {name} is not a plain .npy array: {reason_of(error)}") from None
            if found.ndim != 2 or found.dtype.kind not in "fiu":
                raise BadPair(f"depth map {name} is {found.dtype} {found.shape}; must be real numbers, (h, w)")
            if self.relative:
                return found.astype(np.float32)
            if found.dtype == np.uint16 and self.unit:
                return dequantise(found, UNITS[self.unit])
            metres = found.astype(np.float32) / np.float32(UNITS[self.unit or "m"])
            return np.where(metres > 0, metres, np.float32(np.nan))
        codes = _grey_codes(data, name)
        if self.relative:
            return codes.astype(np.float32)
        if codes.dtype != np.uint16:
            raise BadPair(f"depth map {name} is 8 bit; a metric map is 16 bit (inverse=DIR takes relative ones)")
        return dequantise(codes, UNITS[self.unit or "m/64"])


def _grey_codes(data: bytes, name: str) -> np.ndarray:
    """The codes of a map stored as PNG, uint8 or uint16 ``(h, w)``. Raises BadPair where it is something else."""
    codes = decode_any(data)
    if codes is None or codes.dtype not in (np.uint8, np.uint16):
        raise BadPair(f"depth map {name} is not an 8- or 16-bit PNG")
    if codes.ndim == 2:
        return codes
    if (codes[..., 1:3] != codes[..., :1]).any():
        raise BadPair(f"depth map {name} is in colour: must be grey, as a colour map cannot be undone")
    return codes[..., 0]


class InverseMaps(Maps):
    """As ``Maps``, of relative inverse depth."""

    name: ClassVar[str] = "inverse"
    help: ClassVar[str] = (
        "inverse=DIR: your relative inverse depth (near is bright), DIR/KEY.png of 8 or 16 bit or DIR/KEY.npy"
    )
    relative: ClassVar[bool] = True
    nothing: ClassVar[str] = "none of it is a finite number"

    def estimate(self, pair: DepthInput) -> Metres:
        """The pair's map in metres, laid along the picture's edges where it is coarser."""
        return metric(self.load(pair.key), pair.image, pair.far)
