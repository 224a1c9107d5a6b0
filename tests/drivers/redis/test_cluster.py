"""Shards over a Cluster: what is in one shard, what spans them, and what a moving slot may do."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import redis
from redis.crc import key_slot

from taskharbor.conformance.support import apply, ids, job, put, take, take_one
from taskharbor.drivers.base import JobFilter, Renewal, Want
from taskharbor.drivers.redis import RedisDriver
from taskharbor.drivers.redis.shards import shard_of
from taskharbor.errors import InvalidJob, StoreUnavailable
from taskharbor.lease import Guard
from taskharbor.settlement import Settlement
from taskharbor.states import State
from tests.drivers.redis.conftest import Connect
from tests.servers.redis import RedisCluster, RedisServer
from tests.waiting import wait_until

SHARDS = 12


@pytest.fixture
def driver(connected: Connect, redis_cluster: RedisCluster) -> RedisDriver:
    return connected(redis_cluster.url, shards=SHARDS)


def fill(driver: RedisDriver, count: int, **fields: Any) -> list[str]:
    job_ids = [driver.new_job_id(None) for _ in range(count)]
    put(driver, *job_ids, **fields)
    return job_ids


def test_jobs_spread_over_all_shards_and_the_id_names_the_shard(driver: RedisDriver) -> None:
    job_ids = fill(driver, 2 * SHARDS)
    assert sorted(shard_of(job_id, SHARDS) for job_id in job_ids) == sorted([*range(SHARDS)] * 2)
    taken = take(driver, 2 * SHARDS)
    assert sorted(ids(taken)) == sorted(job_ids)
    assert len({lease.fence for lease in taken}) == 2 * SHARDS
    apply(driver, *(Settlement.succeed(lease.id, lease.fence, b"r") for lease in taken))
    assert driver.queues()[0].counts[State.SUCCEEDED] == 2 * SHARDS


def test_inside_a_shard_the_order_is_kept(driver: RedisDriver) -> None:
    job_ids = fill(driver, 3 * SHARDS)
    taken = ids(take(driver, 3 * SHARDS))
    for shard in range(SHARDS):
        in_shard = [job_id for job_id in job_ids if shard_of(job_id, SHARDS) == shard]
        assert [job_id for job_id in taken if job_id in in_shard] == in_shard


def test_a_key_owns_its_shard(driver: RedisDriver) -> None:
    first, second = driver.new_job_id("order-7"), driver.new_job_id("order-7")
    assert shard_of(first, SHARDS) == shard_of(second, SHARDS)
    put(driver, first, idempotency_key="order-7")
    (answer,) = put(driver, second, idempotency_key="order-7")
    assert (answer.id, answer.created) == (first, False)


def test_an_id_of_another_shard_than_its_key_is_refused_before_anything_is_stored(
    driver: RedisDriver,
) -> None:
    home = shard_of(driver.new_job_id("k"), SHARDS)
    stranger = next(f"own{n}" for n in range(999) if shard_of(f"own{n}", SHARDS) != home)
    good = driver.new_job_id(None)
    with pytest.raises(InvalidJob, match="idempotency key 'k'"):
        driver.enqueue([job(good), job(stranger, idempotency_key="k")])
    assert driver.results([good, stranger]) == [None, None]


def test_bulk_calls_answer_in_order_over_shards(driver: RedisDriver) -> None:
    job_ids = fill(driver, 30)
    assert [answer.created for answer in put(driver, *job_ids, "new")] == [False] * 30 + [True]
    leases = take(driver, 31)
    answers = driver.extend("h", [Renewal(lease.id, lease.fence) for lease in leases], 60)
    assert all(answer.verdict == "applied" for answer in answers)
    assert ids(driver.held("holder-1")) != []
    assert len(driver.retire("holder-1")) == 31
    assert take(driver, 1) == []


def test_pages_show_every_job_once_newest_first(driver: RedisDriver) -> None:
    job_ids = [fill(driver, 1)[0] for _ in range(40)]
    seen: list[str] = []
    cursor = None
    while True:
        page = driver.list_jobs(JobFilter(), cursor=cursor, limit=7)
        seen += [one.id for one in page.jobs]
        cursor = page.cursor
        if cursor is None:
            break
    assert seen == job_ids[::-1]


def test_waiting_hears_of_any_shard(driver: RedisDriver, connected: Connect) -> None:
    driver.wait(["default"], 0.05)
    for _ in range(SHARDS):
        fill(driver, 1)
        driver.wait(["default"], 20)
        lease = take_one(driver)
        apply(driver, Settlement.succeed(lease.id, lease.fence, b"r"))
        (outcome,) = driver.wait_results([lease.id], 20)
        assert outcome is not None


def owner(cluster: RedisCluster, slot: int) -> RedisServer:
    for node in cluster.masters:
        with node.client() as client:
            for first, last, (_, port, *_), *_ in client.execute_command("CLUSTER", "SLOTS"):
                if first <= slot <= last:
                    return next(other for other in cluster.nodes if other.port == port)
    raise AssertionError(f"nobody has the slot {slot}")


@pytest.mark.timeout(180)
def test_a_frozen_master_keeps_nobody_from_the_other_shards_for_longer_than_once(
    connected: Connect, small_cluster: RedisCluster
) -> None:
    """It still takes connections and requests. Without replicas nobody takes over from it."""
    driver = connected(small_cluster.url, shards=SHARDS, timeout=5)
    frozen = small_cluster.masters[1]
    theirs = {
        shard
        for shard in range(SHARDS)
        if owner(small_cluster, key_slot(driver._store.prefix(shard).encode())) is frozen
    }
    job_ids = fill(driver, 10 * SHARDS)
    elsewhere = {job_id for job_id in job_ids if shard_of(job_id, SHARDS) not in theirs}
    assert 0 < len(elsewhere) < len(job_ids)
    done: set[str] = set()
    failures = 0

    def work() -> None:
        driver.promote(10)
        driver.expired(10)
        driver.prune(10)
        leases = driver.exchange("h", [], Want(("default",), 1, 600.0)).reserved
        driver.exchange("h", [Settlement.succeed(one.id, one.fence, b"r") for one in leases])
        done.update(ids(leases))

    frozen.pause()
    while not elsewhere <= done:
        try:
            work()
        except StoreUnavailable:
            failures += 1
    # One for the frozen one; more for a machine that has stalled another. Each turn that came to
    # one of its shards would have been dozens.
    assert 1 <= failures <= 4
    late = fill(driver, 2 * SHARDS)
    assert not {shard_of(job_id, SHARDS) for job_id in late} & theirs
    frozen.resume()

    def is_all_done() -> bool:
        try:
            work()
            held = ids(driver.held("h"))  # the frozen one may yet do what it was asked
        except StoreUnavailable:
            return False
        return {*done, *held} >= {*job_ids, *late}

    wait_until(is_all_done, seconds=90, what="the jobs of the frozen master")


def node_id(client: redis.Redis) -> str:
    return str(client.execute_command("CLUSTER", "MYID").decode())


@pytest.fixture
def small_cluster() -> Iterator[RedisCluster]:
    with RedisCluster() as cluster:
        yield cluster


def everything(*nodes: redis.Redis) -> list[dict[bytes, bytes | None]]:
    """All that each node holds. (DEBUG DIGEST would be one call, but newer servers forbid it.)"""
    return [{key: dump(node, key) for key in node.scan_iter()} for node in nodes]


def dump(node: redis.Redis, key: bytes) -> bytes | None:
    """Also of a key that came here with a slot that still belongs to another node."""
    with node.pipeline(transaction=False) as pipe:
        pipe.execute_command("ASKING")
        pipe.dump(key)
        found: bytes | None = pipe.execute()[1]
    return found


def test_a_slot_on_the_move_leaves_nothing_half_done(
    connected: Connect, small_cluster: RedisCluster
) -> None:
    """Every operation, at every stage of the move: refused whole, or done whole at the end."""
    driver = connected(small_cluster.url)
    for n in range(5):
        put(driver, f"a{n}")
    lease, other = take(driver, 2)
    slot = key_slot(driver._store._route_keys[0].encode())
    source = owner(small_cluster, slot)
    target = next(node for node in small_cluster.masters if node is not source)
    calls: list[Callable[[], object]] = [
        partial(put, driver, "new"),
        partial(take, driver, 1),
        partial(driver.exchange, "h", [Settlement.succeed(lease.id, lease.fence, b"r")]),
        partial(driver.exchange, "h", [Settlement.retry("a1", other.fence, delay=0, error=b"e")]),
        partial(driver.extend, "h", [Renewal("a1", other.fence)], 90.0),
        partial(driver.cancel, ["a4"]),
        partial(driver.delete, ["a4"]),
        partial(driver.retire, "h"),
        partial(driver.lead, "l", "h", 5.0),
        partial(driver.pause, "default"),
        partial(driver.promote, 5),
        partial(driver.prune, 5),
    ]
    with source.client() as from_, target.client() as to:
        to.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", node_id(from_))
        from_.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", node_id(to))
        names = sorted(from_.scan_iter())
        # None moved, some moved, all moved.
        for moved in (0, len(names) // 2, len(names)):
            for name in names[:moved]:
                from_.migrate("127.0.0.1", target.port, name, 0, 5000)
            before = everything(from_, to)
            for call in calls:
                with pytest.raises(StoreUnavailable, match="on its way"):
                    call()
                assert everything(from_, to) == before
        for client in (to, from_):
            client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", node_id(to))
    apply(driver, Settlement.succeed(lease.id, lease.fence, b"r"))
    assert sorted(ids(take(driver, 5))) == ["a2", "a3", "a4"]


def test_other_shards_go_on_while_a_master_is_down_and_a_replica_takes_over(
    connected: Connect,
) -> None:
    with RedisCluster(replicas=1) as cluster:
        # What is acknowledged is at a replica; afterwards that one has none of its own.
        before = fill(connected(cluster.url, shards=SHARDS, wait_replicas=1), 60)
        driver = connected(cluster.url, shards=SHARDS, timeout=5)
        fences = {lease.id: lease.fence for lease in take(driver, 24)}
        slots = [key_slot(key.encode()) for key in driver._store._route_keys[:SHARDS]]
        victim = cluster.masters[0]
        lost = {n for n, slot in enumerate(slots) if owner(cluster, slot) is victim}
        assert 0 < len(lost) < SHARDS
        victim.kill()
        assert any(_can_enqueue(driver, shard) for shard in set(range(SHARDS)) - lost)
        wait_until(
            lambda: all(_can_enqueue(driver, shard) for shard in range(SHARDS)),
            what="the replica to take over",
        )
        assert None not in driver.results(before)
        again = {lease.id: lease.fence for lease in take(driver, 500)}
        for shard in lost:
            old = [fence for one, fence in fences.items() if shard_of(one, SHARDS) == shard]
            new = [fence for one, fence in again.items() if shard_of(one, SHARDS) == shard]
            assert max(old, default=0) < min(new)


def test_work_and_maintenance_go_on_in_the_shards_whose_masters_are_there(
    connected: Connect,
) -> None:
    with RedisCluster(options=["--cluster-require-full-coverage", "no"]) as cluster:
        driver = connected(cluster.url, shards=SHARDS, timeout=5)
        job_ids = [*fill(driver, 60, delay=0.001), *fill(driver, 60)]
        assert take(driver, 60, lease=0.001) != []
        slots = [key_slot(key.encode()) for key in driver._store._route_keys[:SHARDS]]
        victim = cluster.masters[0]
        lost = {n for n, slot in enumerate(slots) if owner(cluster, slot) is victim}
        assert 0 < len(lost) < SHARDS
        victim.kill()
        wait_until(lambda: driver.promote(1000).next_due is None)
        found = driver.expired(1000)
        assert found
        assert all(shard_of(one.id, SHARDS) not in lost for one in found)
        back = [Settlement.release(one.id, one.fence, guard=Guard.EXPIRED) for one in found]
        apply(driver, *back)
        driver.wait(["default"], 20)
        assert driver.prune(1000) == 0
        there = [job_id for job_id in job_ids if shard_of(job_id, SHARDS) not in lost]
        done: list[str] = []
        while len(done) < len(there):
            leases = take(driver, 7)
            apply(driver, *(Settlement.succeed(one.id, one.fence, b"r") for one in leases))
            done += ids(leases)
        assert sorted(done) == sorted(there)


def _can_enqueue(driver: RedisDriver, shard: int) -> bool:
    job_id = f"{driver.new_job_id(None).partition(':')[0]}:{shard}"
    try:
        put(driver, job_id)
    except StoreUnavailable:
        return False
    return True


def test_too_few_replicas_are_told(connected: Connect, redis_server: RedisServer) -> None:
    driver = connected(redis_server.url, wait_replicas=1, timeout=2)
    with pytest.raises(StoreUnavailable, match="only 0 of 1"):
        put(driver, "a")
    assert connected(redis_server.url).results(["a"]) != [None]
