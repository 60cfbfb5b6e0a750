"""The profile ``strict``: each metric as its source defines it, on checked ranges. docs/metrics.md defines each."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from clearfuse.synth.fusers.quality import qabf
from clearfuse.train.metrics import fidelity, fusion, information, niqe, noreference, perception, statistics
from clearfuse.train.metrics.base import Direction, Metric
from clearfuse.train.metrics.information import feature_mutual_information
from clearfuse.train.metrics.planes import Planes


def _fusion(
    name: str, function: Callable[[Planes], float], direction: Direction, doc: str, smallest: int = 1, digits: int = 4
) -> Metric:
    return Metric(name, function, direction, "fusion", f"{doc}, luma", smallest, digits, "planes")


_pyiqa = partial(Metric, takes="colour", missing=noreference.pyiqa_missing)

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("PSNR", fidelity.psnr, "higher", "full-reference", "dB against the ground truth, RGB", digits=2),
        Metric(
            *("SSIM", fidelity.ssim, "higher", "full-reference", "structure against the ground truth, RGB"),
            smallest=fidelity.WINDOW,
        ),
        _fusion("VIF", fusion.vif, "higher", "information kept of both sources, a sum", fusion.VIF_SMALLEST),
        Metric("Qabf", qabf, "higher", "fusion", "edges kept of both sources, luma", 3),
        Metric("MEF-SSIM", fusion.mef_ssim, "higher", "fusion", "the best of two exposures, luma", fusion.MEF_SMALLEST),
        Metric(
            *("MS-SSIM", fidelity.ms_ssim, "higher", "full-reference", "structure at five scales, RGB"),
            smallest=fidelity.MS_SMALLEST,
        ),
        _pyiqa("LPIPS", noreference.by_pyiqa("lpips"), "lower", "full-reference", "distance in AlexNet's features", 32),
        _fusion("VIFF", fusion.viff, "higher", "information for fusion (Han et al.)", fusion.VIF_SMALLEST),
        _fusion("Qcv", perception.qcv, "lower", "perceived difference to both sources", digits=2),
        _fusion("Qcb", perception.qcb, "higher", "local contrast kept of both sources"),
        _fusion("MI", information.mutual_information, "higher", "mutual information, bits, a sum"),
        _fusion("NMI", information.normalised_mutual_information, "higher", "mutual information over entropies"),
        _fusion("FMI", feature_mutual_information, "higher", "mutual information of gradients in windows", 3),
        _fusion("SSIM-sum", fusion.ssim_sum, "higher", "structure of both sources, a sum", fidelity.WINDOW),
        _fusion("SSIM-mean", fusion.ssim_mean, "higher", "structure of both sources, a mean", fidelity.WINDOW),
        _fusion("CC", statistics.correlation, "higher", "correlation with both sources, a mean"),
        _fusion("SCD", statistics.difference_correlation, "higher", "correlations of differences, a sum"),
        _fusion("EN", information.entropy, "higher", "entropy, bits"),
        _fusion("SD", statistics.standard_deviation, "higher", "standard deviation", digits=3),
        _fusion("SF", statistics.spatial_frequency, "higher", "spatial frequency", digits=3),
        _fusion("AG", statistics.average_gradient, "higher", "average gradient", 2),
        _fusion("EI", statistics.edge_intensity, "higher", "mean Sobel magnitude", digits=3),
        _fusion("CE", information.cross_entropy, "lower", "relative entropy of the sources, bits, a mean"),
        _fusion("RMSE", statistics.rmse, "lower", "difference to both sources, a mean", digits=3),
        Metric(
            *("BRISQUE", noreference.brisque, "lower", "no-reference", "natural statistics, luma", 16, 2),
            missing=noreference.brisque_missing,
        ),
        Metric(
            *("NIQE", niqe.niqe, "lower", "no-reference", "distance to natural statistics, luma", niqe.SMALLEST, 3),
            missing=niqe.niqe_missing,
        ),
        _pyiqa("MUSIQ", noreference.by_pyiqa("musiq"), "higher", "no-reference", "quality, by pyiqa", 32, 2),
        _pyiqa("CLIPIQA", noreference.by_pyiqa("clipiqa"), "higher", "no-reference", "quality, by pyiqa", 32),
    )
}
"""The metrics, the usual ones first."""

PAPERS: dict[str, Metric] = {name: METRICS[name] for name in ("VIF", "Qabf", "Qcv", "BRISQUE", "MUSIQ", "CLIPIQA")}
"""The profile ``papers``: what the MMAIF paper's tables 1 to 6 print; Qcv for MEF and MFF in VIF's place."""
