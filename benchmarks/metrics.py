"""Time of the strict fusion metrics against the commonly used Python port, on a 1280x1024 pair.

    python benchmarks/metrics.py [--size WxH] [--rounds N]

The port's formulas are implemented here in the straightforward way: VIF by two-dimensional convolutions in double
precision, mutual information by a contingency table of unique values, Qabf by whole-image arithmetic, MEF-SSIM and FMI
window by window, as in their authors' code. Those two are measured on a crop and scaled by the number of windows; the
totals are printed with and without them. Seconds of CPU time; for this project's metrics the least of the rounds.
The column tensors: the time of a batch of 8 pairs of 256x256 as torch tensors over that of the same pairs as arrays, in
one thread; with the gradient where there is one: gradient.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from scipy.signal import convolve2d

from clearfuse.synth.scenes import infrared, make_scene, visible
from clearfuse.train.metrics import METRICS, evaluate
from clearfuse.train.metrics.toolboxes import vifb

CROP = 40
"""Side in pixels of the crop for the metrics that go window by window."""

Three = tuple[np.ndarray, np.ndarray, np.ndarray]


def bell(size: int, sigma: float) -> np.ndarray:
    x = np.arange(size) - size // 2
    g = np.exp(-(x**2) / (2 * sigma**2))
    return np.outer(g, g) / np.outer(g, g).sum()


def moments(f: np.ndarray, s: np.ndarray, window: np.ndarray) -> tuple[np.ndarray, ...]:
    """Both means, both variances and the covariance under a window, without borders."""
    local = partial(convolve2d, in2=window, mode="valid")
    mf, ms = local(f), local(s)
    return mf, ms, local(f * f) - mf * mf, local(s * s) - ms * ms, local(f * s) - mf * ms


def scales(f: np.ndarray, s: np.ndarray, noise: float) -> list[tuple[np.ndarray, ...]]:
    """The gain and the two logarithms of VIFp, for each scale."""
    found: list[tuple[np.ndarray, ...]] = []
    for scale, size in enumerate((17, 9, 5, 3)):
        window = bell(size, size / 5)
        if scale:
            f, s = (convolve2d(image, window, mode="valid")[::2, ::2] for image in (f, s))
        _, _, vf, vs, shared = moments(f, s, window)
        vf, vs = np.maximum(vf, 0), np.maximum(vs, 0)
        g = np.maximum(shared / (vs + 1e-10), 0)
        rest = np.maximum(np.where(shared > 0, vf - g * shared, vf), 1e-10)
        found.append((g, np.log10(1 + g**2 * vs / (rest + noise)), np.log10(1 + vs / noise)))
    return found


def vif(f: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    return sum(
        sum(kept.sum() for _, kept, _ in found) / sum(held.sum() for _, _, held in found)
        for found in (scales(f, s, 2.0) for s in (a, b))
    )


def viff(f: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    total = 0.0
    for weight, of_a, of_b in zip((1, 0, 0.15, 1), *(scales(f, s, 325.125) for s in (a, b)), strict=True):
        first = of_a[0] < of_b[0]
        total += weight / 2.15 * np.where(first, of_a[1], of_b[1]).sum() / np.where(first, of_a[2], of_b[2]).sum()
    return total


def contingency(f: np.ndarray, s: np.ndarray) -> np.ndarray:
    """Relative frequencies of the pairs of values."""
    of_f, place_f = np.unique(np.rint(f).astype(int), return_inverse=True)
    of_s, place_s = np.unique(np.rint(s).astype(int), return_inverse=True)
    table = np.zeros((len(of_f), len(of_s)))
    np.add.at(table, (place_f.ravel(), place_s.ravel()), 1)
    return table / f.size


def bits(p: np.ndarray) -> float:
    return -float((p[p > 0] * np.log2(p[p > 0])).sum())


def shared(f: np.ndarray, s: np.ndarray) -> tuple[float, float]:
    table = contingency(f, s)
    whole = bits(table.sum(0)) + bits(table.sum(1))
    return whole - bits(table), whole


def mi(f: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    return shared(f, a)[0] + shared(f, b)[0]


def nmi(f: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    return 2 * sum(part / whole for part, whole in (shared(f, s) for s in (a, b)))


def edges(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Strength and orientation."""
    sobel = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    sx, sy = (convolve2d(image, kernel, mode="same") for kernel in (sobel, sobel.T[::-1]))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.sqrt(sx**2 + sy**2), np.where(sx == 0, np.pi / 2, np.arctan(sy / sx))


