"""Records past their retention are deleted, a page at a time in between the urgent work."""

from __future__ import annotations

import time

from taskharbor.drivers.base import Driver

LOOK_SECONDS = 5.0
REST_SECONDS = 0.005, 1.0
"""Between two pages, at least and at most; else as long as the page took, so that a long backlog
leaves half of the time to others on a store with one lock for all who write."""
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
        began = time.monotonic()
        pruned = self._driver.prune(PAGE)
        took = time.monotonic() - began
        least, most = REST_SECONDS
        rest = min(max(took, least), most) if pruned >= PAGE else LOOK_SECONDS
        self.look_at = now + took + rest
