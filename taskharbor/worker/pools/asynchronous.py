"""``--pool async``: N jobs at once in the event loop of the child's main thread.

The reserve loop, whose driver calls block, runs in a thread beside it. The executor enforces the
soft limit from within the loop; code that never awaits runs into the hard limit, which ends the
whole child.
"""

from __future__ import annotations

import asyncio
import os

from taskharbor.worker.attempt import Attempt, Station
from taskharbor.worker.config import ExitCode
from taskharbor.worker.executor import Executor
from taskharbor.worker.held import Held
from taskharbor.worker.logs import get_logger
from taskharbor.worker.prefetch import Prefetch
from taskharbor.worker.reserving import ReserveLoop
from taskharbor.worker.settler import unstarted
from taskharbor.worker.table import boot_time
from taskharbor.worker.vital import vital_thread
from taskharbor.worker.waker import Bed

_log = get_logger("taskharbor.worker.child")


class AsyncPool:
    def __init__(
        self, station: Station, executor: Executor, prefetch: Prefetch, bed: Bed, *, slots: int
    ) -> None:
        self._station = station
        self._executor = executor
        self._prefetch = prefetch
        self._bed = bed
        self._slots = slots
        self._free = list(range(slots))
        # The event loop itself keeps only weak references to its tasks.
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()

    def run(self, reserve: ReserveLoop) -> ExitCode:
        """The child's life, in the main thread: ends when the reserve loop does."""
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            return runner.run(self._live(reserve))

    async def _live(self, reserve: ReserveLoop) -> ExitCode:
        ended: asyncio.Future[ExitCode] = self._loop.create_future()

        def run_reserve_loop() -> None:
            code = reserve.run()
            if self._station.settler.running:
                # Told to leave at once. To cancel the jobs' tasks would let them run on.
                os._exit(code)
            self._loop.call_soon_threadsafe(ended.set_result, code)

        vital_thread(run_reserve_loop, "taskharbor-reserve").start()
        return await ended

    def start_waiting(self, now: float) -> float:
        settler = self._station.settler
        claimed: list[Held] = []
        while settler.running < self._slots and (held := settler.claim(now)) is not None:
            claimed.append(held)
        if claimed:
            self._loop.call_soon_threadsafe(self._start, claimed)
        return now

    def interrupt(self, attempt: Attempt) -> None:
        """Nothing to do: the loop has a timer for each attempt."""

    # --- in the event loop's thread -----------------------------------------------------------

    def _start(self, claimed: list[Held]) -> None:
        for held in claimed:
            task = self._loop.create_task(self._run(held, self._free.pop()))
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # Its slot is lost, and its lease would be renewed for ever.
            _log.error("a slot of the child failed; the child ends", exc_info=error)
            os._exit(ExitCode.INTERNAL)

    async def _run(self, held: Held, slot: int) -> None:
        station = self._station
        now = boot_time()
        if held.deadline <= now:  # suspended, or the loop was blocked, between claim and here
            station.settler.finish(held, unstarted(held))
        else:
            attempt = station.attempts[slot] = Attempt(station, held, slot, now)
            try:
                settlement = await self._executor.run_async(held.reservation, attempt)
            except asyncio.CancelledError as error:
                # Nobody here cancels this asyncio task, so the job's own code did.
                settlement = self._executor.settle_error(held.reservation, error)
            station.attempts[slot] = None
            station.settler.finish(held, settlement, urgent=attempt.urgent, settled=attempt.settled)
            station.table.finished(slot)
            self._prefetch.ran(1, boot_time() - now)
        self._free.append(slot)
        self._bed.nudge()
