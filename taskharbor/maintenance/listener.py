"""Hints from the store, handed to whoever sleeps: that a job may be ready, that one is due soon.

One thread per worker listens for all its children, and one of the leader for itself. A store may
answer "now" as long as a job is ready, so while every child is busy the thread must slow down by
itself.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from random import Random

from taskharbor.drivers.base import SCHEDULE, Driver
from taskharbor.errors import StoreError
from taskharbor.worker.logs import get_logger
from taskharbor.worker.restarts import Restarts

WAIT_SECONDS = 0.5
"""One call of the driver's wait; the thread looks at its orders in between."""
FIRST_PAUSE_SECONDS = 0.002
"""After a hint: time for the child that was woken to take the job, or the same hint comes again."""
MAX_PAUSE_SECONDS = 0.05
AT_ONCE_SECONDS = 0.0005
"""An answer that comes sooner is what the store saw when it was asked, not something new."""

_log = get_logger("taskharbor.maintenance")


class Listener:
    """A thread that calls ``hint`` when a job may be ready. ``busy`` says that the last hint was
    not taken yet."""

    def __init__(
        self,
        driver: Driver,
        queues: Sequence[str],
        *,
        hint: Callable[[], None],
        busy: Callable[[], bool],
        rng: Random,
    ) -> None:
        self._driver = driver
        self._queues = tuple(queues)
        self._hint = hint
        self._busy = busy
        self._restarts = Restarts(rng)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="listener", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end, within ``WAIT_SECONDS``."""
        self._stop.set()

    def join(self, seconds: float) -> bool:
        """Whether the thread has ended."""
        if self._thread.ident is not None:
            self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        pause, hinted_at = FIRST_PAUSE_SECONDS, -math.inf
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                self._driver.wait(self._queues, WAIT_SECONDS)
                self._restarts.lives()
            except StoreError as error:
                # The main loop reports the outage; here one line per try would be noise.
                _log.debug("listening failed", error=str(error))
                self._stop.wait(self._restarts.died(early=True) or FIRST_PAUSE_SECONDS)
                continue
            now = time.monotonic()
            if now - began >= WAIT_SECONDS:
                continue
            busy = self._busy()
            pause = min(2 * pause, MAX_PAUSE_SECONDS) if busy else FIRST_PAUSE_SECONDS
            left = hinted_at + pause - now
            if left > 0 and (busy or now - began < AT_ONCE_SECONDS):
                self._stop.wait(left)
                if busy:
                    continue  # whoever takes the last hint finds this job as well
            # Late, but never dropped: not every store says a second time what it said.
            self._hint()
            hinted_at = time.monotonic()


class ScheduleListener:
    """Listens for what is scheduled while this process leads: the others would only take its hints
    away. Does nothing on a store that gives none."""

    def __init__(self, *, hint: Callable[[], None], rng: Random) -> None:
        self._hint = hint
        self._rng = rng
        self._listener: Listener | None = None
        self._stopped: list[Listener] = []

    def follow(self, driver: Driver | None, *, leads: bool) -> None:
        """To be called after each look at who leads."""
        if leads and self._listener is None and driver is not None:
            if driver.capabilities.schedule_hints:
                self._listener = Listener(
                    driver, (SCHEDULE,), hint=self._hint, busy=lambda: False, rng=self._rng
                )
                self._listener.start()
        elif not leads:
            self.stop()

    def stop(self) -> None:
        """Ask the thread to end, within ``WAIT_SECONDS``."""
        if self._listener is not None:
            self._listener.stop()
            self._stopped = [one for one in self._stopped if not one.join(0)]
            self._stopped.append(self._listener)
            self._listener = None

    def join(self, seconds: float) -> bool:
        """Whether all threads have ended."""
        self._stopped = [one for one in self._stopped if not one.join(seconds)]
        return not self._stopped
