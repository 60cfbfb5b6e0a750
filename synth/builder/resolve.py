"""Every choice of a build, made once before work begins, and the settings that record them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clearfuse.synth.builder.options import Options
from clearfuse.synth.builder.settings import build_settings
from clearfuse.synth.datasets.manifest import load_manifest
from clearfuse.synth.datasets.pairs import Pairs
from clearfuse.synth.datasets.select import check_forms, check_licence, folders, select, without_clean_side
from clearfuse.synth.depth.choice import parse_depth
from clearfuse.synth.execute.run import find_executor
from clearfuse.synth.files import storage
from clearfuse.synth.fusers.choice import better_fuser, choose_fuser
from clearfuse.synth.prompts.instructions import load_instructions
from clearfuse.synth.prompts.pages import check_pages
from clearfuse.synth.prompts.pools import languages_of, load_pool, load_tasks
from clearfuse.synth.samples.mixture import Mixture, load_mixture
from clearfuse.synth.samples.prepare import Spec, uses_network
from clearfuse.synth.samples.recipe import Recipe, load_recipe, read_pools
from clearfuse.synth.shards.codecs import find_codec
from clearfuse.synth.types import LABELS, NO_TRUTH, TASKS, BuildTask, Task, UserError


@dataclass(frozen=True)
class Resolved:
    """The choices: ``settings`` is their record (no paths, hosts or times), ``notes`` are lines for the user."""

    spec: Spec
    pairs: Pairs
    settings: Mapping[str, Any]
    notes: tuple[str, ...]


def resolve(options: Options, *, labels: bool = False) -> Resolved:
    """Check every option and resolve every ``auto``. Raises UserError, one line, before anything is written.

    labels: whether label maps and boxes are looked for in any case, not for segment samples alone.
    """
    codec = find_codec(options.codec)
    find_executor(options.executor)
    recipe, task = _recipe(options)
    prompts = _prompts(options, recipe)
    sets = _sets(options)
    chosen = {"split": options.split, "pairs": options.pairs, "limit": options.limit, "scale": options.scale}
    chosen |= {"keys": options.keys, "whole": options.whole}
    marks = isinstance(recipe, Mixture) and "segment" in recipe.categories
    pairs, found, notes = select(task, sets, **chosen, labels=labels or marks)
    names = list(pairs.by_dataset)
    real = without_clean_side(pairs)
    if isinstance(recipe, Mixture):
        notes += _instructed(options.task, recipe, pairs)
    else:
        notes += _real(options, pairs, prompts) if real else _given(options, pairs, prompts)
    fusers = {name: NO_TRUTH if real else _fuser(options, name, pairs) for name in names}
    bare = real or isinstance(recipe, Mixture)
    depths = {} if bare else {name: parse_depth(options.depth, has_true=name == "scenes") for name in names}
    # What serves one sample alone and is soon made is not worth the disk.
    keep = not real and (options.variants > 1 or uses_network(fusers, depths))
    spec = Spec(
        options.task, options.seed, recipe, fusers, depths, options.partial, codec.largest, prompts, options.lean, keep,
        options.min_gt, options.language,
    )  # fmt: skip
    notes += _partial_truth(options, pairs)
    notes += [
        f"single: {len(mine)} pairs of {name} are made of single pictures, which are their ground truth"
        for name, mine in pairs.by_dataset.items()
        if mine.single and not isinstance(recipe, Mixture)
    ]
    notes += [] if real else [f"ground truth: {_spread(fusers)}"]
    used = {name: depth for name, depth in depths.items() if not pairs.by_dataset[name].predegraded.all()}
    notes += [f"depth: {_spread({name: depth.name for name, depth in used.items()})}"] if used else []
    asks = options.fuser == "auto" and not real
    better = (
        {better_fuser(fuser, pairs.by_dataset[name].task) for name, fuser in fusers.items()} if asks else set[str]()
    )
    notes += [f"a better ground truth: {line}" for line in better if line is not None]
    if options.depth == "auto":
        notes += [f"a better depth: {line}" for line in {depth.better for depth in used.values()} if line is not None]
    if storage.is_url(options.out or ""):
        notes.append(f"out: {options.out}: a store has no locks: run one build there at a time")
    if options.lean:
        notes.append("lean: no degraded images; train fit --recipe degrades as it reads")
    return Resolved(spec, pairs, build_settings(options, recipe, pairs, found, fusers, depths), tuple(notes))


def _recipe(options: Options) -> tuple[Recipe | Mixture, Task | None]:
    """The recipe, and the task of all pairs; None where each data set has its own."""
    task: Task
    for task in TASKS:
        if task == options.task:
            return load_recipe(options.recipe or task, task=task, n=options.n, sets=options.sets), task
    return load_mixture(options.recipe or options.task, options.task, options.sets), None


def _instructed(task: BuildTask, mixture: Mixture, pairs: Pairs) -> list[str]:
    """A line on the label maps. Raises UserError for a set that can be of none of the categories."""
    notes: list[str] = []
    for name, mine in pairs.by_dataset.items():
        labelled = len(mine) if name == "scenes" else mine.having(LABELS)
        if mine.real:
            raise UserError(f"--data {name}: its pairs are real, without a clean side: none for --task {task}")
        if set(mixture.categories) == {"segment"} and not labelled:
            raise UserError(f"--data {name}: --task {task} needs label maps, and none is in its folder")
        if set(mixture.categories) == {"fusion"} and mine.single:
            raise UserError(f"--data {name}: fusion needs pairs, and these are single pictures")
        if "segment" in mixture.categories:
            notes.append(f"labels: {labelled} of {len(mine)} of {name} have label maps")
    return notes


def _prompts(options: Options, recipe: Recipe | Mixture) -> Path | None:
    """The folder of the prompt pools; every pool that can be drawn is read: a typo stops a build before work."""
    folder = None if options.prompts is None else storage.local(options.prompts, "--prompts")
    if folder is not None and not folder.is_dir():
        raise UserError(f"--prompts {options.prompts}: folder does not exist")
    if folder is not None:
        check_pages(folder)
    for cached in (load_tasks, load_pool, load_instructions):  # the files as they are now, as the digest has them
        cached.cache_clear()
    if isinstance(recipe, Mixture):
        for spoken in languages_of(options.language):
            load_tasks(folder, spoken)
            load_instructions(folder, spoken)
    else:
        read_pools(recipe, folder, options.language)
    return folder


def _given(options: Options, pairs: Pairs, prompts: Path | None) -> list[str]:
    """A line for each set that comes degraded. Refuses what would have no effect there; reads the pools it needs."""
    counts = {name: len(mine) for name, mine in pairs.by_dataset.items() if mine.predegraded.any()}
    if counts and options.lean:
        raise UserError(f"--lean: the pairs of '{next(iter(counts))}' come degraded: build them without --lean")
    if pairs.predegraded.all():
        for name, value in {"--n": options.n, "--partial": options.partial or None}.items():
            if value is not None:
                raise UserError(f"{name} {value}: has no effect: the pairs of {', '.join(counts)} come degraded")
    _read_pools_of(pairs, prompts, options.language)
    return [
        f"given: {count} pairs of {name} come degraded and are packed as they are" for name, count in counts.items()
    ]


def _read_pools_of(pairs: Pairs, prompts: Path | None, language: str) -> None:
    """Read the pools of what is known of degraded pairs."""
    for spoken in languages_of(language):
        for op in {op for known in pairs.degradations() for op, _ in known}:
            load_pool(op, prompts, spoken)


def _real(options: Options, pairs: Pairs, prompts: Path | None) -> list[str]:
    """A line for each real set. Refuses what would have no effect there; reads the pools it needs."""
    names = list(pairs.by_dataset)
    idle = {"--lean": "" if options.lean else None, "--n": options.n, "--partial": options.partial or None}
    choices = {"--fuser": options.fuser, "--depth": options.depth}
    idle |= {name: value for name, value in choices.items() if value != "auto"}
    idle |= {"--min-gt": options.min_gt or None, "--set": options.beyond_ratios}
    for name, value in idle.items():
        if value is not None:
            said = f"{name} {value}".rstrip()
            raise UserError(f"{said}: has no effect: the pairs of {', '.join(names)} are real: packed as they are")
    _read_pools_of(pairs, prompts, options.language)
    return [
        f"real: {len(mine)} pairs of {name} have no clean side: for train eval"
        for name, mine in pairs.by_dataset.items()
    ]


def _sets(options: Options) -> dict[str, str]:
    sets = folders(options.data, "--data ")
    for name, location in sets.items():
        if load_manifest(name).builtin:
            raise UserError(f"--data {name}={location}: '{name}' is built in: leave --data out to use it")
    check_forms(sets)
    check_licence(sets, options.licence)
    return dict(sorted(sets.items()))


def _fuser(options: Options, name: str, pairs: Pairs) -> str:
    own, task = pairs.by_dataset[name].having("gt") == len(pairs.by_dataset[name]), pairs.by_dataset[name].task
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
