"""Time as an argument: what a store or a worker reads, and what a test turns by hand."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Seconds since the Unix epoch."""

    def now(self) -> float: ...


class SystemClock:
    """The wall clock of this machine."""

    __slots__ = ()

    def now(self) -> float:
        return time.time()


class ManualClock:
    """A clock that stands still until it is told to move. For tests and simulations."""

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self._now = start

    def now(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        """Move by ``seconds``; negative steps simulate a clock that jumps back."""
        self._now += seconds
