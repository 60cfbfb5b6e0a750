"""``train fuse``: fuses files, folders, data sets and shards."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from clearfuse.synth import color, console
from clearfuse.synth.datasets.select import Match
from clearfuse.synth.execute.tasks import limit_threads
from clearfuse.synth.types import OTHER, TASKS, BadPair, UserError, WorkIncomplete, check_name
from clearfuse.train.designs.design import AS_DESIGNED, Parts
from clearfuse.train.device import find_device, keep_freed_memory
from clearfuse.train.models.attention import attention_kernel, find_kernel
from clearfuse.train.pipeline.blind import AUTO, asks_for_fusion
from clearfuse.train.pipeline.fuse import PLAIN, Fuser, Plan
from clearfuse.train.pipeline.fusion import FusionPipeline
from clearfuse.train.pipeline.pictures.find import check_outputs, find_data, find_jobs
from clearfuse.train.pipeline.pictures.jobs import Files, Job, load_as
from clearfuse.train.pipeline.shipped import default_model
from clearfuse.train.pipeline.stack import brightness, stack_task
from clearfuse.train.pipeline.task import FoundTask, find_task

Progress = Callable[[int, int], None]


def load_pipeline(
    name: str | None, device: str | None = None, parts: Parts = AS_DESIGNED, compiled: bool = False
) -> FusionPipeline:
    """Load a model by name; None: see ``default_model``. parts, compiled: see ``FusionPipeline.from_pretrained``."""
    limit_threads()
    where = find_device(device)
    keep_freed_memory(where)
    return FusionPipeline.from_pretrained(name or default_model(), where, parts=parts, compiled=compiled)


def fuse_files(
    inputs: Sequence[str],
    out: str,
    task: str,
    *,
    data: Sequence[str] = (),
    match: Match = None,
    split: str | None = None,
    limit: int | None = None,
    stacks: bool = False,
    plan: Plan = PLAIN,
    model: str | None = None,
    device: str | None = None,
    parts: Parts = AS_DESIGNED,
    compiled: bool = False,
    attention: str = "auto",
    progress: Progress = lambda done, total: None,
) -> list[str]:
    """Fuse what is named; return the paths written.

    inputs: see ``pictures.find.find_jobs``; data, split, limit, stacks: data sets in their place, see ``find_data``.
    match: patterns of names in two folders. plan: how. Raises UserError before work begins, also where no pair can be
    read, before the model is loaded; WorkIncomplete at the end, naming the pairs that could not be fused.
    """
    check_name("task", task, (AUTO, *TASKS, OTHER))
    _check(plan, task, inputs, data, split)
    if stacks and not data:
        raise UserError("--stacks: is of data sets of sequences, --data NAME=DIR; a folder of stacks needs no option")
    kernel = find_kernel(attention)
    target = Path(out)
    if data:
        jobs = find_data(data, None if task == AUTO else task, target, split, limit, match, stacks)
    else:
        jobs = find_jobs(inputs, target, match=match, frames=plan.frames)[:limit]
    jobs, tasks = _with_tasks(jobs, task, plan.scale)
    _check_stacks(jobs, tasks, plan)
    if plan.compare or plan.mask:
        check_outputs(target, [job.to(path) for job in jobs for path in plan.beside(job.target)])
    failed = _unreadable(jobs, tasks, plan)
    if len(failed) == len(jobs):
        reasons = "; ".join([*failed.values()][:5])
        what = " and ".join(inputs or data)
        raise UserError(reasons if len(jobs) == 1 else f"{what}: none of {len(jobs)} pairs can be read: {reasons}")
    fuser = Fuser(load_pipeline(model, device, parts, compiled), plan)
    written: list[str] = []
    for number, (job, of) in enumerate(zip(jobs, tasks, strict=True)):
        try:
            if number not in failed:
                with attention_kernel(kernel):
                    written += map(str, fuser(job, of))
        except (BadPair, UserError, WorkIncomplete) as error:
            if len(jobs) == 1:
                kind = WorkIncomplete if isinstance(error, WorkIncomplete) else UserError
                raise kind(f"{_said(job)}: {error}") from None
            failed[number] = f"{job.names[0]}: {error}"
        progress(number + 1, len(jobs))
    for line in fuser.notes():
        console.note(line)
    if failed:
        reasons = [failed[number] for number in sorted(failed)]
        raise WorkIncomplete(f"{len(failed)} of {len(jobs)} pairs could not be fused: {'; '.join(reasons[:5])}")
    return written


def _check(plan: Plan, task: str, inputs: Sequence[str], data: Sequence[str], split: str | None) -> None:
    """Refuse options that contradict each other, or have no effect."""
    if plan.prompt == AUTO and task == OTHER:
        raise UserError(f"--prompt auto: is for pairs of {', '.join(TASKS)}, not of --task {OTHER}")
    if plan.mask and (plan.prompt in (None, AUTO) or asks_for_fusion(plan.prompt)):
        raise UserError("--mask: is of what a --prompt has marked, such as 'segment the car'")
    if data and inputs:
        raise UserError(f"--data {data[0]}: goes without other inputs, and here is {inputs[0]}")
    if split is not None and not data:
        raise UserError(f"--split {split}: is of data sets, --data NAME=DIR")
    if plan.steady and not plan.frames:
        raise UserError("--steady: is for a video's frames: add --frames")
    if plan.frames and data:
        raise UserError("--frames: is for folders of frames, not for --data")


def _said(job: Job) -> str:
    """The names of what is fused, for a message."""
    names = job.names
    return ", ".join(names) if len(names) <= 3 else f"{names[0]}, ..., {names[-1]}"


def _with_tasks(jobs: list[Job], task: str, scale: int | None) -> tuple[list[Job], list[str]]:
    """The jobs, in the order of their task's pictures, and the task of each.

    Of files it is told by the first that can be read, for all, and said in one line.
    """
    if task != AUTO:
        return jobs, [task] * len(jobs)
    if all(job.task is not None for job in jobs):
        return jobs, [str(job.task) for job in jobs]
    found = _found_task(jobs, scale)
    if found.swapped:
        jobs = [
            dataclasses.replace(job, paths=job.paths[::-1]) if isinstance(job, Files) and len(job.paths) == 2 else job
            for job in jobs
        ]
    return jobs, [job.task or found.task for job in jobs]


def _check_stacks(jobs: Sequence[Job], tasks: Sequence[str], plan: Plan) -> None:
    """Refuse what is for pairs alone."""
    for job, task in zip(jobs, tasks, strict=True):
        count = len(job.names)
        if count > 2 and task not in ("mef", "mff"):
            raise UserError(f"{_said(job)}: {count} pictures: of {task} pairs are fused; stacks are mef or mff")
        if count > 2 and (plan.steady or plan.mask or plan.prompt == AUTO):
            option = "--steady" if plan.steady else "--mask" if plan.mask else "--prompt auto"
            raise UserError(f"{option}: is for pairs, and {_said(job)} are {count} pictures")


def _found_task(jobs: Sequence[Job], scale: int | None) -> FoundTask:
    """The task of the first job that can be read."""
    for job in jobs:
        try:
            images = [color.as_hwc(color.as_codes(job.load(number, scale=scale).image)) for number in (0, 1)]
            if len(job.names) > 2:
                lights = [brightness(job.load(number, scale=scale).image) for number in range(len(job.names))]
                found = stack_task(lights)
            else:
                found = find_task(*images)
        except BadPair:
            continue
        others = " or ".join(one for one in TASKS if one != found.task)
        order = "; the second picture is taken first" if found.swapped else ""
        console.note(f"task: {found.task}, as {found.why}{order}; else --task {others}")
        return found
    raise UserError(f"{_said(jobs[0])}: cannot be read, so no task is told; say it by --task")


def _unreadable(jobs: Sequence[Job], tasks: Sequence[str], plan: Plan) -> dict[int, str]:
    """What is wrong with jobs, by number: the pictures of a single one are read, of more the headers are."""
    failed: dict[int, str] = {}
    for number, (job, task) in enumerate(zip(jobs, tasks, strict=True)):
        try:
            headers = [job.header(place) for place in range(len(job.names))]
            sizes = list(dict.fromkeys(header.size for header in headers if header is not None))
            if len(sizes) > 1 and not plan.register:
                said = " and ".join(f"{width}x{height}" for width, height in sizes[:2])
                what = "the two images differ" if len(job.names) == 2 else "the images differ"
                raise BadPair(f"{what} in size: {said}; --register lays one over the other")
            if len(jobs) == 1:
                for place in range(len(job.names)):
                    load_as(job, place, task, plan.scale)
        except (BadPair, OSError) as error:
            failed[number] = f"{_said(job) if len(jobs) == 1 else job.names[0]}: {error}"
    return failed
