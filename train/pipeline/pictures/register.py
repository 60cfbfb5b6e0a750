"""Registration: the warp that lays the second picture of a pair over the first.

Pictures are compared by their edges, which agree across spectra, exposures and focus distances. A coarse search (phase
correlation at several scales and angles, and features where the pictures have those in common) gives candidates; each
is refined by the enhanced correlation coefficient (Evangelidis and Psarakis, TPAMI 2008) from coarse to fine; the one
whose edges agree best is taken, and only where they agree better than those of the pair as it is.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float32, Float64

from clearfuse.synth import color
from clearfuse.synth.types import BadPair

Plane = Float32[np.ndarray, "_ _"]
Matrix = Float64[np.ndarray, "3 3"]
"""A homography: pixels of the first picture to pixels of the second."""

SIDE = 512
"""Longest side at which warps are refined, pixels."""
COARSE = 160
"""Longest side of the coarse search."""
SCALES = (0.8, 0.9, 1.0, 1.11, 1.25)
ANGLES = (-10.0, -5.0, 0.0, 5.0, 10.0)
"""Degrees."""
CANDIDATES = 3
"""Of the coarse search, to refine."""
AGREEMENT = 0.12
"""Least correlation of edges for a warp to count as found: registered pairs have 0.13 (night) to 0.9."""
GAIN = 0.01
"""By how much a warp must be better than none."""
OVERLAP = 0.3
"""Least share of the first picture that the second must cover."""
FEATHER = 16
"""Pixels over which what the second picture does not cover passes into the first."""
INLIERS = 16
"""Least number of features that agree on a homography."""


@dataclass(frozen=True)
class Warp:
    """How the second picture lies over the first. matrix: of whole pixels; agreement: correlation of the edges.

    shift: mean distance that the pixels of the first picture move, in pixels, besides a mere change of size.
    """

    matrix: Matrix
    agreement: float
    shift: float


def find_warp(a: np.ndarray, b: np.ndarray) -> Warp:
    """The warp of b onto a, both uint8 or float32 (h, w, c) of any size. Raises BadPair where none is found."""
    whole = size_change(a.shape, b.shape)
    small_a, to_a = _reduced(a, SIDE)
    small_b, to_b = _reduced(b, SIDE)
    edges_a, edges_b = edges(small_a), edges(small_b)
    start = np.linalg.inv(to_b) @ whole @ to_a
    as_it_is = agreement(edges_a, edges_b, start)
    roughly = [
        _ecc(edges_a, edges_b, one, SIDE // 4, cv2.MOTION_AFFINE)
        for one in _candidates(small_a, small_b, edges_a, edges_b, start)
    ]
    sane = [one for one in roughly if _is_sane(one, start, edges_a.shape)] or [start]
    matrix = _refined(edges_a, edges_b, max(sane, key=lambda one: agreement(edges_a, edges_b, one)))
    best = agreement(edges_a, edges_b, matrix) if _is_sane(matrix, start, edges_a.shape) else -1.0
    if best < as_it_is + GAIN:
        best, matrix = as_it_is, start
    if best < AGREEMENT:
        raise BadPair(f"cannot be registered: no warp lays the edges of one over the other's (correlation {best:.2f})")
    matrix = to_b @ matrix @ np.linalg.inv(to_a)
    matrix = matrix / matrix[2, 2]
    return Warp(matrix, best, _mean_shift(matrix, whole, a.shape))


def size_change(first: tuple[int, ...], second: tuple[int, ...]) -> Matrix:
    """The matrix of a mere change of size that keeps the shape and the middle of the picture."""
    (height, width), (other, across) = first[:2], second[:2]
    scale = max(across / width, other / height) if width / height != across / other else across / width
    middle = np.array([[1, 0, (across - 1) / 2], [0, 1, (other - 1) / 2], [0, 0, 1]])
    back = np.array([[1, 0, -(width - 1) / 2], [0, 1, -(height - 1) / 2], [0, 0, 1]])
    return middle @ np.diag([scale, scale, 1.0]) @ back


def warped(a: np.ndarray, b: np.ndarray, warp: Warp) -> np.ndarray:
    """b in the frame of a, (h, w, c) with b's channels and type; where b shows nothing, a, over a soft border.

    Where a has colour and b has none, it is a's luma.
    """
    height, width = a.shape[:2]
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    reduction = _reduction(warp.matrix, a.shape)
    source = cv2.GaussianBlur(b, (0, 0), 0.5 * reduction) if reduction > 1.2 else b  # else a smaller picture aliases
    image = color.as_hwc(
        cv2.warpPerspective(source, warp.matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    )
    share = covered(a.shape, b.shape, warp)[..., None]
    if share.min() == 1:
        return image
    rest = a if a.dtype == np.float32 else color.code_to_float(a)
    if b.shape[2] < a.shape[2]:
        rest = color.luma(rest)[..., None]
    own = image if image.dtype == np.float32 else color.code_to_float(image)
    mixed = own * share + rest * (1 - share)
    return mixed if b.dtype == np.float32 else color.to_uint8(mixed)


def covered(first: tuple[int, ...], second: tuple[int, ...], warp: Warp) -> Plane:
    """How far the second picture is seen at each pixel of the first, 0 to 1, rising over ``FEATHER`` pixels inwards."""
    height, width = first[:2]
    inside = np.ones(second[:2], np.uint8)
    flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    seen = cv2.warpPerspective(inside, warp.matrix, (width, height), flags=flags)
    if seen.all():
        return np.ones((height, width), np.float32)
    # Zeros of the border count, not the picture's own edge: where b reaches it, b stays whole.
    distance = cv2.distanceTransform(seen, cv2.DIST_L2, 3)
    return np.clip(distance / np.float32(FEATHER), 0, 1).astype(np.float32)


def edges(image: Plane) -> Plane:
    """Edges of a brightness in [0, 255], each as strong as those around it: mean 0, deviation 1, at most 3.

    log(1 + |gradient| / its median), less its mean in a window of an eighth of the side, over its deviation there.
    """
    smooth = cv2.GaussianBlur(image, (0, 0), 1.0)
    strength = np.hypot(cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1))
    strength = np.log1p(strength / (np.median(strength) + 1))
    sigma = max(image.shape) / 16
    centred = strength - cv2.GaussianBlur(strength, (0, 0), sigma)
    deviation = np.sqrt(cv2.GaussianBlur(centred * centred, (0, 0), sigma))
    return np.clip(centred / (deviation + 0.25 * float(deviation.mean()) + 1e-6), -3, 3).astype(np.float32)


def agreement(a: Plane, b: Plane, matrix: Matrix) -> float:
    """Correlation of a with b under a warp, where b is seen; -1 where that is less than ``OVERLAP`` of a."""
    size, flags = (a.shape[1], a.shape[0]), cv2.WARP_INVERSE_MAP
    seen = cv2.warpPerspective(np.ones_like(b), matrix, size, flags=flags | cv2.INTER_NEAREST) > 0
    if seen.mean() < OVERLAP:
        return -1.0
    x, y = a[seen], cv2.warpPerspective(b, matrix, size, flags=flags | cv2.INTER_LINEAR)[seen]
    if not (x.std() > 0 and y.std() > 0):
        return 0.0
    return float(np.corrcoef(x, y)[0, 1])


def _reduced(image: np.ndarray, side: int) -> tuple[Plane, Matrix]:
    """The brightness in [0, 255] of at most ``side`` pixels a side, and the matrix from its pixels to the image's."""
    grey = image.mean(axis=2, dtype=np.float32) * np.float32(1 if image.dtype == np.uint8 else 255)
    return _resized(grey, side)


