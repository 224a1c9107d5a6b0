"""Due jobs become ready: sleeps until the next one is due, or a hint says to look again."""

from __future__ import annotations

from math import inf

from taskharbor.drivers.base import Driver, Promoted

LONGEST_SLEEP_SECONDS = 0.1
"""How late a job may be that was scheduled meanwhile to be due earlier than the next one known:
stores give no hint of those."""
BUSY_SLEEP_SECONDS = 0.02
BUSY_SECONDS = 1.0
"""The same while jobs become due: for so long after the last one did, more are likely."""
HINT_SECONDS = 0.005
"""Hints that come faster than this are answered together: each look may cost a write."""
PAGE = 1000


class Scheduler:
    """Times are the process' monotonic clock."""

    __slots__ = ("_busy_until", "_driver", "_looked_at", "look_at")

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
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
        longest = BUSY_SLEEP_SECONDS if now < self._busy_until else LONGEST_SLEEP_SECONDS
        self.look_at = now + min(longest, _seconds_to_next(promoted))
        return promoted


def _seconds_to_next(promoted: Promoted) -> float:
    if promoted.more:
        return 0.0
    if promoted.next_due is None:
        return inf
    return max(0.0, promoted.next_due - promoted.now)
