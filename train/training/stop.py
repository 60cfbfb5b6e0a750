"""Graceful stopping: a signal ends a run after the current step, with a checkpoint."""

from __future__ import annotations

import signal
from contextlib import AbstractContextManager
from types import FrameType
from typing import Any


class Stop(AbstractContextManager["Stop"]):
    """Context: SIGTERM or Ctrl-C sets ``requested``, so that the run can end after the step; a second Ctrl-C ends at
    once.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self.requested: int = 0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        try:
            self._previous = {number: signal.signal(number, self._request) for number in self.SIGNALS}
        except ValueError:  # only the main thread can handle signals
            self._previous = {}
        return self

    def _request(self, number: int, frame: FrameType | None) -> None:
        if self.requested == signal.SIGINT == number:
            raise KeyboardInterrupt
        self.requested = number

    def raise_if_interrupted(self) -> None:
        """Raise KeyboardInterrupt after Ctrl-C; SIGTERM, with everything saved, is a normal end."""
        if self.requested == signal.SIGINT:
            raise KeyboardInterrupt

    def __exit__(self, *error: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
