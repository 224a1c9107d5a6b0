"""The service: reports, silent children, and a store that comes and goes."""

from __future__ import annotations

import time
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from taskharbor.drivers.base import InspectableDriver, Want
from taskharbor.errors import ConfigurationError, SchemaMismatch, StoreUnavailable
from taskharbor.maintenance.losses import Loss
from taskharbor.maintenance.lost import LostChild
from taskharbor.maintenance.service import (
    SCHEMA_SECONDS,
    Listeners,
    Service,
    Silent,
    open_shared,
)
from taskharbor.states import Move, State
from taskharbor.worker.table import Phase, SlotState
from tests.unit.maintenance.store import LEASE_SECONDS, Shop


class Flaky:
    """A driver whose calls fail as long as ``down``."""

    def __init__(self, driver: InspectableDriver) -> None:
        self._driver = driver
        self.down = False

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._driver, name)
        if not callable(method):
            return method

        def call(*args: Any, **kwargs: Any) -> Any:
            if self.down:
                raise StoreUnavailable("the store is away for this test")
            return method(*args, **kwargs)

        return call


class Versioned(Flaky):
    """A store with a schema, which a newer TaskHarbor migrates when ``newer`` is set."""

    newer = False

    def version(self) -> int:
        return 1

    def migrate(self) -> list[str]:
        return []

    def pending(self) -> list[str]:
        if self.newer:
            raise SchemaMismatch("the schema is newer")
        return []

    def script(self) -> str:
        return ""


class Heard:
    def __init__(self) -> None:
        self.settled: list[int] = []
        self.lost: list[tuple[str, list[int]]] = []
        self.losses: list[Loss] = []
        self.promoted = 0

    def listeners(self) -> Listeners:
        def promoted() -> None:
            self.promoted += 1

        return Listeners(
            promoted=promoted,
            settled=self.settled.append,
            losses=self.losses.extend,
            lease_lost=lambda holder, fences: self.lost.append((holder, fences)),
        )


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def flaky(shop: Shop) -> Any:
    return Flaky(shop.driver)


@pytest.fixture
def service(flaky: Any, heard: Heard) -> Service:
    return Service(
        lambda: flaky, lease_seconds=LEASE_SECONDS, listeners=heard.listeners(), rng=Random(1)
    )


def slot(fence: int, phase: Phase = Phase.STARTED) -> SlotState:
    return SlotState("", fence, phase, 0.0, None)


def died(number: int, *slots: SlotState) -> LostChild:
    return LostChild(number=number, holder="h", cause="died", ending="was killed", slots=slots)


def states(shop: Shop, jobs: list[Any]) -> list[tuple[State, int]]:
    records = [shop.driver.get(job.id) for job in jobs]
    return [(record.state, record.attempts) for record in records if record is not None]


def test_a_lost_childs_jobs_are_settled_and_the_report_is_acknowledged(
    shop: Shop, service: Service, heard: Heard
) -> None:
    jobs = shop.running(3, max_attempts=1)
    service.child_lost(died(7, slot(jobs[1].fence)))
    service.step(time.monotonic())
    assert states(shop, jobs) == [(State.READY, 0), (State.DEAD, 1), (State.READY, 0)]
    assert heard.settled == [7]
    assert service.idle
    assert [(loss.job_id, loss.move) for loss in heard.losses] == [
        (jobs[0].id, Move.RELEASE),
        (jobs[1].id, Move.DIE),
        (jobs[2].id, Move.RELEASE),
    ]


def test_a_retired_holder_reserves_nothing_afterwards(shop: Shop, service: Service) -> None:
    service.child_lost(died(1))
    service.step(time.monotonic())
    shop.enqueue()
    got = shop.driver.exchange("h", (), Want(("default",), 1, 30.0))
    assert (got.reserved, got.retired) == ([], True)


def test_a_report_waits_for_the_store_and_is_acknowledged_only_then(
    shop: Shop, service: Service, heard: Heard, flaky: Any
) -> None:
    (job,) = shop.running()
    flaky.down = True
    service.child_lost(died(1, slot(job.fence)))
    now = time.monotonic()
    for _ in range(5):
        now += max(service.step(now), 0.001)
    assert heard.settled == []
    assert not service.idle
    flaky.down = False
    service.step(now + 60.0)
    assert heard.settled == [1]


def test_a_report_sent_again_is_settled_again_without_harm(
    shop: Shop, service: Service, heard: Heard
) -> None:
    (job,) = shop.running()
    for _ in range(2):
        service.child_lost(died(1, slot(job.fence)))
        service.step(time.monotonic())
    assert heard.settled == [1, 1]
    assert states(shop, [job]) == [(State.READY, 1)]


