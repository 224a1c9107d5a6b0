"""``--pool thread``: N threads of the child, for tasks that wait more than they compute.

The soft limit is cooperative here (``current_job().check()``): Python has no
way to raise into a thread only where its task's code runs. The hard limit ends the whole child.
"""

from __future__ import annotations

from functools import partial
from queue import SimpleQueue

from taskharbor.worker.attempt import Attempt, Station
from taskharbor.worker.executor import Executor
from taskharbor.worker.held import Held
from taskharbor.worker.prefetch import Prefetch
from taskharbor.worker.settler import unstarted
from taskharbor.worker.table import boot_time
from taskharbor.worker.vital import vital_thread
from taskharbor.worker.waker import Bed


class ThreadPool:
    def __init__(
        self, station: Station, executor: Executor, prefetch: Prefetch, bed: Bed, *, slots: int
    ) -> None:
        self._station = station
        self._executor = executor
        self._prefetch = prefetch
        self._bed = bed
        self._slots = slots
        self._claimed: SimpleQueue[Held] = SimpleQueue()
        for slot in range(slots):
            vital_thread(partial(self._serve, slot), f"taskharbor-slot-{slot}").start()

    def start_waiting(self, now: float) -> float:
        settler = self._station.settler
        while settler.running < self._slots and (held := settler.claim(now)) is not None:
            self._claimed.put(held)
        return now

    def interrupt(self, attempt: Attempt) -> None:
        """The task finds out when it looks."""

    def _serve(self, slot: int) -> None:
        while True:
            self._run(self._claimed.get(), slot)

    def _run(self, held: Held, slot: int) -> None:
        station = self._station
        now = boot_time()
        if held.deadline <= now:  # suspended between claim and here
            station.settler.finish(held, unstarted(held))
        else:
            attempt = station.attempts[slot] = Attempt(station, held, slot, now)
            settlement = self._executor.run(held.reservation, attempt)
            station.attempts[slot] = None
            station.settler.finish(held, settlement, urgent=attempt.urgent, settled=attempt.settled)
            station.table.finished(slot)
            self._prefetch.ran(1, boot_time() - now)
        self._bed.nudge()
