"""Records past their retention are deleted, a page at a time in between the urgent work."""

from __future__ import annotations

import time

from taskharbor.drivers.base import Driver

LOOK_SECONDS = 5.0
REST_SECONDS = 0.005, 1.0
"""Between two pages, at least and at most; else as long as the page took, so that a long backlog
leaves half of the time to others on a store with one lock for all who write."""
PAGE = 500
MOST_PAGE = 5000
PAGE_SECONDS = 0.05
"""Where long calls hold up nobody, pages grow up to this time while there is more to prune than one
of them: as fast as 30 000 jobs a second are run, their records must go."""


class Pruner:
    """Times are the process' monotonic clock."""

    __slots__ = ("_driver", "_page", "look_at")

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._page = PAGE
        self.look_at = 0.0

    def step(self, now: float) -> None:
        if now < self.look_at:
            return
        began = time.monotonic()
        # Small again where the call fails: one that grew may have met the server's own time limit.
        page, self._page = self._page, PAGE
        pruned = self._driver.prune(page)
        took = time.monotonic() - began
        least, most = REST_SECONDS
        if pruned < page:
            rest = LOOK_SECONDS
        elif self._driver.capabilities.row_locks:
            rest, self._page = least, _next_page(page, took)
        else:
            rest = min(max(took, least), most)
        self.look_at = now + took + rest


def _next_page(page: int, took: float) -> int:
    if took > 2 * PAGE_SECONDS:
        return max(PAGE, page // 2)
    return min(MOST_PAGE, 2 * page) if took < PAGE_SECONDS else page
