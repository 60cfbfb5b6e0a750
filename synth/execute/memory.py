"""Memory: how much there is, and the C library's allocator, told to keep what it has.

Pictures are allocated and freed all the time. By default glibc gives every freed picture back to the kernel and asks
for it again, page by page: a sixth of the time of a built-in scene.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -2, -3, -4
"""mallopt's parameters: malloc.h of glibc."""

KEPT = 256 << 20
"""Bytes a process keeps at most."""

CGROUPS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Where a container's limit stands: control groups, version 2 and 1."""


LARGE = 1 << 30
"""Bytes that a process keeps at most which runs networks on a CPU: an autoencoder's at 1024 × 1024."""


def keep_freed_memory(large: bool = False) -> bool:
    """Keep freed memory in this process for the next picture; False where the C library is not glibc.

    large: and blocks of more than 32 MiB too, such as networks make on pictures, of which every page would be asked for
    anew: a fifth of the time of a tiny autoencoder at 512 × 512.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # musl, macOS, Windows
        return False
    mallopt.argtypes, mallopt.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    # 32 MiB is the largest size that glibc takes from its heap.
    settings = [(M_TRIM_THRESHOLD, KEPT), (M_TOP_PAD, KEPT // 4), (M_MMAP_THRESHOLD, 32 << 20)]
    if large:  # none is mapped by itself
        settings += [(M_TRIM_THRESHOLD, LARGE), (M_MMAP_MAX, 0)]
    taken = [mallopt(parameter, value) == 1 for parameter, value in settings]
    return all(taken)


def memory_limit() -> int:
    """Bytes of memory that there are: the machine's, or the container's where that is less."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    said = [path.read_text().strip() for path in CGROUPS if path.is_file()]
    return min([machine, *(int(text) for text in said if text.isdecimal())])  # version 2 says "max" for no limit
