"""Models as methods of an evaluation, beside the weight-free ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from synth.shards import Sample
from synth.types import UserError
from train.evaluate import METHODS, Method


def methods_of(
    models: Sequence[str] | None, device: str | None = None, loading: Mapping[str, Any] | None = None, **sampling: Any
) -> tuple[Method, ...]:
    """The models as methods, then the fusers; ``none`` is no model. sampling: steps, sampler, guidance, None: its own.

    loading: where the models' parts are, as ``load_pipeline`` takes them.

    Raises UserError where one can't be loaded.
    """
    names = [name for name in models if name != "none"] if models else [_only()]
    if len({_short(name) for name in names}) < len(names):
        raise UserError("--model: two models of one name")
    return (*(_method(name, device, loading or {}, sampling) for name in names), *METHODS.values())


def _only() -> str:
    from train.runs import the_only_run

    return str(the_only_run())


def _short(name: str) -> str:
    return Path(name).resolve().name if Path(name).exists() else name


def _method(name: str, device: str | None, loading: Mapping[str, Any], sampling: Mapping[str, Any]) -> Method:
    from train.fusing import load_pipeline  # torch, which the fusers alone do not need

    pipeline = load_pipeline(name, device, **loading)

    def fuse(sample: Sample) -> np.ndarray:
        """The model on what it is given: the degraded pair and the sample's prompt."""
        images = sample.images
        return pipeline(images["a"], images["b"], task=sample.meta["task"], prompt=sample.prompt, **sampling)

    return Method(_short(name), fuse)