def _resized(grey: Plane, side: int) -> tuple[Plane, Matrix]:
    height, width = grey.shape
    factor = min(1.0, side / max(height, width))
    size = (max(8, round(width * factor)), max(8, round(height * factor)))
    small = cv2.resize(grey, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)
    x, y = width / size[0], height / size[1]
    return small, np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]])


def _candidates(a: Plane, b: Plane, edges_a: Plane, edges_b: Plane, start: Matrix) -> Iterator[Matrix]:
    """Rough warps: the pair as it is, the best of the coarse search, and what features say."""
    yield start
    yield from _searched(edges_a, edges_b, start)
    found = _by_features(a, b)
    if found is not None:
        yield found


def _searched(edges_a: Plane, edges_b: Plane, start: Matrix) -> list[Matrix]:
    """The best similarities by phase correlation (Kuglin and Hines, 1975) of the edges at ``SCALES`` and ``ANGLES``."""
    small_a, to_a = _resized(edges_a, COARSE)
    small_b, to_b = _resized(edges_b, COARSE)
    height, width = small_a.shape
    window = np.outer(np.hanning(height), np.hanning(width)).astype(np.float32)
    base = np.linalg.inv(to_b) @ start @ to_a
    found: list[tuple[float, int, Matrix]] = []
    for number, (scale, angle) in enumerate(itertools.product(SCALES, ANGLES)):
        turn = np.vstack([cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, scale), [0, 0, 1]])
        laid = cv2.warpPerspective(small_b, base @ turn, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        (right, down), _ = cv2.phaseCorrelate(small_a * window, laid * window)
        matrix = base @ turn @ np.array([[1, 0, right], [0, 1, down], [0, 0, 1]])
        found.append((-agreement(small_a, small_b, matrix), number, to_b @ matrix @ np.linalg.inv(to_a)))
    return [matrix for *_, matrix in sorted(found, key=lambda one: one[:2])[:CANDIDATES]]


def _by_features(a: Plane, b: Plane) -> Matrix | None:
    """A homography by SIFT features (Lowe, IJCV 2004), where enough of them agree: pictures of one spectrum."""
    sift = cv2.SIFT_create(2000)  # type: ignore[attr-defined]
    equal = [cv2.createCLAHE(3.0, (8, 8)).apply(np.clip(image, 0, 255).astype(np.uint8)) for image in (a, b)]
    (points_a, words_a), (points_b, words_b) = (sift.detectAndCompute(image, None) for image in equal)
    if words_a is None or words_b is None or min(len(points_a), len(points_b)) < INLIERS:
        return None
    pairs = cv2.BFMatcher(cv2.NORM_L2).knnMatch(words_a, words_b, k=2)
    good = [two[0] for two in pairs if len(two) == 2 and two[0].distance < 0.8 * two[1].distance]
    if len(good) < INLIERS:
        return None
    from_, to = (
        np.array([points[getattr(m, side)].pt for m in good], np.float64)
        for points, side in ((points_a, "queryIdx"), (points_b, "trainIdx"))
    )
    cv2.setRNGSeed(0)
    matrix, inliers = cv2.findHomography(from_, to, cv2.RANSAC, 3.0)
    return None if matrix is None or int(inliers.sum()) < INLIERS else matrix


def _refined(a: Plane, b: Plane, matrix: Matrix) -> Matrix:
    """The warp refined in two steps: an affine one, then a homography where that agrees better."""
    for side in (SIDE // 2, SIDE):
        matrix = _ecc(a, b, matrix, side, cv2.MOTION_AFFINE)
    bent = _ecc(a, b, matrix, SIDE, cv2.MOTION_HOMOGRAPHY)
    return bent if agreement(a, b, bent) > agreement(a, b, matrix) + GAIN else matrix


def _ecc(a: Plane, b: Plane, matrix: Matrix, side: int, motion: int) -> Matrix:
    """A step of the refinement, at one resolution; the matrix as it was where it does not converge."""
    small_a, to_a = _resized(cv2.GaussianBlur(a, (0, 0), 1.0), side)
    small_b, to_b = _resized(cv2.GaussianBlur(b, (0, 0), 1.0), side)
    start = np.linalg.inv(to_b) @ matrix @ to_a
    start = (start / start[2, 2]).astype(np.float32)
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 60, 1e-5)
    try:
        given = start if motion == cv2.MOTION_HOMOGRAPHY else start[:2].copy()
        _, found = cv2.findTransformECC(small_a, small_b, given, motion, criteria)
    except cv2.error:
        return matrix
    whole = (
        found.astype(np.float64)
        if motion == cv2.MOTION_HOMOGRAPHY
        else np.vstack([found, [0, 0, 1]]).astype(np.float64)
    )
    return to_b @ whole @ np.linalg.inv(to_a)


def _is_sane(matrix: Matrix, start: Matrix, size: tuple[int, ...]) -> bool:
    """Whether a warp is one of cameras side by side: no mirror image, at most twice as large or small, not folded."""
    corners = _corners(size)
    moved = cv2.perspectiveTransform(corners[None], np.linalg.inv(start) @ matrix)[0]
    area = cv2.contourArea(moved.astype(np.float32), True) / cv2.contourArea(corners.astype(np.float32), True)
    return bool(np.isfinite(moved).all() and 0.25 < area < 4 and cv2.isContourConvex(moved.astype(np.float32)))


def _mean_shift(matrix: Matrix, whole: Matrix, size: tuple[int, ...]) -> float:
    """Mean distance over the corners of the first picture, in its pixels, of a warp from the change of size."""
    corners = _corners(size)
    moved = cv2.perspectiveTransform(corners[None], np.linalg.inv(whole) @ matrix)[0]
    return float(np.linalg.norm(moved - corners, axis=1).mean())


def _reduction(matrix: Matrix, size: tuple[int, ...]) -> float:
    """Pixels of the second picture along a pixel of the first."""
    corners = _corners(size)
    moved = cv2.perspectiveTransform(corners[None], matrix)[0]
    return float(
        np.sqrt(cv2.contourArea(moved.astype(np.float32)) / max(cv2.contourArea(corners.astype(np.float32)), 1))
    )


def _corners(size: tuple[int, ...]) -> Float64[np.ndarray, "4 2"]:
    height, width = size[:2]
    return np.array([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]], np.float64)
