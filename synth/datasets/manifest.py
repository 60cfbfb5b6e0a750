"""Manifests: a data set's layout as data, and the path templates that it is written in."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clearfuse.synth.files.resources import read_toml, resource_dir, resource_names
from clearfuse.synth.types import DEGRADED, TASKS, Target, UserError, unknown

SPLITS = {"train": 157_500, "val": 31_500, "test": 6_300}
"""Shares of a set that has no split of its own: the paper's counts (MMAIF, section 4.1)."""

USES = ("research", "non-commercial", "commercial")
"""What a build is for, narrow to wide: whoever grants one grants those before it."""

KINDS = ("clean", "real")
"""What a and b are: a clean pair, or a degraded one that has no clean side."""

_KEYS = (
    *("schema", "kind", "title", "task", "a", "b", "gt", "degraded_a", "degraded_b", "degradation", "sequence"),
    *("exclude", "ignore_case", "splits", "parts"),
    *("scene", "like", "same_as", "grey", "use", "counts", "licence", "citation", "url", "builtin"),
)
_TOKEN = re.compile(r"(\{[^{}]*\}|\.\*\Z|\*)")
_SCENE = re.compile(r"\{key(?:\[:(\d+)\]|:(d))?\}")


@dataclass(frozen=True)
class Manifest:
    """A data set's layout: path templates below its folder, several where it is found in several forms.

    Templates hold ``{key}``, ``{split}``, ``{part}``, ``{one|other}`` (either; may be empty), ``*`` and a last ``.*``.
    A set of sequences has ``sequence`` with a ``{frame}`` instead of a and b. ``splits`` and ``parts``: names to
    folders; a part is a piece of the set whose keys start anew, and leads the key (``part1-12``). ``exclude``: keys
    that are no scenes. ``like``: sets whose pictures it shares in part; a scene known from one of them bears that
    one's name. ``same_as``: the set whose pictures it is in another form. ``grey``: visible images may be grey.
    ``use``: the widest of ``USES`` that its terms grant; research where they say nothing. A set that comes degraded has
    ``degraded_a``, ``degraded_b`` or both beside the clean a and b; where one is absent, that image is the clean one.
    ``degradation``: what was done to it, by part: (operator, target) in physical order; see ``degradation_of``.
    ``kind``: one of ``KINDS``; of a real set a and b are the degraded pair, and there is neither clean side nor gt.
    """

    name: str
    kind: str
    title: str
    task: str
    a: tuple[str, ...]
    b: tuple[str, ...]
    gt: tuple[str, ...]
    degraded_a: tuple[str, ...]
    degraded_b: tuple[str, ...]
    degradation: Mapping[str, tuple[tuple[str, Target], ...]]
    sequence: tuple[str, ...]
    exclude: frozenset[str]
    ignore_case: bool
    splits: Mapping[str, str]
    parts: Mapping[str, str]
    scene: str
    like: tuple[str, ...]
    same_as: str
    grey: bool
    use: str
    counts: Mapping[str, int]
    licence: str
    citation: str
    url: str
    builtin: bool

    @property
    def real(self) -> bool:
        """Whether its pairs are degraded and have no clean side, so that they serve evaluation alone."""
        return self.kind == "real"

    @property
    def templates(self) -> dict[str, tuple[str, ...]]:
        """The templates by image: a, b or frames, and the degraded ones and gt where the set has them."""
        images = {"frames": self.sequence} if self.sequence else {"a": self.a, "b": self.b}
        more = {"degraded_a": self.degraded_a, "degraded_b": self.degraded_b, "gt": self.gt}
        return images | {image: templates for image, templates in more.items() if templates}

    def degradation_of(self, part: str) -> tuple[tuple[str, Target], ...]:
        """What was done to the pairs of a part (its folder; "" of a set without parts); empty where nothing is known.

        The table goes by the part's name, by what stands before its first dash (``noise15`` of ``noise15-FMB``), or
        by ``all``.
        """
        names = {folder.casefold(): name for name, folder in self.parts.items()}
        name = names.get(part.casefold(), "all")
        return self.degradation.get(name, self.degradation.get(name.partition("-")[0], ()))

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
        firsts = [templates[0] for image, templates in self.templates.items() if templates and image != "gt"]
        return " and ".join(firsts)


