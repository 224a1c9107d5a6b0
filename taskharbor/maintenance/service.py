"""The work of one maintenance process, as a step that does what is due and says when the next is.

In the order of urgency: what lost children held, leases of children that fell silent, due jobs,
expired leases, old records. Each step does one bounded page of each, so that nothing waits long
behind anything. The store being away is a state, not an end: every duty keeps what it has to do
and goes on when the store is back.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from taskharbor.decision import Lost, decide
from taskharbor.drivers.base import Examinable, InspectableDriver, Renewal, Scripted
from taskharbor.drivers.registry import connect
from taskharbor.errors import ConfigurationError, SchemaMismatch, StoreError, StoreUnavailable
from taskharbor.ids import new_id
from taskharbor.lease import Guard, Reservation, Verdict
from taskharbor.maintenance.leader import Leader
from taskharbor.maintenance.losses import Loss, losses_among
from taskharbor.maintenance.lost import LostChild, policy_of, settle_lost
from taskharbor.maintenance.lulls import Lulls
from taskharbor.maintenance.pruner import Pruner
from taskharbor.maintenance.reaper import Reaper
from taskharbor.maintenance.scheduler import Scheduler
from taskharbor.settlement import Settlement
from taskharbor.states import Reason
from taskharbor.worker.logs import get_logger
from taskharbor.worker.restarts import Restarts

FIRST_RETRY_SECONDS = 0.01
SCHEMA_SECONDS = 5.0
"""How often to look whether a newer TaskHarbor has migrated the store."""

_log = get_logger("taskharbor.maintenance")


@dataclass(frozen=True, slots=True)
class Silent:
    """A child without a heartbeat. ``leases`` (job id, fence) of its started jobs; ``renew``
    False: the process is stopped, its leases are to run out."""

    holder: str
    leases: tuple[tuple[str, int], ...]
    renew: bool


@dataclass(frozen=True, slots=True)
class Listeners:
    """Whom the service tells what it did."""

    promoted: Callable[[], None]
    settled: Callable[[int], None]
    """The report with this number is done with."""
    losses: Callable[[list[Loss]], None]
    """These attempts ended with their worker."""
    lease_lost: Callable[[str, list[int]], None]
    """These leases of a silent holder are not its own any more."""


def open_shared(url: str) -> InspectableDriver:
    """The store at ``url``, for a worker. Raises like ``registry.connect``, and ConfigurationError
    for a store that only this process would see."""
    driver = connect(url)
    if not driver.capabilities.shared:
        raise ConfigurationError(
            f"{driver.url} lives in one process, so a worker never sees what is enqueued; "
            "use sqlite:///taskharbor.db or memory://name"
        )
    return driver


class Service:
    """``step`` and the methods that bring work are to be called from one thread.

    ``open_store`` connects (see ``open_shared``); it is called until it succeeds once. ``holder``:
    of the process whose place this one takes, so that it need not wait for the lead.
    """

    def __init__(
        self,
        open_store: Callable[[], InspectableDriver],
        *,
        lease_seconds: float,
        listeners: Listeners,
        rng: Random,
        holder: str = "",
    ) -> None:
        now = time.monotonic()
        self._open_store = open_store
        self._lease_seconds = lease_seconds
        self._listeners = listeners
        self._rng = rng
        self._holder = holder or f"maintenance-{new_id()}"
        self._lulls = Lulls(lease_seconds=lease_seconds, now=now, wall=time.time())
        self._outage = Restarts(rng)
        self._retry_at = self._next_at = now
        self._lost: dict[int, LostChild] = {}
        self._silent: dict[str, Silent] = {}
        self._examined = False
        self._look_at_schema_at = now
        self._duties: _Duties | None = None
        self.driver: InspectableDriver | None = None
        self.outdated: SchemaMismatch | None = None
        """The store is a newer TaskHarbor's, so this process can't ever work with it again."""

    def child_lost(self, child: LostChild) -> None:
        """To be settled as soon as the store answers; a number known already is a repetition."""
        self._lost[child.number] = child

    def child_silent(self, silent: Silent) -> None:
        self._silent[silent.holder] = silent

    def hint(self) -> None:
        """Something may have been scheduled meanwhile."""
        if self._duties is not None:
            self._duties.scheduler.hint()

    def connect(self) -> InspectableDriver:
        """The driver; raises what ``open_store`` raises. The first call raises StoreErrors, too,
        SchemaMismatch among them for a store that is newer than this code."""
        if self.driver is None:
            self.driver = self._open_store()
            self._duties = _Duties(
                leader=Leader(self.driver, self._holder),
                scheduler=Scheduler(self.driver),
                reaper=Reaper(
                    self.driver, self._holder, self._lulls, self._rng, self._listeners.losses
                ),
                pruner=Pruner(self.driver),
            )
            self._look_at_schema(self.driver, time.monotonic())
        return self.driver

    def step(self, now: float) -> float:
        """Do one round of what is due at ``now`` (monotonic); seconds until the next."""
        self._lulls.tick(now, time.time(), expected_at=self._next_at)
        if now >= self._retry_at:
            try:
                self._next_at = self._round(now)
            except StoreError as error:
                if isinstance(error, SchemaMismatch):
                    self._look_at_schema_at = now
                self._next_at = self._retry_at = self._store_failed(now, error)
        return max(0.0, self._next_at - time.monotonic())

    def _round(self, now: float) -> float:
        driver = self.connect()
        self._look_at_schema(driver, now)
        self._look_at_settings(driver)
        self._settle_lost(driver)
        self._renew_silent(driver)
        # What is to come is for those who know the store.
        next_at = now + SCHEMA_SECONDS if self.outdated is not None else self._lead(now)
        self._store_answered(now, driver)
        return next_at

    def _look_at_schema(self, driver: InspectableDriver, now: float) -> None:
        """Raises SchemaMismatch for one that is newer than this code. One that is older, or not
        there, may be migrated any moment: the calls that miss it say so until then."""
        if now < self._look_at_schema_at or self.outdated is not None:
            return
        if isinstance(driver, Scripted):
            try:
                driver.pending()
            except SchemaMismatch as error:
                self.outdated = error
                raise
        self._look_at_schema_at = now + SCHEMA_SECONDS

    def _look_at_settings(self, driver: InspectableDriver) -> None:
        """Once, when the store first answers: what ``doctor`` would say about its settings."""
        if self._examined:
            return
        if isinstance(driver, Examinable):
            for remark in driver.examine():
                log = _log.error if remark.fatal else _log.warning
                log("the store is not set up well", found=remark.found, remedy=remark.remedy)
        self._examined = True

    @property
    def leads(self) -> bool:
        """Whether this process did the leader's duties in the last step."""
        return self._duties is not None and self._duties.leader.leads

    @property
    def idle(self) -> bool:
        """Nothing is waiting to be settled."""
        return not self._lost

    def close(self) -> None:
        """Give up the lead, so that the next one need not wait for the end of the term."""
        if self.driver is None or self._duties is None:
            return
        try:
            self._duties.leader.resign()
        except StoreError as error:
            _log.debug("the lead could not be given up", error=str(error))
        self.driver.close()

    # --- what children left behind ----------------------------------------------------------

    def _settle_lost(self, driver: InspectableDriver) -> None:
        for number, child in list(self._lost.items()):
            held = driver.retire(child.holder)
            if held:
                now = driver.exchange(self._holder, ()).now
                settlements = settle_lost(child, held, now=now, rng=self._rng)
                self._settle(driver, held, settlements, f"child lost: {child.ending}")
            # Only now: a report whose settlements may not have arrived is worked on again.
            del self._lost[number]
            self._listeners.settled(number)

    def _renew_silent(self, driver: InspectableDriver) -> None:
        while self._silent:
            holder, silent = next(iter(self._silent.items()))
            if silent.renew and silent.leases:
                self._renew(driver, silent)
            self._release_unstarted(driver, silent)
            del self._silent[holder]

    def _renew(self, driver: InspectableDriver, silent: Silent) -> None:
        renewals = [Renewal(job_id, fence) for job_id, fence in silent.leases]
        answers = driver.extend(silent.holder, renewals, self._lease_seconds)
        lost = [
            renewal.fence
            for renewal, answer in zip(renewals, answers, strict=True)
            if answer.verdict is not Verdict.APPLIED
        ]
        _log.info(
            "renewed the leases of a child without heartbeat",
            holder=silent.holder,
            job_ids=[renewal.job_id for renewal in renewals],
            lost=lost,
        )
        if lost:
            self._listeners.lease_lost(silent.holder, lost)

    def _release_unstarted(self, driver: InspectableDriver, silent: Silent) -> None:
        """Jobs that a silent child never started and can't start any more, their leases being
        over: nobody but its supervisor knows that, and the reaper would charge them."""
        started = {fence for _, fence in silent.leases}
        unstarted = [job for job in driver.held(silent.holder) if job.fence not in started]
        if not unstarted:
            return
        now = driver.exchange(self._holder, ()).now
        expired = [job for job in unstarted if job.lease_expires_at <= now]
        outcome = Lost(None, reason=Reason.LEASE_EXPIRED, started=False, guard=Guard.EXPIRED)
        settlements = [
            decide(job, policy_of(job), outcome, now=now, rng=self._rng) for job in expired
        ]
        self._settle(driver, expired, settlements, "never started by a child without heartbeat")

    def _settle(
        self,
        driver: InspectableDriver,
        jobs: list[Reservation],
        settlements: list[Settlement],
        why: str,
    ) -> None:
        if not settlements:
            return
        answer = driver.exchange(self._holder, settlements)
        self._listeners.losses(losses_among(jobs, settlements, answer.settled))
        for settlement, settled in zip(settlements, answer.settled, strict=True):
            _log.warning(
                why,
                job_id=settlement.job_id,
                fence=settlement.fence,
                move=settlement.move,
                charged=settlement.charged,
                verdict=settled.verdict,
                state=settled.state,
            )

    # --- what the leader does ------------------------------------------------------------------

    def _lead(self, now: float) -> float:
        """Do the leader's duties if this process leads; when to come again."""
        assert self._duties is not None
        duties = self._duties
        if not duties.leader.ask(now):
            return duties.leader.ask_at
        promoted = duties.scheduler.step(now)
        if promoted is not None and promoted.moved:
            self._listeners.promoted()
        duties.reaper.step(now)
        duties.pruner.step(now)
        return min(
            duties.leader.ask_at,
            duties.scheduler.look_at,
            duties.reaper.look_at,
            duties.pruner.look_at,
        )

    # --- the store comes and goes --------------------------------------------------------------

    def _store_failed(self, now: float, error: StoreError) -> float:
        """When to try again."""
        delay = self._outage.died(early=True) or FIRST_RETRY_SECONDS
        self._lulls.store_failed(now)
        _log.warning(
            "the store is away" if isinstance(error, StoreUnavailable) else "the store refused",
            error=str(error),
            retry_seconds=round(delay, 2),
        )
        return now + delay

    def _store_answered(self, now: float, driver: InspectableDriver) -> None:
        self._outage.lives()
        self._lulls.store_answered(now)
        if self._lulls.rest_due:
            self._lulls.begin_rest(now, driver.exchange(self._holder, ()).now)
            _log.info("after a gap, expired leases are left alone", seconds=self._lease_seconds)


@dataclass(frozen=True, slots=True)
class _Duties:
    leader: Leader
    scheduler: Scheduler
    reaper: Reaper
    pruner: Pruner
