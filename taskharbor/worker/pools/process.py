"""``--pool process``: one job at a time, in the main thread of the child."""

from __future__ import annotations

from taskharbor.worker.attempt import Attempt, Station
from taskharbor.worker.executor import Executor
from taskharbor.worker.interrupt import Interrupter
from taskharbor.worker.prefetch import Prefetch
from taskharbor.worker.table import boot_time


class ProcessPool:
    """The hot path: what stands in ``start_waiting`` is paid once per job."""

    def __init__(self, station: Station, executor: Executor, prefetch: Prefetch) -> None:
        self._station = station
        self._executor = executor
        self._prefetch = prefetch
        self._interrupter = Interrupter(station.attempts)

    def start_waiting(self, now: float) -> float:
        station = self._station
        settler, attempts, table = station.settler, station.attempts, station.table
        run = self._executor.run
        began, jobs = now, 0
        while (held := settler.claim(now)) is not None:
            attempts[0] = attempt = Attempt(station, held, 0, now)
            settlement = run(held.reservation, attempt)
            attempts[0] = None
            settler.finish(held, settlement, urgent=attempt.urgent, settled=attempt.settled)
            table.finished(0)
            # One reading serves as this job's end and the next one's start.
            now = boot_time()
            jobs += 1
        if jobs:
            self._prefetch.ran(jobs, now - began)
        return now

    def interrupt(self, attempt: Attempt) -> None:
        self._interrupter.fire(attempt.fence)
