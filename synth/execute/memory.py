"""Available memory, and settings of glibc's allocator.

Images are allocated and freed all the time. By default glibc returns the memory of a freed image to the kernel and
requests it again, page by page, which takes a sixth of the time of a built-in scene.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -2, -3, -4
"""mallopt's parameters: malloc.h of glibc."""

KEPT = 256 << 20
"""Most freed bytes that a process keeps."""

CGROUPS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Files with a container's limit: control groups, version 2 and 1."""


LARGE = 1 << 30
"""Most freed bytes that a process keeps which runs networks on a CPU: an autoencoder's at 1024 × 1024."""


def keep_freed_memory(large: bool = False) -> bool:
    """Make this process keep freed memory for the next image; False where the C library is not glibc.

    large: also blocks of more than 32 MiB, as networks allocate: requesting their pages anew takes a fifth of the time
    of a tiny autoencoder at 512 × 512.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # musl, macOS, Windows
        return False
    mallopt.argtypes, mallopt.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    # 32 MiB is the largest size that glibc takes from its heap.
    settings = [(M_TRIM_THRESHOLD, KEPT), (M_TOP_PAD, KEPT // 4), (M_MMAP_THRESHOLD, 32 << 20)]
    if large:  # no separate mappings
        settings += [(M_TRIM_THRESHOLD, LARGE), (M_MMAP_MAX, 0)]
    accepted = [mallopt(parameter, value) == 1 for parameter, value in settings]
    return all(accepted)


def memory_limit() -> int:
    """Available memory in bytes: the machine's, or the container's limit where that is lower."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [path.read_text().strip() for path in CGROUPS if path.is_file()]
    return min([machine, *(int(text) for text in limits if text.isdecimal())])  # version 2 says "max" for no limit
