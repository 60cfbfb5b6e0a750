"""Manifests: a data set's layout as data, and the path templates that it is written in."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr, model_validator

from clearfuse.synth.files.resources import parse_toml, read_toml, resource_dir, resource_names
from clearfuse.synth.files.schema import MustBe, Schema, StrictModel, validate
from clearfuse.synth.files.storage import read_small
from clearfuse.synth.tables import MANIFESTS, NAME
from clearfuse.synth.types import (
    BOXES,
    DEGRADED,
    LABELS,
    PROMPTS,
    SIDECARS,
    Scale,
    Target,
    UserError,
    check_name,
    unknown,
)

SPLITS = {"train": 157_500, "val": 31_500, "test": 6_300}
"""Shares of a set that has no split of its own: the paper's counts (MMAIF, section 4.1)."""

Use = Literal["research", "non-commercial", "commercial"]
USES: tuple[Use, ...] = get_args(Use)
"""What a build is for, narrow to wide: whoever grants one grants those before it."""

_TOKEN = re.compile(r"(\{[^{}]*\}|\.\*\Z|\*)")
_SCENE = re.compile(r"\{key(?:\[:(-?\d+)\]|:(d))?\}")


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _folded(keys: frozenset[str]) -> frozenset[str]:
    return frozenset(key.casefold() for key in keys)


Templates = Annotated[
    list[str],
    BeforeValidator(_listed, json_schema_input_type=str | list[str]),
    MustBe("a path template, or a list of them"),
]


