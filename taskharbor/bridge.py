"""The synchronous store seen from async code: through a bounded number of threads.

Quick calls (an enqueue) and waits (for results) have threads of their own, so that waits can't hold
up an enqueue. Nothing is started before it is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from taskharbor.app import TaskHarbor
    from taskharbor.drivers.base import Outcome
    from taskharbor.waits import Waits

P = ParamSpec("P")
T = TypeVar("T")

_CALL_THREADS = 8


class Bridge:
    """The threads of one app in one process."""

    def __init__(self) -> None:
        self._calls: ThreadPoolExecutor | None = None
        self._waits: Waits | None = None

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """``function(...)`` in a thread, with the caller's context variables."""
        import asyncio

        if self._calls is None:
            from concurrent.futures import ThreadPoolExecutor

            self._calls = ThreadPoolExecutor(_CALL_THREADS, thread_name_prefix="taskharbor-call")
        call = partial(copy_context().run, partial(function, *args, **kwargs))
        return await asyncio.get_running_loop().run_in_executor(self._calls, call)

    async def wait(self, app: TaskHarbor, job_id: str, seconds: float | None) -> Outcome | None:
        """How the job stands when it is over or gone (None), or after ``seconds``."""
        if self._waits is None:
            from taskharbor.waits import Waits

            self._waits = Waits(lambda: app.driver)
        outcome = await self._waits.wait(job_id, seconds)
        if outcome is not None:
            return outcome
        return (await self.call(app.driver.results, (job_id,)))[0]

    def close(self) -> None:
        """Let the threads end. Calls that run now finish first; waits end within a second."""
        if self._calls is not None:
            self._calls.shutdown(wait=False)
        if self._waits is not None:
            self._waits.close()
        self._calls = self._waits = None