def test_tries_while_the_store_is_away_get_rarer(service: Service, flaky: Any) -> None:
    flaky.down = True
    now = time.monotonic()
    sleeps = []
    for _ in range(12):
        service.step(now)
        sleeps.append(service._retry_at - now)
        now = service._retry_at
    assert sleeps[0] < 0.1
    assert 2.0 < sleeps[-1] <= 10.0


def test_a_silent_childs_started_lease_is_renewed_and_its_unstarted_one_runs_out(
    shop: Shop, service: Service, heard: Heard
) -> None:
    started, unstarted = jobs = shop.running(2, max_attempts=1)
    silent = Silent("h", ((started.id, started.fence),), renew=True)
    shop.clock.advance(LEASE_SECONDS - 1.0)
    service.child_silent(silent)
    service.step(time.monotonic())
    assert states(shop, jobs) == [(State.RUNNING, 1), (State.RUNNING, 1)]
    shop.clock.advance(1.0)
    service.child_silent(silent)
    service.step(time.monotonic())
    assert states(shop, jobs) == [(State.RUNNING, 1), (State.READY, 0)]
    record = shop.driver.get(unstarted.id)
    assert record is not None
    assert record.losses == 1
    assert heard.lost == []


def test_a_stopped_childs_lease_is_not_renewed(shop: Shop, service: Service) -> None:
    (job,) = shop.running()
    service.child_silent(Silent("h", ((job.id, job.fence),), renew=False))
    service.step(time.monotonic())
    record = shop.driver.get(job.id)
    assert record is not None
    assert record.lease_expires_at == job.lease_expires_at


def test_a_lease_that_cannot_be_renewed_is_said_to_be_lost(
    shop: Shop, service: Service, heard: Heard
) -> None:
    (job,) = shop.running()
    shop.clock.advance(LEASE_SECONDS)
    service.child_silent(Silent("h", ((job.id, job.fence),), renew=True))
    service.step(time.monotonic())
    assert heard.lost == [("h", [job.fence])]


def test_after_an_outage_expired_leases_rest_and_are_uncharged(
    shop: Shop, service: Service, flaky: Any
) -> None:
    (job,) = shop.running(max_attempts=1)
    now = time.monotonic()
    service.step(now)
    flaky.down = True
    service.step(now + 1.0)
    shop.clock.advance(LEASE_SECONDS + 5.0)
    flaky.down = False
    # Later than now, so that the waits of this test are gaps, as an outage's would be.
    service.step(now + LEASE_SECONDS + 5.0)
    service.step(now + LEASE_SECONDS + 10.0)
    assert states(shop, [job]) == [(State.RUNNING, 1)]


def test_promotion_wakes_whoever_listens(shop: Shop, service: Service, heard: Heard) -> None:
    shop.enqueue(delay=1.0)
    shop.clock.advance(1.0)
    service.step(time.monotonic())
    assert heard.promoted == 1


def test_closing_gives_up_the_lead(shop: Shop, service: Service) -> None:
    service.step(time.monotonic())
    assert shop.driver.lead("maintenance", "other", 5.0) is None
    driver = shop.driver
    close: Callable[[], None] = driver.close
    try:
        driver.close = lambda: None  # type: ignore[method-assign]
        service.close()
    finally:
        driver.close = close  # type: ignore[method-assign]
    shop.clock.advance(0.01)
    assert driver.lead("maintenance", "other", 5.0) is not None


def test_a_store_that_only_this_process_sees_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="memory://name"):
        open_shared("memory://")


def test_a_schema_that_became_newer_is_noticed_and_what_was_lost_is_still_settled(
    shop: Shop, heard: Heard
) -> None:
    (job,) = shop.running()
    store: Any = Versioned(shop.driver)
    service = Service(
        lambda: store, lease_seconds=LEASE_SECONDS, listeners=heard.listeners(), rng=Random(1)
    )
    now = time.monotonic()
    service.step(now)
    store.newer = True
    service.step(now + 0.5 * SCHEMA_SECONDS)
    assert service.outdated is None
    service.step(now := now + 2 * SCHEMA_SECONDS)
    assert "newer" in str(service.outdated)
    service.child_lost(died(1, slot(job.fence)))
    service.step(now + SCHEMA_SECONDS)
    assert heard.settled == [1]


def test_a_schema_that_is_newer_from_the_start_is_refused(shop: Shop, heard: Heard) -> None:
    store: Any = Versioned(shop.driver)
    store.newer = True
    service = Service(
        lambda: store, lease_seconds=LEASE_SECONDS, listeners=heard.listeners(), rng=Random(1)
    )
    with pytest.raises(SchemaMismatch):
        service.connect()
