"""Flows on Redis: what only this store has to show. The rules are in the conformance suite."""

import pytest

from taskharbor import defaults
from taskharbor.clock import ManualClock
from taskharbor.conformance.support import apply, job, take
from taskharbor.drivers.base import RequeueVerdict, Want
from taskharbor.drivers.redis import RedisDriver, connect
from taskharbor.errors import InvalidJob
from taskharbor.flow.plan import Edge, Flow, FlowState, Node, Part
from taskharbor.settlement import Settlement
from taskharbor.states import State
from tests.drivers.redis.conftest import Connect
from tests.servers.redis import RedisCluster, RedisServer

SHARDS = 12
HOLDER = "h"
WANT = Want(("default",), 128, 600.0)


def chord(driver: RedisDriver, members: int) -> tuple[str, list[str], str]:
    """A stored chord: the flow's id, the members', the callback's."""
    flow_id = driver.new_job_id(None)
    ids = [driver.new_id_beside(flow_id) for _ in range(members)]
    callback = driver.new_id_beside(flow_id)
    flow = Flow(flow_id, members + 1, members, result=callback)
    nodes = [*(Node(job(one)) for one in ids), Node(job(callback), members)]
    edges = [Edge(one, callback, place) for place, one in enumerate(ids)]
    size = defaults.BATCH
    for first in range(0, len(nodes), size):
        driver.enqueue_flow(Part(flow, tuple(nodes[first : first + size]), first))
    for first in range(0, members, size):
        driver.enqueue_flow(Part(flow, edges=tuple(edges[first : first + size])))
    assert driver.enqueue_flow(Part(flow, seal=True)).created
    return flow_id, ids, callback


def drain(driver: RedisDriver) -> list[str]:
    """Run all that comes, as a child would; the ids in their order."""
    ran: list[str] = []
    done: list[Settlement] = []
    while True:
        reply = driver.exchange(HOLDER, done, WANT)
        assert all(one.verdict == "applied" for one in reply.settled)
        done = [Settlement.succeed(one.id, one.fence, b"r") for one in reply.reserved]
        ran += [one.id for one in reply.reserved]
        if not done and not reply.more:
            return ran


def test_the_last_settle_of_a_large_group_hands_over_the_callback(
    connected: Connect, redis_url: str
) -> None:
    driver = connected(redis_url)
    members = 2 * defaults.FLOW_PAGE + 100
    flow_id, ids, callback = chord(driver, members)
    ran = drain(driver)
    assert sorted(ran) == sorted([*ids, callback])
    assert ran[-1] == callback
    info = driver.flow(flow_id)
    assert info is not None
    assert (info.state, info.finished[State.SUCCEEDED]) == (FlowState.SUCCEEDED, members + 1)
    pages = [
        driver.inputs(callback, after=after, limit=400) for after in range(-1, members - 1, 400)
    ]
    assert [one.job_id for page in pages for one in page] == ids


def test_counting_down_and_the_slow_way_agree(connected: Connect, redis_url: str) -> None:
    """A batch of clean successes, one that has a death among it, and one with its requeue."""
    driver = connected(redis_url)
    _, ids, callback = chord(driver, 40)
    leases = {lease.id: lease for lease in take(driver, 100)}
    assert set(leases) == set(ids)
    settlements = [Settlement.succeed(one, leases[one].fence, b"r") for one in ids]
    apply(driver, *settlements[:10])
    apply(driver, *settlements[10:20])
    apply(driver, *settlements[20:29], Settlement.die(ids[29], leases[ids[29]].fence, error=b"e"))
    assert [node.state for node in driver.flow_nodes(_flow_of(driver, callback))][-1] == "cancelled"
    assert driver.requeue([ids[29]]) == [RequeueVerdict.REQUEUED]
    apply(driver, *settlements[30:])
    again = driver.exchange(HOLDER, [], WANT).reserved
    assert [one.id for one in again] == [ids[29]]
    last = [Settlement.succeed(again[0].id, again[0].fence, b"r")]
    assert [one.id for one in driver.exchange(HOLDER, last, WANT).reserved] == [callback]


def _flow_of(driver: RedisDriver, job_id: str) -> str:
    found = driver.get(job_id)
    assert found is not None
    assert found.flow is not None
    return found.flow


def test_what_a_settle_writes_does_not_grow_with_the_group(connected: Connect) -> None:
    with RedisServer() as server, server.client() as client:
        driver = connected(server.url)
        written = {}
        for members in (200, 2000):
            chord(driver, members)
            leases = take(driver, 128)
            while driver.promote(1000).more:
                pass
            apply(driver, *(Settlement.succeed(one.id, one.fence, None) for one in leases[:64]))
            client.config_resetstat()
            done = [Settlement.succeed(one.id, one.fence, None) for one in leases[64:]]
            driver.exchange(HOLDER, done)
            stats = client.info("commandstats")
            written[members] = {
                name: stat["calls"] for name, stat in stats.items() if name != "cmdstat_info"
            }
            drain(driver)
    assert written[200] == written[2000]


def test_no_key_of_a_flow_is_left_after_its_retention() -> None:
    clock = ManualClock()
    with RedisServer() as server, server.client() as client:
        driver = connect(f"{server.url}?namespace=t", clock=clock)
        flow_id, ids, _ = chord(driver, 300)
        lease, *others = take(driver, 50)
        apply(
            driver,
            Settlement.die(lease.id, lease.fence, error=b"e"),
            *(Settlement.succeed(one.id, one.fence, b"r") for one in others),
        )
        driver.cancel(ids[60:70])
        driver.requeue([lease.id])
        driver.cancel_flow(flow_id)
        while driver.promote(1000).more:
            pass
        clock.advance(90 * 86_400)
        while driver.prune(100):
            pass
        left = sorted(client.scan_iter())
        driver.close()
    assert left == [b"{t}:c"], "only the counters stay"


def test_a_flow_lies_in_one_shard_of_a_cluster(
    connected: Connect, redis_cluster: RedisCluster
) -> None:
    driver = connected(redis_cluster.url, shards=SHARDS)
    stored = [chord(driver, 20) for _ in range(SHARDS)]
    listed = driver.list_flows(limit=5)
    seen = [flow.id for flow in listed.flows]
    while listed.cursor:
        listed = driver.list_flows(cursor=listed.cursor, limit=5)
        seen += [flow.id for flow in listed.flows]
    assert sorted(seen) == sorted(flow_id for flow_id, *_ in stored)
    assert len(drain(driver)) == SHARDS * 21
    for flow_id, ids, _ in stored:
        info = driver.flow(flow_id)
        assert info is not None
        assert info.state is FlowState.SUCCEEDED
        assert len(driver.flow_edges(flow_id, limit=7).edges) == 7
        assert [node.id for node in driver.flow_nodes(flow_id)][:20] == ids


def test_a_job_of_another_shard_is_refused(connected: Connect, redis_cluster: RedisCluster) -> None:
    driver = connected(redis_cluster.url, shards=SHARDS)
    flow_id = driver.new_job_id(None)
    stranger = driver.new_job_id(None)
    with pytest.raises(InvalidJob, match="new_id_beside"):
        driver.enqueue_flow(Part(Flow(flow_id, 1, 0), (Node(job(stranger)),), seal=True))
    assert driver.flow(flow_id) is None
