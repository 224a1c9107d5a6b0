"""Clean successes of one exchange are kept together, and go together when their time is over."""

from collections.abc import Iterator

import pytest

from taskharbor.clock import ManualClock
from taskharbor.conformance.support import job, take
from taskharbor.drivers.redis import RedisDriver, connect
from taskharbor.ids import new_id
from taskharbor.message import Retention
from taskharbor.settlement import Settlement
from taskharbor.states import State

KEEP_SECONDS = 60.0
MANY = 300
"""More than are kept together."""


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def driver(redis_url: str, clock: ManualClock) -> Iterator[RedisDriver]:
    driver = connect(f"{redis_url}?namespace={new_id()}", clock=clock)
    yield driver
    driver.close()


def succeeded(driver: RedisDriver, count: int) -> list[str]:
    """Jobs that have succeeded in one exchange."""
    keep = Retention(succeeded=KEEP_SECONDS)
    driver.enqueue([job(driver.new_job_id(None), retention=keep) for _ in range(count)])
    return succeed_all(driver, count)


def succeed_all(driver: RedisDriver, count: int) -> list[str]:
    leases = take(driver, count)
    driver.exchange("h", [Settlement.succeed(one.id, one.fence, b"r") for one in leases])
    assert len(leases) == count
    return [one.id for one in leases]


def is_there(driver: RedisDriver, job_id: str) -> bool:
    return driver.get(job_id) is not None


def test_a_limit_is_kept_inside_of_what_was_kept_together(
    driver: RedisDriver, clock: ManualClock
) -> None:
    ids = succeeded(driver, MANY)
    assert driver.prune(MANY) == 0
    clock.advance(KEEP_SECONDS)
    assert driver.prune(7) == 7
    assert sum(is_there(driver, one) for one in ids) == MANY - 7
    assert driver.prune(MANY) == MANY - 7
    assert not any(is_there(driver, one) for one in ids)
    assert driver.prune(MANY) == 0


def test_a_job_that_ran_again_is_kept_from_its_last_end(
    driver: RedisDriver, clock: ManualClock
) -> None:
    ids = succeeded(driver, 3)
    clock.advance(KEEP_SECONDS / 2)
    driver.requeue(ids[:2], states=frozenset({State.SUCCEEDED}))
    (again,) = succeed_all(driver, 1)
    (waiting,) = {*ids[:2]} - {again}
    clock.advance(KEEP_SECONDS / 2)
    while driver.prune(1):
        pass
    assert [is_there(driver, one) for one in (again, waiting, ids[2])] == [True, True, False]
    clock.advance(KEEP_SECONDS / 2)
    assert driver.prune(10) == 1
    assert [is_there(driver, one) for one in (again, waiting)] == [False, True]


def test_what_was_deleted_hides_nothing_behind_it(driver: RedisDriver, clock: ManualClock) -> None:
    """A page full of jobs that are gone already is no reason to stop."""
    driver.delete(succeeded(driver, MANY))
    clock.advance(1)
    (left,) = succeeded(driver, 1)
    clock.advance(KEEP_SECONDS)
    while driver.prune(10):
        pass
    assert not is_there(driver, left)
