"""The reserve loop: does what the planner says, and starts what it got in the pool."""

from __future__ import annotations

import os
import resource
import sys
from typing import Protocol

from taskharbor.drivers.base import Renewal
from taskharbor.errors import StoreError
from taskharbor.worker.attempt import Station
from taskharbor.worker.config import ExitCode
from taskharbor.worker.heartbeat import PATIENCE_SECONDS
from taskharbor.worker.logs import get_logger
from taskharbor.worker.planner import Ask, Leave, Planner, Reconcile, Wait
from taskharbor.worker.store_log import StoreLog
from taskharbor.worker.table import boot_time
from taskharbor.worker.verdicts import log_lost, log_refused
from taskharbor.worker.waker import Bed

_log = get_logger("taskharbor.worker.child")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Pool(Protocol):
    def start_waiting(self, now: float) -> float:
        """Start what waits while slots are free. Takes and returns boot times; a pool that runs
        jobs in this thread returns when they have ended."""
        ...


class ReserveLoop:
    def __init__(
        self, station: Station, planner: Planner, bed: Bed, pool: Pool, *, watch_memory: bool
    ) -> None:
        self._station = station
        self._planner = planner
        self._bed = bed
        self._pool = pool
        self._watch_memory = watch_memory
        self._store_log = StoreLog("exchange")

    def run(self) -> ExitCode:
        """Until the planner says to leave."""
        bed, planner, start_waiting = self._bed, self._planner, self._pool.start_waiting
        now = boot_time()
        while True:
            now = start_waiting(now)
            # Before deciding: whoever changes something from here on will nudge.
            bed.occupied = True
            step = planner.next(now, memory_bytes() if self._watch_memory else None)
            if isinstance(step, Wait):
                if bed.sleep(step.until, listen=step.listen):
                    planner.woken()
                now = boot_time()
                continue
            bed.occupied = False
            if isinstance(step, Ask):
                now = self._ask(step)
            elif isinstance(step, Reconcile):
                now = self._reconcile()
            elif isinstance(step, Leave):
                return step.code

    def _ask(self, ask: Ask) -> float:
        station = self._station
        settlements = [held.settlement for held in ask.batch if held.settlement is not None]
        sent_at = boot_time()
        try:
            reply = station.driver.exchange(station.holder, settlements, ask.want)
        except StoreError as error:
            now = boot_time()
            self._planner.unanswered(ask, now)
            self._store_log.failed(error, now)
            return now
        now = boot_time()
        station.store_ahead = reply.now - now
        self._store_log.answered(now)
        refused, more = self._planner.answered(ask, reply, sent_at=sent_at, now=now)
        if refused:
            log_refused(refused)
        if more:
            self._bed.share()
        settler = station.settler
        if settler.waiting > len(station.attempts) - settler.running:
            # The heartbeat thread watches over what waits behind others; it may not expect anything
            # soon. Jobs that start at once do so without it: waking it takes longer than they may.
            station.alarm.before(now + 2 * PATIENCE_SECONDS)
        return now

    def _reconcile(self) -> float:
        station = self._station
        try:
            listed = station.driver.held(station.holder)
            unknown = station.settler.unknown(listed)
            sent_at = boot_time()
            answers = (
                station.driver.extend(
                    station.holder,
                    [Renewal(job.id, job.fence) for job in unknown],
                    station.lease_seconds,
                )
                if unknown
                else []
            )
        except StoreError as error:
            now = boot_time()
            self._planner.reconcile_failed(now)
            self._store_log.failed(error, now)
            return now
        now = boot_time()
        self._store_log.answered(now)
        log_lost(self._planner.reconciled(listed, unknown, answers, sent_at=sent_at, now=now))
        if unknown:
            _log.info("took over jobs whose reservation had no reply", jobs=len(unknown))
            station.alarm.before(now + 2 * PATIENCE_SECONDS)
        return now


def memory_bytes() -> int:
    """What this process has in memory now; without /proc, the most it ever had."""
    try:
        with open("/proc/self/statm", "rb") as statm:
            return int(statm.read().split()[1]) * _PAGE_BYTES
    except FileNotFoundError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024
