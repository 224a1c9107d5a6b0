"""The heartbeat thread: does what the heartbeat machine says, on its own connection."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from taskharbor.drivers.base import Renewal
from taskharbor.errors import StoreError
from taskharbor.worker.attempt import Attempt, Station
from taskharbor.worker.config import ExitCode
from taskharbor.worker.heartbeat import Heartbeat
from taskharbor.worker.logs import get_logger
from taskharbor.worker.settler import Settler
from taskharbor.worker.shutdown import Shutdown
from taskharbor.worker.store_log import StoreLog
from taskharbor.worker.table import boot_time
from taskharbor.worker.verdicts import log_lost, log_refused
from taskharbor.worker.vital import vital_thread
from taskharbor.worker.waker import Alarm, Bed

_log = get_logger("taskharbor.worker.child")


class Pulse:
    """``interrupt`` delivers a soft limit to an attempt, in the way of the pool. ``parent``: the
    pid without which the child must not live."""

    def __init__(
        self,
        station: Station,
        heartbeat: Heartbeat,
        shutdown: Shutdown,
        bed: Bed,
        interrupt: Callable[[Attempt], None],
        *,
        parent: int,
    ) -> None:
        self._station = station
        self._settler: Settler = station.settler
        self._alarm: Alarm = station.alarm
        self._heartbeat = heartbeat
        self._shutdown = shutdown
        self._bed = bed
        self._interrupt = interrupt
        self._parent = parent
        self._stopped = False
        self._store_log = StoreLog("heartbeat")
        self._thread = vital_thread(self._run, "taskharbor-heartbeat")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Returns when the thread has ended."""
        self._stopped = True
        self._alarm.look_again()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped:
            self._once()

    def _once(self) -> None:
        now = boot_time()
        self._enforce_limits(now)
        duties = self._heartbeat.duties(now)
        if duties.beat:
            self._beat(now)
        if duties.renew:
            self._renew()
        if duties.hand_back:
            self._settler.hand_back()
        if duties.flush:
            self._flush()
        if self._shutdown.leaving:
            self._leave()
        self._sleep()

    def _enforce_limits(self, now: float) -> None:
        attempts = self._station.running()
        for attempt in self._heartbeat.to_interrupt(now, attempts):
            attempt.interrupted = True
            self._interrupt(attempt)
        if self._heartbeat.overdue(now, attempts):
            _log.error("a job passed its hard limit; the child ends itself")
            os._exit(ExitCode.HARD_LIMIT)

    def _beat(self, now: float) -> None:
        self._station.table.beat(now)
        if os.getppid() != self._parent:
            self._shutdown.leave(ExitCode.ORPHANED)

    def _renew(self) -> None:
        station = self._station
        leases = self._settler.leases()
        sent_at = boot_time()
        if leases:
            renewals = [Renewal(job.id, job.fence) for job in (x.reservation for x in leases)]
            try:
                answers = station.driver.extend(station.holder, renewals, station.lease_seconds)
            except StoreError as error:
                self._failed(error)
                return
            log_lost(self._settler.renewed(leases, answers, sent_at + station.lease_seconds))
        self._answered()
        self._heartbeat.renewed(sent_at)

    def _flush(self) -> None:
        batch = self._settler.take_unless_urgent()
        if not batch:
            return
        settlements = [held.settlement for held in batch if held.settlement is not None]
        try:
            reply = self._station.driver.exchange(self._station.holder, settlements)
        except StoreError as error:
            self._settler.unanswered(batch)
            self._failed(error)
        else:
            log_refused(self._settler.answered(batch, reply.settled))
            self._answered()
            self._heartbeat.flushed()
        self._bed.nudge()

    def _failed(self, error: StoreError) -> None:
        now = boot_time()
        self._heartbeat.failed(now)
        self._store_log.failed(error, now)

    def _answered(self) -> None:
        self._store_log.answered(boot_time())

    def _leave(self) -> None:
        """At once: what waited is handed back by now, or the store is away. What runs is handed
        back by the supervisor, who waits for this process to be gone first."""
        os._exit(self._shutdown.exit_code(running=self._settler.running))

    def _sleep(self) -> None:
        self._alarm.deciding()
        until = self._heartbeat.wake_at(boot_time(), self._station.running())
        for number in self._alarm.sleep(until):
            if number == signal.SIGTERM:
                self._shutdown.stop()
            elif number == signal.SIGQUIT:
                self._shutdown.leave()
            else:
                continue
            self._bed.nudge()