def qabf(f: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    strength_f, angle_f = edges(f)
    over = under = 0.0
    for s in (a, b):
        strength, angle = edges(s)
        with np.errstate(divide="ignore", invalid="ignore"):
            kept = np.where(strength > strength_f, strength_f / strength, strength / strength_f)
        kept = np.where(strength == strength_f, strength_f, kept)
        alike = 1 - np.abs(angle - angle_f) / (np.pi / 2)
        quality = 0.9994 / (1 + np.exp(-15 * (kept - 0.5))) * 0.9879 / (1 + np.exp(-22 * (alike - 0.8)))
        over, under = over + (quality * strength).sum(), under + strength.sum()
    return over / under


def ssim(f: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    total, c1, c2 = 0.0, 2.55**2, 7.65**2
    for s in (a, b):
        mf, ms, vf, vs, both = moments(f, s, bell(11, 1.5))
        total += np.mean((2 * mf * ms + c1) * (2 * both + c2) / ((mf**2 + ms**2 + c1) * (vf + vs + c2)))
    return total


def correlation(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.corrcoef(x.ravel(), y.ravel())[0, 1])


def histogram(image: np.ndarray) -> np.ndarray:
    return np.histogram(np.rint(image), 256, (0, 256))[0] / image.size


def cross_entropy(f: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    q, *sources = ((histogram(image) * f.size + 0.5) / (f.size + 128) for image in (f, a, b))
    return sum(float((p * np.log2(p / q)).sum()) for p in sources) / 2


def average_gradient(f: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    down, across = f[1:, :-1] - f[:-1, :-1], f[:-1, 1:] - f[:-1, :-1]
    return float(np.mean(np.sqrt((down**2 + across**2) / 2)))


def mef_windows(f: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """One scale of MEF-SSIM, window by window."""
    window, values = bell(11, 1.5), []
    for i, j in np.ndindex(f.shape[0] - 10, f.shape[1] - 10):
        patches = [s[i : i + 11, j : j + 11] - s[i : i + 11, j : j + 11].mean() for s in (a, b)]
        norms = [float(np.linalg.norm(p)) for p in patches]
        alike = min(float(np.linalg.norm(sum(patches))) / (sum(norms) + 1e-12), 1 - 1e-12)
        power = min(math.tan(math.pi / 2 * alike), 10)
        weights = [((n + 1e-3) / 11) ** power for n in norms]
        wanted = sum(w / sum(weights) * p / (n + 1e-3) for w, p, n in zip(weights, patches, norms, strict=True))
        wanted = wanted / (np.linalg.norm(wanted) + 1e-12) * (max(norms) + 1e-3)
        block = f[i : i + 11, j : j + 11]
        w0, f0 = wanted - (window * wanted).sum(), block - (window * block).sum()
        over = 2 * (window * w0 * f0).sum() + 7.65**2
        values.append(over / ((window * w0**2).sum() + (window * f0**2).sum() + 7.65**2))
    return float(np.mean(values))


def fmi_windows(f: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """FMI of 3x3 windows from the whole table of joint frequencies."""
    f, a, b = (np.hypot(*np.gradient(image)) for image in (f, a, b))
    place, values = np.arange(9), []
    for i, j in np.ndindex(f.shape[0] - 2, f.shape[1] - 2):
        for s in (a, b):
            p, q = (w.ravel(order="F") - w.min() for w in (s[i : i + 3, j : j + 3], f[i : i + 3, j : j + 3]))
            p, q = (w / w.sum() if w.any() else np.full(9, 1 / 9) for w in (p, q))
            spread = [math.sqrt(max(float((place**2 * w).sum() - (place * w).sum() ** 2), 0)) for w in (p, q)]
            t, u = p - 1 / 9, q - 1 / 9
            c = float((t * u).sum()) / math.sqrt(float((t * t).sum() * (u * u).sum()) or 1)
            cp, cq = np.cumsum(p)[:, None], np.cumsum(q)[None]
            bound = np.minimum(cp, cq) if c >= 0 else np.maximum(cp + cq - 1, 0)
            phi = min(c * spread[0] * spread[1] / (float((bound - cp * cq).sum()) or 1), 1)
            joint = phi * np.diff(np.diff(np.pad(bound, ((1, 0), (1, 0))), axis=0), axis=1) + (1 - phi) * np.outer(p, q)
            whole = bits(p) + bits(q)
            values.append(2 * (whole - bits(joint)) / whole if whole else 0.0)
    return float(np.mean(values))


PORT: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], float]] = {
    "VIF": vif,
    "VIFF": viff,
    "Qabf": qabf,
    "Qcv": vifb.qcv,
    "Qcb": vifb.qcb,
    "MI": mi,
    "NMI": nmi,
    "SSIM-sum": ssim,
    "SSIM-mean": lambda f, a, b: ssim(f, a, b) / 2,
    "CC": lambda f, a, b: (correlation(f, a) + correlation(f, b)) / 2,
    "SCD": lambda f, a, b: correlation(f - b, a) + correlation(f - a, b),
    "EN": lambda f, a, b: bits(histogram(f)),
    "SD": lambda f, a, b: float(np.std(f)),
    "SF": lambda f, a, b: math.sqrt((np.diff(f, axis=0) ** 2).sum() / f.size + (np.diff(f) ** 2).sum() / f.size),
    "AG": average_gradient,
    "EI": vifb.edge_intensity,
    "CE": cross_entropy,
    "RMSE": lambda f, a, b: (math.sqrt(np.mean((f - a) ** 2)) + math.sqrt(np.mean((f - b) ** 2))) / 2,
}
"""The port's metrics of whole images. Qcv and Qcb are the toolboxes' forms, whose values differ from strict ones."""
WINDOWS = {"MEF-SSIM": (mef_windows, 11, 1 + 1 / 4 + 1 / 16), "FMI": (fmi_windows, 3, 1.0)}
"""Its metrics that go window by window, on a crop: the window's side, the scales' area."""


def seconds(call: Callable[[], object]) -> float:
    begun = time.process_time()
    call()
    return time.process_time() - begun


def of_tensors(name: str, rounds: int) -> list[float]:
    """The time of a batch over that of its pairs one by one: of the values, and with the gradient if there is one."""
    whole = images(1024, 512)
    tiles = [[x[i : i + 256, j : j + 256] for x in whole] for i in (0, 256) for j in range(0, 1024, 256)]
    fused, a, b = (torch.from_numpy(np.stack(part)[:, None]) for part in zip(*tiles, strict=True))
    fused = fused / 255

    def backward() -> None:
        evaluate(fused.requires_grad_(), a, b, metrics=[name])[name].sum().backward()

    calls: list[Callable[[], object]] = [lambda: evaluate(fused.detach(), a, b, metrics=[name])]
    calls += [backward] * METRICS[name].differentiable
    alone = min(seconds(lambda: [evaluate(*tile, metrics=[name]) for tile in tiles]) for _ in range(rounds))
    return [min(seconds(call) for _ in range(rounds)) / alone for call in calls]


def main() -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="1280x1024")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    width, height = map(int, args.size.split("x"))
    three = images(width, height)
    planes: Three = tuple(image.astype(np.float64) for image in three)
    names = [name for name, metric in METRICS.items() if metric.kind == "fusion"]
    evaluate(*(image[:64, :64] for image in three), metrics=names)  # compiles the kernels
    print(f"{'metric':<10} {'ours':>10} {'port':>10} {'ours, s':>8} {'port, s':>8} {'tensors':>8} {'gradient':>8}")
    ours: dict[str, float] = {}
    port: dict[str, float] = {}
    for name in names:
        found = evaluate(*three, metrics=[name])[name]
        ours[name] = min(seconds(lambda name=name: evaluate(*three, metrics=[name])) for _ in range(args.rounds))
        if name in PORT:
            shown = f"{PORT[name](*planes):.5f}"
            port[name] = min(seconds(lambda name=name: PORT[name](*planes)) for _ in range(1 + (name not in "VIFF")))
        else:
            function, side, parts = WINDOWS[name]
            crop = tuple(image[:CROP, :CROP] for image in planes)
            scale = parts * (height - side + 1) * (width - side + 1) / (CROP - side + 1) ** 2
            shown, port[name] = "by crop", seconds(lambda f=function, c=crop: f(*c)) * scale
        batch = " ".join(f"{ratio:>8.2f}" for ratio in of_tensors(name, args.rounds))
        print(f"{name:<10} {found:>10.5f} {shown:>10} {ours[name]:>8.3f} {port[name]:>8.2f} {batch}")
    whole = [name for name in names if name in PORT]
    for title, chosen in (("all", names), ("without MEF-SSIM and FMI", whole)):
        together = min(seconds(lambda chosen=chosen: evaluate(*three, metrics=chosen)) for _ in range(args.rounds))
        theirs = sum(port[name] for name in chosen)
        print(f"{title}, one call: {together:.2f} s, port {theirs:.1f} s, {theirs / together:.1f} times as long")


def images(width: int, height: int) -> Three:
    """A synthetic pair and its mean: grey, uint8."""
    scene = make_scene(0, (width, height))
    a, b = visible(scene)[..., 1], infrared(scene)[..., 0]
    return (a // 2 + b // 2).astype(np.uint8), a, b


if __name__ == "__main__":
    main()
