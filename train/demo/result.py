"""From a state to what the page shows of it: the fused picture, its difference, scores and time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import UInt8

from clearfuse.synth.fusers import PyramidFuser
from clearfuse.synth.types import BadPair, Step, UserError, WorkIncomplete
from clearfuse.train.demo.pair import Degraded, Image, Pair, degrade, pair_of
from clearfuse.train.demo.state import Language, State
from clearfuse.train.evaluation.methods.classical import CLASSICAL, undo
from clearfuse.train.evaluation.methods.fusers import load_cached, short_name
from clearfuse.train.metrics import evaluate, find_metric
from clearfuse.train.pipeline.blind import Request
from clearfuse.train.pipeline.fusion import FusionPipeline
from clearfuse.train.pipeline.shipped import default_model

Colour = UInt8[np.ndarray, "h w 3"]


@dataclass(frozen=True)
class Asked:
    """An instruction, empty for none, the language that an estimated one is to be in, and how much is removed of it."""

    prompt: str = ""
    language: Language = "en"
    strength: float = 1.0


Method = Callable[[Degraded, Asked], tuple[np.ndarray, Request | None]]
"""From a degraded pair and what is asked to the fused picture, and what was estimated, None where nothing was."""
PYRAMID, CLASSICAL_PYRAMID = "pyramid", "classical + pyramid"
FULL = 64
"""Codes of difference that the map shows as its brightest colour."""
TRUTH_METRICS, PAIR_METRICS = ("PSNR", "SSIM"), ("VIF", "Qabf")


@dataclass(frozen=True)
class Result:
    """What a state came to.

    a, b: as fused, in three channels. fused: of the state's model. difference: a map of its mean absolute difference to
    the truth, or to a where there is no truth. scores: values by metric, by method, the state's model first. seconds:
    of fusing, with the estimate. request: what was estimated, for want of an instruction.
    """

    pair: Pair
    a: Colour
    b: Colour
    fused: Colour
    difference: Colour
    has_truth: bool
    scores: Mapping[str, Mapping[str, float]]
    seconds: float
    steps: Sequence[Step]
    left_out: Sequence[str]
    request: Request | None = None


def methods_of(models: Sequence[str], device: str | None) -> dict[str, Method]:
    """What fuses, by the name that page and links have for it, the default first. models: () for the default one.

    All are loaded here, so that what is missing is said before the page opens. Raises UserError.
    """
    methods: dict[str, Method] = {}
    for model in models or [default_model()]:
        name = short_name(model)
        if name in methods or name in (PYRAMID, CLASSICAL_PYRAMID):
            raise UserError(f"--model {model}: two models of the name '{name}'")
        load_cached(model, device, ())
        methods[name] = _by_model(model, device)
    return methods | {PYRAMID: _pyramid, CLASSICAL_PYRAMID: _classical}


def _by_model(model: str, device: str | None) -> Method:
    def fuse(made: Degraded, asked: Asked) -> tuple[np.ndarray, Request | None]:
        pipeline: FusionPipeline = load_cached(model, device, ())
        task, request = made.pair.task, None
        if not asked.prompt and pipeline.reads_prompts:
            request = pipeline.request(made.a, made.b, task=task, language=asked.language)
        prompt = asked.prompt if request is None else request.prompt
        return pipeline(made.a, made.b, task=task, prompt=prompt, strength=asked.strength), request

    return fuse


def _pyramid(made: Degraded, asked: Asked) -> tuple[np.ndarray, None]:
    del asked
    return PyramidFuser()(made.a, made.b, made.pair.task), None


def _classical(made: Degraded, asked: Asked) -> tuple[np.ndarray, None]:
    del asked
    task = made.pair.task
    a, b = undo(made.a, made.steps, task, "a", CLASSICAL), undo(made.b, made.steps, task, "b", CLASSICAL)
    return PyramidFuser()(a, b, task), None


def run(state: State, files: Sequence[str], methods: Mapping[str, Method]) -> Result:
    """Degrade, fuse and score the pair of a state. files: the user's two pictures, where it has no scene.

    Raises UserError, one line, for whatever can't be done.
    """
    try:
        made = degrade(pair_of(state, files), state.degradations)
        begun = time.perf_counter()
        image, request = methods[state.model](made, Asked(state.prompt.strip(), state.language, state.strength))
        fused, seconds = colour(image), time.perf_counter() - begun
    except (BadPair, WorkIncomplete, ValueError) as error:
        raise UserError(str(error)) from None
    truth = truth_of(made)
    scores = {state.model: score(fused, made, truth)}
    if state.model != PYRAMID:
        scores[PYRAMID] = score(colour(PyramidFuser()(made.a, made.b, made.pair.task)), made, truth)
    a, b = colour(made.a), colour(made.b)
    return Result(
        *(made.pair, a, b, fused, difference_map(fused, a if truth is None else colour(truth)), truth is not None),
        *(scores, seconds, made.steps, made.left_out, request),
    )


def truth_of(made: Degraded) -> Image | None:
    """The ground truth as a build has it: the pair's own, else the fusion of the clean pair.

    None for a user's own pictures as they are: nothing says that they are clean.
    """
    pair = made.pair
    if pair.gt is not None:
        return pair.gt
    known_clean = pair.depth is not None or bool(made.steps)
    return PyramidFuser()(pair.a, pair.b, pair.task) if known_clean else None


def score(fused: Colour, made: Degraded, truth: Image | None) -> dict[str, float]:
    """Scores against the truth and against the clean pair, as far as the picture's size allows them."""
    pair = made.pair
    names = (
        *(TRUTH_METRICS if truth is not None else ()),
        *PAIR_METRICS,
        *(["MEF-SSIM"] if pair.task == "mef" else []),
    )
    measured = [name for name in names if find_metric(name).smallest <= min(fused.shape[:2])]
    return evaluate(fused, pair.a, pair.b, truth, measured)


def difference_map(image: Colour, other: Colour) -> Colour:
    """Mean absolute difference of the channels as a colour: black for none, yellow for ``FULL`` codes and more."""
    apart = np.abs(image.astype(np.float32) - other).mean(2)
    codes = np.minimum(apart * (255 / FULL), 255).astype(np.uint8)
    return cv2.cvtColor(cv2.applyColorMap(codes, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)


def colour(image: Image) -> Colour:
    """A picture in three channels."""
    return np.repeat(image, 3, 2) if image.shape[2] == 1 else image
