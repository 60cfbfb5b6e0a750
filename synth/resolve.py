"""Every choice of a build, made once before work begins, and the settings that record them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from synth import __version__, bridge, storage
from synth.cache import cache_folder
from synth.codecs import find_codec
from synth.depth_source import DepthSource, parse_depth
from synth.execute import find_executor
from synth.fusers import FUSER_HELP
from synth.fusers.choice import better_fuser, choose_fuser, fuser_weights
from synth.pairs import Found, load_manifest
from synth.prepare import NETWORKS, Spec
from synth.prompts import load_pool, load_tasks, pools_digest
from synth.recipe import Recipe, load_recipe
from synth.selection import check_forms, check_licence, check_pairing, select, split_names
from synth.shards import dumps
from synth.table import RUN, Pairs
from synth.types import NO_TRUTH, TASKS, Task, UserError, unknown


@dataclass(frozen=True)
class Options:
    """What a user can say about a build; the names and defaults are the command line's."""

    task: str
    data: tuple[str, ...] = ()
    out: str | None = None
    n: str | None = None
    recipe: str | None = None
    prompts: str | None = None
    sets: tuple[str, ...] = ()
    seed: int = 0
    workers: int | None = None
    split: str = "train"
    pairs: str = "extreme"
    licence: str | None = None
    limit: int | None = None
    variants: int = 1
    shard_size: int = 256
    fuser: str = "auto"
    depth: str = "auto"
    codec: str = "webp"
    executor: str = "processes"
    timeout: float = 1800.0
    partial: float = 0.0
    max_rejects: float = 0.01
    min_gt: float = 0.0
    overwrite: bool = False
    extend: bool = False
    lean: bool = False


@dataclass(frozen=True)
class Resolved:
    """The choices: ``settings`` is their record (no paths, hosts or times), ``notes`` are lines for the user."""

    spec: Spec
    pairs: Pairs
    settings: Mapping[str, Any]
    notes: tuple[str, ...]


def resolve(options: Options) -> Resolved:
    """Check every option and resolve every ``auto``. Raises UserError, one line, before anything is written."""
    task = _check(options)
    codec = find_codec(options.codec)
    find_executor(options.executor)
    recipe = load_recipe(options.recipe or task, task=task, n=options.n, sets=options.sets)
    prompts = _prompts(options, recipe)
    sets = _sets(options)
    pairs, found, notes = select(options, task, sets)
    names = list(pairs.by_dataset)
    real = _is_real(pairs)
    notes += _real(options, pairs, prompts) if real else _given(options, pairs, prompts)
    fusers = {name: NO_TRUTH if real else _fuser(options, task, name, pairs) for name in names}
    depths = {} if real else {name: parse_depth(options.depth, has_true=name == "scenes") for name in names}
    # What serves one sample alone and is soon made is not worth the disk.
    keep = not real and (options.variants > 1 or _networks(fusers, depths))
    spec = Spec(
        task, options.seed, recipe, fusers, depths, options.partial, codec.largest, prompts, options.lean, keep,
        options.min_gt,
    )  # fmt: skip
    notes += _partial_truth(options, pairs)
    notes += [] if real else [f"ground truth: {_spread(fusers)}"]
    used = {name: depth.name for name, depth in depths.items() if not pairs.by_dataset[name].given.all()}
    notes += [f"depth: {_spread(used)}"] if used else []
    asks = options.fuser == "auto" and not real
    better = {better_fuser(fuser, task) for fuser in fusers.values()} if asks else set[str]()
    notes += [f"a better ground truth: {line}" for line in better if line is not None]
    if options.depth == "auto" and "prior" in used.values():
        notes.append("a better depth: --depth depth-anything (fetched once, 99 MB)")
    if storage.is_url(options.out or ""):
        notes.append(f"out: {options.out}: a store has no locks: run one build there at a time")
    if options.lean:
        notes.append("lean: no degraded images; train fit --recipe degrades as it reads")
    return Resolved(spec, pairs, _settings(options, recipe, pairs, found, fusers, depths), tuple(notes))


def _check(options: Options) -> Task:
    task: Task
    for task in TASKS:
        if task == options.task:
            break
    else:
        raise unknown("task", options.task, TASKS)
    split_names(options.split)
    check_pairing(options.pairs)
    if options.fuser not in FUSER_HELP:
        raise unknown("fuser", options.fuser, FUSER_HELP)
    least = {"variants": 1, "shard_size": 1, "limit": 1, "workers": 1}
    for name, low in least.items():
        value = getattr(options, name)
        if value is not None and value < low:
            raise UserError(f"--{name.replace('_', '-')} {value}: must be at least {low}")
    if not 0 <= options.seed < 2**53:
        raise UserError(f"--seed {options.seed}: must be in [0, 2^53)")
    for name in ("partial", "max_rejects", "min_gt"):
        value = getattr(options, name)
        if not 0 <= value <= 1:
            raise UserError(f"--{name.replace('_', '-')} {value:g}: must be a share in [0, 1]")
    if not 0 <= options.timeout < float("inf"):
        raise UserError(f"--timeout {options.timeout:g}: must be seconds, or 0 for no limit")
    if options.executor == "serial" and options.timeout not in (0, Options.timeout):
        raise UserError(
            f"--timeout {options.timeout:g}: decides nothing with --executor serial, where nobody watches: "
            "take processes with --workers 1"
        )
    if options.out is not None and not options.out.strip():
        raise UserError("--out is empty: name a folder")
    _check_one_process(options)
    if options.overwrite and options.extend:
        raise UserError("--overwrite and --extend exclude each other: replace a build, or add variants to it")
    if options.lean:
        _check_lean(options)
    return task


