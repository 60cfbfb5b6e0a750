"""The metrics by profile, and ``evaluate``, which scores a fused image. docs/metrics.md compares the definitions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from clearfuse.synth.tables import Table
from clearfuse.synth.types import UserError, look_up, unknown
from clearfuse.train.metrics import fidelity, fusion, information, niqe, noreference, perception, statistics, tensors
from clearfuse.train.metrics.base import Direction, Metric, codes, fault_of, luma
from clearfuse.train.metrics.planes import Group, Planes
from clearfuse.train.metrics.toolboxes.mefb import MEFB
from clearfuse.train.metrics.toolboxes.tang import TANG
from clearfuse.train.metrics.toolboxes.vifb import VIFB

if TYPE_CHECKING:
    from torch import Tensor

    from clearfuse.train.metrics.tensors.images import Images

TensorForm = Callable[["Images"], "Tensor"]


def _fusion(
    name: str, function: Callable[[Planes], float], tensor: TensorForm, direction: Direction, doc: str,
    smallest: int = 1, digits: int = 4, differentiable: bool = True,
) -> Metric:  # fmt: skip
    return Metric(
        name, function, direction, "fusion", f"{doc}, luma", smallest, digits, "planes",
        tensor=tensor, differentiable=differentiable,
    )  # fmt: skip


_levels = partial(_fusion, differentiable=False)
"""A metric of histograms or ranks, whose values have no gradient."""
_pyiqa = partial(Metric, takes="colour", missing=noreference.pyiqa_missing)

METRICS: Table[Metric] = Table(
    "metric",
    {
        metric.name: metric
        for metric in (
            Metric(
                *("PSNR", fidelity.psnr, "higher", "full-reference", "dB against the ground truth, RGB"),
                digits=2, tensor=lambda x: tensors.fidelity.psnr(x), differentiable=True,
            ),
            Metric(
                *("SSIM", fidelity.ssim, "higher", "full-reference", "structure against the ground truth, RGB"),
                smallest=fidelity.WINDOW, tensor=lambda x: tensors.fidelity.ssim(x), differentiable=True,
            ),
            _fusion(
                "VIF", fusion.vif, lambda x: tensors.fusion.vif(x), "higher",
                "information kept of both sources, a sum", fusion.VIF_SMALLEST,
            ),
            Metric(
                "VIF-authors", fusion.vif_authors, "higher", "fusion",
                "VIF of the sources against the fused image, RGB", fusion.VIF_SMALLEST,
                takes="colour", tensor=lambda x: tensors.fusion.vif_authors(x), differentiable=True,
            ),
            _fusion(
                "Qabf", fusion.qabf, lambda x: tensors.fusion.qabf(x), "higher", "edges kept of both sources, luma", 3,
            ),
            _fusion(
                "MEF-SSIM", fusion.mef_ssim, lambda x: tensors.fusion.mef_ssim(x), "higher",
                "the best of two exposures, luma", fusion.MEF_SMALLEST,
            ),
            Metric(
                *("MS-SSIM", fidelity.ms_ssim, "higher", "full-reference", "structure at five scales, RGB"),
                smallest=fidelity.MS_SMALLEST, tensor=lambda x: tensors.fidelity.ms_ssim(x), differentiable=True,
            ),
            _pyiqa(
                "LPIPS", noreference.by_pyiqa("lpips"), "lower", "full-reference", "distance in AlexNet's features", 32,
                tensor=lambda x: tensors.noreference.by_pyiqa("lpips", *x.against_truth()),
            ),
            _pyiqa(
                "RAIM", noreference.raim, "higher", "full-reference", "NTIRE 2026's score of PSNR, SSIM, LPIPS", 32, 2,
                tensor=lambda x: tensors.noreference.raim(x),
            ),
            _fusion(
                "VIFF", fusion.viff, lambda x: tensors.fusion.viff(x), "higher",
                "information for fusion (Han et al.)", fusion.VIF_SMALLEST,
            ),
            _fusion(
                "Qcv", perception.qcv, lambda x: tensors.perception.qcv(x), "lower",
                "perceived difference to both sources", digits=2,
            ),
            _fusion(
                "Qcb", perception.qcb, lambda x: tensors.perception.qcb(x), "higher",
                "local contrast kept of both sources",
            ),
            _levels(
                "MI", information.mutual_information, lambda x: tensors.information.mutual_information(x), "higher",
                "mutual information, bits, a sum",
            ),
            _levels(
                "NMI", information.normalised_mutual_information,
                lambda x: tensors.information.normalised_mutual_information(x), "higher",
                "mutual information over entropies",
            ),
            _levels(
                "FMI", information.feature_mutual_information,
                lambda x: tensors.information.feature_mutual_information(x), "higher",
                "mutual information of gradients in windows", 3,
            ),
            _fusion(
                "SSIM-sum", fusion.ssim_sum, lambda x: tensors.fusion.ssim_sum(x), "higher",
                "structure of both sources, a sum", fidelity.WINDOW,
            ),
            _fusion(
                "SSIM-mean", fusion.ssim_mean, lambda x: tensors.fusion.ssim_mean(x), "higher",
                "structure of both sources, a mean", fidelity.WINDOW,
            ),
            _fusion(
                "CC", statistics.correlation, lambda x: tensors.statistics.correlation(x), "higher",
                "correlation with both sources, a mean",
            ),
            _fusion(
                "SCD", statistics.difference_correlation, lambda x: tensors.statistics.difference_correlation(x),
                "higher", "correlations of differences, a sum",
            ),
            _levels("EN", information.entropy, lambda x: tensors.information.entropy(x), "higher", "entropy, bits"),
            _fusion(
                "SD", statistics.standard_deviation, lambda x: tensors.statistics.standard_deviation(x), "higher",
                "standard deviation", digits=3,
            ),
            _fusion(
                "SF", statistics.spatial_frequency, lambda x: tensors.statistics.spatial_frequency(x), "higher",
                "spatial frequency", digits=3,
            ),
            _fusion(
                "AG", statistics.average_gradient, lambda x: tensors.statistics.average_gradient(x), "higher",
                "average gradient", 2,
            ),
            _fusion(
                "EI", statistics.edge_intensity, lambda x: tensors.statistics.edge_intensity(x), "higher",
                "mean Sobel magnitude", digits=3,
            ),
            _levels(
                "CE", information.cross_entropy, lambda x: tensors.information.cross_entropy(x), "lower",
                "relative entropy of the sources, bits, a mean",
            ),
            _fusion(
                "RMSE", statistics.rmse, lambda x: tensors.statistics.rmse(x), "lower",
                "difference to both sources, a mean", digits=3,
            ),
            Metric(
                *("BRISQUE", noreference.brisque, "lower", "no-reference", "natural statistics, luma", 16, 2),
                missing=noreference.brisque_missing, tensor=lambda x: tensors.noreference.brisque(x),
            ),
            Metric(
                *("NIQE", niqe.niqe, "lower", "no-reference", "distance to natural statistics, luma", niqe.SMALLEST, 3),
                missing=niqe.niqe_missing, tensor=lambda x: tensors.niqe.niqe(x),
            ),
            _pyiqa(
                "MUSIQ", noreference.by_pyiqa("musiq"), "higher", "no-reference", "quality, by pyiqa", 32, 2,
                tensor=lambda x: tensors.noreference.by_pyiqa("musiq", x.fused),
            ),
            _pyiqa(
                "CLIPIQA", noreference.by_pyiqa("clipiqa"), "higher", "no-reference", "quality, by pyiqa", 32,
                tensor=lambda x: tensors.noreference.by_pyiqa("clipiqa", x.fused),
            ),
        )
    },
    own="name",
    fault=fault_of,
)  # fmt: skip
"""The metrics of the profile ``strict``, the default ones first, each with its form for tensors."""

PAPERS: dict[str, Metric] = {
    name: METRICS[name] for name in ("VIF", "VIF-authors", "Qabf", "Qcv", "BRISQUE", "MUSIQ", "CLIPIQA")
}
"""The profile ``papers``: the metrics of the MMAIF paper's tables 1 to 6, which have Qcv for MEF and MFF, not VIF; VIF
as usual, and as the authors' code has it."""

