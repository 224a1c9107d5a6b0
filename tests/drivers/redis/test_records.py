"""What Redis keeps of jobs in few places: small results in the job's record, leases by holder."""

from collections.abc import Iterator

import pytest

from taskharbor.clock import ManualClock
from taskharbor.conformance.support import get, job
from taskharbor.drivers.base import Renewal, Want
from taskharbor.drivers.redis import RedisDriver, connect
from taskharbor.ids import new_id
from taskharbor.settlement import Settlement
from taskharbor.states import State
from tests.servers.redis import RedisServer

WANT = Want(("default",), 100, 30.0)
SIZES = (0, 1, 127, 128, 129, 70_000)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def driver(clock: ManualClock) -> Iterator[RedisDriver]:
    with RedisServer() as server:
        driver = connect(f"{server.url}?namespace={new_id()}", clock=clock)
        yield driver
        driver.close()


def test_results_of_all_sizes_come_back_from_wherever_they_are_kept(driver: RedisDriver) -> None:
    results = {f"job-{size}": b"\x80" * size for size in SIZES}
    driver.enqueue([job(job_id) for job_id in results])
    reserved = driver.exchange("h", [], WANT).reserved
    driver.exchange("h", [Settlement.succeed(o.id, o.fence, results[o.id]) for o in reserved])
    found = driver.results(list(results))
    assert [one.result for one in found if one] == list(results.values())
    assert [get(driver, job_id).result for job_id in results] == list(results.values())
    assert [get(driver, job_id).reason for job_id in results] == ["succeeded"] * len(SIZES)


def test_a_requeued_job_has_no_result_until_it_succeeds_again(driver: RedisDriver) -> None:
    driver.enqueue([job("small"), job("large")])
    for results in ((b"s", b"l" * 1000), (b"t" * 1000, b"m")):
        for lease, result in zip(driver.exchange("h", [], WANT).reserved, results, strict=True):
            driver.exchange("h", [Settlement.succeed(lease.id, lease.fence, result)])
        found = driver.results(["small", "large"])
        assert tuple(one.result for one in found if one) == results
        driver.requeue(["small", "large"], states=frozenset({State.SUCCEEDED}))
        assert [one.result for one in driver.results(["small", "large"]) if one] == [None, None]


def test_leases_of_many_holders_expire_in_order_whatever_was_extended_since(
    driver: RedisDriver, clock: ManualClock
) -> None:
    """Two leases for each of fifty holders, of which one is extended, or settled."""
    driver.enqueue([job(f"j{n:03}") for n in range(100)])
    order = []
    for number in range(50):
        want = WANT._replace(limit=2)
        first, second = driver.exchange(f"h{number}", [], want).reserved
        if number % 3 == 0:
            driver.extend(f"h{number}", [Renewal(first.id, first.fence)], 300.0)
        elif number % 3 == 1:
            driver.exchange(f"h{number}", [Settlement.succeed(first.id, first.fence, None)])
        else:
            order.append(first.id)
        order.append(second.id)
        clock.advance(0.1)
    assert driver.expired(1000) == []
    clock.advance(30.0)
    assert [one.id for one in driver.expired(7)] == order[:7]
    assert [one.id for one in driver.expired(1000)] == order
    clock.advance(300.0)
    assert len(driver.expired(1000)) == len(order) + 17
