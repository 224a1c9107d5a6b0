"""An event loop for each thread that runs async tasks one by one.

A loop is kept from job to job, so that clients bound to it live as long. One that a task has
stopped is closed, and the thread's next job gets a new one.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Coroutine
from contextvars import copy_context
from typing import Any, TypeVar

T = TypeVar("T")

logger = logging.getLogger(__name__)


class EventLoops:
    def __init__(self) -> None:
        self._here = threading.local()
        self._runners: list[asyncio.Runner] = []

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run it in this thread's loop, in a context of its own.

        Raises what it raises, and SystemExit or KeyboardInterrupt out of any asyncio task that it
        started: asyncio stops the loop then, and leaves everything else in it hanging.
        """
        runner = self._runner()
        try:
            # Not Runner.run(): looking after SIGINT doubles what a short attempt costs, and a
            # worker's child ignores it.
            loop = runner.get_loop()
            return loop.run_until_complete(loop.create_task(coroutine, context=copy_context()))
        except BaseException:
            self._discard(runner)
            raise

    def _runner(self) -> asyncio.Runner:
        runner: asyncio.Runner | None = getattr(self._here, "runner", None)
        if runner is None:
            runner = self._here.runner = asyncio.Runner()
            self._runners.append(runner)
        return runner

    def _discard(self, runner: asyncio.Runner) -> None:
        del self._here.runner
        self._runners.remove(runner)
        try:
            runner.close()
        except BaseException:  # what the loop still held raised the same again
            logger.warning("an event loop that a task had stopped did not close", exc_info=True)

    def close(self) -> None:
        """End the loops of all threads, none of which may be in use."""
        for runner in self._runners:
            runner.close()
        self._runners.clear()
        self._here = threading.local()
