"""What jobs cost: bytes while they wait, nothing when they are gone, and the same time whether few
wait or many."""

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from taskharbor.clock import ManualClock
from taskharbor.conformance.support import job, put, take
from taskharbor.drivers.base import Exchange, JobFilter, Renewal, Want
from taskharbor.drivers.redis import RedisDriver, connect
from taskharbor.lease import Guard
from taskharbor.message import Call, Retention, write_body
from taskharbor.settlement import Settlement
from tests.drivers.redis.conftest import Connect
from tests.servers.redis import RedisServer

QUEUED_BYTES = 400
NO_OP = write_body(Call(b"\x92\x90\x80"))


def test_a_queued_no_op_job_fits_in_its_bytes(connected: Connect) -> None:
    with RedisServer() as server:
        driver = connected(server.url)
        with server.client() as client:
            driver.enqueue([job(driver.new_job_id(None), body=NO_OP)])
            before = client.info("memory")["used_memory"]
            for _ in range(50):
                driver.enqueue([job(driver.new_job_id(None), body=NO_OP) for _ in range(1000)])
            used = client.info("memory")["used_memory"] - before
    assert used / 50_000 <= QUEUED_BYTES


@pytest.mark.timeout(300)
def test_no_key_is_left_when_every_job_is_gone(long_form: bool) -> None:
    """In as many ways as there are: kept, forgotten at once, dead, cancelled, expired, retried."""
    clock, rng = ManualClock(), Random(7)
    rounds = 100 if long_form else 10
    with RedisServer() as server, server.client() as client:
        driver = connect(f"{server.url}?namespace=t", clock=clock)
        driver.enqueue([job("first")])
        driver.delete(["first"])
        before = client.dbsize()
        for number in range(rounds):
            driver.enqueue([_any_job(f"{number}-{n}", rng) for n in range(1000)])
            _end_somehow(driver, clock, rng)
        assert client.dbsize() > before
        clock.advance(90 * 86_400)
        while driver.list_jobs(JobFilter()).jobs:
            _end_somehow(driver, clock, rng)
            clock.advance(90 * 86_400)
            while driver.prune(1000):
                pass
        while driver.prune(1000):
            pass
        left = sorted(client.scan_iter())
        driver.close()
    assert left == [b"{t}:c"], "only the counters stay"
    assert len(left) == before


def _any_job(job_id: str, rng: Random) -> Any:
    keep = rng.choice([0.0, 60.0, 3600.0])
    return job(
        job_id,
        queue=rng.choice(["a", "b", "c"]),
        delay=rng.choice([0.0, 0.0, 5.0]),
        expires_in=rng.choice([None, None, 3.0]),
        idempotency_key=rng.choice([None, f"k{rng.randrange(500)}"]),
        key_until=rng.choice(["record", "terminal", 30.0]),
        retention=rng.choice([Retention(), Retention(keep, keep, keep)]),
        digest=rng.choice([b"", b"digest"]),
    )


def _end_somehow(driver: RedisDriver, clock: ManualClock, rng: Random) -> None:
    leases = take(driver, 700, queue=["a", "b", "c"], holder=f"h{rng.randrange(5)}")
    driver.extend("h", [Renewal(one.id, one.fence, b"p", b"s") for one in leases[:50]], 60)
    driver.cancel([one.id for one in leases[50:60]])
    endings: list[Callable[[Any], Settlement]] = [
        lambda one: Settlement.succeed(one.id, one.fence, rng.choice([None, b"result"])),
        lambda one: Settlement.retry(one.id, one.fence, delay=rng.choice([0, 3]), error=b"e"),
        lambda one: Settlement.die(one.id, one.fence, error=b"e"),
        lambda one: Settlement.cancel(one.id, one.fence),
        lambda one: Settlement.snooze(one.id, one.fence, delay=2),
        lambda one: Settlement.release(one.id, one.fence),
    ]
    driver.exchange("h", [rng.choice(endings)(one) for one in leases])
    dead = [one.id for one in driver.list_jobs(JobFilter(state=None), limit=30).jobs]
    driver.cancel(dead[:10])
    driver.requeue(dead[10:20])
    driver.delete(dead[20:])
    clock.advance(10)
    driver.promote(1000)
    lost = driver.expired(1000)
    driver.exchange(
        "reaper",
        [Settlement.die(one.id, one.fence, error=None, guard=Guard.EXPIRED) for one in lost],
    )
    driver.retire(f"gone{rng.randrange(100)}")
    driver.prune(1000)


SMALL, LARGE, LARGEST = 1000, 100_000, 1_000_000
SLOWER = 5.0
"""Times that a call may take longer on the large store. Depth of the trees and caches explain less
than two, and the machine is not quiet; a scan of the queue would be hundreds."""


def _quickest(client: Any) -> float:
    """Of the scripts in the log, in microseconds, and forget them. Whatever else the machine does
    makes the others slower."""
    times = [
        entry["duration"] for entry in client.slowlog_get(1000) if b"EVALSHA" in entry["command"]
    ]
    client.slowlog_reset()
    return float(min(times))


def _fill(driver: RedisDriver, count: int) -> None:
    for first in range(0, count, 1000):
        driver.enqueue([job(f"q{first + n}", body=NO_OP) for n in range(1000)])
    for first in range(0, count // 10, 1000):
        driver.enqueue([job(f"s{first + n}", body=NO_OP, delay=9e6) for n in range(1000)])


def _times(driver: RedisDriver, client: Any, mark: str) -> dict[str, float]:
    """Microseconds of every operation that workers and maintenance repeat."""
    times: dict[str, float] = {}
    steps: dict[str, Callable[[int], object]] = {
        "enqueue": lambda n: put(driver, f"{mark}{n}"),
        "schedule": lambda n: put(driver, f"{mark}s{n}", delay=9e6),
        "exchange": lambda n: driver.exchange("h", done, Want(("default",), 16, 600.0)),
        "extend": lambda n: driver.extend("h", renewals, 900.0),
        "held": lambda n: driver.held("other"),
        "expired": lambda n: driver.expired(100),
        "promote": lambda n: driver.promote(100),
        "prune": lambda n: driver.prune(100),
        "queues": lambda n: driver.queues(),
        "list": lambda n: driver.list_jobs(JobFilter(), limit=20),
        "results": lambda n: driver.results([f"{mark}{n}"]),
        "cancel": lambda n: driver.cancel([f"{mark}{n}"]),
        "delete": lambda n: driver.delete([f"{mark}s{n}"]),
    }
    done: list[Settlement] = []
    renewals: list[Renewal] = []
    for name, step in steps.items():
        client.slowlog_reset()
        for number in range(15):
            reply = step(number)
            if isinstance(reply, Exchange):
                done[:] = [Settlement.succeed(one.id, one.fence, None) for one in reply.reserved]
                renewals[:] = [Renewal(one.id, one.fence) for one in reply.reserved]
        times[name] = _quickest(client)
    return times


@pytest.mark.timeout(600)
def test_no_call_takes_longer_when_many_jobs_wait(long_form: bool) -> None:
    many = LARGEST if long_form else LARGE
    options = ["--slowlog-log-slower-than", "0", "--slowlog-max-len", "1000"]
    with RedisServer(options=options) as server, server.client() as client:
        driver = connect(server.url)
        _fill(driver, SMALL)
        _times(driver, client, "warm")
        few = _times(driver, client, "few")
        _fill(driver, many)
        lots = _times(driver, client, "lots")
        driver.close()
    slower = {name: lots[name] / few[name] for name in few if lots[name] > SLOWER * few[name]}
    assert slower == {}, (few, lots)
