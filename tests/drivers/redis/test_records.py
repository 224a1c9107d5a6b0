"""What Redis keeps of jobs in few places: small results in the job's record, leases by holder."""

from collections.abc import Iterator
from contextlib import closing

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


def test_a_holder_that_always_holds_something_is_read_once_in_the_time_of_a_lease(
    clock: ManualClock,
) -> None:
    """It stands in the order of expiry with a lease that it settled; who looks corrects that."""
    with RedisServer() as server, closing(connect(server.url, clock=clock)) as driver:
        driver.enqueue([job(name) for name in "abcd"])
        one = WANT._replace(limit=1)
        a, b = driver.exchange("h", [], WANT._replace(limit=2)).reserved
        for seconds, done in ((20.0, a), (5.0, b)):
            clock.advance(seconds)
            driver.exchange("h", [Settlement.succeed(done.id, done.fence, None)], one)

        def stands_for() -> float:
            with server.client() as client:
                (key,) = client.keys("*:l")
                ((_, micros),) = client.zrange(key, 0, -1, withscores=True)
            return float(micros) / 1e6 - clock.now()

        clock.advance(6.0)
        assert stands_for() == pytest.approx(-1.0)
        assert driver.expired(10) == []
        assert stands_for() == pytest.approx(19.0)
        clock.advance(20.0)
        assert [lease.id for lease in driver.expired(10)] == ["c"]
