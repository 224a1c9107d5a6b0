"""How long, and in what steps, to wait for the write lock.

SQLite's own busy handler waits 1, 2, 5, … 100 ms. Our transactions take one millisecond or less, so
shorter steps find the lock free sooner, and random ones keep two workers from meeting again.
"""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable
from typing import TypeVar

from taskharbor.drivers.sqlite import faults

T = TypeVar("T")

FIRST_STEP_SECONDS = 0.0001
LONGEST_STEP_SECONDS = 0.001


class Patience:
    """Waits in growing steps, ``seconds`` in all."""

    __slots__ = ("_deadline", "_rng", "_seconds", "_step")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._deadline: float | None = None
        self._step = FIRST_STEP_SECONDS
        self._rng = random.random

    def pause(self) -> bool:
        """Wait for a step; False, at once, when the time is over."""
        now = time.monotonic()
        if self._deadline is None:
            self._deadline = now + self._seconds
        if now >= self._deadline:
            return False
        time.sleep(self._step * (0.5 + self._rng()))
        self._step = min(self._step * 1.5, LONGEST_STEP_SECONDS)
        return True

    def retry(self, call: Callable[[], T]) -> T:
        """Call until it is not refused as busy. Raises what it raised last."""
        while True:
            try:
                return call()
            except sqlite3.OperationalError as error:
                if not (faults.is_busy(error) and self.pause()):
                    raise
