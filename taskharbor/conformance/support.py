"""The words that the suite's tests are written in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random
from typing import Any

import pytest

from taskharbor.clock import ManualClock
from taskharbor.conformance.harness import Harness
from taskharbor.conformance.sharding import is_in_one_shard
from taskharbor.decision import Lost, decide
from taskharbor.drivers.base import Enqueued, InspectableDriver, Job, JobFilter, Settled, Want
from taskharbor.lease import Guard, Reservation, Verdict
from taskharbor.message import (
    DEFAULT_POLICY,
    Call,
    Message,
    Policy,
    Retention,
    read_body,
    write_body,
)
from taskharbor.settlement import Settlement
from taskharbor.states import Reason, State

QUEUE = "default"
HOLDER = "holder-1"
LEASE = 30.0
EVERYTHING = JobFilter()
FORGET_AT_ONCE = Retention(0, 0, 0)


class Suite:
    """What every part of the suite uses. The author of a driver overrides ``harness``."""

    @pytest.fixture
    def harness(self) -> Harness:
        raise NotImplementedError(
            "give this class a fixture `harness` that returns a taskharbor.conformance.Harness"
        )

    @pytest.fixture(autouse=True)
    def placed(self, request: pytest.FixtureRequest, harness: Harness) -> None:
        """Where a sharded driver has this test's jobs."""
        harness.in_one_shard = is_in_one_shard(request.function)

    @pytest.fixture
    def clock(self) -> ManualClock:
        return ManualClock()

    @pytest.fixture
    def driver(self, harness: Harness, clock: ManualClock) -> Iterator[InspectableDriver]:
        """A driver on an empty store whose time is ``clock``."""
        yield harness.connect(clock)
        harness.close()

    @pytest.fixture
    def live(self, harness: Harness) -> Iterator[InspectableDriver]:
        """A driver on an empty store with the store's own clock, for tests that wait."""
        yield harness.connect()
        harness.close()


def job(job_id: str = "a", *, policy: Policy = DEFAULT_POLICY, **fields: Any) -> Message:
    """A message that differs from a plain one only in ``fields``."""
    body = write_body(Call(b"payload", policy=policy))
    return Message(**({"id": job_id, "task": "demo.task", "body": body} | fields))


def put(driver: InspectableDriver, *job_ids: str, **fields: Any) -> list[Enqueued]:
    """Enqueue jobs that differ only in their id, in one batch."""
    return driver.enqueue([job(job_id, **fields) for job_id in job_ids])


def take(
    driver: InspectableDriver,
    limit: int = 1,
    *,
    queue: str | Sequence[str] = QUEUE,
    holder: str = HOLDER,
    lease: float = LEASE,
) -> list[Reservation]:
    """Up to ``limit`` jobs, asking again as long as the store says that there is more."""
    queues = (queue,) if isinstance(queue, str) else tuple(queue)
    taken: list[Reservation] = []
    while len(taken) < limit:
        got = driver.exchange(holder, (), Want(queues, limit - len(taken), lease))
        taken += got.reserved
        if not got.more:
            break
    return taken


def take_one(driver: InspectableDriver, **how: Any) -> Reservation:
    """The next job; fails the test when there is none."""
    taken = take(driver, 1, **how)
    assert taken, "there was nothing to reserve"
    return taken[0]


def ids(jobs: Sequence[Reservation | Job]) -> list[str]:
    return [job.id for job in jobs]


def settle(
    driver: InspectableDriver, *settlements: Settlement, holder: str = HOLDER
) -> list[Settled]:
    return driver.exchange(holder, settlements).settled


def apply(
    driver: InspectableDriver, *settlements: Settlement, holder: str = HOLDER
) -> list[Settled]:
    """Settle, and fail the test unless all were applied."""
    settled = settle(driver, *settlements, holder=holder)
    assert [one.verdict for one in settled] == [Verdict.APPLIED] * len(settlements)
    return settled


def reap(
    driver: InspectableDriver, limit: int = 100, *, reason: Reason = Reason.LEASE_EXPIRED
) -> list[Settled]:
    """What maintenance does with up to ``limit`` expired leases."""
    found = driver.expired(limit)
    rng, now = Random(0), driver.exchange("reaper", ()).now
    lost = Lost(b"lapsed", reason=reason, guard=Guard.EXPIRED)
    return settle(
        driver,
        *(decide(lease, read_body(lease.body).policy, lost, now=now, rng=rng) for lease in found),
        holder="reaper",
    )


def get(driver: InspectableDriver, job_id: str = "a") -> Job:
    """The job; fails the test when it is gone."""
    found = driver.get(job_id)
    assert found is not None, f"job {job_id} is gone"
    return found


def all_pages(
    driver: InspectableDriver, where: JobFilter = EVERYTHING, *, limit: int = 100
) -> list[Job]:
    """What ``list_jobs`` finds, page by page."""
    jobs: list[Job] = []
    page = driver.list_jobs(where, limit=limit)
    while True:
        assert len(page.jobs) <= limit
        jobs += page.jobs
        if page.cursor is None:
            return jobs
        page = driver.list_jobs(where, cursor=page.cursor, limit=limit)


def state(driver: InspectableDriver, job_id: str = "a") -> State | None:
    """The job's state, None when it is gone."""
    found = driver.get(job_id)
    return None if found is None else found.state
