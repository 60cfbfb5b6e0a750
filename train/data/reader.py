"""Reads the bytes of samples from shards: only the members that are needed, in few system calls."""

from __future__ import annotations

import errno
import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from clearfuse.train.data.corpus import SamplePlace

OPEN = 64
"""Maximum number of shards that a process keeps open."""
GAP = 1 << 15
"""Members at most this many bytes apart are read in one system call: the bytes between cost less than another call."""


class Reader:
    """Reads members of samples; ``bytes_read`` counts bytes.

    A shard is opened on first use, and must then have the size that the index recorded.
    """

    def __init__(self, shards: Sequence[Path], sizes: Sequence[int]) -> None:
        self.shards, self.sizes, self.bytes_read = shards, sizes, 0
        self._open: OrderedDict[int, int] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict()}  # file descriptors belong to this process

    def __del__(self) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)

    def members(self, place: SamplePlace, wanted: Callable[[str], bool]) -> dict[str, bytes]:
        """The wanted members by name. Raises OSError if the shard is gone, ValueError if it has changed."""
        spans = sorted((start, size, name) for name, (start, size) in place.members.items() if wanted(name))
        members: dict[str, bytes] = {}
        while spans:
            run = [spans.pop(0)]
            while spans and spans[0][0] - sum(run[-1][:2]) <= GAP:
                run.append(spans.pop(0))
            first = run[0][0]
            data = self._read(place, first, sum(run[-1][:2]) - first)
            members |= {name: data[start - first : start - first + size] for start, size, name in run}
        return members

    def _read(self, place: SamplePlace, start: int, size: int) -> bytes:
        descriptor = self._descriptor(place.shard)
        parts: list[bytes] = []
        while size:
            data = os.pread(descriptor, size, start)
            if not data:
                raise ValueError(f"sample {place.key}: the shard is cut short")
            parts.append(data)
            start, size = start + len(data), size - len(data)
            self.bytes_read += len(data)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _descriptor(self, shard: int) -> int:
        if shard in self._open:
            self._open.move_to_end(shard)
            return self._open[shard]
        try:
            descriptor = os.open(self.shards[shard], os.O_RDONLY)
        except FileNotFoundError:
            raise OSError(errno.ENOENT, "the shard is gone since the run began") from None
        self._open[shard] = descriptor
        if os.fstat(descriptor).st_size != self.sizes[shard]:
            raise ValueError("the shard has changed since the run began: its size is another")
        if len(self._open) > OPEN:
            os.close(self._open.popitem(last=False)[1])
        return descriptor