class Manifest(StrictModel):
    """A data set's layout: path templates below its folder, several where it is found in several forms.

    Templates hold ``{key}``, ``{split}``, ``{part}``, ``{one|other}`` (either; may be empty), ``*`` and a last ``.*``.
    A set of sequences has ``sequence`` with a ``{frame}`` instead of a and b, or ``{frame:d}``, a number. A set of
    videos has ``{frame}`` in a, b and what else there is: a pair a frame, its key ``KEY/FRAME``, and no video is in two
    splits. A set that comes degraded has ``degraded_a``, ``degraded_b`` or both beside the clean a and b; where one is
    absent, that image is the clean one.
    """

    schema_: Schema
    kind: Literal["clean", "real", "single"] = "clean"
    """What a and b are: a clean pair; real, a degraded one that has no clean side, nor ground truth; or single, two
    exposures or focus distances that are made of gt, the only picture there."""
    title: str = ""
    """Its name in full."""
    task: Literal["vif", "mef", "mff", "any"]
    """vif, mef, mff or any."""
    a: Templates = []  # noqa: RUF012
    """Paths of the visible, under-exposed or near-focused images."""
    b: Templates = []  # noqa: RUF012
    """Paths of the infrared, over-exposed or far-focused images."""
    gt: Templates = []  # noqa: RUF012
    """Paths of the set's own ground truth."""
    degraded_a: Templates = []  # noqa: RUF012
    """Paths of the degraded a of a set that comes degraded."""
    degraded_b: Templates = []  # noqa: RUF012
    """Paths of the degraded b of a set that comes degraded."""
    degradation: dict[str, dict[str, Target]] = {}  # noqa: RUF012
    """What was done to it, by part or for all: operators of ours and the image, a, b or both."""
    labels: Templates = []  # noqa: RUF012
    """Paths of label maps, pictures whose values are the numbers of classes; not read but for segment samples."""
    annotations: str = ""
    """Path of a COCO file of annotations, instead of label maps; {split} is the split's folder."""
    classes: dict[str, str] | str = {}  # noqa: RUF012
    """Names by number of the classes in label maps, or the path of a text file below the folder with a name a
    line, the first that of 0, which is not marked."""
    background: bool = False
    """Whether 0 of label maps is scored as a class of its own, the background, or left out of scores as unlabelled."""
    boxes: Templates = []  # noqa: RUF012
    """Paths of text files with a box a line, as YOLO has them: the number of its class, then centre x, centre y, width
    and height as shares of the picture; or of XML files as Pascal VOC has them."""
    box_classes: dict[str, str] = {}  # noqa: RUF012
    """Names of the classes of boxes, by what the files call them: a number, or in XML a name."""
    prompts: Templates = []  # noqa: RUF012
    """Paths of text files with the set's own prompts, for pairs that come degraded: with {key} one of a pair, without
    it a prompt a line, of which every pair of the split and part has one."""
    sequence: Templates = []  # noqa: RUF012
    """Paths of the frames of a set of sequences."""
    exclude: Annotated[frozenset[str], AfterValidator(_folded)] = frozenset()
    """Keys that are no scenes."""
    ignore_case: bool = False
    """Whether paths match in any case."""
    splits: dict[Literal["train", "val", "test"], str] = {}  # noqa: RUF012
    """Folders by split."""
    parts: dict[str, str] = {}  # noqa: RUF012
    """Folders by part: a piece of the set whose keys start anew; it leads the key, as part1-12."""
    scene: str = "{key}"
    """The scene of a key: {key}, {key[:2]} (its first characters), {key[:-2]} (without its last) or {key:d} (its
    number)."""
    archives: bool = False
    """Whether the files are in tars: a template then begins with the tar, as *.tar/, and a key ends in a dash and ten
    digits, those of the tar and of the sample in it."""
    like: tuple[str, ...] = ()
    """Sets whose pictures it shares in part: a scene known from one of them bears that one's name."""
    same_as: str = ""
    """The set whose pictures it is in another form."""
    near_first: bool = False
    """Of a multi-focus set: whether a is known to be the nearer one of every pair, so that prompts may say so."""
    scale: Scale | None = None
    """The count of white in its visible pictures of 16 bits, such as 4095; without it the metadata's, or 65535."""
    grey: bool = False
    """Whether visible images may be grey."""
    use: Use = "research"
    """The widest use that its terms grant; research where they say nothing."""
    counts: dict[str, Annotated[int, Field(ge=0)]] = {}  # noqa: RUF012
    """Pairs by split or part, or of all."""
    licence: str = ""
    """Its terms."""
    citation: str = ""
    """What to cite."""
    url: str = ""
    """Its page."""
    builtin: bool = False
    """Whether it is drawn, not read: the built-in scenes."""
    _name: str = PrivateAttr("")

    @property
    def name(self) -> str:
        """The file's, by which users call the set."""
        return self._name

    @model_validator(mode="after")
    def _check_layouts(self) -> Manifest:
        """Every template that is needed is there, with its placeholders."""
        if self.single:
            more = next((image for image in ("a", "b", *DEGRADED, "sequence") if image in self.model_fields_set), None)
            if more is not None:
                raise ValueError(f"{more} does not go with kind single: there gt is the picture, and all")
        video = not self.sequence and any("{frame" in text for text in self.a)
        each = "{frame}" if video else "{key}"
        needed = {"sequence": "{frame}"} if self.sequence else {"a": each, "b": each}
        needed = {"gt": "{key}"} if self.single else needed
        given = [image for image in DEGRADED if getattr(self, image)]
        beside = [image for image in (BOXES, PROMPTS) if getattr(self, image)]
        if (given or beside) and self.sequence:
            raise ValueError(f"{(given + beside)[0]} goes with a and b, not with a sequence")
        if len({"{key}" in text for text in self.prompts}) > 1:
            raise ValueError("prompts: all with {key}, one of a pair, or all without, a prompt a line")
        needed |= dict.fromkeys(given, each)
        if bool(self.boxes) != bool(self.box_classes):
            raise ValueError("boxes go with box_classes, the names of their numbers")
        needed |= {BOXES: each} if self.boxes else {}
        if self.labels:
            needed[LABELS] = "{key}"
            if not self.classes or self.annotations:
                raise ValueError("labels go with classes, the names of their numbers, and not with annotations")
        for image, token in {} if self.builtin else needed.items():
            templates = getattr(self, image)
            if not templates or not all("{key}" in text and token[:-1] in text for text in templates):
                what = token if token == "{key}" else "{key} and {frame}"
                raise ValueError(f"{image} must be a path template with {what} in it")
        return self

    @model_validator(mode="after")
    def _check_real(self) -> Manifest:
        """A real set has a and b alone: what is degraded already has no degraded image, and no ground truth."""
        more = next((image for image in (*DEGRADED, "gt", "sequence") if image in self.model_fields_set), None)
        if self.real and more is not None:
            raise ValueError(f"{more} does not go with kind real: there a and b are the degraded pair, and all")
        return self

    @model_validator(mode="after")
    def _check_degradation(self) -> Manifest:
        """Each part of the table is there, and each degradation an operator of ours."""
        if self.degradation and not self.real and not any(getattr(self, image) for image in DEGRADED):
            raise ValueError("degradation says what was done to degraded_a and degraded_b: neither is there")
        parts = ["all", *self.parts]
        parts += [name.partition("-")[0] for name in parts]
        try:
            for part, table in self.degradation.items():
                if part not in parts:
                    raise unknown("part", part, set(parts))
                _in_order(table)
        except UserError as error:
            raise ValueError(f"degradation: {error}") from None
        return self

    @property
    def real(self) -> bool:
        """Whether its pairs are degraded and have no clean side, so that they serve evaluation alone."""
        return self.kind == "real"

    @property
    def single(self) -> bool:
        """Whether its pairs are made of single pictures, which are their ground truth."""
        return self.kind == "single"

    @property
    def video(self) -> bool:
        """Whether its pairs are frames of videos."""
        return not self.sequence and any("{frame" in template for template in self.a)

    @property
    def leading(self) -> str:
        """The image whose files name the pairs: a, or frames, or gt of single pictures."""
        return "gt" if self.single else "frames" if self.sequence else "a"

    @property
    def templates(self) -> dict[str, list[str]]:
        """The templates by image: a, b or frames, and the degraded ones and gt where the set has them."""
        beside = {LABELS: self.labels, BOXES: self.boxes, PROMPTS: self.prompts}
        beside = {name: templates for name, templates in beside.items() if templates}
        if self.single:
            return {"gt": self.gt} | beside
        images = {"frames": self.sequence} if self.sequence else {"a": self.a, "b": self.b}
        more = {"degraded_a": self.degraded_a, "degraded_b": self.degraded_b, "gt": self.gt}
        return images | {image: templates for image, templates in more.items() if templates} | beside

    def degradation_of(self, part: str) -> tuple[tuple[str, Target], ...]:
        """What was done to the pairs of a part (its folder; "" of a set without parts); empty where nothing is known.

        The table goes by the part's name, by what stands before its first dash (``noise15`` of ``noise15-FMB``), or
        by ``all``.
        """
        names = {folder.casefold(): name for name, folder in self.parts.items()}
        name = names.get(part.casefold(), "all")
        return _in_order(self.degradation.get(name, self.degradation.get(name.partition("-")[0], {})))

    @property
    def own_splits(self) -> bool:
        """Whether every layout says the split, so that none is drawn."""
        first = next(iter(self.templates.values()), ())
        return bool(self.splits) and all("{split}" in template for template in first)

    def pattern(self, template: str) -> re.Pattern[str]:
        """One of its templates as a regular expression."""
        return template_regex(template, self.splits.values(), self.ignore_case, self.parts.values())

    def scene_of(self, key: str) -> str:
        """The scene of a key: ``{key}``, ``{key[:2]}`` (its first characters) or ``{key:d}`` (its number)."""

        def fill(match: re.Match[str]) -> str:
            head, number = match.groups()
            if number:
                return str(int(key)) if key.isdecimal() else key
            return key[: int(head)] if head else key

        return _SCENE.sub(fill, self.scene)

    @property
    def expected(self) -> str:
        """What a folder should hold, for a message: the first layout."""
        images = {image: templates for image, templates in self.templates.items() if templates}
        optional = SIDECARS if self.single else ("gt", *SIDECARS)
        firsts = [templates[0] for image, templates in images.items() if image not in optional]
        return " and ".join(firsts)


