"""Due jobs become ready: sleeps until the next one is due, or a hint says to look again.

A store that gives no hint of what was scheduled meanwhile is looked at more often.
"""

from __future__ import annotations

from math import inf

from taskharbor.drivers.base import SOON_SECONDS, Driver, Promoted

UNTOLD_SLEEP_SECONDS = 0.1
"""Without hints: how late a job may be that was scheduled meanwhile to be due earlier than the next
one known."""
BUSY_SLEEP_SECONDS = 0.02
BUSY_SECONDS = 1.0
"""The same while jobs become due: for so long after the last one did, more are likely."""
HINT_SECONDS = 0.005
"""Hints that come faster than this are answered together: each look may cost a write."""
PAGE = 1000


class Scheduler:
    """Times are the process' monotonic clock."""

    __slots__ = ("_busy_until", "_driver", "_looked_at", "_told", "look_at")

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._told = driver.capabilities.schedule_hints
        self._looked_at = 0.0
        self._busy_until = 0.0
        self.look_at = 0.0

    def hint(self) -> None:
        """Something may have been scheduled."""
        self.look_at = min(self.look_at, self._looked_at + HINT_SECONDS)

    def step(self, now: float) -> Promoted | None:
        """Promote one page when it is time to look, and set when to look again."""
        if now < self.look_at:
            return None
        promoted = self._driver.promote(PAGE)
        self._looked_at = now
        if promoted.moved:
            self._busy_until = now + BUSY_SECONDS
        self.look_at = now + min(self._longest_sleep(now), _seconds_to_next(promoted))
        return promoted

    def _longest_sleep(self, now: float) -> float:
        if self._told:
            return SOON_SECONDS
        return BUSY_SLEEP_SECONDS if now < self._busy_until else UNTOLD_SLEEP_SECONDS


def _seconds_to_next(promoted: Promoted) -> float:
    if promoted.more:
        return 0.0
    if promoted.next_due is None:
        return inf
    return max(0.0, promoted.next_due - promoted.now)
