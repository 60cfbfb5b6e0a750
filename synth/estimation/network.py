"""The network of the package: statistics in, presence and severity of each operator out.

A network of radial basis functions (Broomhead and Lowe, Complex Systems 1988): its hidden units are Gaussians about the
statistics of training samples. In numpy: a picture costs a million products, for which torch would have to be loaded.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from clearfuse.synth.estimation.targets import REACH

WEIGHTS = Path(__file__).with_name("estimator.safetensors")

CLIP = 4.0
"""Standard deviations from the mean of training, beyond which a statistic says no more."""

WIDTH = 3.0
"""Mean squared difference of two samples' statistics, in variances, at which one counts 1/e for the other; between two
samples of a training set it is 2 in the mean."""


@dataclass(frozen=True)
class Said:
    """What the network says of pictures, by operator in the order of ``NAMES``.

    presence: calibrated probabilities; severity: means; spread: standard deviations.
    """

    presence: Float32[np.ndarray, "n k"]
    severity: Float32[np.ndarray, "n k"]
    spread: Float32[np.ndarray, "n k"]


def projected(values: Float32[np.ndarray, "n d"], tensors: Mapping[str, np.ndarray]) -> Float32[np.ndarray, "n p"]:
    """Statistics in standard deviations, weighted, on the principal axes of the training samples."""
    x = np.clip((values - tensors["mean"]) / tensors["scale"], -CLIP, CLIP)
    return (x @ tensors["axes"].T).astype(np.float32)


def kernel(
    x: Float32[np.ndarray, "n p"], centres: Float32[np.ndarray, "m p"], count: int
) -> Float32[np.ndarray, "n m"]:
    """exp(−|x − c|²/(count · ``WIDTH``)). count: of the statistics, by which squared differences are averaged."""
    apart = (x * x).sum(1)[:, None] + (centres * centres).sum(1) - 2 * (x @ centres.T)
    return np.exp(np.maximum(apart, 0) / (-WIDTH * count)).astype(np.float32)


@dataclass(frozen=True)
class Network:
    """The weights by name.

    ``mean``, ``scale`` (d) of the statistics; ``axes`` (p, d), which weight them too; ``centres`` (m, p);
    ``presence``, ``severity`` (m, k) with ``presence_bias``, ``severity_bias`` (k); ``slope``, ``offset`` (k) of the
    logit (Platt 1999); ``spread`` (k).
    """

    tensors: Mapping[str, np.ndarray]

    def __call__(self, values: Float32[np.ndarray, "n d"]) -> Said:
        """What is said of statistics as ``statistics`` gives them."""
        t = self.tensors
        units = kernel(projected(values, t), t["centres"], values.shape[1])
        score = units @ t["presence"] + t["presence_bias"]
        presence = 1 / (1 + np.exp(-(t["slope"] * score + t["offset"])))
        severity = np.clip(units @ t["severity"] + t["severity_bias"], *REACH)
        spread = np.broadcast_to(t["spread"], severity.shape)
        return Said(*(each.astype(np.float32) for each in (presence, severity, spread)))


@functools.lru_cache(maxsize=1)
def load_network() -> Network:
    """The network that ships, in single precision."""
    from safetensors.numpy import load_file

    return Network({name: value.astype(np.float32) for name, value in load_file(WEIGHTS).items()})
