"""What holds over all shards of a driver that spreads its jobs."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Any

from taskharbor.clock import ManualClock
from taskharbor.conformance.flow_support import FlowSuite, quiesce, succeed
from taskharbor.conformance.support import (
    HOLDER,
    LEASE,
    QUEUE,
    Suite,
    all_pages,
    apply,
    ids,
    job,
    put,
    settle,
    take,
)
from taskharbor.drivers.base import CancelVerdict, InspectableDriver, JobFilter, Renewal, Want
from taskharbor.drivers.flows import FlowDriver
from taskharbor.errors import InvalidJob
from taskharbor.flow.plan import Edge, Flow, FlowState, Node, Part
from taskharbor.lease import Verdict
from taskharbor.message import Retention
from taskharbor.settlement import Settlement
from taskharbor.states import Reason, State

MANY = 100
"""Ids of which no shard that counts will be without one."""


def _fill(driver: InspectableDriver, count: int = MANY, **fields: Any) -> list[str]:
    job_ids = [driver.new_job_id(None) for _ in range(count)]
    put(driver, *job_ids, **fields)
    return job_ids


def _refusal(store: Callable[[Any], object], what: object) -> str | None:
    """What the driver says about a job that it does not take, None when it takes it."""
    try:
        store(what)
    except InvalidJob as error:
        return str(error)
    return None


class ShardRules(Suite):
    """Jobs with ids of the driver's own, in all shards."""

    def test_every_call_with_many_jobs_answers_in_their_order(
        self, driver: InspectableDriver, clock: ManualClock
    ) -> None:
        job_ids = _fill(driver)
        assert [one.created for one in put(driver, *job_ids, "new")] == [False] * MANY + [True]
        leases = {lease.id: lease for lease in take(driver, MANY + 1)}
        assert leases.keys() == {*job_ids, "new"}
        in_order = [leases[job_id] for job_id in job_ids]
        clock.advance(1)
        extended = driver.extend(HOLDER, [Renewal(one.id, one.fence) for one in in_order], LEASE)
        assert {one.verdict for one in extended} == {Verdict.APPLIED}
        ends = [Settlement.succeed(one.id, one.fence, one.id.encode()) for one in in_order]
        wrong = [end._replace(fence=0) for end in ends]
        both = settle(driver, *chain.from_iterable(zip(ends, wrong, strict=True)))
        assert [one.verdict for one in both] == [Verdict.APPLIED, Verdict.MISMATCH] * MANY
        assert driver.cancel(["nobody", *job_ids]) == [
            CancelVerdict.NOT_FOUND,
            *[CancelVerdict.FINISHED] * MANY,
        ]
        found = driver.results(job_ids)
        assert [one and one.result for one in found] == [name.encode() for name in job_ids]

    def test_fences_are_of_one_job_only_and_grow_with_its_attempts(
        self, driver: InspectableDriver
    ) -> None:
        _fill(driver)
        last: dict[str, int] = {}
        given: set[int] = set()
        for _ in range(3):
            leases = take(driver, MANY)
            assert all(lease.fence > last.get(lease.id, 0) for lease in leases)
            last = {lease.id: lease.fence for lease in leases}
            given.update(last.values())
            apply(driver, *(Settlement.release(lease.id, lease.fence) for lease in leases))
        assert len(given) == 3 * MANY

    def test_jobs_that_lie_together_keep_their_order(self, driver: InspectableDriver) -> None:
        keys = [f"key-{number}" for number in range(10)]
        lines = {key: [driver.new_job_id(key) for _ in range(10)] for key in keys}
        for batch in zip(*lines.values(), strict=True):
            put(driver, *batch)
        taken = ids(take(driver, 100))
        for line in lines.values():
            assert [job_id for job_id in taken if job_id in line] == line

    def test_no_shard_is_starved_by_what_others_have(self, driver: InspectableDriver) -> None:
        """However few jobs somebody asks for at a time."""
        waiting = set(_fill(driver))
        filler = _fill(driver, 10 * MANY)
        for _ in range(4 * MANY):
            got = driver.exchange(HOLDER, (), Want((QUEUE,), 1, LEASE))
            waiting.difference_update(ids(got.reserved))
        assert not waiting, f"{len(waiting)} old jobs wait while some of {len(filler)} newer ran"

    def test_no_shard_s_due_jobs_wait_for_those_of_others(
        self, driver: InspectableDriver, clock: ManualClock
    ) -> None:
        """Also when each call finds more than it may move."""
        first = _fill(driver, delay=1.0)
        _fill(driver, 10 * MANY, delay=2.0)
        clock.advance(2)
        for _ in range(2 * MANY):
            promoted = driver.promote(1)
            assert (promoted.moved, promoted.more) == (1, True)
            assert promoted.next_due is not None
            assert promoted.next_due <= clock.now()
        assert set(driver.results(first)) == {(State.READY, Reason.DUE, None, None)}

    def test_no_more_leases_are_named_than_asked_for_and_the_oldest_first(
        self, driver: InspectableDriver, clock: ManualClock
    ) -> None:
        for seconds in (30.0, 10.0, 20.0):
            _fill(driver)
            taken = take(driver, MANY, lease=seconds)
            assert len(taken) == MANY
        clock.advance(30)
        found = driver.expired(2 * MANY)
        assert len(found) == 2 * MANY
        assert [one.lease_expires_at for one in found] == [clock.now() - 20] * MANY + [
            clock.now() - 10
        ] * MANY
        assert len(driver.expired(10 * MANY)) == 3 * MANY
        assert len(driver.retire(HOLDER)) == 3 * MANY

    def test_records_go_from_every_shard(
        self, driver: InspectableDriver, clock: ManualClock
    ) -> None:
        _fill(driver, retention=Retention(5.0, 5.0, 5.0))
        apply(driver, *(Settlement.succeed(one.id, one.fence, None) for one in take(driver, MANY)))
        clock.advance(5)
        assert driver.prune(MANY - 1) == MANY - 1
        assert driver.prune(MANY) == 1
        assert all_pages(driver) == []

    def test_pages_are_in_the_order_of_enqueue(
        self, driver: InspectableDriver, clock: ManualClock
    ) -> None:
        job_ids = []
        for _ in range(MANY):
            clock.advance(1)
            job_ids += _fill(driver, 1)
        for limit in (7, MANY - 1, MANY + 1):
            assert ids(all_pages(driver, limit=limit)) == job_ids[::-1]

    def test_a_queue_is_one_over_all_shards(self, driver: InspectableDriver) -> None:
        _fill(driver)
        driver.pause(QUEUE)
        (queue,) = driver.queues()
        assert (queue.paused, queue.counts[State.READY]) == (True, MANY)
        assert take(driver, MANY) == []
        driver.resume(QUEUE)
        assert len(take(driver, MANY)) == MANY
        assert driver.purge(JobFilter()) == 0

    def test_the_end_of_a_job_in_any_shard_is_heard_of(self, live: InspectableDriver) -> None:
        _fill(live, 20)
        with ThreadPoolExecutor(1) as pool:
            for lease in take(live, 20):
                waiting = pool.submit(live.wait_results, [lease.id], 30.0)
                apply(live, Settlement.succeed(lease.id, lease.fence, b"r"))
                assert waiting.result() == [(State.SUCCEEDED, Reason.SUCCEEDED, b"r", None)]

    def test_an_id_that_is_not_beside_its_key_is_refused_before_anything_is_stored(
        self, driver: InspectableDriver
    ) -> None:
        refused = 0
        for number in range(MANY):
            strange, before = f"own-{number}", f"before-{number}"
            said = _refusal(driver.enqueue, [job(before), job(strange, idempotency_key="k")])
            if said is not None:
                refused += 1
                assert "'k'" in said
                assert driver.results([before, strange]) == [None, None]
        assert 0 < refused < MANY
        held = [one for one in all_pages(driver) if one.idempotency_key == "k"]
        assert len(held) == 1
        assert not driver.enqueue([job(driver.new_job_id("k"), idempotency_key="k")])[0].created


