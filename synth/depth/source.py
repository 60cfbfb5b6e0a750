"""Where a build takes its depth from: ``--depth``, resolved once, and what each source says of a picture."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from clearfuse.synth.depth import anything as depth_anything
from clearfuse.synth.depth.anything import Inverse, inverse_depths
from clearfuse.synth.depth.focus import split_by_focus
from clearfuse.synth.depth.metres import (
    FAR,
    Metres,
    Picture,
    decode_any,
    dequantise,
    guided,
    metric_from_inverse,
    prior,
    ray_length,
    sky_mask,
)
from clearfuse.synth.files import storage
from clearfuse.synth.types import BadPair, UserError, unknown

DEPTHS: dict[str, str] = {
    "true": "the built-in scenes' own depth, exact",
    "maps": "maps=DIR: your metric maps, DIR/KEY.png (16 bit, 1/64 m, 65535 sky, 0 unknown) or DIR/KEY.npy (metres)",
    "inverse": "inverse=DIR: your relative inverse depth (near is bright), DIR/KEY.png of 8 or 16 bit or DIR/KEY.npy",
    "depth-anything": "a Depth Anything network: V2-Small from the hub, depth-anything=DIR or =HUB_ID for another",
    "prior": "no weights: position over a ground plane, and haze and contrast cues of the image; coarse",
}


@dataclass(frozen=True)
class Maps:
    """A folder of the user's own maps, one for a pair, named by its key. relative: inverse depth, else metric."""

    folder: str
    relative: bool = False

    def read(self, key: str, height: int, width: int) -> Metres:
        """The pair's map at the picture's size: metres along the ray, or raw inverse depth where ``relative``."""
        return resized(self.load(key), height, width)

    def load(self, key: str) -> np.ndarray:
        """The pair's map as it is stored."""
        for suffix in (".png", ".npy"):
            try:
                return self._load(f"{key}{suffix}")
            except (FileNotFoundError, IsADirectoryError):
                continue
        raise BadPair(f"no depth map {key}.png")

    def digest(self) -> str:
        """Which maps these are: blake2b of their sorted names and contents, 16 hex digits.

        Contents, since a .npy of other depths has the same size.
        """
        whole = hashlib.blake2b(digest_size=8)
        for name in sorted(self.files(), key=lambda name: name.split("/")):
            whole.update(name.encode() + b"\0")
            whole.update(hashlib.blake2b(self._read(name)).digest())
        return whole.hexdigest()

    def files(self) -> list[str]:
        """The maps below the folder, by relative path."""
        return [name for name in storage.walk_files(storage.locate(self.folder)) if name.endswith((".png", ".npy"))]

    def _read(self, name: str) -> bytes:
        return storage.read_bytes(f"{self.folder.rstrip('/')}/{name}")

    def _load(self, relative: str) -> np.ndarray:
        data, name = self._read(relative), Path(relative).name
        if name.endswith(".npy"):
            try:
                found = np.load(io.BytesIO(data), allow_pickle=False)
            except (ValueError, EOFError, MemoryError) as error:  # a damaged header may ask for any memory
                raise BadPair(f"depth map {name} is not a plain .npy array: {error}") from None
            if found.ndim != 2 or found.dtype.kind not in "fiu":
                raise BadPair(f"depth map {name} is {found.dtype} {found.shape}; must be real numbers, (h, w)")
            metres = found.astype(np.float32)
            return metres if self.relative else np.where(metres > 0, metres, np.float32(np.nan))
        codes = decode_any(data)
        if codes is None or codes.dtype not in (np.uint8, np.uint16):
            raise BadPair(f"depth map {name} is not an 8- or 16-bit PNG")
        if codes.ndim == 3:
            codes = codes[..., 0]
        if self.relative:
            return codes.astype(np.float32)
        if codes.dtype != np.uint16:
            raise BadPair(
                f"depth map {name} is 8 bit; a metric map is 16 bit, 1/64 m (inverse=DIR takes relative ones)"
            )
        return dequantise(codes)


def resized(depth: np.ndarray, height: int, width: int) -> np.ndarray:
    """A map at another size: the weighted mean of the known neighbours, so that sky and holes don't bleed."""
    if depth.shape == (height, width):
        return depth
    shrinks = depth.shape[0] > height or depth.shape[1] > width
    way = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR

    def resize(values: np.ndarray) -> np.ndarray:
        return cv2.resize(values.astype(np.float32), (width, height), interpolation=way)

    known, sky = np.isfinite(depth), np.isposinf(depth)
    share, above = resize(known), resize(sky)
    metres = resize(np.where(known, depth, 0)) / np.maximum(share, np.float32(1e-6))
    none = np.where(above >= 0.5, np.float32(np.inf), np.float32(np.nan))
    return np.where((share >= 0.5) & (above < 0.5), metres, none)


