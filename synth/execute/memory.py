"""Available memory."""

from __future__ import annotations

import os
from pathlib import Path

CGROUPS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Files with a container's limit: control groups, version 2 and 1."""


def memory_limit() -> int:
    """Available memory in bytes: the machine's, or the container's limit where that is lower."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [path.read_text().strip() for path in CGROUPS if path.is_file()]
    return min([machine, *(int(text) for text in limits if text.isdecimal())])  # version 2 says "max" for no limit
