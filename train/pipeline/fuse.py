"""One fused image after another: read, laid over each other, fused two by two, steadied, written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from clearfuse.synth import color, console
from clearfuse.synth.datasets.registration import displacement
from clearfuse.synth.files.pictures import Picture
from clearfuse.synth.types import ROLES, TASKS, BadPair
from clearfuse.train.pipeline.blind import AUTO, asks_for_fusion, find_request
from clearfuse.train.pipeline.fusion import FusionPipeline
from clearfuse.train.pipeline.mask import mask_of
from clearfuse.train.pipeline.pictures import write
from clearfuse.train.pipeline.pictures.jobs import Job, load_as
from clearfuse.train.pipeline.pictures.register import Warp, find_warp, warped
from clearfuse.train.pipeline.stack import brightness, fold, order_of
from clearfuse.train.pipeline.steady import Steady

Panels = list[tuple[str, np.ndarray]]
"""Labels and pictures of a sheet."""
SHOWN = 5
"""Frames of a stack on a sheet, at most."""


@dataclass(frozen=True)
class Plan:
    """How ``train fuse`` goes about it. sampling: keywords of ``FusionPipeline.__call__``; prompt: in place of the
    inputs' own, ``auto`` what each pair asks for, as without one, but refused where it can't be told; empty or
    ``fuse``: nothing is removed; scale: the count of white; register: lay pictures over each other; frames: they are a
    video's; steady: against flicker; compare, mask: write those beside the fused image.
    """

    prompt: str | None = None
    sampling: tuple[tuple[str, Any], ...] = ()
    scale: int | None = None
    register: bool = False
    frames: bool = False
    steady: bool = False
    compare: bool = False
    mask: bool = False

    def beside(self, target: Path) -> list[Path]:
        """What else is written beside a fused image."""
        names = [name for name, wanted in (("mask", self.mask), ("compare", self.compare)) if wanted]
        return [target.with_name(f"{target.stem}-{name}.png") for name in names]


PLAIN = Plan()
"""As the model does it."""


@dataclass(frozen=True)
class Layer:
    """A picture on its way: as read, or fused of some. grey: all of them are; untouched: no network has seen it."""

    picture: Picture
    grey: bool
    untouched: bool = True

    @property
    def image(self) -> np.ndarray:
        """Its code values."""
        return self.picture.image


class Fuser:
    """Fuses jobs with a pipeline. Of a video it keeps the first frame's warp, and what steadies."""

    def __init__(self, pipeline: FusionPipeline, plan: Plan) -> None:
        self.pipeline, self.plan = pipeline, plan
        self._steady = Steady() if plan.steady else None
        self._warp: tuple[tuple[int, ...], tuple[int, ...], Warp] | None = None
        self._first_prompt: str | None = None
        self._lost = ""
        self._moved: list[str] = []
        self._laid: list[tuple[str, Warp]] = []

    def __call__(self, job: Job, task: str) -> list[Path]:
        """Fuse a job and write what the plan says; the paths. Raises BadPair, UserError or WorkIncomplete."""
        given = self.plan.prompt if self.plan.prompt is not None else job.prompt()
        told = given not in (None, AUTO)
        prompt = given if given is not None and told and not asks_for_fusion(given) else ""
        mask: np.ndarray | None = None
        if len(job.names) == 2:
            pair = self._pair(job, task)
            if not told:
                prompt = self._found_prompt(job, task, pair)
            fused = self._fused(*pair, task, prompt)
            if self._steady is not None:
                image = self._steady((pair[0].image, pair[1].image), fused.image)
                fused = replace(fused, picture=replace(fused.picture, image=image))
            if self.plan.mask:
                plain = self._fused(*pair, task, "").image
                mask = mask_of(color.as_codes(fused.image), color.as_codes(plain))
            panels = [(label, layer.image) for label, layer in zip(_labels(job, task), pair, strict=True)]
        else:
            fused, panels = self._stack(job, task, prompt)
        picture = write.as_sources(fused.picture, fused.grey, asked=told and prompt != "")
        return self._written(job, picture, mask, panels, prompt, task)

    def notes(self) -> list[str]:
        """What is to be said at the end, a line each."""
        lines = [self._lost] if self._lost else []
        if self._laid:
            worst = max(self._laid, key=lambda one: one[1].shift)
            lines.append(
                f"registered: {len(self._laid)} warped, by {worst[1].shift:.1f} pixels at most ({worst[0]}, "
                f"correlation of edges {worst[1].agreement:.2f})"
            )
        if self._moved:
            lines.append(
                f"not registered, as it seems: {len(self._moved)}, such as {self._moved[0]}; --register lays one over "
                "the other"
            )
        return lines

    def _pair(self, job: Job, task: str) -> tuple[Layer, Layer]:
        first, second = (self._layer(job, place, task) for place in (0, 1))
        return first, self._laid_over(first, second, job.names[1])

    def _found_prompt(self, job: Job, task: str, pair: tuple[Layer, Layer]) -> str:
        """What a pair asks for, said in a line. Of a video, what its first frame asks for: else it would flicker.

        Raises BadPair where that can't be told and was asked for.
        """
        if self._first_prompt is not None:
            return self._first_prompt
        a, b = (layer.image for layer in pair)
        asked, reads = self.plan.prompt == AUTO, self.pipeline.reads_prompts
        request = find_request(task, a, b, reads) if asked else self.pipeline.request(a, b, task=task)
        if asked or (reads and task in TASKS):
            console.note(f"{', '.join(dict.fromkeys(job.names))}: {request.line()}")
        if self.plan.frames:
            self._first_prompt = request.prompt
        return request.prompt

    def _layer(self, job: Job, place: int, task: str) -> Layer:
        picture = load_as(job, place, task, self.plan.scale)
        return Layer(picture, picture.image.shape[2] == 1)

    def _laid_over(self, first: Layer, second: Layer, name: str) -> Layer:
        """The second picture in the frame of the first. Raises BadPair where sizes differ and nothing may be warped."""
        a, b = first.image, second.image
        if self.plan.register:
            if self._warp is not None and self._warp[:2] == (a.shape, b.shape):
                warp = self._warp[2]
            else:
                warp = find_warp(a, b)
                self._warp = (a.shape, b.shape, warp) if self.plan.frames else None
            if warp.shift > 0 or a.shape[:2] != b.shape[:2]:
                self._laid.append((name, warp))
                return replace(second, picture=_warped(first.picture, second.picture, warp))
            return second
        if a.shape[:2] != b.shape[:2]:
            sizes = (f"{x.shape[1]}x{x.shape[0]}" for x in (a, b))
            raise BadPair("the two images differ in size: {} and {}; --register lays one over the other".format(*sizes))
        shift = displacement(color.as_codes(a), color.as_codes(b))
        if shift is not None:
            self._moved.append(f"{name} (by {shift[0]}, {shift[1]} pixels)")
        return second

    def _fused(self, first: Layer, second: Layer, task: str, prompt: str) -> Layer:
        """Two layers fused. What a network has seen is not asked again to be restored."""
        asked = prompt if first.untouched or second.untouched else ""
        image = self.pipeline(first.image, second.image, task=task, prompt=asked, **dict(self.plan.sampling))
        alpha = write.least_opaque([first.picture, second.picture])
        bits = first.picture.bits if task == "vif" else max(first.picture.bits, second.picture.bits)
        return Layer(Picture(image, alpha, bits), first.grey and second.grey, untouched=False)

    def _stack(self, job: Job, task: str, prompt: str) -> tuple[Layer, Panels]:
        """Three or more frames fused, and some of them for a sheet."""
        count = len(job.names)
        scale = self.plan.scale
        lights = [brightness(job.load(place, scale=scale).image) for place in range(count)] if task == "mef" else []
        order = order_of(lights, count)
        kept = order[count // 2 if self.plan.register else 0]
        reference = self._layer(job, kept, task)
        shown = {order[round(place)] for place in np.linspace(0, count - 1, min(count, SHOWN))}
        panels: dict[int, np.ndarray] = {}

        def load(at: int) -> Layer:
            place = order[at]
            layer = self._layer(job, place, task)
            if place != kept:
                layer = self._laid_over(reference, layer, job.names[place])
            if self.plan.compare and place in shown:
                panels[at] = _reduced(layer.image)
            return layer

        fused = fold(count, load, lambda x, y: self._fused(x, y, task, prompt))
        return fused, [(job.names[order[at]], panels[at]) for at in sorted(panels)]

    def _written(
        self,
        job: Job,
        picture: Picture,
        mask: np.ndarray | None,
        panels: Panels,
        prompt: str,
        task: str,
    ) -> list[Path]:
        self._lost = self._lost or write.what_is_lost(job.target, picture)
        write.write_picture(job.target, picture)
        paths = [job.target, *self.plan.beside(job.target)]
        for path in paths[1:]:
            if mask is not None and path.stem.endswith("-mask"):
                write.write_image(path, mask.astype(np.uint8) * 255)
            else:
                lines = [f"{task}, {len(job.names)} pictures", f'"{prompt}"' if prompt else "no prompt"]
                write.write_sheet(path, [*panels, ("fused", picture.image)], lines)
        return paths


def _warped(first: Picture, second: Picture, warp: Warp) -> Picture:
    """The second picture in the frame of the first; where it shows nothing it is the first, which is opaque there."""
    alpha = second.alpha
    if alpha is not None:
        opaque = np.full((*first.image.shape[:2], 1), 255 if alpha.dtype == np.uint8 else 1, alpha.dtype)
        alpha = warped(opaque, alpha[..., None], warp)[..., 0]
    return replace(second, image=warped(first.image, second.image, warp), alpha=alpha)


def _labels(job: Job, task: str) -> list[str]:
    roles = [role for known, each in ROLES.items() if known == task for role in each.values()] or ["a", "b"]
    return [f"{role}: {name}" for role, name in zip(roles, job.names, strict=True)]


def _reduced(image: np.ndarray) -> np.ndarray:
    """A picture no wider than a panel of a sheet, so that a stack's frames do not stay in memory."""
    width = min(image.shape[1], write.PANEL)
    size = (width, max(1, round(image.shape[0] * width / image.shape[1])))
    return color.as_hwc(cv2.resize(color.as_codes(image), size, interpolation=cv2.INTER_AREA))
