"""Records past their retention are deleted, a page at a time in between the urgent work."""

from __future__ import annotations

from taskharbor.drivers.base import Driver

LOOK_SECONDS = 5.0
NEXT_PAGE_SECONDS = 0.05
"""Between two pages: a long backlog must not hold the store's write lock all the time."""
PAGE = 500


class Pruner:
    """Times are the process' monotonic clock."""

    __slots__ = ("_driver", "look_at")

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self.look_at = 0.0

    def step(self, now: float) -> None:
        if now < self.look_at:
            return
        pruned = self._driver.prune(PAGE)
        self.look_at = now + (NEXT_PAGE_SECONDS if pruned >= PAGE else LOOK_SECONDS)