def _check_one_process(options: Options) -> None:
    """Refuse a store that lives in one process where the work is in others."""
    workers = 1 if options.executor == "serial" else options.workers or os.cpu_count()
    if workers == 1 and options.executor != "ray":
        return
    places = [f"--out {options.out}", f"--depth {options.depth}", f"CLEARFUSE_CACHE {cache_folder()}"]
    for place in (*places, *(f"--data {item}" for item in options.data)):
        if storage.IN_PROCESS in place:
            raise UserError(f"{place}: {storage.IN_PROCESS} is one process's own: add --executor serial")


def _check_lean(options: Options) -> None:
    """Refuse what would decide nothing: a lean build degrades nothing, and has no prompt."""
    idle = {"--n": options.n, "--partial": options.partial or None, "--prompts": options.prompts}
    idle |= {"--set": _beside_crops(options)}
    for name, value in idle.items():
        if value is not None:
            raise UserError(
                f"{name} {value}: decides nothing with --lean, which degrades nothing; "
                "give train fit a recipe with --recipe"
            )


def _beside_crops(options: Options) -> str | None:
    """The first change of the recipe that is not to the ratios of the crops."""
    return next((item for item in options.sets if not item.strip().startswith("ratios")), None)


def _prompts(options: Options, recipe: Recipe) -> Path | None:
    """The folder of the prompt pools; every pool that can be drawn is read: a typo stops a build before work."""
    folder = None if options.prompts is None else storage.local(options.prompts, "--prompts")
    if folder is not None and not folder.is_dir():
        raise UserError(f"--prompts {options.prompts}: folder does not exist")
    for cached in (load_tasks, load_pool):  # the files as they are now, as the digest has them
        cached.cache_clear()
    read_pools(recipe, folder)
    return folder


def read_pools(recipe: Recipe, folder: Path | None = None) -> None:
    """Read every pool that the recipe can draw from. Raises UserError where one is missing or wrong."""
    load_tasks(folder)
    for name, rule in recipe.operators.items():
        if rule.weight > 0:
            load_pool(name, folder)


def _given(options: Options, pairs: Pairs, prompts: Path | None) -> list[str]:
    """A line for each set that comes degraded. Refuses what would decide nothing there; reads the pools it needs."""
    counts = {name: len(mine) for name, mine in pairs.by_dataset.items() if mine.given.any()}
    if counts and options.lean:
        raise UserError(f"--lean: the pairs of '{next(iter(counts))}' come degraded: build them without --lean")
    if pairs.given.all():
        for name, value in {"--n": options.n, "--partial": options.partial or None}.items():
            if value is not None:
                raise UserError(f"{name} {value}: decides nothing: the pairs of {', '.join(counts)} come degraded")
    for op in {op for known in pairs.degradations() for op, _ in known}:
        load_pool(op, prompts)
    return [
        f"given: {count} pairs of {name} come degraded and are packed as they are" for name, count in counts.items()
    ]


def _is_real(pairs: Pairs) -> bool:
    """Whether the pairs have no clean side. Raises UserError where some have: a build's samples have one form."""
    by_kind = {mine.real: name for name, mine in reversed(pairs.by_dataset.items())}
    if len(by_kind) > 1:
        raise UserError(
            f"--data {by_kind[True]}: its pairs are real, without a clean side, those of '{by_kind[False]}' are not: "
            "build them apart"
        )
    return True in by_kind


def _real(options: Options, pairs: Pairs, prompts: Path | None) -> list[str]:
    """A line for each real set. Refuses what would decide nothing there; reads the pools it needs."""
    names = list(pairs.by_dataset)
    idle = {"--lean": "" if options.lean else None, "--n": options.n, "--partial": options.partial or None}
    choices = {"--fuser": options.fuser, "--depth": options.depth}
    idle |= {name: value for name, value in choices.items() if value != "auto"}
    idle |= {"--min-gt": options.min_gt or None, "--set": _beside_crops(options)}
    for name, value in idle.items():
        if value is not None:
            said = f"{name} {value}".rstrip()
            raise UserError(f"{said}: decides nothing: the pairs of {', '.join(names)} are real: packed as they are")
    for op in {op for known in pairs.degradations() for op, _ in known}:
        load_pool(op, prompts)
    return [
        f"real: {len(mine)} pairs of {name} have no clean side: for train eval"
        for name, mine in pairs.by_dataset.items()
    ]


