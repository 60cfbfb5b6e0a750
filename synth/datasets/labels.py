"""What a picture shows and where: label maps, of numbers, COCO annotations or built-in scenes, and boxes of objects."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import cv2
import numpy as np
from jaxtyping import Bool, Integer
from scipy.ndimage import find_objects

from clearfuse.synth.datasets.manifest import Manifest
from clearfuse.synth.files import storage
from clearfuse.synth.files.pictures import check_header, read_file
from clearfuse.synth.types import BOXES, LABELS, BadPair, PairRef, UserError, reason_of

LEAST = 1 / 1000
"""Share of the picture below which a class is not shown: a model could not find it."""


@dataclass(frozen=True)
class Labels:
    """A label map. ids: the number of each pixel's class; names: of the classes, by number. Others have no name."""

    ids: Integer[np.ndarray, "h w"]
    names: Mapping[int, str]

    def mask(self, name: str) -> Bool[np.ndarray, "h w"]:
        """Where the picture shows a class; several numbers may have one name."""
        return np.isin(self.ids, [number for number, named in self.names.items() if named == name])

    def shown(self) -> list[str]:
        """The classes that cover at least ``LEAST`` of the picture, in the order of their numbers."""
        numbers, counts = np.unique(self.ids, return_counts=True)
        area = dict.fromkeys(self.names.values(), 0)
        for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
            if number in self.names:
                area[self.names[number]] += count
        return [name for name, count in area.items() if count >= LEAST * self.ids.size]


def read_labels(ref: PairRef, manifest: Manifest, size: tuple[int, int]) -> tuple[Labels, str]:
    """The label map of a pair of which the data set has one, and the sha256 of what it was read from.

    size: (height, width) of the pair. Raises BadPair where it does not fit the pair or cannot be read.
    """
    path = ref.sources[LABELS]
    if path.endswith(".json"):
        name = Path(ref.sources["gt" if ref.single else "a"]).name
        return _annotations(path).labels(name, size)
    raw = read_file(path)
    ids = _read_ids(raw, Path(path).name)
    if ids.shape != size:
        raise BadPair(f"{Path(path).name}: is {ids.shape[1]}x{ids.shape[0]}, its picture {size[1]}x{size[0]}")
    return Labels(ids, class_names(manifest, path)), hashlib.sha256(raw).hexdigest()


def class_names(manifest: Manifest, path: str) -> dict[int, str]:
    """The names of a set's classes by number: the manifest's, or those of the text file that it points to.

    path: a label map of the set, somewhere below the folder that holds the text file.
    """
    if not isinstance(manifest.classes, str):
        return {int(number): name for number, name in manifest.classes.items()}
    folder = storage.locate(path).parent
    while not (folder / manifest.classes).is_file():
        if folder == folder.parent:
            raise UserError(f"--data {manifest.name}: {manifest.classes}, with a class a line, is not in its folder")
        folder = folder.parent
    lines = read_file(str(folder / manifest.classes)).decode(errors="replace").splitlines()
    return {number: line.strip() for number, line in enumerate(lines) if line.strip() and number > 0}


class Box(NamedTuple):
    """An object's class and its rectangle in pixels from the top left corner of the picture, not rounded.

    difficult: marked so by whoever drew it, as VOC has it: finding it counts neither for nor against a detector.
    """

    name: str
    left: float
    top: float
    width: float
    height: float
    difficult: bool = False


SMALLEST = 64
"""Pixels of an object that a box is drawn around: fewer could not be told from its surroundings."""
LONGEST = 1 << 20
"""Bytes of an XML file of boxes."""
LONGEST_RUN = 64
"""Bits of a run of COCO's compressed form: a text without an end to its number would take quadratic time."""


def boxes_of(objects: Integer[np.ndarray, "h w"], labels: Labels) -> tuple[Box, ...]:
    """The boxes around what is seen of each object of a built-in scene that shows ``SMALLEST`` pixels.

    objects: which object each pixel shows, numbers from 1; 0: none. labels: their classes.
    """
    found: list[Box] = []
    for number, at in enumerate(find_objects(objects), 1):
        if at is not None and (seen := objects[at] == number).sum() >= SMALLEST:
            rows, columns = at
            name = labels.names[int(labels.ids[at][seen][0])]
            found.append(Box(name, columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start))
    return tuple(found)


