"""The synchronous store seen from async code: through a bounded number of threads.

Quick calls (an enqueue) and waits (for a result) have threads of their own, so that many waits
can't hold up an enqueue. Nothing is started before it is needed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from taskharbor.app import TaskHarbor
    from taskharbor.drivers.base import Outcome

P = ParamSpec("P")
T = TypeVar("T")

_CALL_THREADS = 8
_WAIT_THREADS = 8
_SLICE_SECONDS = 1.0
"""A wait holds its thread no longer than this, so that more waits than threads take turns, and a
cancelled one leaves nothing behind for long."""


class Bridge:
    """The threads of one app in one process."""

    def __init__(self) -> None:
        self._calls: ThreadPoolExecutor | None = None
        self._waits: ThreadPoolExecutor | None = None

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """``function(...)`` in a thread, with the caller's context variables."""
        if self._calls is None:
            self._calls = _pool(_CALL_THREADS, "taskharbor-call")
        return await _run(self._calls, partial(function, *args, **kwargs))

    async def wait(self, app: TaskHarbor, job_id: str, seconds: float | None) -> Outcome:
        """How the job stands when it is over, or after ``seconds``. Raises JobNotFound."""
        from taskharbor.result import not_found

        if self._waits is None:
            self._waits = _pool(_WAIT_THREADS, "taskharbor-wait")
        ends = None if seconds is None else time.monotonic() + seconds
        while True:
            left = _SLICE_SECONDS if ends is None else ends - time.monotonic()
            look = partial(_look, app, job_id, min(max(left, 0.0), _SLICE_SECONDS))
            found = await _run(self._waits, look)
            if found is None:
                raise not_found(job_id)
            if found.state.terminal or left <= 0:
                return found

    def close(self) -> None:
        """Let the threads end. Calls that run now finish first."""
        for pool in (self._calls, self._waits):
            if pool is not None:
                pool.shutdown(wait=False)
        self._calls = self._waits = None


def _look(app: TaskHarbor, job_id: str, seconds: float) -> Outcome | None:
    return app.driver.wait_results((job_id,), seconds)[0]


def _pool(threads: int, name: str) -> ThreadPoolExecutor:
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor(threads, thread_name_prefix=name)


async def _run(pool: ThreadPoolExecutor, call: Callable[[], T]) -> T:
    import asyncio

    return await asyncio.get_running_loop().run_in_executor(pool, copy_context().run, call)
