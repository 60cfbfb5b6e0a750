"""Selection of a build's pairs: splits, limit, licences, and no scene in two splits."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

import numpy as np

from clearfuse.synth.datasets.find import FoundPairs, builtin_pairs, check_split, find_all, of_split, own_task
from clearfuse.synth.datasets.manifest import SPLITS, USES, Manifest, add_manifest, load_manifest
from clearfuse.synth.datasets.match import KEY, PAIRINGS, key_template
from clearfuse.synth.datasets.pairs import Pairs, texts
from clearfuse.synth.seeds import seed_of
from clearfuse.synth.types import Task, UserError, check_name

BUILTIN_SCENES = 32


def split_names(text: str) -> tuple[str, ...]:
    """The splits in a text such as ``train,val``, in the order of ``SPLITS``. UserError for bad names."""
    names = [name.strip() for name in text.split(",")]
    for name in names:
        check_name("split", name, SPLITS)
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"--split {text}: {twice} is named twice")
    return tuple(split for split in SPLITS if split in names)


Match = tuple[str, str] | None
"""Patterns of the names in two folders, such as ``{key}-A`` and ``{key}-B``."""


def folders(items: Iterable[str], option: str = "") -> dict[str, str]:
    """NAME=DIR by name; of FILE.toml=DIR, a data set of the user's own, the file's name. UserError, one line.

    option: how the user gave them, for the message.
    """
    sets: dict[str, str] = {}
    for item in items:
        name, equals, location = item.partition("=")
        if not equals or not location:
            raise UserError(f"{option}{item}: must be NAME=DIR, such as msrs=/data/MSRS")
        if name.endswith(".toml"):
            name = add_manifest(name)
        if name in sets:
            raise UserError(f"{option}{item}: data set '{name}' is given twice")
        sets[name] = location
    return sets


def with_match(items: Iterable[str], match: Match) -> tuple[str, ...]:
    """Data sets with the patterns of ``--match`` behind the folders of ``folder=DIR_A,DIR_B``: ``DIR_A/{key}-A,…``.

    Raises UserError where there is no such set, one of its folders has a pattern already, or a pattern has no key.
    """
    given = tuple(items)
    if match is None:
        return given
    for pattern in match:
        key_template(pattern)
    if not any(item.startswith("folder=") for item in given):
        raise UserError(f"--match {' '.join(match)}: is for your own folders, --data folder=DIR_A,DIR_B")
    return tuple(_matched(item, match) if item.startswith("folder=") else item for item in given)


def _matched(item: str, match: tuple[str, str]) -> str:
    parts = item.partition("=")[2].split(",")
    if any(KEY in part for part in parts):
        raise UserError(f"--data {item}: has patterns of its own; leave out --match")
    named = [f"{part.rstrip('/')}/{pattern}" for part, pattern in zip(parts, match, strict=False)]
    return f"folder={','.join([*named, *parts[2:]])}"


def check_pairing(pairs: str) -> None:
    """Raise UserError for an unknown value of ``--pairs``."""
    check_name("pairing", pairs, PAIRINGS)


def check_forms(sets: Mapping[str, str]) -> None:
    """Raise UserError where two data sets are forms of the same one, with the same images."""
    for name, location in sets.items():
        other = load_manifest(name).same_as
        if other in sets:
            raise UserError(f"--data {name}={location}: holds the pictures of '{other}' in another form: give one")


def check_licence(sets: Mapping[str, str], use: str | None) -> None:
    """Raise UserError for data sets whose licence does not permit ``use``, one of ``USES``; None: no check."""
    if use is None:
        return
    check_name("use", use, USES)
    for name in sets:
        manifest = load_manifest(name)
        if USES.index(manifest.use) < USES.index(use):
            raise UserError(
                f"--licence {use}: the terms of '{name}' grant {manifest.use} use at most ({manifest.licence}): "
                "leave it out"
            )


def quotas(total: int, sizes: Mapping[str, float]) -> dict[str, int]:
    """Divide ``total`` in proportion to ``sizes``: at least one each, the rest by the largest remainders."""
    exact = {name: total * size / sum(sizes.values()) for name, size in sizes.items()}
    shares = {name: max(1, int(share)) for name, share in exact.items()}
    order = sorted(sizes, key=lambda name: exact[name] - shares[name], reverse=True)
    for name in order[: max(0, total - sum(shares.values()))]:
        shares[name] += 1
    return shares


def select(
    task: Task | None,
    sets: Mapping[str, str],
    *,
    split: str,
    pairs: str,
    limit: int | None,
    scale: int | None = None,
    labels: bool = False,
    keys: Collection[str] = (),
    whole: bool = False,
) -> tuple[Pairs, dict[str, FoundPairs], list[str]]:
    """The pairs of a build, all pairs found by data set, and notes for the user. Raises UserError.

    task: None where each set is of its own: single pictures, of which no pair is made, of mff, scenes of vif.
    sets: the folder of each data set; empty: built-in scenes. split: names of splits, separated by commas. pairs: which
    exposures of a sequence form pairs. limit: number of pairs, None: all. scale: in place of each data set's own.
    labels: whether label maps are looked for. keys: of the only pairs to take, of one split; empty: no choice. whole:
    whether all pairs are of the one split, of sets without splits of their own.
    """
    splits = split_names(split)
    if not sets and keys:
        return (
            _apply_limit(_scenes_of(task or "vif", splits[0], keys), limit, splits),
            {},
            [f"pairs: {len(keys)} named"],
        )
    if not sets:
        shares = quotas(limit or BUILTIN_SCENES, {name: SPLITS[name] for name in splits})
        scenes = Pairs.joined(builtin_pairs(task or "vif", name, shares[name]) for name in splits)
        where = "" if len(splits) == 1 else f" ({_format_counts(shares)})"
        return scenes, {}, [f"pairs: {len(scenes)} built-in scenes{where} (name your own with --data NAME=DIR)"]
    found = {name: _find(name, at, task, splits, pairs, scale, labels, keys, whole) for name, at in sets.items()}
    everywhere = Pairs.joined(found_pairs.pairs for found_pairs in found.values())
    separate, dropped = keep_apart(everywhere)
    chosen = separate.take(np.isin(separate.splits, [list(SPLITS).index(name) for name in splits]))
    for name in splits:
        if not chosen.count(name):
            counts = "; ".join(
                f"{name} has {_format_counts(found_pairs.splits)}" for name, found_pairs in found.items()
            )
            raise UserError(f"--split {split}: no pair in split '{name}': {counts}")
    notes = [line for name, found_pairs in found.items() for line in _notes_for(name, found_pairs, splits, chosen)]
    if len(dropped):
        splits_left = [name for name in sorted(SPLITS) if dropped.count(name)]
        notes.append(
            f"warning: {len(dropped)} pairs left out of {', '.join(splits_left)}: "
            f"another set tests on their scenes, such as {dropped[0].name}"
        )
    return _apply_limit(chosen, limit, splits), found, notes


def _find(
    name: str,
    at: str,
    task: Task | None,
    splits: tuple[str, ...],
    pairs: str,
    scale: int | None,
    labels: bool,
    keys: Collection[str],
    whole: bool,
) -> FoundPairs:
    """All pairs of a data set, or those of the keys. Where a single split is requested, it must exist."""
    manifest = load_manifest(name)
    if whole and manifest.own_splits:
        raise UserError(f"--whole: data set '{name}' has splits of its own, {', '.join(manifest.splits)}: leave it out")
    own = task or ("mff" if manifest.single else own_task(manifest))
    if scale is not None:
        manifest = manifest.model_copy(update={"scale": scale})
    if len(splits) == 1:
        check_split(manifest, own, splits[0])
    found = find_all(manifest, at, own, pairs, labels=labels)
    if whole:
        found = replace(found, pairs=found.pairs.in_split(splits[0]))
    if keys:
        found = replace(found, pairs=_named(manifest, at, found.pairs, splits[0], keys))
    if keys or whole:
        return replace(found, splits={split: found.pairs.count(split) for split in SPLITS})
    if len(splits) == 1:
        of_split(manifest, at, found, splits[0], f"; --whole puts all of them into '{splits[0]}'")
    return found


def _named(manifest: Manifest, at: str, pairs: Pairs, split: str, keys: Collection[str]) -> Pairs:
    """The pairs of these keys, in the split. Raises UserError, which names a key that is not there.

    Splits that are drawn by hash, where a set has none of its own, do not stand in the way of a pair that is named.
    """
    kept = pairs.of_split(split) if manifest.own_splits else pairs.in_split(split)
    there = kept.keys
    if missing := sorted(set(keys) - set(there.tolist())):
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        where = f"{at}, split '{split}'" if manifest.own_splits else at
        raise UserError(f"--data {manifest.name}={at}: no pair '{missing[0]}'{more} in {where}")
    return kept.take(np.isin(there, texts(keys)))


def _scenes_of(task: Task, split: str, keys: Collection[str]) -> Pairs:
    """The built-in scenes of these keys. Raises UserError where one is none of the split's."""
    numbers = [key.removeprefix(f"{split}-") for key in keys]
    for key, number in zip(keys, numbers, strict=True):
        if not re.fullmatch(r"[0-9]{6}", number) or key == number:
            raise UserError(f"--key {key}: must be like {split}-000007: a built-in scene of split '{split}'")
    scenes = builtin_pairs(task, split, max(map(int, numbers)) + 1)
    return scenes.take(np.unique([int(number) for number in numbers]))