ALIASES: dict[str, str] = {
    "Entropy": "EN",
    "Mutinf": "MI",
    "Avg_gradient": "AG",
    "Edge_intensity": "EI",
    "Variance": "SD",
    "Cross_entropy": "CE",
    "Spatial_frequency": "SF",
}
"""The toolboxes' names of metrics; in a name, - and _ are equivalent."""


@dataclass(frozen=True)
class Profile:
    """A set of definitions. metrics: by name; usual: those measured by default, () for all."""

    doc: str
    metrics: Mapping[str, Metric]
    usual: tuple[str, ...] = ()


PROFILES: dict[str, Profile] = {
    "strict": Profile(
        "each metric as its source defines it, on checked ranges", METRICS, ("PSNR", "SSIM", "VIF", "Qabf", "MEF-SSIM")
    ),
    "vifb": Profile("the VIFB toolbox as it is, faults included, by colour channel", VIFB),
    "mefb": Profile("the MEFB toolbox as it is, faults included, by colour channel", MEFB),
    "tang": Profile("Tang's Evaluation-for-Image-Fusion as it is, faults included, of grey", TANG),
    "papers": Profile("the MMAIF paper's tables: VIF as usual, and VIF-authors as its authors' code has it", PAPERS),
}


def find_profile(name: str) -> Profile:
    """The profile with this name. Raises UserError for an unknown one."""
    return look_up("profile", name, PROFILES)