def load_manifest(name: str, path: Path | None = None) -> Manifest:
    """The manifest of a data set by name, checked; or the TOML file at ``path``. Raises UserError, one line."""
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
    if data.get("use", "research") not in USES:
        raise UserError(f"{path}: {unknown('use', str(data['use']), USES)}")
    if data.get("kind", "clean") not in KINDS:
        raise UserError(f"{path}: {unknown('kind', str(data['kind']), KINDS)}")
    for split in data.get("splits", {}):
        if split not in SPLITS:
            raise UserError(f"{path}: {unknown('split', split, SPLITS)}")
    layouts = {key: _templates(data.get(key, ())) for key in ("a", "b", "gt", *DEGRADED, "sequence")}
    _check_layouts(path, layouts, bool(data.get("builtin", False)))
    _check_real(path, data)
    texts = {k: str(data.get(k, "")) for k in ("title", "task", "licence", "citation", "url", "same_as")}
    return Manifest(
        name=name,
        kind=data.get("kind", "clean"),
        exclude=frozenset(str(key).casefold() for key in data.get("exclude", ())),
        ignore_case=bool(data.get("ignore_case", False)),
        splits=data.get("splits", {}),
        parts=data.get("parts", {}),
        degradation=_degradation(path, data),
        scene=data.get("scene", "{key}"),
        like=tuple(data.get("like", ())),
        use=data.get("use", "research"),
        grey=bool(data.get("grey", False)),
        counts=data.get("counts", {}),
        builtin=bool(data.get("builtin", False)),
        **layouts,
        **texts,
    )


def _templates(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(str(item) for item in value)


def _check_layouts(path: Path, layouts: Mapping[str, tuple[str, ...]], builtin: bool) -> None:
    needed = {"sequence": "{frame}"} if layouts["sequence"] else {"a": "{key}", "b": "{key}"}
    given = [image for image in DEGRADED if layouts[image]]
    if given and layouts["sequence"]:
        raise UserError(f"{path}: {given[0]} goes with a and b, not with a sequence")
    needed |= dict.fromkeys(given, "{key}")
    for image, token in {} if builtin else needed.items():
        if not layouts[image] or not all("{key}" in text and token in text for text in layouts[image]):
            what = token if token == "{key}" else "{key} and {frame}"
            raise UserError(f"{path}: {image} must be a path template with {what} in it")


def _check_real(path: Path, data: Mapping[str, Any]) -> None:
    """A real set has a and b alone: what is degraded already has no degraded image, and no ground truth."""
    more = next((image for image in (*DEGRADED, "gt", "sequence") if image in data), None)
    if data.get("kind") == "real" and more is not None:
        raise UserError(f"{path}: {more} does not go with kind real: there a and b are the degraded pair, and all")


def _degradation(path: Path, data: Mapping[str, Any]) -> dict[str, tuple[tuple[str, Target], ...]]:
    """The table of degradations, each an operator of ours and the image that it is in; checked, in physical order."""
    table = data.get("degradation", {})
    if table and data.get("kind") != "real" and not any(image in data for image in DEGRADED):
        raise UserError(f"{path}: degradation says what was done to degraded_a and degraded_b: neither is there")
    parts = ["all", *data.get("parts", {})]
    parts += [name.partition("-")[0] for name in parts]
    out: dict[str, tuple[tuple[str, Target], ...]] = {}
    for part, named in table.items():
        if part not in parts:
            raise UserError(f"{path}: degradation: {unknown('part', part, set(parts))}")
        out[part] = _in_order(path, named)
    return out


def _in_order(path: Path, named: Mapping[str, str]) -> tuple[tuple[str, Target], ...]:
    from clearfuse.synth.operators import physical_order

    targets: dict[str, Target] = {"a": "a", "b": "b", "both": "both"}
    for name, target in named.items():
        if target not in targets:
            raise UserError(f"{path}: degradation {name}: {unknown('target', str(target), targets)}")
    try:
        return tuple((name, targets[named[name]]) for name in physical_order(named))
    except UserError as error:
        raise UserError(f"{path}: degradation: {error}") from None


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

    {key} and {frame} are captured once and repeated after that, {split} and {part} are one of the folders, {x|y} is x
    or y, * a piece of a name; a last .* is the extension, so that a key may hold dots.
    """
    folders = {"split": splits, "part": parts}
    out, seen = "", set[str]()
    for part in _TOKEN.split(template):
        name = part[1:-1]
        if part in ("{key}", "{frame}", "{split}", "{part}"):
            body = "|".join(re.escape(folder) for folder in folders[name]) if name in folders else "[^/]+?"
            out += f"(?P={name})" if name in seen else f"(?P<{name}>{body})"
            seen.add(name)
        elif part.startswith("{"):
            out += f"(?:{'|'.join(re.escape(one) for one in name.split('|'))})"
        else:
            out += {"*": "[^/]*?", ".*": r"\.[^/.]+"}.get(part) or re.escape(part)
    return re.compile(out + r"\Z", re.IGNORECASE if ignore_case else 0)