def keep_apart(pairs: Pairs) -> tuple[Pairs, Pairs]:
    """(kept, dropped): a pair is dropped where another data set has its scene in a split closer to the test split.

    Where splits are by hash of the scene, no scene is in two splits anyway.
    """
    if len(pairs.by_dataset) < 2:
        return pairs, pairs[:0]
    scene = np.unique(pairs.scenes, return_inverse=True)[1]
    dropped = np.zeros(len(pairs), np.bool_)
    nearest: dict[int, np.ndarray] = {}
    for number in np.unique(pairs.sets):  # by scene, the split of a set's that is nearest to the test; -1 for none
        in_set = pairs.sets == number
        nearest[number] = np.full(scene.max() + 1, -1, np.int8)
        np.maximum.at(nearest[number], scene[in_set], pairs.splits[in_set])
    for number in nearest:
        others = np.max([rank for other, rank in nearest.items() if other != number], axis=0)
        in_set = pairs.sets == number
        dropped[in_set] = others[scene[in_set]] > pairs.splits[in_set]
    return pairs.take(~dropped), pairs.take(dropped)


def _notes_for(name: str, one: FoundPairs, splits: tuple[str, ...], pairs: Pairs) -> list[str]:
    selected = pairs.by_dataset.get(name, pairs[:0])
    other = [f"{count} in {split}" for split, count in one.splits.items() if split not in splits and count]
    other += [f"{one.ignored} other files ignored"] if one.ignored else []
    chosen = ", ".join(f"{selected.count(split)} of {name} in {split}" for split in splits)
    lines = [f"pairs: {chosen}" + (f" ({', '.join(other)})" if other else "")]
    if one.unpaired:
        lines.append(f"warning: {len(one.unpaired)} images of {name} have no partner, such as {one.unpaired[0]}")
    return lines


def _format_counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def _apply_limit(pairs: Pairs, limit: int | None, splits: tuple[str, ...]) -> Pairs:
    """``limit`` pairs, from every split in proportion.

    Selected by hash, so that a small build samples all data sets and scenes rather than the first near-duplicates.
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
    """Whether the pairs are real, without clean images. Raises UserError where only some are."""
    by_kind = {group.real: name for name, group in reversed(pairs.by_dataset.items())}
    if len(by_kind) > 1:
        raise UserError(
            f"--data {by_kind[True]}: its pairs are real, without a clean side, those of '{by_kind[False]}' are not: "
            "build them apart"
        )
    return True in by_kind
