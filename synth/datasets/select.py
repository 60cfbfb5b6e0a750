"""Which pairs a build takes: of which splits, how many, and never one scene in two splits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from clearfuse.synth.datasets.find import FoundPairs, builtin_pairs, check_split, find_all, of_split
from clearfuse.synth.datasets.manifest import SPLITS, USES, load_manifest
from clearfuse.synth.datasets.match import PAIRINGS
from clearfuse.synth.datasets.pairs import Pairs
from clearfuse.synth.seeds import seed_of
from clearfuse.synth.types import Task, UserError, unknown

BUILTIN_SCENES = 32


def split_names(text: str) -> tuple[str, ...]:
    """``train,val`` as its splits, in the order of ``SPLITS``. Raises UserError where one is unknown or named twice."""
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in SPLITS:
            raise unknown("split", name, SPLITS)
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"--split {text}: {twice} is named twice")
    return tuple(split for split in SPLITS if split in names)


def folders(items: Iterable[str], option: str = "") -> dict[str, str]:
    """NAME=DIR by name. option: how the user gave them, for the message. Raises UserError, one line."""
    sets: dict[str, str] = {}
    for item in items:
        name, equals, location = item.partition("=")
        if not equals or not location:
            raise UserError(f"{option}{item}: must be NAME=DIR, such as msrs=/data/MSRS")
        if name in sets:
            raise UserError(f"{option}{item}: data set '{name}' is given twice")
        sets[name] = location
    return sets


def check_pairing(pairs: str) -> None:
    """Raise UserError where ``--pairs`` names no way to pair the exposures of a sequence."""
    if pairs not in PAIRINGS:
        raise unknown("pairing", pairs, PAIRINGS)


def check_forms(sets: Mapping[str, str]) -> None:
    """Refuse two forms of one set together: their pictures are the same, and nothing says which."""
    for name, location in sets.items():
        other = load_manifest(name).same_as
        if other in sets:
            raise UserError(f"--data {name}={location}: holds the pictures of '{other}' in another form: give one")


def check_licence(sets: Mapping[str, str], use: str | None) -> None:
    """Refuse sets whose terms do not grant what a build is for: one of ``USES``, or None for no question."""
    if use is None:
        return
    if use not in USES:
        raise unknown("use", use, USES)
    for name in sets:
        manifest = load_manifest(name)
        if USES.index(manifest.use) < USES.index(use):
            raise UserError(
                f"--licence {use}: the terms of '{name}' grant {manifest.use} use at most ({manifest.licence}): "
                "leave it out"
            )


def quotas(total: int, sizes: Mapping[str, float]) -> dict[str, int]:
    """``total`` shared out in proportion to ``sizes``: at least one each, and more to the largest remainders."""
    exact = {name: total * size / sum(sizes.values()) for name, size in sizes.items()}
    given = {name: max(1, int(share)) for name, share in exact.items()}
    order = sorted(sizes, key=lambda name: exact[name] - given[name], reverse=True)
    for name in order[: max(0, total - sum(given.values()))]:
        given[name] += 1
    return given


def select(
    task: Task, sets: Mapping[str, str], *, split: str, pairs: str, limit: int | None
) -> tuple[Pairs, dict[str, FoundPairs], list[str]]:
    """The pairs of a build, what each set's folder holds, and lines for the user. Raises UserError, one line.

    sets: the folder of each data set; none for built-in scenes. split: names of splits, with commas. pairs: which
    exposures of a sequence make a pair.
    """
    splits = split_names(split)
    if not sets:
        given = quotas(limit or BUILTIN_SCENES, {name: SPLITS[name] for name in splits})
        scenes = Pairs.joined(builtin_pairs(task, name, given[name]) for name in splits)
        where = "" if len(splits) == 1 else f" ({_listed(given)})"
        return scenes, {}, [f"pairs: {len(scenes)} built-in scenes{where} (name your own with --data NAME=DIR)"]
    found = {name: _found(name, at, task, splits, pairs) for name, at in sets.items()}
    everywhere = Pairs.joined(one.pairs for one in found.values())
    kept, crossing = keep_apart(everywhere)
    chosen = kept.take(np.isin(kept.splits, [list(SPLITS).index(name) for name in splits]))
    for name in splits:
        if not chosen.count(name):
            has = "; ".join(f"{name} has {_listed(one.splits)}" for name, one in found.items())
            raise UserError(f"--split {split}: no pair in split '{name}': {has}")
    notes = [line for name, one in found.items() for line in _said(name, one, splits, chosen)]
    if len(crossing):
        left = [name for name in sorted(SPLITS) if crossing.count(name)]
        notes.append(
            f"warning: {len(crossing)} pairs left out of {', '.join(left)}: "
            f"another set tests on their scenes, such as {crossing[0].name}"
        )
    return _limited(chosen, limit, splits), found, notes


def _found(name: str, at: str, task: Task, splits: tuple[str, ...], pairs: str) -> FoundPairs:
    """All pairs of a set; where one split alone is asked for, it must be there."""
    manifest = load_manifest(name)
    if len(splits) == 1:
        check_split(manifest, task, splits[0])
    found = find_all(manifest, at, task, pairs)
    if len(splits) == 1:
        of_split(manifest, at, found, splits[0])
    return found


def keep_apart(pairs: Pairs) -> tuple[Pairs, Pairs]:
    """(kept, left out): pairs whose scene another set holds in a split nearer to the test, by its own split, go.

    Scenes that no set's own split places are in one split already: it follows from their name.
    """
    if len(pairs.by_dataset) < 2:
        return pairs, pairs[:0]
    scene = np.unique(pairs.scenes, return_inverse=True)[1]
    leave = np.zeros(len(pairs), np.bool_)
    held: dict[int, np.ndarray] = {}
    for number in np.unique(pairs.sets):  # by scene, the split of a set's that is nearest to the test; -1 for none
        mine = pairs.sets == number
        held[number] = np.full(scene.max() + 1, -1, np.int8)
        np.maximum.at(held[number], scene[mine], pairs.splits[mine])
    for number in held:
        others = np.max([rank for other, rank in held.items() if other != number], axis=0)
        mine = pairs.sets == number
        leave[mine] = others[scene[mine]] > pairs.splits[mine]
    return pairs.take(~leave), pairs.take(leave)


def _said(name: str, one: FoundPairs, splits: tuple[str, ...], pairs: Pairs) -> list[str]:
    mine = pairs.by_dataset.get(name, pairs[:0])
    more = [f"{count} in {split}" for split, count in one.splits.items() if split not in splits and count]
    more += [f"{one.ignored} other files ignored"] if one.ignored else []
    here = ", ".join(f"{mine.count(split)} of {name} in {split}" for split in splits)
    lines = [f"pairs: {here}" + (f" ({', '.join(more)})" if more else "")]
    if one.unpaired:
        lines.append(f"warning: {len(one.unpaired)} images of {name} have no partner, such as {one.unpaired[0]}")
    return lines


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def _limited(pairs: Pairs, limit: int | None, splits: tuple[str, ...]) -> Pairs:
    """``limit`` pairs, of every split its share.

    By hash, so that a small build is a fair sample of every set and scene, not the first few near-duplicates.
    """
    if limit is None or limit >= len(pairs):
        return pairs
    kept = np.zeros(len(pairs), np.bool_)
    for split, quota in quotas(limit, {split: pairs.count(split) for split in splits}).items():
        rows = pairs.rows_of(split)
        drawn = np.fromiter((seed_of("limit", *name) for name in pairs.take(rows).names()), np.int64, len(rows))
        kept[rows[np.argsort(drawn, kind="stable")[:quota]]] = True
    return pairs.take(kept)


def without_clean_side(pairs: Pairs) -> bool:
    """Whether the pairs have no clean side. Raises UserError where some have: a build's samples have one form."""
    by_kind = {mine.real: name for name, mine in reversed(pairs.by_dataset.items())}
    if len(by_kind) > 1:
        raise UserError(
            f"--data {by_kind[True]}: its pairs are real, without a clean side, those of '{by_kind[False]}' are not: "
            "build them apart"
        )
    return True in by_kind