def load_manifest(name: str, path: Path | None = None) -> Manifest:
    """The manifest of a data set by name, checked; or the TOML file at ``path``. Raises UserError, one line."""
    if path is None and name in MANIFESTS:
        where, content = MANIFESTS[name]
        manifest = validate(Manifest, parse_toml(content, where), where)
    else:
        if path is None:
            check_name("data set", name, manifest_names())
            path = resource_dir("manifests/datasets") / f"{name}.toml"
        manifest = validate(Manifest, read_toml(path), str(path))
    manifest._name = name
    return manifest


def manifest_names() -> list[str]:
    """The data sets that ship, and the user's own of this process."""
    return [*resource_names("manifests/datasets"), *MANIFESTS]


def add_manifest(file: str) -> str:
    """Take a data set of the user's own by its TOML file, and give the name that it then has: the file's.

    Raises UserError, one line, where the file is missing or wrong, or the name is a shipped set's.
    """
    path = Path(file)
    if not path.is_file():
        raise UserError(f"--data {file}: there is no such file")
    if not NAME.fullmatch(path.stem):
        raise UserError(f"--data {file}: a data set's name is of letters, digits and _ . -: rename the file")
    if path.stem in resource_names("manifests/datasets"):
        raise UserError(f"--data {file}: '{path.stem}' is a data set that ships: rename the file")
    content = read_small(path)
    if MANIFESTS.get(path.stem, (file, content))[1] != content:
        raise UserError(f"--data {file}: another data set of the name '{path.stem}' was read: rename one")
    load_manifest(path.stem, path)
    MANIFESTS[path.stem] = (file, content)
    return path.stem


