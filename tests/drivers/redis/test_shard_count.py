"""A namespace has one number of shards for all: with another, jobs would not be found."""

import subprocess
import sys
from pathlib import Path

import pytest

from taskharbor.clock import ManualClock
from taskharbor.conformance.support import put, take
from taskharbor.drivers.base import JobFilter
from taskharbor.drivers.redis import RedisDriver, connect
from taskharbor.drivers.redis.address import parse
from taskharbor.drivers.redis.shard_count import CLAIM_SECONDS, ShardCount
from taskharbor.errors import ConfigurationError, StoreUnavailable
from taskharbor.ids import new_id
from taskharbor.settlement import Settlement
from tests.drivers.redis.conftest import Connect
from tests.servers.redis import RedisCluster, RedisServer

ROOT = Path(__file__).resolve().parents[3]


def forget_what_is_sure(driver: RedisDriver) -> None:
    """As if half a minute had gone by."""
    driver._store.shard_count.sure_until = driver._store.shard_count.looked_until = 1e-9


@pytest.mark.parametrize(("stored", "asked"), [(1, 3), (3, 1), (3, 2)])
def test_another_number_is_refused_while_there_are_jobs(
    redis_url: str, stored: int, asked: int
) -> None:
    clock, namespace = ManualClock(), new_id()
    url = f"{redis_url}?namespace={namespace}"
    first = connect(f"{url}&shards={stored}", clock=clock)
    put(first, "a")
    clock.advance(CLAIM_SECONDS)
    other = connect(f"{url}&shards={asked}", clock=clock)
    for call in (
        lambda: put(other, "b"),
        lambda: take(other),
        other.queues,
        lambda: other.get("a"),
        lambda: other.promote(10),
        lambda: other.wait(["default"], 1),
    ):
        with pytest.raises(ConfigurationError, match=f"has {stored} shards.*shards={stored}"):
            call()
    assert [job.id for job in first.list_jobs(JobFilter()).jobs] == ["a"]
    first.close()
    other.close()


def test_a_number_that_nobody_uses_may_change_when_no_job_is_left(redis_url: str) -> None:
    clock, namespace = ManualClock(), new_id()
    url = f"{redis_url}?namespace={namespace}"
    first, second = (connect(f"{url}&shards={n}", clock=clock) for n in (3, 2))
    put(first, "a")
    (lease,) = take(first)
    first.exchange("h", [Settlement.succeed(lease.id, lease.fence, None)])
    clock.advance(CLAIM_SECONDS)
    with pytest.raises(ConfigurationError, match="it has jobs there"):
        put(second, "b")
    first.delete(["a"])
    put(second, "b")
    assert [one.id for one in take(second)] == ["b"]
    forget_what_is_sure(first)
    with pytest.raises(ConfigurationError, match="has 2 shards"):
        put(first, "c")
    first.close()
    second.close()


def test_an_empty_namespace_does_not_change_under_those_who_use_it(redis_url: str) -> None:
    clock, namespace = ManualClock(), new_id()
    url = f"{redis_url}?namespace={namespace}"
    first, second = (connect(f"{url}&shards={n}", clock=clock) for n in (1, 2))
    assert take(first) == []
    with pytest.raises(ConfigurationError, match="within the last minute"):
        put(second, "a")
    put(first, "a")
    assert [one.id for one in take(first)] == ["a"]
    first.close()
    second.close()


def test_looking_writes_nothing(redis_url: str, redis_server: RedisServer) -> None:
    namespace = new_id()
    for shards in (1, 3):
        driver = connect(f"{redis_url}?namespace={namespace}&shards={shards}")
        assert driver.queues() == []
        assert driver.get("a") is None
        driver.close()
    with redis_server.client() as client:
        assert list(client.scan_iter(f"*{namespace}*")) == []


def test_nothing_is_asked_between_two_looks(connected: Connect) -> None:
    with RedisServer() as server, server.client() as client:
        driver = connected(server.url, shards=3)
        for number in range(20):  # every shard has the script then
            put(driver, f"first{number}")
        client.config_resetstat()
        for number in range(100):
            put(driver, f"a{number}")
        asked = client.info("commandstats")["cmdstat_evalsha"]["calls"]
    assert asked < 105, "more than one for each job, and what half a minute's stall may add"


def test_a_cluster_has_one_number_too(connected: Connect, redis_cluster: RedisCluster) -> None:
    put(connected(redis_cluster.url, shards=6), "a")
    with pytest.raises(ConfigurationError, match="has 6 shards"):
        put(connected(redis_cluster.url, shards=5), "b")
    assert connected(redis_cluster.url, shards=6).get("a") is not None


def test_who_was_sure_goes_on_while_the_number_is_out_of_reach() -> None:
    replies: list[tuple[int, bool] | StoreUnavailable] = [(2, True), StoreUnavailable("away")]

    def ask(count: int, claim_seconds: float, empty: int | None) -> tuple[int, bool]:
        reply = replies.pop(0)
        if isinstance(reply, StoreUnavailable):
            raise reply
        return reply

    count = ShardCount(parse("redis://localhost?shards=2"), ask, lambda _: False)
    count.confirm(writes=True)
    count.confirm(writes=True)
    assert replies == []
    stranger = ShardCount(parse("redis://localhost?shards=2"), ask, lambda _: False)
    replies.append(StoreUnavailable("away"))
    with pytest.raises(StoreUnavailable):
        stranger.confirm(writes=True)


def test_looking_makes_nobody_sure_who_writes() -> None:
    """A look leaves no claim with the server, so the next write has to."""
    claims: list[float] = []

    def ask(count: int, claim_seconds: float, empty: int | None) -> tuple[int, bool]:
        claims.append(claim_seconds)
        return 2, True

    count = ShardCount(parse("redis://localhost?shards=2"), ask, lambda _: False)
    count.confirm(writes=True)
    count.sure_until = count.looked_until = sure = 1e-9
    count.confirm(writes=False)
    assert claims == [CLAIM_SECONDS, 0.0]
    assert (count.sure_until, count.looked_until > sure) == (sure, True)


RACER = """
import sys
from taskharbor.conformance.support import put
from taskharbor.drivers.redis import connect
from taskharbor.errors import ConfigurationError
shards = sys.argv[1]
print("here", flush=True)
for line in sys.stdin:
    driver = connect(f"{line.strip()}&shards={shards}")
    try:
        put(driver, f"of-{shards}")
        print("stored", flush=True)
    except ConfigurationError:
        print("refused", flush=True)
    driver.close()
"""


def test_of_two_processes_with_different_numbers_one_is_refused(redis_url: str) -> None:
    racers = {
        shards: subprocess.Popen(
            [sys.executable, "-c", RACER, str(shards)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for shards in (2, 3)
    }
    try:
        assert [hear(racer) for racer in racers.values()] == ["here", "here"]
        for number in range(20):
            url = f"{redis_url}?namespace={new_id()}"
            order = [*racers.values()] if number % 2 else [*racers.values()][::-1]
            for racer in order:
                assert racer.stdin is not None
                racer.stdin.write(f"{url}\n")
                racer.stdin.flush()
            said = {shards: hear(racer) for shards, racer in racers.items()}
            assert sorted(said.values()) == ["refused", "stored"]
            (winner,) = (shards for shards, word in said.items() if word == "stored")
            driver = connect(f"{url}&shards={winner}")
            assert driver.get(f"of-{winner}") is not None
            driver.close()
    finally:
        for racer in racers.values():
            racer.communicate()


def hear(racer: subprocess.Popen[str]) -> str:
    assert racer.stdout is not None
    return racer.stdout.readline().strip()
