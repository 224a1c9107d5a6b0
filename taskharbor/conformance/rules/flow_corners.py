"""Histories that break counters elsewhere, one by one; and what a blocked job is not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from taskharbor import defaults
from taskharbor.clock import ManualClock
from taskharbor.conformance.flow_support import (
    FLOW,
    FlowSuite,
    die,
    finish,
    flow_of,
    info,
    quiesce,
    states,
    store,
    succeed,
)
from taskharbor.conformance.sharding import in_one_shard
from taskharbor.conformance.support import (
    HOLDER,
    apply,
    get,
    ids,
    job,
    settle,
    state,
    take,
    take_one,
)
from taskharbor.drivers.base import (
    CancelVerdict,
    DeleteVerdict,
    JobFilter,
    Renewal,
    RequeueVerdict,
    Want,
)
from taskharbor.drivers.flows import FlowDriver
from taskharbor.errors import InvalidCursor, InvalidJob
from taskharbor.flow.plan import Edge, Flow, FlowState, Part
from taskharbor.lease import Guard, Verdict
from taskharbor.message import Retention
from taskharbor.settlement import Settlement
from taskharbor.states import MOVES, Move, Reason, State

ENDED = frozenset({State.SUCCEEDED, State.DEAD, State.CANCELLED})
_SETTLEMENTS: dict[Move, Callable[[str, int], Settlement]] = {
    Move.SUCCEED: lambda job_id, fence: Settlement.succeed(job_id, fence, None),
    Move.RETRY: lambda job_id, fence: Settlement.retry(job_id, fence, delay=0, error=None),
    Move.DIE: lambda job_id, fence: Settlement.die(job_id, fence, error=None),
    Move.CANCEL: lambda *lease: Settlement.cancel(*lease),  # noqa: PLW0108 - typed as the others
    Move.RELEASE: lambda *lease: Settlement.release(*lease),  # noqa: PLW0108
    Move.SNOOZE: lambda job_id, fence: Settlement.snooze(job_id, fence, delay=0),
    Move.AWAIT: lambda job_id, fence: Settlement.wait_for(job_id, fence, "child"),
}


@in_one_shard
class BlockedRules(FlowSuite):
    """A blocked job waits for nothing but its predecessors."""

    @pytest.mark.parametrize("move", sorted(_SETTLEMENTS))
    @pytest.mark.parametrize("guard", list(Guard))
    def test_no_settlement_moves_a_blocked_job(
        self, driver: FlowDriver, move: Move, guard: Guard
    ) -> None:
        assert State.BLOCKED not in MOVES[move]
        _store(driver)
        driver.enqueue_flow(flow_of("x", flow_id="child")._replace(seal=False))
        given = take_one(driver).fence
        for fence in (given, given + 1, 0):
            done = _SETTLEMENTS[move]("b", fence)._replace(guard=guard)
            assert settle(driver, done) == [(Verdict.NOT_RUNNING, State.BLOCKED)]

    def test_it_has_no_lease_to_extend(self, driver: FlowDriver) -> None:
        _store(driver)
        answer = driver.extend(HOLDER, [Renewal("b", 1, b"p", b"s")], 10.0)[0]
        assert (answer.verdict, answer.lease_expires_at) == (Verdict.NOT_RUNNING, None)
        assert get(driver, "b").saved is None

    @pytest.mark.parametrize("move", [Move.RESERVE, Move.PROMOTE, Move.EXPIRE])
    def test_neither_time_nor_a_reserve_moves_it(
        self, driver: FlowDriver, clock: ManualClock, move: Move
    ) -> None:
        assert State.BLOCKED not in MOVES[move]
        _store(driver)
        fields = {"expires_in": 5.0, "delay": 2.0}
        store(driver, "r -> late", flow_id="flow-2", fields={"late": fields})
        clock.advance(1000.0)
        quiesce(driver)
        assert ids(take(driver, 10)) == ["a", "r"]
        assert state(driver, "late") is State.BLOCKED

    def test_it_is_not_requeued(self, driver: FlowDriver) -> None:
        assert State.BLOCKED not in MOVES[Move.REQUEUE]
        _store(driver)
        answer = driver.requeue(["b"], states=frozenset(State))
        assert answer == [RequeueVerdict.WRONG_STATE]

    def test_it_is_counted_and_listed(self, driver: FlowDriver) -> None:
        _store(driver)
        (queue,) = driver.queues()
        assert (queue.counts[State.BLOCKED], queue.counts[State.READY]) == (2, 1)
        where = JobFilter(state=State.BLOCKED)
        assert ids(driver.list_jobs(where).jobs) == ["c", "b"]
        first = driver.list_jobs(where, limit=1)
        rest = driver.list_jobs(where, limit=1, cursor=first.cursor)
        assert ids(first.jobs + rest.jobs) == ["c", "b"]
        assert driver.results(["b"]) == [(State.BLOCKED, Reason.ENQUEUED, None, None)]

    def test_it_can_be_cancelled_and_then_holds_up_the_flow_no_more(
        self, driver: FlowDriver
    ) -> None:
        _store(driver)
        assert driver.cancel(["b"]) == [CancelVerdict.CANCELLED]
        succeed(driver, "a")
        succeed(driver, "c")
        assert get(driver, "b").reason is Reason.OPERATOR
        assert (info(driver).state, info(driver).finished_at) != (FlowState.RUNNING, None)
        assert info(driver).state is FlowState.FAILED


def _store(driver: FlowDriver) -> None:
    store(driver, "a -> b", "a -> c")


@in_one_shard
class FlowCornerRules(FlowSuite):
    @pytest.mark.parametrize("how", ["die", "cancel", "succeed"])
    def test_a_settlement_sent_again_or_late_counts_once(
        self, driver: FlowDriver, clock: ManualClock, how: str
    ) -> None:
        store(driver, "a ~> end", "b ~> end")
        lease = take_one(driver)
        clock.advance(1000.0)
        late = Settlement.succeed(lease.id, lease.fence, b"late")
        assert settle(driver, late)[0].verdict is Verdict.EXPIRED
        apply(driver, Settlement.release("a", lease.fence, guard=Guard.EXPIRED))
        finish(driver, ("a", how))
        for _ in range(3):
            assert settle(driver, late)[0].verdict is Verdict.MISMATCH
        quiesce(driver)
        assert state(driver, "end") is State.BLOCKED
        succeed(driver, "b")
        assert state(driver, "end") is State.READY

    def test_an_error_callback_that_ran_meanwhile_waits_again(self, driver: FlowDriver) -> None:
        """It is in line or runs while the dead job is requeued; it must run for its next death."""
        store(driver, "a !> oops")
        die(driver, "a")
        lease = take_one(driver)
        assert lease.id == "oops"
        driver.requeue(["a"])
        quiesce(driver)
        apply(driver, Settlement.succeed("oops", lease.fence, None))
        quiesce(driver)
        assert states(driver) == {"a": "ready", "oops": "blocked"}
        die(driver, "a")
        assert states(driver) == {"a": "dead", "oops": "ready"}
        driver.requeue(["a"])
        succeed(driver, "oops", "a")
        assert states(driver) == {"a": "succeeded", "oops": "cancelled"}
        assert info(driver).finished_at is not None

    def test_a_flow_has_not_ended_while_pages_of_it_are_to_be_moved(
        self, driver: FlowDriver
    ) -> None:
        """The job that awaits it must not be woken by a root that came back before those that it
        had cancelled."""
        driver.enqueue([job("parent")])
        parent = take_one(driver)
        size = 2 * defaults.FLOW_PAGE + 10
        whole = flow_of(*(f"root -> m{n}" for n in range(size)), flow_id="child")
        for first in range(0, size, defaults.BATCH):
            nodes = whole.nodes[first : first + defaults.BATCH]
            driver.enqueue_flow(Part(whole.flow, nodes, first))
        for first in range(0, size, defaults.BATCH):
            edges = whole.edges[first : first + defaults.BATCH]
            driver.enqueue_flow(Part(whole.flow, edges=edges))
        apply(driver, Settlement.wait_for("parent", parent.fence, "child"))
        quiesce(driver)
        die(driver, "root")
        again = take_one(driver)
        assert again.id == "parent"
        apply(driver, Settlement.die("parent", again.fence, error=None))
        for name in ("root", "parent"):
            assert driver.requeue([name]) == [RequeueVerdict.REQUEUED]
        assert state(driver, "parent") is State.BLOCKED
        lease = driver.exchange(HOLDER, (), Want(("default",), 1, 30.0)).reserved[0]
        apply(driver, Settlement.succeed("root", lease.fence, None))
        quiesce(driver)
        assert state(driver, "parent") is State.BLOCKED
        assert info(driver, "child").finished_at is None
        assert len(take(driver, size + 1)) == size

    def test_a_job_cancelled_and_requeued_before_the_seal_waits_for_it(
        self, driver: FlowDriver
    ) -> None:
        whole = flow_of("a", "b -> c")
        driver.enqueue_flow(whole._replace(seal=False))
        for _ in range(2):
            assert driver.cancel(["a", "b"]) == [CancelVerdict.CANCELLED] * 2
            requeued = driver.requeue(["a", "b"], states=frozenset({State.CANCELLED}))
            assert requeued == [RequeueVerdict.REQUEUED] * 2
            quiesce(driver)
            assert set(states(driver).values()) == {"blocked"}
        driver.enqueue_flow(Part(whole.flow, seal=True))
        quiesce(driver)
        assert states(driver) == {"a": "ready", "b": "ready", "c": "blocked"}
        succeed(driver, "a", "b")
        succeed(driver, "c")
        assert info(driver).state is FlowState.SUCCEEDED

    def test_requeue_eight_days_later(self, driver: FlowDriver, clock: ManualClock) -> None:
        """What the siblings came to is kept as long as the flow, whatever their own retention."""
        at_once = {"retention": Retention(0, 0, 0)}
        store(
            driver,
            "a -> end",
            "b -> end",
            "b !> oops",
            fields={"a": at_once, "b": at_once, "end": at_once},
        )
        finish(driver, ("a", "succeed"), ("b", "die"))
        succeed(driver, "oops")
        assert info(driver).finished_at == clock.now()
        clock.advance(8 * 86_400.0)
        while driver.prune(100):
            pass
        driver.requeue(["b"])
        quiesce(driver)
        assert info(driver).finished_at is None
        succeed(driver, "b")
        lease = take_one(driver)
        assert lease.id == "end"
        assert [one.outcome.result for one in driver.inputs("end")] == [
            b"result of a",
            b"result of b",
        ]
        apply(driver, Settlement.succeed("end", lease.fence, None))
        quiesce(driver)
        assert info(driver).state is FlowState.SUCCEEDED
        clock.advance(defaults.KEEP_SUCCEEDED_SECONDS)
        while driver.prune(2):
            pass
        assert driver.flow(FLOW) is None
        assert driver.results(["a", "b", "end"]) == [None] * 3

    def test_results_of_siblings_are_kept_until_a_late_retry_succeeds(
        self, driver: FlowDriver, clock: ManualClock
    ) -> None:
        at_once = {"retention": Retention(0, 0, 0)}
        store(driver, "a -> end", "b -> end", fields={"a": at_once, "b": at_once})
        leases = {lease.id: lease for lease in take(driver, 2)}
        later = 8 * 86_400.0
        apply(
            driver,
            Settlement.succeed("a", leases["a"].fence, b"result of a"),
            Settlement.retry("b", leases["b"].fence, delay=later, error=b"not yet"),
        )
        quiesce(driver)
        clock.advance(later)
        while driver.prune(100):
            pass
        quiesce(driver)
        succeed(driver, "b")
        assert take_one(driver).id == "end"
        given = [(one.job_id, one.outcome.result) for one in driver.inputs("end")]
        assert given == [("a", b"result of a"), ("b", b"result of b")]

    def test_a_member_that_expired_in_line_is_requeued(
        self, driver: FlowDriver, clock: ManualClock
    ) -> None:
        store(driver, "a -> end", "b -> end", fields={"a": {"expires_in": 5.0}})
        clock.advance(5.0)
        assert ids(take(driver, 1)) == ["b"]
        quiesce(driver)
        assert (state(driver, "a"), state(driver, "end")) == (State.CANCELLED, State.CANCELLED)
        driver.requeue(["a"], states=ENDED)
        quiesce(driver)
        assert (state(driver, "a"), state(driver, "end")) == (State.READY, State.BLOCKED)

    def test_times_of_a_job_count_from_its_release(
        self, driver: FlowDriver, clock: ManualClock
    ) -> None:
        store(driver, "a -> b", fields={"b": {"delay": 3.0, "expires_in": 10.0}})
        clock.advance(100.0)
        succeed(driver, "a")
        waiting = get(driver, "b")
        assert (waiting.state, waiting.reason) == (State.SCHEDULED, Reason.UNBLOCKED)
        assert waiting.due_at == clock.now() + 3.0
        assert waiting.expires_at == clock.now() + 10.0
        clock.advance(3.0)
        quiesce(driver)
        assert take_one(driver).id == "b"

    def test_a_callback_that_takes_failures_comes_back_with_its_cancelled_members(
        self, driver: FlowDriver
    ) -> None:
        store(driver, "a ~> end", "b ~> end", tolerated=["a", "b"])
        driver.cancel_flow(FLOW)
        quiesce(driver)
        assert set(states(driver).values()) == {"cancelled"}
        driver.requeue(["a", "b"], states=ENDED)
        quiesce(driver)
        assert states(driver) == {"a": "ready", "b": "ready", "end": "blocked"}
        succeed(driver, "a", "b")
        succeed(driver, "end")
        assert info(driver).state is FlowState.SUCCEEDED

    def test_an_error_callback_that_waits_again_is_not_freed_by_an_old_flow(
        self, driver: FlowDriver
    ) -> None:
        store(driver, "a !> oops")
        die(driver, "a")
        lease = take_one(driver)
        driver.enqueue_flow(flow_of("x", flow_id="child")._replace(seal=False))
        apply(driver, Settlement.wait_for("oops", lease.fence, "child"))
        quiesce(driver)
        succeed(driver, "x")
        succeed(driver, "oops")
        driver.requeue(["a"])
        quiesce(driver)
        assert state(driver, "oops") is State.BLOCKED
        driver.requeue(["x"], states=ENDED)
        succeed(driver, "x")
        assert state(driver, "oops") is State.BLOCKED
        assert get(driver, "oops").awaits is None

    # --- before the seal, and after the end

    def test_nothing_moves_in_a_flow_that_is_not_sealed(self, driver: FlowDriver) -> None:
        whole = flow_of("a -> b", "c")
        driver.enqueue_flow(whole._replace(seal=False))
        driver.cancel(["a"])
        assert driver.requeue(["a"], states=ENDED) == [RequeueVerdict.REQUEUED]
        driver.cancel(["a"])
        assert driver.cancel_flow(FLOW) is CancelVerdict.REQUESTED
        quiesce(driver)
        assert states(driver) == {"a": "cancelled", "b": "blocked", "c": "blocked"}
        driver.enqueue_flow(Part(whole.flow, seal=True))
        quiesce(driver)
        assert set(states(driver).values()) == {"cancelled"}
        assert info(driver).finished_at is not None

    def test_nothing_moves_in_a_deleted_flow(self, driver: FlowDriver) -> None:
        store(driver, "a -> b")
        die(driver, "a")
        driver.delete_flow(FLOW)
        assert driver.requeue(["a"]) == [RequeueVerdict.NOT_FOUND]
        assert driver.cancel_flow(FLOW) is CancelVerdict.FINISHED
        assert driver.prune(1) == 1
        assert driver.requeue(["b"], states=ENDED) == [RequeueVerdict.NOT_FOUND]
        assert driver.inputs("b") == []
        while driver.prune(1):
            pass
        assert driver.flow(FLOW) is None
        assert driver.delete_flow(FLOW) is DeleteVerdict.NOT_FOUND

    def test_a_flow_with_a_key_or_without_all_its_parts_can_t_be_awaited(
        self, driver: FlowDriver
    ) -> None:
        driver.enqueue([job("a")])
        lease = take_one(driver)
        keyed = flow_of("x", flow_id="keyed", idempotency_key="k")
        driver.enqueue_flow(keyed._replace(seal=False))
        part = flow_of("y -> z", flow_id="part")
        driver.enqueue_flow(Part(part.flow, part.nodes))
        for flow_id in ("keyed", "part"):
            waiting = Settlement.wait_for("a", lease.fence, flow_id)
            assert settle(driver, waiting)[0] == (Verdict.NOT_FOUND, State.RUNNING)

    def test_impossible_parts_are_refused(self, driver: FlowDriver) -> None:
        whole = flow_of("a -> c", "b -> c")
        twice = (whole.nodes[0], whole.nodes[0]._replace(label="again"), whole.nodes[1])
        same_place = (Edge("a", "c", 0), Edge("b", "c", 0))
        for part in (
            Part(Flow("empty", 0, 0), seal=True),
            whole._replace(nodes=twice),
            whole._replace(edges=same_place),
        ):
            with pytest.raises(InvalidJob):
                driver.enqueue_flow(part)
        assert driver.list_flows().flows == []
        assert driver.list_jobs(JobFilter()).jobs == []

    # --- looking

    def test_flows_nodes_and_edges_are_read_in_pages(self, driver: FlowDriver) -> None:
        for name in ("f1", "f2", "f3"):
            store(driver, f"{name}a -> {name}b", f"{name}a ~> {name}c", flow_id=name)
        page = driver.list_flows(limit=2)
        rest = driver.list_flows(limit=2, cursor=page.cursor)
        assert [flow.id for flow in page.flows + rest.flows] == ["f3", "f2", "f1"]
        assert rest.cursor is None
        nodes = driver.flow_nodes("f2", limit=2)
        nodes += driver.flow_nodes("f2", after=nodes[-1].number, limit=2)
        assert [node.id for node in nodes] == ["f2a", "f2b", "f2c"]
        edges, cursor = driver.flow_edges("f2", limit=1)
        while cursor is not None:
            more, cursor = driver.flow_edges("f2", cursor=cursor, limit=1)
            edges += more
        assert sorted((edge.source, edge.target) for edge in edges) == [
            ("f2a", "f2b"),
            ("f2a", "f2c"),
        ]
        with pytest.raises(InvalidCursor):
            driver.list_flows(cursor="nonsense")

    @pytest.mark.parametrize("name", ["nobody", "", "\x00", "\ud800", "x" * 5000])
    def test_unknown_names_are_not_found(self, driver: FlowDriver, name: str) -> None:
        assert driver.flow(name) is None
        assert driver.flow_nodes(name) == []
        assert driver.inputs(name) == []
        assert driver.flow_edges(name) == ([], None)
        assert driver.cancel_flow(name) is CancelVerdict.NOT_FOUND
        assert driver.delete_flow(name) is DeleteVerdict.NOT_FOUND
