"""The pair of a state: a built-in scene or two files, degraded as a build degrades it."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8

from clearfuse.synth.color import as_codes, as_hwc
from clearfuse.synth.depth.base import DepthInput
from clearfuse.synth.depth.choice import parse_depth
from clearfuse.synth.depth.metres import USUAL_FAR
from clearfuse.synth.files.pictures import upright_size
from clearfuse.synth.operators import operator_class, physical_order
from clearfuse.synth.prompts.compose import compose
from clearfuse.synth.samples.draw import CleanFrames
from clearfuse.synth.samples.render import degrade_pair
from clearfuse.synth.scenes import scene_pair
from clearfuse.synth.seeds import generator, seed_of
from clearfuse.synth.types import TASKS, BadPair, Step, Target, Task, UserError
from clearfuse.train.demo.state import AUTO, State
from clearfuse.train.pipeline.pictures.jobs import Files, load_as
from clearfuse.train.pipeline.task import find_task

Image = UInt8[np.ndarray, "h w _"]
SEED = 0
"""Of all that a degradation draws: a link shows the same pixels again."""
OFFERED = 4
"""Instructions to pick from."""


@dataclass(frozen=True)
class Pair:
    """A pair before anything is done to it. gt: its ground truth where it has one. why: how its task was told."""

    task: Task
    a: Image
    b: Image
    gt: Image | None = None
    depth: Float32[np.ndarray, "h w"] | None = None
    why: str = ""
    swapped: bool = False


@dataclass(frozen=True)
class Degraded:
    """A pair with the steps that made a and b of it. left_out: degradations that cannot act on these pictures."""

    pair: Pair
    a: Image
    b: Image
    steps: tuple[Step, ...]
    left_out: tuple[str, ...] = ()


@functools.lru_cache(maxsize=32)
def scene_of(task: str, number: int, size: tuple[int, int] = (640, 480)) -> Pair:
    """A built-in scene: the pair that ``synth build`` makes of ``train-`` and its number from 0."""
    known = next(one for one in TASKS if one == task)
    made = scene_pair(known, seed_of("scene", task, f"train-{number - 1:06d}"), size)
    return Pair(known, made.a, made.b, made.gt, made.depth)


def read_files(paths: Sequence[str], task: str) -> Pair:
    """Two picture files as ``train fuse`` reads them. Raises UserError, which names them, where it can't be done."""
    if len(paths) != 2:
        raise UserError(f"two pictures make a pair, here {'is 1' if len(paths) == 1 else f'are {len(paths)}'}")
    names = " and ".join(Path(path).name for path in paths)
    files = Files(tuple(paths), Path())
    try:
        sizes = [upright_size(path) for path in paths]
        if sizes[0] != sizes[1]:
            told = " and ".join(f"{width}x{height}" for width, height in sizes)
            raise UserError(f"{names}: the two images differ in size: {told}")
        if task == AUTO:
            found = find_task(*(as_codes(files.load(number).image) for number in (0, 1)))
            task, why, swapped = found.task, found.why, found.swapped
            files = replace(files, paths=files.paths[::-1]) if swapped else files
        else:
            why, swapped = "", False
        known = next(one for one in TASKS if one == task)
        a, b = (as_codes(load_as(files, number, known, None).image) for number in (0, 1))
    except (BadPair, OSError) as error:
        raise UserError(str(error)) from None
    return Pair(known, a, b, why=why, swapped=swapped)


def pair_of(state: State, files: Sequence[str]) -> Pair:
    """The pair that a state shows. Raises UserError where the user's files are no pair."""
    if state.scene is None:
        return read_files(files, state.task)
    return scene_of(state.task, state.scene)


def targets_of(name: str, task: Task) -> tuple[Target, ...]:
    """The images that the page degrades: the visible one of VIF, the infrared one by what only it has; else both, or
    the one that bears it."""
    if task != "vif":
        return ("both", "a", "b")
    return ("a",) if "visible" in operator_class(name).modalities else ("b",)


def degrade(pair: Pair, degradations: Mapping[str, float]) -> Degraded:
    """Degrade a pair by the chain of ``synth build``. degradations: severity in [0, 1] by operator, in any order.

    What cannot act on these pictures, as ``Operator.fit`` says, is left out and named.
    """
    known: list[np.ndarray] = [] if pair.depth is None else [pair.depth]

    def metres() -> np.ndarray:
        if not known:
            known.append(parse_depth("auto", has_true=False).estimate(DepthInput("a", pair.a, None, USUAL_FAR)))
        return known[0]

    frames = CleanFrames(pair.task, pair.a, pair.b, metres)
    steps: list[Step] = []
    left_out: list[str] = []
    for name in physical_order(degradations):
        cls, seed = operator_class(name), seed_of(SEED, pair.task, name)
        fitted = ((target, frames.fit(name, target, cls.ranges())) for target in targets_of(name, pair.task))
        target, ranges = next((found for found in fitted if found[1] is not None), ("both", None))
        if ranges is None:
            left_out.append(name)
            continue
        op = cls.draw(generator(seed_of(seed, "draw")), degradations[name], ranges)
        steps.append(Step(name, target, op.params(), seed, degradations[name]))
    deep = any(operator_class(step.op).takes_depth() for step in steps)
    a, b = degrade_pair(pair.task, pair.a, pair.b, steps, metres() if deep else None)
    return Degraded(pair, as_hwc(a), as_hwc(b), tuple(steps), tuple(left_out))


def instructions(state: State) -> list[str]:
    """Instructions to pick from, short ones first, which ask to remove what the state adds, in its language."""
    degradations, task = state.degradations, next((one for one in TASKS if one == state.task), "vif")
    steps = [Step(name, targets_of(name, task)[0], {}, 0, degradations[name]) for name in physical_order(degradations)]
    made = [
        compose(task, steps, generator(seed_of(SEED, "instruction", i)), language=state.language).text
        for i in range(4 * OFFERED)
    ]
    return sorted(dict.fromkeys(made), key=len)[:OFFERED]
