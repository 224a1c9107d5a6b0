"""Expired leases: the backstop for workers that died with their whole host.

Each expired lease is an attempt that ended with its worker. The decision is the same as everywhere
(``decide``), the settle applies only if the lease is *still* expired.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from taskharbor.decision import Lost, decide
from taskharbor.drivers.base import Driver
from taskharbor.lease import Guard, Reservation, Verdict
from taskharbor.maintenance.losses import Loss, losses_among
from taskharbor.maintenance.lost import policy_of, worker_lost
from taskharbor.maintenance.lulls import Lulls
from taskharbor.settlement import Settlement
from taskharbor.states import Reason
from taskharbor.worker.logs import get_logger

LOOK_SECONDS = 1.0
COURTESY_SECONDS = 1.0
"""Expired for less than this, a lease is left to those who may know that its job was never
started: the child itself when it wakes up, its supervisor when it has fallen silent."""
PAGE = 200

_log = get_logger("taskharbor.maintenance")


class Reaper:
    """Settles expired leases page by page, and tells ``losses``. Times are the process' monotonic
    clock."""

    __slots__ = ("_driver", "_holder", "_losses", "_lulls", "_rng", "look_at")

    def __init__(
        self,
        driver: Driver,
        holder: str,
        lulls: Lulls,
        rng: Random,
        losses: Callable[[list[Loss]], None],
    ) -> None:
        self._driver = driver
        self._holder = holder
        self._lulls = lulls
        self._rng = rng
        self._losses = losses
        self.look_at = 0.0

    def step(self, now: float) -> None:
        """One page, when it is time to look and no rest is going on."""
        if now < self.look_at:
            return
        self.look_at = now + LOOK_SECONDS
        if self._lulls.resting(now):
            return
        expired = self._driver.expired(PAGE)
        if not expired:
            return
        store_now = self._driver.exchange(self._holder, ()).now
        due = [job for job in expired if job.lease_expires_at + COURTESY_SECONDS <= store_now]
        self._settle(due, store_now)
        if len(due) == PAGE:
            self.look_at = now

    def _settle(self, expired: list[Reservation], store_now: float) -> None:
        if not expired:
            return
        settlements = [self._decide(job, store_now) for job in expired]
        answer = self._driver.exchange(self._holder, settlements)
        self._losses(losses_among(expired, settlements, answer.settled))
        for job, settlement, settled in zip(expired, settlements, answer.settled, strict=True):
            if settled.verdict is Verdict.APPLIED:
                _log.warning(
                    "lease expired",
                    job_id=job.id,
                    task=job.task,
                    attempt=job.attempt,
                    holder=job.holder,
                    charged=settlement.charged,
                    state=settled.state,
                )

    def _decide(self, job: Reservation, store_now: float) -> Settlement:
        lost = Lost(
            worker_lost(job, "its lease expired; the worker is dead, stopped or cut off"),
            reason=Reason.LEASE_EXPIRED,
            guard=Guard.EXPIRED,
            charge=not self._lulls.forgives(job.lease_expires_at),
        )
        return decide(job, policy_of(job), lost, now=store_now, rng=self._rng)