def _in_order(degradation: dict[str, Target]) -> tuple[tuple[str, Target], ...]:
    """(operator, target) in physical order. Raises UserError for a name that is no operator."""
    from clearfuse.synth.operators import physical_order

    return tuple((name, degradation[name]) for name in physical_order(degradation))


def natural(text: str) -> str:
    """A text that orders as people order names: under it frame2 comes before frame10.

    A number becomes a character that no name has, the count of its digits and the digits: so numbers come before
    letters, and smaller before larger ones. ``text`` must be printable.
    """
    return _DIGITS.sub(_counted, text)


_DIGITS = re.compile(r"[0-9]+")


def _counted(match: re.Match[str]) -> str:
    digits = match[0].lstrip("0")
    return f"\x01{chr(len(digits))}{digits}"


def template_regex(
    template: str, splits: Iterable[str], ignore_case: bool, parts: Iterable[str] = ()
) -> re.Pattern[str]:
    """A path template as a regular expression.

    {key} and {frame} are captured once and repeated after that, and with :d are a number; {split} and {part} are one of
    the folders, {x|y} is x or y, * a piece of a name; a last .* is the extension, so that a key may hold dots.
    """
    folders = {"split": splits, "part": parts}
    out, seen = "", set[str]()
    for part in _TOKEN.split(template):
        name, _, number = part[1:-1].partition(":")
        if name in ("key", "frame", "split", "part") and part[0] == "{":
            body = r"[0-9]+" if number == "d" else "[^/]+?"
            body = "|".join(re.escape(folder) for folder in folders[name]) if name in folders else body
            out += f"(?P={name})" if name in seen else f"(?P<{name}>{body})"
            seen.add(name)
        elif part.startswith("{"):
            out += f"(?:{'|'.join(re.escape(one) for one in name.split('|'))})"
        else:
            out += {"*": "[^/]*?", ".*": r"\.[^/.]+"}.get(part) or re.escape(part)
    return re.compile(out + r"\Z", re.IGNORECASE if ignore_case else 0)