@dataclass(frozen=True)
class DepthSource:
    """A resolved ``--depth``. weights: which maps these are, for the digest; None where there are no files."""

    name: str
    folder: str | None = None
    weights: str | None = None

    def estimate(
        self,
        key: str,
        image: Picture,
        true: Metres | None,
        far: float,
        focused: tuple[Picture, Picture] | None = None,
        inverse: Inverse | None = None,
    ) -> Metres:
        """Metres along the ray for one pair's picture.

        true: the scene's own depth; far: metres of the far end; focused: the pictures of two focus distances that
        ``image`` was fused from, whose sharpness helps the prior; inverse: the network's answer, where it is known.
        """
        height, width = image.shape[:2]
        if self.name == "true":
            if true is None:
                raise BadPair("no depth of its own, and --depth true asks for it")
            return true
        if self.name == "prior":
            metres = prior(image, min(max(far, FAR[0]), FAR[1]))
            return metres if focused is None else split_by_focus(metres, *focused)
        if self.folder is None or self.name not in DEPTHS:
            raise ValueError(f"DepthSource({self.name!r}, {self.folder!r}) has no maps and no network")
        if self.name == "maps":
            return Maps(self.folder).read(key, height, width)
        return metric(self.inverse(key, image) if inverse is None else inverse, image, far)

    def inverse(self, key: str, image: Picture) -> Inverse:
        """Relative inverse depth of a picture, near is large, at any resolution: a network's, or the user's own."""
        assert self.folder is not None
        if self.name == "depth-anything":
            return inverse_depths([image], self.folder)[0]
        return Maps(self.folder, relative=True).load(key)


def metric(inverse: Inverse, image: Picture, far: float) -> Metres:
    """Metres along the ray from a picture's relative inverse depth; a coarser map is laid along the picture's edges."""
    height, width = image.shape[:2]
    known = np.isfinite(inverse)
    if known.all() and inverse.size < 0.5 * height * width:
        # In units of its spread, so that the regularisation means the same for every map.
        scale = max(float(inverse.std()), 1e-6)
        laid = guided(inverse / np.float32(scale), image, max(2, max(inverse.shape) // 60), 1e-3) * np.float32(scale)
        # A window with no edge in it may overshoot the map.
        inverse = np.clip(laid, inverse.min(), inverse.max())
    else:
        inverse = resized(inverse, height, width)
    z = metric_from_inverse(inverse, far)
    metres = ray_length(z)
    metres[_confirmed(sky_mask(image), z, far / 30)] = np.inf
    return metres


def _confirmed(sky: np.ndarray, z: np.ndarray, least: float) -> np.ndarray:
    """The whole sky regions whose median depth is beyond ``least``: a map may be wrong at a spot of sky, not at most.

    far/30 is the farther half of a relative map's range at a reach of 60; cutting by pixel would leave a hard edge.
    """
    count, labels = cv2.connectedComponents(sky.astype(np.uint8), connectivity=4)
    kept = np.zeros(count, bool)
    for i in range(1, count):
        kept[i] = np.median(np.nan_to_num(z[labels == i], nan=0.0)) > least
    return kept[labels]


def parse_depth(text: str, has_true: bool) -> DepthSource:
    """``--depth auto|true|prior|depth-anything[=DIR|HUB_ID]|maps=DIR|inverse=DIR``.

    auto: true where the data set brings its own, else depth-anything where the default network is on disk, else prior.
    """
    name, equals, folder = text.partition("=")
    if name not in ("auto", *DEPTHS):
        raise unknown("depth", name, ["auto", *DEPTHS])
    if name in ("auto", "true", "prior"):
        if equals:
            raise UserError(f"--depth {text}: {name} takes no folder")
        if name == "auto":
            if not has_true and (kept := depth_anything.on_disk()) is not None:
                return _network(kept)
            return DepthSource("true" if has_true else "prior")
        if name == "true" and not has_true:
            raise UserError(
                "--depth true: this data set has no depth of its own; allowed: prior, depth-anything, maps=DIR, "
                "inverse=DIR"
            )
        return DepthSource(name)
    if name == "depth-anything":
        return _network(depth_anything.locate(folder or None))
    if not folder:
        raise UserError(f"--depth {text}: {name} needs a folder, as in {name}=DIR")
    if not storage.locate(folder).is_dir():
        raise UserError(f"--depth {text}: no folder {folder}")
    maps = Maps(folder, relative=name == "inverse")
    if not maps.files():
        raise UserError(f"--depth {text}: no .png or .npy map in {folder}")
    return DepthSource(name, folder, maps.digest())


def _network(folder: Path) -> DepthSource:
    return DepthSource("depth-anything", str(folder), depth_anything.weights_digest(folder))