def find_metric(name: str, profile: str = "strict") -> Metric:
    """The metric with this name or toolbox's alias, ignoring case. Raises UserError for an unknown one."""
    metrics = {_normalise(key): metric for key, metric in find_profile(profile).metrics.items()}
    aliases = {_normalise(alias): _normalise(short) for alias, short in ALIASES.items()}
    key = aliases.get(_normalise(name), _normalise(name))
    if key not in metrics:
        raise unknown("metric", name, [metric.name.lower() for metric in metrics.values()])
    return metrics[key]


def _normalise(name: str) -> str:
    return name.lower().replace("_", "-")


def usual_metrics(profile: str, truth: bool) -> list[str]:
    """The profile's default metrics, those left out that can't run here. truth: whether there is a ground truth."""
    definitions = find_profile(profile)
    names = definitions.usual or tuple(definitions.metrics)
    metrics = (definitions.metrics[name] for name in names)
    return [m.name for m in metrics if (truth or m.kind != "full-reference") and not m.missing()]


@overload
def evaluate(
    fused: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    gt: np.ndarray | None = None,
    metrics: Sequence[str] | None = None,
    profile: str = "strict",
) -> dict[str, float]: ...


@overload
def evaluate(
    fused: Tensor,
    a: Tensor,
    b: Tensor,
    gt: Tensor | None = None,
    metrics: Sequence[str] | None = None,
    profile: str = "strict",
) -> dict[str, Tensor]: ...


def evaluate(
    fused: Any,
    a: Any,
    b: Any,
    gt: Any = None,
    metrics: Sequence[str] | None = None,
    profile: str = "strict",
) -> Any:
    """Score a fused image: {name as asked: value}; or a batch of tensors: {name as asked: n values}.

    fused, a, b, gt: ``(h, w)``, ``(h, w, 1)`` or ``(h, w, 3)`` of the same size; uint8, or float in [0, 1], which is
    scaled to 0..255; a is the visible, under-exposed or near-focused image. Or torch tensors, all on one device:
    ``(n, c, h, w)``, or ``(c, h, w)`` for n = 1, c 1 or 3; then the values are tensors (n,) on it, float64 where fused
    is and float32 otherwise, with gradients to fused of metrics that are ``differentiable``. metrics: names, ignoring
    case; None: the profile's default ones, as far as the given images and the installed packages allow. Raises
    UserError for an unknown metric or profile, for a metric whose package is not installed and for one without a form
    for tensors, ValueError for images that can't be scored.
    """
    names = usual_metrics(profile, gt is not None) if metrics is None else metrics
    chosen = {name: find_metric(name, profile) for name in names}
    given = {"fused": fused, "a": a, "b": b} | ({} if gt is None else {"gt": gt})
    if not all(isinstance(image, np.ndarray) for image in given.values()):
        _check(chosen, *tensors.evaluate.check_tensors(given), gt is not None)
        return tensors.evaluate.score_tensors(given, chosen)
    return _score({"": fused}, given, chosen)[""]


