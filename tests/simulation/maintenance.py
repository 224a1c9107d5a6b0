"""Maintenance on virtual time: promotes what is due, reaps what ran out, settles the lost.

It does without the looks that can't find anything: time alone makes a job due or a lease run out,
and the store knows when. What it does find, it finds as late as the real one does.
"""

from __future__ import annotations

from math import inf

from taskharbor.decision import Lost, decide
from taskharbor.drivers.base import SOON_SECONDS
from taskharbor.errors import StoreUnavailable
from taskharbor.lease import Guard, Reservation
from taskharbor.maintenance.lost import LostChild, policy_of, settle_lost
from taskharbor.maintenance.reaper import LOOK_SECONDS
from taskharbor.settlement import Settlement
from taskharbor.states import Reason
from tests.simulation.child import LEASE_SECONDS
from tests.simulation.jobs import Checker
from tests.simulation.scheduler import Scheduler, Steps
from tests.simulation.store import WatchedStore

RETRY_SECONDS = 0.3
HINTS_TAKEN = 0.8
"""Of the hints that something was scheduled; without, it is found ``SOON_SECONDS`` late at most."""


class SimulatedMaintenance:
    def __init__(self, scheduler: Scheduler, store: WatchedStore, checker: Checker) -> None:
        self._scheduler = scheduler
        self._rng = scheduler.rng
        self._store = store
        self._checker = checker
        self._promote_at = inf
        self._reap_at = inf
        self._asleep = False
        self._actor = scheduler.spawn(self._maintain())

    def scheduled(self, due_at: float) -> None:
        """A job is going to be due then, by the store's clock."""
        late = 0.0 if self._rng.random() < HINTS_TAKEN else SOON_SECONDS * self._rng.random()
        at = self._scheduler.boot_time(due_at) + late
        if at < self._promote_at:
            self._promote_at = at
            if self._asleep:
                self._scheduler.wake(self._actor, min(at, self._reap_at))

    def _maintain(self) -> Steps:
        scheduler = self._scheduler
        while True:
            self._reap_at = self._next_look()
            self._asleep = self._actor.quiet = True
            yield min(self._promote_at, self._reap_at)
            self._asleep = False
            try:
                if scheduler.now >= self._promote_at:
                    yield from self._promote()
                if scheduler.now >= self._reap_at:
                    yield from self._reap()
            except StoreUnavailable:
                yield scheduler.now + RETRY_SECONDS

    def _next_look(self) -> float:
        """When to look for expired leases: no lease to come can run out before those there are."""
        now = self._scheduler.now
        first = self._store.jobs.leases.first()
        over = now + LEASE_SECONDS if first is None else self._scheduler.boot_time(first[0])
        return max(now, over) + LOOK_SECONDS * self._rng.random()

    def _promote(self) -> Steps:
        store, scheduler = self._store, self._scheduler
        self._promote_at = inf  # but for what is scheduled while the request is on its way
        try:
            promoted = yield lambda: store.promote(scheduler.store_now, 100)
        except StoreUnavailable:
            self._promote_at = scheduler.now
            raise
        if promoted.next_due is not None:
            self._promote_at = min(self._promote_at, scheduler.boot_time(promoted.next_due))

    def _reap(self) -> Steps:
        store, scheduler = self._store, self._scheduler
        expired = yield lambda: store.expired(scheduler.store_now, 100)
        yield from self._settle([self._decide(job) for job in expired])

    def _decide(self, job: Reservation) -> Settlement:
        lost = Lost(None, Reason.LEASE_EXPIRED, guard=Guard.EXPIRED)
        now = self._scheduler.store_now
        return decide(job, policy_of(job), lost, now=now, rng=self._rng)

    def retire(self, child: LostChild) -> Steps:
        """Until the store has taken note that the child is gone, and what it held is settled."""
        store, scheduler = self._store, self._scheduler
        while True:
            try:
                held = yield lambda: store.retire(scheduler.store_now, child.holder)
                if not held:
                    return
                now = scheduler.store_now
                yield from self._settle(settle_lost(child, held, now=now, rng=self._rng))
            except StoreUnavailable:
                yield scheduler.now + RETRY_SECONDS

    def _settle(self, settlements: list[Settlement]) -> Steps:
        def apply() -> None:
            now = self._scheduler.store_now
            answers = self._store.exchange(now, "maintenance", settlements, None).settled
            self._checker.settled(settlements, answers)

        if settlements:
            yield apply
