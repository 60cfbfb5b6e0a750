"""Stopping a run: a signal ends it after the step, with a checkpoint."""

from __future__ import annotations

import signal
from contextlib import AbstractContextManager
from types import FrameType
from typing import Any


class Stop(AbstractContextManager["Stop"]):
    """SIGTERM and the first Ctrl-C let the step end; the run saves and leaves. A second Ctrl-C leaves at once."""

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self.asked: int = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        try:
            self._before = {number: signal.signal(number, self._ask) for number in self.SIGNALS}
        except ValueError:  # not the main thread: its signals are not ours
            self._before = {}
        return self

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked == signal.SIGINT == number:
            raise KeyboardInterrupt
        self.asked = number

    def raise_if_interrupted(self) -> None:
        """Ctrl-C is an interruption; SIGTERM, with all saved, is a good end."""
        if self.asked == signal.SIGINT:
            raise KeyboardInterrupt

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