def read_boxes(ref: PairRef, manifest: Manifest, size: tuple[int, int]) -> tuple[tuple[Box, ...], str]:
    """The boxes of a pair of which the data set has such, and the sha256 of their file: see ``Manifest.boxes``.

    size: (height, width) of the pair. Raises BadPair, naming the place, for what is no box, a class without a name, and
    a box that lies outside of the picture by more than a pixel.
    """
    path = ref.sources[BOXES]
    raw, name = read_file(path), Path(path).name
    read = _voc_boxes if path.lower().endswith(".xml") else _yolo_boxes
    found: list[Box] = []
    for where, box, said in read(raw, name, size):
        if box.name not in manifest.box_classes:
            raise BadPair(f"{where}: class {box.name[:20]} has no name: there are {', '.join(manifest.box_classes)}")
        ends = ((box.left, box.width, size[1]), (box.top, box.height, size[0]))
        if not all(span > 0 and at >= -1 and at + span <= side + 1 for at, span, side in ends):
            raise BadPair(f"{where}: the box is not in the picture: {said[:60]}")
        found.append(box._replace(name=manifest.box_classes[box.name]))
    return tuple(found), hashlib.sha256(raw).hexdigest()


def _yolo_boxes(raw: bytes, name: str, size: tuple[int, int]) -> Iterator[tuple[str, Box, str]]:
    """(place, box, as written) of a text file with a box a line, whose class is a number."""
    for number, line in enumerate(raw.decode(errors="replace").splitlines(), 1):
        words = line.split()
        if not words:
            continue
        where = f"{name}, line {number}"
        try:
            x, y, width, height = (float(word) for word in words[1:])
        except ValueError:
            raise BadPair(f"{where}: is no box, which is a class and four shares of the picture: {line[:60]}") from None
        box = ((x - width / 2) * size[1], (y - height / 2) * size[0], width * size[1], height * size[0])
        yield where, Box(words[0], *box), line


def _voc_boxes(raw: bytes, name: str, size: tuple[int, int]) -> Iterator[tuple[str, Box, str]]:
    """(place, box, as written) of an XML file of Pascal VOC. Corners are taken as they are: M3FD's and LLVIP's authors
    subtract no 1 from them.
    """
    if len(raw) > LONGEST or b"<!" in raw.replace(b"<!--", b""):
        raise BadPair(
            f"{name}: is no annotation of Pascal VOC: it is of more than {LONGEST >> 20} MiB, or declares types"
        )
    try:
        root = ElementTree.fromstring(raw)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise BadPair(f"{name}: is no XML: {reason_of(error)}") from None
    for number, entry in enumerate(root.iter("object"), 1):
        where = f"{name}, object {number}"
        corners = [entry.findtext(f"bndbox/{side}", "") for side in ("xmin", "ymin", "xmax", "ymax")]
        said = " ".join(corner.strip() for corner in corners)
        try:
            left, top, right, bottom = map(float, corners)
            difficult = int(entry.findtext("difficult") or 0) > 0
        except ValueError:
            raise BadPair(f"{where}: has no bndbox of four numbers, and a difficult of 0 or 1: {said[:60]}") from None
        label = (entry.findtext("name") or "").strip()
        yield where, Box(label, left, top, right - left, bottom - top, difficult), said