def evaluate_each(
    fused: Mapping[str, np.ndarray],
    a: np.ndarray,
    b: np.ndarray,
    gt: np.ndarray | None = None,
    metrics: Sequence[str] | None = None,
    profile: str = "strict",
) -> dict[str, dict[str, float]]:
    """Score several images fused of one pair, as ``evaluate`` does each: by the name of each, {name as asked: value}.

    What metrics take from the pair alone is computed once for all. ValueError and UserError name the image.
    """
    names = usual_metrics(profile, gt is not None) if metrics is None else metrics
    given = {"a": a, "b": b} | ({} if gt is None else {"gt": gt})
    return _score(fused, given, {name: find_metric(name, profile) for name in names})


def _check(chosen: Mapping[str, Metric], height: int, width: int, truth: bool) -> None:
    """Raise ValueError for a metric that is not defined on such images, UserError for one that can't run here."""
    for metric in chosen.values():
        if metric.kind == "full-reference" and not truth:
            raise ValueError(f"{metric.name} needs gt: it compares the fused image with a ground truth")
        if min(height, width) < metric.smallest:
            least = f"{metric.smallest}x{metric.smallest}"
            raise ValueError(f"{metric.name} needs images of {least} or more, not {width}x{height}")
        if reason := metric.missing():
            raise UserError(f"{metric.name} {reason}")


def _score(
    fused: Mapping[str, np.ndarray], given: Mapping[str, np.ndarray], chosen: dict[str, Metric]
) -> dict[str, dict[str, float]]:
    """The values of each fused image by name as asked; a grey image is compared with a colour one as three equal
    channels. given: a, b and gt, where there is one.
    """
    if not fused:
        return {}
    images: dict[str, np.ndarray] = {}
    lumas: list[np.ndarray] = []
    for name, image in fused.items():
        try:
            lumas.append(luma(codes(image, "fused")))
            height, width = image.shape[:2]
            images = images or {other: codes(given[other], other) for other in ("a", "b", "gt") if other in given}
            for other, source in images.items():
                if source.shape[:2] != (height, width):
                    size = f"{source.shape[1]}x{source.shape[0]}"
                    raise ValueError(f"{other} is {size}, fused {width}x{height}: all images must have one size")
            _check(chosen, height, width, "gt" in images)
        except (ValueError, UserError) as error:
            raise type(error)(f"{name}: {error}" if name else str(error)) from None
    group = Group(lumas, luma(images["a"]), luma(images["b"]), frozenset(metric.name for metric in chosen.values()))
    return {
        name: _values(images | {"fused": codes(image, "fused")}, planes, chosen)
        for (name, image), planes in zip(fused.items(), group.planes(), strict=True)
    }


def _values(images: Mapping[str, np.ndarray], planes: Planes, chosen: dict[str, Metric]) -> dict[str, float]:
    three = [images[image] for image in ("fused", "a", "b")]
    values: dict[str, float] = {}
    for name, metric in chosen.items():
        if metric.kind == "full-reference":
            fused, gt = images["fused"], images["gt"]
            shape = (*fused.shape[:2], max(fused.shape[2], gt.shape[2]))
            values[name] = metric.function(*(np.ascontiguousarray(np.broadcast_to(i, shape)) for i in (fused, gt)))
        elif metric.takes == "colour":
            values[name] = metric.function(*(three if metric.kind == "fusion" else three[:1]))
        else:
            lumas = {"fusion": planes.images, "no-reference": planes.images[:1]}[metric.kind]
            values[name] = metric.function(planes) if metric.takes == "planes" else metric.function(*lumas)
    return values


__all__ = [
    "ALIASES",
    "METRICS",
    "PROFILES",
    "Metric",
    "Profile",
    "evaluate",
    "evaluate_each",
    "find_metric",
    "find_profile",
    "usual_metrics",
]
