"""Many coroutines waiting for results, few threads waiting for the store.

A thread asks the store for every job that no other thread has in hand, in one ``wait_results``, and
puts back those that are not over. A question can't be interrupted, so when all threads are busy the
last one asks short ones, until a long one has ended and left its jobs to it. A new wait is
therefore in the store's hands within ``SHORT_SECONDS``, and the short questions end soon.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from taskharbor import defaults

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from taskharbor.drivers.base import InspectableDriver, Outcome

T = TypeVar("T")

THREADS = 4
LONG_SECONDS = 1.0
SHORT_SECONDS = 0.05


class Wait:
    """One coroutine's wait for one job."""

    __slots__ = ("_future", "_loop", "job_id")

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[Outcome | None] = self._loop.create_future()

    async def outcome(self, seconds: float | None) -> Outcome | None:
        async with asyncio.timeout(seconds):
            return await self._future

    @property
    def over(self) -> bool:
        return self._future.done()

    def tell(self, outcome: Outcome | None) -> None:
        self._from_thread(self._future.set_result, outcome)

    def fail(self, error: Exception) -> None:
        self._from_thread(self._future.set_exception, error)

    def _from_thread(self, end: Callable[[T], None], how: T) -> None:
        def unless_over() -> None:
            if not self.over:
                end(how)

        try:
            self._loop.call_soon_threadsafe(unless_over)
        except RuntimeError:
            pass  # the loop is closed, and with it whoever waited


class Waits:
    """The waits of one app in one process."""

    def __init__(self, driver: Callable[[], InspectableDriver]) -> None:
        self._driver = driver
        self._lock = threading.Lock()
        self._unasked: list[Wait] = []
        self._busy = 0
        self._closed = False
        self._pool: ThreadPoolExecutor | None = None

    async def wait(self, job_id: str, seconds: float | None) -> Outcome | None:
        """How the job stands when it is over; None when it is gone, or after ``seconds``."""
        wait = Wait(job_id)
        self._add(wait)
        try:
            return await wait.outcome(seconds)
        except TimeoutError:
            return None

    def close(self) -> None:
        """No more questions; every wait ends as if its time were over."""
        with self._lock:
            self._closed = True
            waiting, self._unasked = self._unasked, []
        for wait in waiting:
            wait.tell(None)
        if self._pool is not None:
            self._pool.shutdown(wait=False)

    def _add(self, wait: Wait) -> None:
        with self._lock:
            self._unasked.append(wait)
            if self._busy == THREADS:
                return  # the one that asks short questions takes it
            self._busy += 1
            if self._pool is None:
                from concurrent.futures import ThreadPoolExecutor

                self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="taskharbor-wait")
            self._pool.submit(self._ask)

    def _ask(self) -> None:
        while asked := self._take():
            short = self._busy == THREADS
            self._put_back(self._question(asked, SHORT_SECONDS if short else LONG_SECONDS))
            if not short and self._leave_if_all_are_busy():
                return

    def _take(self) -> list[Wait]:
        """The next question's jobs; none: this thread ends."""
        with self._lock:
            waiting = [wait for wait in self._unasked if not wait.over]
            asked, self._unasked = waiting[: defaults.BATCH], waiting[defaults.BATCH :]
            if not asked:
                self._busy -= 1
            return asked

    def _question(self, asked: Sequence[Wait], seconds: float) -> list[Wait]:
        """Those of ``asked`` whose jobs are not over within ``seconds``."""
        try:
            outcomes = self._driver().wait_results([wait.job_id for wait in asked], seconds)
        except Exception as error:  # noqa: BLE001 - it is for those who wait
            for wait in asked:
                wait.fail(error)
            return []
        rest = []
        for wait, outcome in zip(asked, outcomes, strict=True):
            if outcome is None or outcome.state.terminal:
                wait.tell(outcome)
            else:
                rest.append(wait)
        return rest

    def _put_back(self, rest: list[Wait]) -> None:
        with self._lock:
            if not self._closed:
                self._unasked += rest
                return
        for wait in rest:
            wait.tell(None)

    def _leave_if_all_are_busy(self) -> bool:
        with self._lock:
            if self._busy < THREADS:
                return False
            self._busy -= 1
            return True