class FlowShardRules(FlowSuite):
    """Flows with ids of the driver's own."""

    def test_flows_lie_anywhere_and_each_with_its_jobs(self, driver: FlowDriver) -> None:
        flow_ids = [driver.new_job_id(None) for _ in range(MANY)]
        jobs: list[str] = []
        for flow_id in flow_ids:
            first, second = driver.new_id_beside(flow_id), driver.new_id_beside(flow_id)
            assert driver.enqueue_flow(_chain(flow_id, first, second)).created
            jobs += [first, second]
        succeed(driver, *jobs[::2])
        succeed(driver, *jobs[1::2])
        found = [driver.flow(flow_id) for flow_id in flow_ids]
        assert {flow and flow.state for flow in found} == {FlowState.SUCCEEDED}
        assert {flow.id for flow in driver.list_flows(limit=MANY).flows} == {*flow_ids}

    def test_a_key_is_that_of_one_flow(self, driver: FlowDriver) -> None:
        for number in range(20):
            key = f"key-{number}"
            answers = []
            for _ in range(2):
                flow_id = driver.new_job_id(key)
                whole = _chain(flow_id, *(driver.new_id_beside(flow_id) for _ in range(2)))
                head = whole.flow._replace(idempotency_key=key)
                answers.append(driver.enqueue_flow(whole._replace(flow=head)))
            assert [answer.created for answer in answers] == [True, False]
            assert answers[0].id == answers[1].id

    def test_a_job_may_wait_for_a_flow_beside_it(self, driver: FlowDriver) -> None:
        parents = [driver.new_job_id(None) for _ in range(20)]
        put(driver, *parents)
        children = {}
        for lease in take(driver, 20):
            flow_id = driver.new_id_beside(lease.id)
            children[lease.id] = [driver.new_id_beside(flow_id) for _ in range(2)]
            driver.enqueue_flow(_chain(flow_id, *children[lease.id])._replace(seal=False))
            apply(driver, Settlement.wait_for(lease.id, lease.fence, flow_id))
        quiesce(driver)
        for steps in zip(*children.values(), strict=True):
            succeed(driver, *steps)
        assert set(ids(take(driver, 20))) == set(parents)

    def test_a_job_elsewhere_is_refused_before_anything_is_stored(self, driver: FlowDriver) -> None:
        refused = 0
        for _ in range(MANY):
            flow_id, beside = driver.new_job_id(None), driver.new_job_id(None)
            whole = _chain(flow_id, driver.new_id_beside(flow_id), beside)
            said = _refusal(driver.enqueue_flow, whole)
            if said is not None:
                refused += 1
                assert beside in said
                assert driver.flow(flow_id) is None
        assert refused > 0
        assert len(all_pages(driver)) == 2 * (MANY - refused)


def _chain(flow_id: str, first: str, second: str) -> Part:
    nodes = (Node(job(first)), Node(job(second), waits_for=1))
    return Part(Flow(flow_id, 2, 1), nodes, 0, (Edge(first, second, 0),), True)
