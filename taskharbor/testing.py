"""Run jobs inside a test: through the real codec, store and executor, without a worker.

    with testing.memory(app) as jobs:
        result = send_invoice.delay(7)
        jobs.drain()
        assert result.get() == "sent"

``memory`` and ``inline`` give the app an in-process memory store of its own, whose clock stands
still until the test moves it. ``drain`` runs what waits in whatever store the app has. Jobs run one
after another in the calling thread; the soft limit interrupts async tasks only, there is no hard
limit, and no worker can be lost.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from typing import Any, NamedTuple, TypeVar

from taskharbor import defaults
from taskharbor.app import TaskHarbor
from taskharbor.clock import ManualClock
from taskharbor.drivers.base import InspectableDriver, Renewal, Want
from taskharbor.drivers.registry import connect
from taskharbor.drivers.single import raise_for
from taskharbor.errors import TaskHarborError
from taskharbor.ids import new_id
from taskharbor.lease import Reservation, Verdict
from taskharbor.middleware import Enqueue, EnqueueRequest, Middleware, Stack
from taskharbor.result import AsyncResult
from taskharbor.settlement import Settlement
from taskharbor.worker.executor import Executor

T = TypeVar("T")

MAX_JOBS = 10_000
"""Attempts that one drain runs before it takes the jobs for endless."""

_LEASE_SECONDS = defaults.MAX_LEASE_SECONDS


class Ran(NamedTuple):
    """One attempt that was run, and what was decided about its job."""

    job_id: str
    task: str
    attempt: int
    settlement: Settlement


class TooManyJobs(TaskHarborError):
    """A drain that does not come to an end: jobs that enqueue, retry or snooze without limit."""


class Jobs:
    """An app on a memory store of its own, and the clock of that store."""

    def __init__(self, app: TaskHarbor, clock: ManualClock) -> None:
        self.app = app
        self.clock = clock

    def drain(self, *, max_jobs: int = MAX_JOBS) -> list[Ran]:
        """Run all that is due now, and what that enqueues; in the order it ran."""
        return drain(self.app, max_jobs=max_jobs)

    def advance(self, seconds: float) -> list[Ran]:
        """Move the clock and run what has become due: retries and scheduled jobs."""
        self.clock.advance(seconds)
        return self.drain()

    def run_all(self, *, max_jobs: int = MAX_JOBS) -> list[Ran]:
        """Run everything, also what is due later: the clock jumps from one due job to the next."""
        ran = self.drain(max_jobs=max_jobs)
        while (due := self.app.driver.promote(0).next_due) is not None:
            self.clock.advance(max(0.0, due - self.clock.now()))
            ran += self.drain(max_jobs=max_jobs - len(ran))
        return ran


@contextmanager
def memory(app: TaskHarbor) -> Iterator[Jobs]:
    """Meanwhile, ``app`` uses an empty memory store; nothing runs before ``drain()`` and the like.

    What was enqueued elsewhere stays where it is. The store is gone afterwards.
    """
    clock = ManualClock()
    driver = connect("memory://", clock=clock)
    try:
        with app.connected_to(driver):
            yield Jobs(app, clock)
    finally:
        driver.close()


@contextmanager
def inline(app: TaskHarbor, *, raise_errors: bool = False) -> Iterator[Jobs]:
    """Meanwhile, every enqueue runs its jobs at once, retries and scheduled ones included.

    Calls go through the codec, a memory store and the executor all the same, so arguments that
    can't travel are found. ``raise_errors``: the enqueue of a job that ends dead raises TaskFailed;
    otherwise ``get()`` does.
    """
    with memory(app) as jobs:
        before, app.stack = app.stack, Stack((_Inline(jobs, raise_errors), *app.middleware))
        try:
            yield jobs
        finally:
            app.stack = before


class _Inline(Middleware):
    def __init__(self, jobs: Jobs, raise_errors: bool) -> None:
        self._jobs = jobs
        self._raise_errors = raise_errors

    def around_enqueue(
        self, requests: list[EnqueueRequest], enqueue: Enqueue
    ) -> list[AsyncResult[Any]]:
        results = enqueue(requests)
        self._jobs.run_all()
        for result in results if self._raise_errors else ():
            if result.failed():
                result.get(timeout=0)
        return results


def drain(app: TaskHarbor, *, max_jobs: int = MAX_JOBS) -> list[Ran]:
    """Run all jobs of the app's store that are due now, of every queue that is not paused.

    For tests: it takes no notice of other workers of that store. Raises TooManyJobs after
    ``max_jobs`` attempts.
    """
    return _outside_of_loops(lambda: list(_drain(app, max_jobs)))


def _drain(app: TaskHarbor, max_jobs: int) -> Iterator[Ran]:
    driver, holder, executor = app.driver, new_id(), Executor(app)
    count = 0
    try:
        while (job := _reserve(driver, holder)) is not None:
            count += 1
            if count > max_jobs:
                driver.exchange(holder, [Settlement.release(job.id, job.fence)])
                raise _too_many(max_jobs)
            control = _Control(driver, holder, job)
            settlement = executor.run(job, control)
            if not control.settled:
                settled = driver.exchange(holder, [settlement]).settled[0]
                raise_for(settled.verdict, job.id, job.fence)
            yield Ran(job.id, job.task, job.attempt, settlement)
    finally:
        executor.close()


def _too_many(max_jobs: int) -> TooManyJobs:
    return TooManyJobs(
        f"after {max_jobs:,} attempts there are still jobs to run; do they enqueue, retry or "
        "snooze without end? Else give a larger max_jobs"
    )


def _reserve(driver: InspectableDriver, holder: str) -> Reservation | None:
    while driver.promote(defaults.BATCH).more:
        pass
    queues = tuple(queue.name for queue in driver.queues())
    while queues:
        got = driver.exchange(holder, (), Want(queues, 1, _LEASE_SECONDS))
        if got.reserved or not got.more:
            return got.reserved[0] if got.reserved else None
    return None


class _Control:
    """The attempt's line to the store, without anybody between."""

    def __init__(self, driver: InspectableDriver, holder: str, job: Reservation) -> None:
        self._driver = driver
        self._holder = holder
        self._job = job
        self._started = time.monotonic()
        self.deadline: float | None = None
        self.interrupt: Callable[[], None] | None = None
        self.interrupted = False
        self.urgent = False
        self.settled = False

    @property
    def cancelled(self) -> bool:
        renewal = Renewal(self._job.id, self._job.fence)
        extended = self._driver.extend(self._holder, (renewal,), _LEASE_SECONDS)[0]
        return extended.verdict is not Verdict.APPLIED or extended.cancel_requested

    def begin(self, timeout: float | None) -> None:
        self.deadline = None if timeout is None else self.now() + timeout

    def now(self) -> float:
        return self._job.reserved_at + (time.monotonic() - self._started)

    def save(self, value: bytes) -> None:
        self._write(Renewal(self._job.id, self._job.fence, saved=value))

    def progress(self, value: bytes) -> None:
        self._write(Renewal(self._job.id, self._job.fence, progress=value))

    def _write(self, renewal: Renewal) -> None:
        extended = self._driver.extend(self._holder, (renewal,), _LEASE_SECONDS)[0]
        raise_for(extended.verdict, renewal.job_id, renewal.fence)


def _outside_of_loops(call: Callable[[], T]) -> T:
    """``call()``; in a thread of its own where an event loop runs, which an async task needs."""
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        in_loop = False
    else:
        in_loop = True
    if not in_loop:
        return call()
    with ThreadPoolExecutor(1, "taskharbor-testing") as pool:
        return pool.submit(copy_context().run, call).result()