def _read_ids(raw: bytes, name: str) -> Integer[np.ndarray, "h w"]:
    """The numbers in a picture: its grey values, or its palette's indices, whatever colours these have."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(raw)) as file:
            check_header(file, name)
            ids = np.asarray(file)
    except BadPair:
        raise
    except Exception as error:  # on damaged bytes Pillow raises what it likes
        raise BadPair(f"{name}: cannot be read: {reason_of(error)}") from None
    if ids.ndim == 3 and (ids == ids[..., :1]).all():
        ids = ids[..., 0]
    if ids.ndim != 2 or ids.dtype.kind not in "iub":
        raise BadPair(f"{name}: is in colour, where the numbers of classes are wanted")
    return ids.astype(np.int32)


@dataclass(frozen=True)
class Annotations:
    """A COCO file of instances: names by category; by name of the picture its annotations, as the file has them."""

    names: Mapping[int, str]
    shapes: Mapping[str, Sequence[Mapping[str, Any]]]

    def labels(self, name: str, size: tuple[int, int]) -> tuple[Labels, str]:
        """The label map of a picture, smaller instances over larger ones, and the sha256 of its annotations."""
        ids = np.zeros(size, np.int32)
        shapes = self.shapes.get(name, ())
        try:
            for shape in sorted(shapes, key=lambda shape: -float(shape.get("area", 0))):
                ids[rasterise(shape["segmentation"], size)] = int(shape["category_id"])
        except (KeyError, TypeError, ValueError, IndexError, OverflowError, cv2.error) as error:
            raise BadPair(f"{name}: its annotations cannot be read: {reason_of(error)}") from None
        return Labels(ids, self.names), hashlib.sha256(json.dumps(list(shapes)).encode()).hexdigest()


@lru_cache(maxsize=2)
def _annotations(path: str) -> Annotations:
    try:
        data = json.loads(read_file(path))
        pictures = {entry["id"]: entry["file_name"] for entry in data["images"]}
        shapes: dict[str, list[Mapping[str, Any]]] = {}
        for entry in data["annotations"]:
            shapes.setdefault(pictures[entry["image_id"]], []).append(
                {name: entry[name] for name in ("segmentation", "category_id", "area") if name in entry}
            )
        return Annotations({entry["id"]: entry["name"] for entry in data["categories"]}, shapes)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadPair(f"{Path(path).name}: is no COCO file of instances: {reason_of(error)}") from None


def rasterise(shape: Any, size: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """The pixels of a COCO segmentation: polygons of x, y in a row, or run lengths, compressed or not."""
    mask = np.zeros(size, np.uint8)
    if isinstance(shape, list):
        # The centre of the first pixel is at (0.5, 0.5) in COCO, at (0, 0) in cv2, which takes sixteenths.
        points = [np.rint((np.array(one, float).reshape(-1, 2) - 0.5) * 16).astype(np.int32) for one in shape]
        for polygon in points:
            cv2.fillPoly(mask, [polygon], 1, cv2.LINE_8, 4)
        return mask.astype(bool)
    counts = shape["counts"]
    if list(shape["size"]) != list(size):
        raise ValueError(f"a mask of {shape['size']} in a picture of {list(size)}")
    return decode_runs(uncompress(counts) if isinstance(counts, str) else counts, size)


def uncompress(text: str) -> list[int]:
    """Run lengths of COCO's compressed form: five bits a character, the sixth says that more follow, from 48 on.

    From the fourth on a run is the difference from that two before it (pycocotools, ``rleFrString``).
    """
    counts: list[int] = []
    at = 0
    while at < len(text):
        value, shift = 0, 0
        while True:
            if shift > LONGEST_RUN:
                raise ValueError(f"a run of more than {LONGEST_RUN} bits")
            bits = ord(text[at]) - 48
            value |= (bits & 31) << shift
            at, shift = at + 1, shift + 5
            if not bits & 32:
                break
        if bits & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
    return counts


def encode_runs(mask: Bool[np.ndarray, "h w"]) -> list[int]:
    """COCO's run lengths: down the columns, that of the background first."""
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    return [0, *runs] if flat.size and flat[0] else runs


def decode_runs(counts: Sequence[int], size: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """The mask of ``encode_runs``. Raises ValueError where the runs do not make up the size."""
    if min(counts, default=0) < 0 or sum(counts) != size[0] * size[1]:
        raise ValueError(f"runs of {sum(counts)} pixels for {size[1]}x{size[0]}")
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(size, order="F")
