"""The instructions that every x86-64 processor has, for worker processes whose bytes must be the same on each.

NumPy, OpenCV and OpenBLAS choose their loops by the processor: with AVX-512, AVX2 or neither, sums are taken in another
order and products fused or not, so that one pixel in ten thousand rounds to the next code value. Each reads, as it is
loaded, environment variables that take these loops away.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

from clearfuse.synth.files.cache import cache_folder

OPENCV = ("SSE4.1", "SSE4.2", "AVX", "FP16", "AVX2", "FMA3", "AVX512-COMMON", "AVX512-SKX")
"""OpenCV's names of instruction sets beyond its baseline, SSE3."""
X86 = ("x86_64", "amd64")
"""What platforms call the processors that have this baseline."""


def variables() -> dict[str, str]:
    """The environment: no dispatched loops of NumPy and OpenCV, no IPP, the oldest kernels of OpenBLAS, of the C
    library's functions those without fused products; and a cache of its own, since what other builds kept in theirs was
    made with whatever instructions there are. On other processors the cache alone.
    """
    own_cache = {"CLEARFUSE_CACHE": f"{cache_folder()}/bench"}
    if platform.machine().lower() not in X86:
        return own_cache
    dispatched: list[str] = import_module("numpy._core._multiarray_umath").__cpu_dispatch__
    return own_cache | {
        "NPY_DISABLE_CPU_FEATURES": " ".join(dispatched),
        "OPENCV_CPU_DISABLE": ",".join(OPENCV),
        "OPENCV_IPP": "disabled",
        "OPENCV_LOG_LEVEL": "ERROR",  # it would warn that IPP was disabled
        "OPENBLAS_CORETYPE": "Prescott",
        "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA,-FMA4,-AVX2_Usable,-FMA_Usable",
    }


@contextmanager
def baseline() -> Iterator[None]:
    """Processes that are started within use the baseline alone; the one that starts them goes on as it was."""
    wanted = variables()
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