def _sets(options: Options) -> dict[str, str]:
    sets: dict[str, str] = {}
    for item in options.data:
        name, equals, location = item.partition("=")
        if not equals or not location:
            raise UserError(f"--data {item}: must be NAME=DIR, such as msrs=/data/MSRS")
        if name in sets:
            raise UserError(f"--data {item}: data set '{name}' is given twice")
        if load_manifest(name).builtin:
            raise UserError(f"--data {item}: '{name}' is built in: leave --data out to use it")
        sets[name] = location
    check_forms(sets)
    check_licence(sets, options.licence)
    return dict(sorted(sets.items()))


def _fuser(options: Options, task: Task, name: str, pairs: Pairs) -> str:
    own = pairs.by_dataset[name].having("gt") == len(pairs.by_dataset[name])
    return choose_fuser(options.fuser, task, name, own or (name == "scenes" and task == "mff"))


def _partial_truth(options: Options, pairs: Pairs) -> list[str]:
    """A warning for each set that has ground truth for some of its pairs only: it is not used."""
    notes: list[str] = []
    for name, mine in pairs.by_dataset.items():
        has = mine.having("gt")
        if 0 < has < len(mine) and options.fuser == "auto":
            notes.append(f"warning: {has} of {len(mine)} pairs of {name} have ground truth: not used, all are fused")
        elif name == "folder" and not has and any(d.count(",") == 2 for d in options.data):
            notes.append("warning: the ground truth folder has no file for any pair: all are fused")
    return notes


def _spread(choices: Mapping[str, str]) -> str:
    if len(set(choices.values())) == 1:
        return next(iter(choices.values()))
    return ", ".join(f"{value} for {name}" for name, value in choices.items())


def _networks(fusers: Mapping[str, str], depths: Mapping[str, DepthSource]) -> bool:
    return not {*fusers.values(), *(depth.name for depth in depths.values())}.isdisjoint(NETWORKS)


def _settings(
    options: Options,
    recipe: Recipe,
    pairs: Pairs,
    found: Mapping[str, Found],
    fusers: Mapping[str, str],
    depths: Mapping[str, DepthSource],
) -> dict[str, Any]:
    """What the digest covers: everything that decides a byte, and nothing that does not."""
    drawn: dict[str, Any] = {
        "partial": options.partial,
        "recipe": {"name": recipe.name, **recipe.source},
        "prompts": pools_digest(None if options.prompts is None else Path(options.prompts)),
    }
    crops = {"recipe": {"name": recipe.name, "ratios": dict(recipe.ratios)}}
    if options.lean:
        drawn = {"lean": True, **crops}
    elif _is_real(pairs):
        drawn = {**crops, "prompts": drawn["prompts"]}
    return {
        "task": options.task,
        "split": ",".join(split_names(options.split)),
        "pairs": options.pairs,
        "seed": options.seed,
        "limit": options.limit,
        "shard_size": options.shard_size,
        "codec": options.codec,
        "min_gt": options.min_gt,
        **drawn,
        "data": {name: _data_record(mine) for name, mine in pairs.by_dataset.items()},
        "fuser": {name: {"name": one, "weights": fuser_weights(one, recipe.task)} for name, one in fusers.items()},
        "depth": {name: {"name": depth.name, "weights": depth.weights} for name, depth in depths.items()},
        "versions": versions(options.codec, recipe.operators, network=_networks(fusers, depths)),
    }


def _data_record(pairs: Pairs) -> dict[str, Any]:
    """What the digest says of a set: how many pairs, and a hash over their keys with the sizes of their files."""
    hashed = hashlib.sha256(b"[")
    for start in range(0, len(pairs), RUN):
        hashed.update((b", " if start else b"") + dumps(list(pairs[start : start + RUN].records()))[1:-1])
    hashed.update(b"]")
    record = {"pairs": len(pairs), "digest": hashed.hexdigest()[:32]}
    kind = "real" if pairs.real else "given"
    return record | ({kind: True} if pairs.given.any() else {})


def versions(codec: str, operators: Iterable[str] = (), *, network: bool = False) -> dict[str, str]:
    """The versions that decide bytes: ours, the pixels', the codecs', the bridge's and the networks' where used."""
    from PIL import features

    names = ["numpy", "opencv-python-headless", "pillow"] + (["imagecodecs"] if codec == "jxl" else [])
    names += bridge.VERSIONS if any(map(bridge.is_bridged, operators)) else ()
    names += ["torch", "transformers"] if network else []
    libraries = {name: version(name) for name in names}
    return {"clearfuse": __version__, **libraries, "libwebp": str(features.version("webp"))}
