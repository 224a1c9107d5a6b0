"""One job that is ready at once has a shorter way into Redis: what comes of it is the same."""

from collections.abc import Iterator
from typing import Any

import pytest

from taskharbor.clock import ManualClock
from taskharbor.conformance.support import job, put, take
from taskharbor.drivers.base import Enqueued, JobFilter
from taskharbor.drivers.redis import RedisDriver, connect
from taskharbor.message import Message, Retention
from taskharbor.states import State
from tests.drivers.redis.conftest import Connect
from tests.servers.redis import RedisServer

SHAPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "first": {"priority": 100},
    "last": {"priority": -100},
    "long names": {"queue": "q" * 128, "task": "t" * 128},
    "kept for long": {"retention": Retention(1.5, 0.0, 10.0)},
    "no body": {"body": b""},
    "255 bytes": {"body": b"x" * 255},
    "256 bytes": {"body": b"x" * 256},
    "a large body": {"body": b"x" * 70_000},
}
OTHERS: dict[str, dict[str, Any]] = {
    "a digest": {"digest": b"12345678"},
    "a key": {"idempotency_key": "k"},
    "a delay": {"delay": 5.0},
    "a date": {"eta": 4_102_444_800.0},
    "an end": {"expires_in": 60.0},
    "an end on a date": {"expires_at": 4_102_444_800.0},
}


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def driver(redis_url: str, connected: Connect) -> RedisDriver:
    return connected(redis_url)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_same_is_stored_by_the_short_way_and_the_long(server: RedisServer, shape: str) -> None:
    message = job("a", **SHAPES[shape])
    short, long = (_stored(server, message, longer=longer) for longer in (False, True))
    assert short == long


def _stored(server: RedisServer, message: Message, *, longer: bool) -> dict[bytes, Any]:
    """All keys, but for what is of a second job: a batch of two goes the longer way."""
    batch = [message, job("z", queue="other")] if longer else [message]
    with server.client() as client:
        client.flushall()
        driver = connect(server.url, clock=ManualClock())
        assert all(answer.created for answer in driver.enqueue(batch))
        driver.close()
        kept = _everything(client)
    if longer:
        del kept[b"{th}:r:other"], kept[b"{th}:n:other"]
        del kept[b"{th}:j"][b"z"], kept[b"{th}:o:0"][b"2"]
        kept[b"{th}:Q"].discard(b"other")
        kept[b"{th}:c"][b"i"] = b"1"
    return kept


def _everything(client: Any) -> dict[bytes, Any]:
    kept: dict[bytes, Any] = {}
    for key in client.scan_iter():
        kind = client.type(key)
        if kind == b"hash":
            kept[key] = client.hgetall(key)
        elif kind == b"zset":
            kept[key] = client.zrange(key, 0, -1, withscores=True)
        else:
            kept[key] = client.smembers(key)
    return kept


@pytest.mark.parametrize("fields", OTHERS)
def test_a_job_that_is_not_for_it_goes_the_long_way(driver: RedisDriver, fields: str) -> None:
    first, again = (put(driver, "a", **OTHERS[fields]) for _ in range(2))
    assert first == [Enqueued("a", True)]
    assert again == [Enqueued("a", False)]
    (stored,) = driver.list_jobs(JobFilter()).jobs
    assert stored.idempotency_key == OTHERS[fields].get("idempotency_key")
    assert (stored.expires_at is not None) == ("end" in fields)


def test_a_job_that_is_there_stays_as_it_is(driver: RedisDriver) -> None:
    put(driver, "a", body=b"the first")
    assert put(driver, "a", body=b"the second") == [Enqueued("a", False)]
    assert put(driver, "a", digest=b"another") == [Enqueued("a", False, False)]
    assert driver.queues()[0].counts[State.READY] == 1
    assert [(lease.id, lease.body) for lease in take(driver, 9)] == [("a", b"the first")]


def test_both_ways_keep_one_order(driver: RedisDriver) -> None:
    put(driver, "a")
    put(driver, "b", "c")
    put(driver, "d")
    put(driver, "urgent", priority=1)
    assert [lease.id for lease in take(driver, 9)] == ["urgent", "a", "b", "c", "d"]
    newest_first = driver.list_jobs(JobFilter()).jobs
    assert [one.id for one in newest_first] == ["urgent", "d", "c", "b", "a"]


def test_a_server_that_forgot_its_scripts_is_told_again(
    server: RedisServer, connected: Connect
) -> None:
    driver = connected(server.url)
    put(driver, "a")
    with server.client() as client:
        client.script_flush()
    assert put(driver, "b") == [Enqueued("b", True)]
