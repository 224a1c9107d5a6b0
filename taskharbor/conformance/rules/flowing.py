"""Jobs that wait for each other: what moves when one of them ends."""

from __future__ import annotations

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
    parts_of,
    quiesce,
    states,
    store,
    succeed,
)
from taskharbor.conformance.sharding import in_one_shard
from taskharbor.conformance.support import HOLDER, apply, get, job, settle, state, take, take_one
from taskharbor.drivers.base import CancelVerdict, DeleteVerdict, JobFilter, RequeueVerdict, Want
from taskharbor.drivers.flows import FlowDriver
from taskharbor.errors import InvalidJob
from taskharbor.flow.plan import Edge, FlowState, Part
from taskharbor.lease import Verdict
from taskharbor.message import Retention
from taskharbor.settlement import Settlement
from taskharbor.states import Reason, State


@in_one_shard
class FlowRules(FlowSuite):
    # --- storing

    def test_a_flow_is_stored_whole_and_its_roots_are_ready(self, driver: FlowDriver) -> None:
        store(driver, "a -> b", "b -> c", name="chain")
        assert states(driver) == {"a": "ready", "b": "blocked", "c": "blocked"}
        assert [get(driver, name).flow for name in "abc"] == [FLOW] * 3
        seen = info(driver)
        assert (seen.state, seen.size, seen.name) == (FlowState.RUNNING, 3, "chain")
        assert seen.finished == dict.fromkeys((State.SUCCEEDED, State.DEAD, State.CANCELLED), 0)

    def test_nothing_runs_before_the_seal(self, driver: FlowDriver, clock: ManualClock) -> None:
        *parts, last = parts_of(flow_of("a -> c", "b -> c", "d"), 2)
        for part in parts:
            driver.enqueue_flow(part)
        quiesce(driver)
        assert info(driver).state is FlowState.BUILDING
        assert take(driver, 10) == []
        driver.enqueue_flow(last)
        quiesce(driver)
        assert sorted(lease.id for lease in take(driver, 10)) == ["a", "b", "d"]

    def test_any_part_may_be_sent_again(self, driver: FlowDriver) -> None:
        for part in parts_of(flow_of("a -> c", "b -> c"), 1):
            driver.enqueue_flow(part)
            driver.enqueue_flow(part)
        quiesce(driver)
        succeed(driver, "a", "b")
        for part in parts_of(flow_of("a -> c", "b -> c"), 1):
            assert driver.enqueue_flow(part).created
        quiesce(driver)
        assert states(driver) == {"a": "succeeded", "b": "succeeded", "c": "ready"}

    def test_a_flow_never_sealed_is_pruned(self, driver: FlowDriver, clock: ManualClock) -> None:
        *parts, _ = parts_of(flow_of("a -> b"), 1)
        for part in parts:
            driver.enqueue_flow(part)
        clock.advance(defaults.UNSEALED_SECONDS)
        while driver.prune(1):
            pass
        assert driver.flow(FLOW) is None
        assert state(driver, "a") is None

    def test_a_seal_before_everything_came_is_refused(self, driver: FlowDriver) -> None:
        whole = flow_of("a -> b", "b -> c")
        for missing in (
            whole._replace(edges=whole.edges[:1]),
            Part(whole.flow, whole.nodes[:1], 0, (), True),
        ):
            with pytest.raises(InvalidJob):
                driver.enqueue_flow(missing)
        assert driver.flow(FLOW) is None
        assert state(driver, "a") is None, "all or nothing"

    def test_a_flow_does_not_take_a_job_that_is_there(self, driver: FlowDriver) -> None:
        driver.enqueue([job("b")])
        with pytest.raises(InvalidJob, match="b"):
            driver.enqueue_flow(flow_of("a -> b"))
        assert state(driver, "a") is None
        assert driver.flow(FLOW) is None

    def test_an_edge_to_a_job_elsewhere_is_refused(self, driver: FlowDriver) -> None:
        driver.enqueue([job("other")])
        whole = flow_of("a -> b")
        astray = whole._replace(edges=(Edge("other", "b", 0),))
        with pytest.raises(InvalidJob, match="other"):
            driver.enqueue_flow(astray)
        assert driver.flow(FLOW) is None

    def test_one_flow_per_idempotency_key(self, driver: FlowDriver) -> None:
        driver.enqueue_flow(flow_of("a -> b", idempotency_key="k", digest=b"1"))
        other = flow_of("x -> y", flow_id="flow-2", idempotency_key="k", digest=b"2")
        answer = driver.enqueue_flow(other)
        assert answer == (FLOW, False, False)
        assert state(driver, "x") is None
        same = flow_of("v", flow_id="flow-3", idempotency_key="k", digest=b"1")
        assert driver.enqueue_flow(same) == (FLOW, False, True)

    def test_the_key_of_a_deleted_flow_is_free_before_the_flow_is_gone(
        self, driver: FlowDriver
    ) -> None:
        """Whoever deletes one wants the next to run, and not to hear of the old one."""
        driver.enqueue_flow(flow_of("a -> b", idempotency_key="k"))
        for name in "ab":
            succeed(driver, name)
        assert driver.delete_flow(FLOW) is DeleteVerdict.DELETED
        other = flow_of("x -> y", flow_id="flow-2", idempotency_key="k")
        assert driver.enqueue_flow(other) == ("flow-2", True, True)
        while driver.prune(1):
            pass
        assert driver.flow(FLOW) is None
        again = flow_of("v", flow_id="flow-3", idempotency_key="k")
        assert driver.enqueue_flow(again)[:2] == ("flow-2", False)

    def test_the_key_of_a_flow_that_is_half_pruned_is_free(
        self, driver: FlowDriver, clock: ManualClock
    ) -> None:
        kept = Retention(10.0, 10.0, 10.0)
        driver.enqueue_flow(flow_of("a -> b", idempotency_key="k", retention=kept))
        for name in "ab":
            succeed(driver, name)
        clock.advance(10.0)
        assert driver.prune(1) == 1
        other = flow_of("x -> y", flow_id="flow-2", idempotency_key="k")
        assert driver.enqueue_flow(other)[:2] == ("flow-2", True)
        while driver.prune(1):
            pass
        assert driver.enqueue_flow(flow_of("v", flow_id="3", idempotency_key="k"))[0] == "flow-2"

    # --- order and inputs

    def test_a_chain_goes_step_by_step(self, driver: FlowDriver) -> None:
        store(driver, "a -> b", "b -> c")
        for name in "abc":
            succeed(driver, name)
        assert set(states(driver).values()) == {"succeeded"}
        assert info(driver).state is FlowState.SUCCEEDED
        assert info(driver).finished[State.SUCCEEDED] == 3

    def test_a_successor_is_reserved_by_the_settle_that_frees_it(self, driver: FlowDriver) -> None:
        store(driver, "a -> b")
        lease = take_one(driver)
        done = Settlement.succeed(lease.id, lease.fence, b"1")
        got = driver.exchange(HOLDER, [done], Want(("default",), 1, 30.0))
        assert [reserved.id for reserved in got.reserved] == ["b"]
        assert got.reserved[0].flow == FLOW

    def test_a_callback_waits_for_all_members(self, driver: FlowDriver) -> None:
        store(driver, *(f"m{n} -> end" for n in range(10)))
        for n in range(9, 0, -1):
            succeed(driver, f"m{n}")
            assert state(driver, "end") is State.BLOCKED
        succeed(driver, "m0")
        assert state(driver, "end") is State.READY
        assert get(driver, "end").reason is Reason.UNBLOCKED

    def test_inputs_are_read_in_pages_by_position(self, driver: FlowDriver) -> None:
        store(driver, *(f"m{n} -> end" for n in range(10)))
        succeed(driver, *(f"m{n}" for n in (7, 3, 1, 0, 2, 4, 5, 9, 8, 6)))
        first = driver.inputs("end", limit=6)
        rest = driver.inputs("end", after=first[-1].position, limit=6)
        assert [one.job_id for one in first + rest] == [f"m{n}" for n in range(10)]
        assert first[3].outcome.result == b"result of m3"
        assert driver.inputs("m1") == driver.inputs("nobody") == []

    def test_results_of_inputs_are_read_without_the_rest(self, driver: FlowDriver) -> None:
        count = 150
        edges = [f"m{n} -> end" for n in range(count)]
        store(driver, *edges)
        succeed(driver, *(f"m{n}" for n in reversed(range(count))))
        expected = [f"result of m{n}".encode() for n in range(count)]
        assert driver.input_results("end") == expected
        assert driver.input_results("end", limit=70) == expected[:70]
        assert driver.input_results("end", after=63, limit=1) == expected[64:65]
        assert driver.input_results("end", after=60, limit=80) == expected[61:141]
        assert driver.input_results("end", after=count - 1) == []
        assert driver.input_results("m1") == driver.input_results("nobody") == []

    def test_results_of_inputs_end_where_there_is_none(self, driver: FlowDriver) -> None:
        store(driver, *(f"m{n} ~> end" for n in range(6)))
        for n, result in ((0, b"0"), (1, b""), (2, None), (3, b"3")):
            lease = take_one(driver)
            assert lease.id == f"m{n}"
            apply(driver, Settlement.succeed(lease.id, lease.fence, result))
        die(driver, "m4")
        assert driver.input_results("end") == [b"0", b""]
        assert driver.input_results("end", after=1) == []
        assert driver.input_results("end", after=2) == [b"3"]
        assert driver.input_results("end", after=4) == [], "m5 has not run"
        driver.requeue(["m1"], states=frozenset({State.SUCCEEDED}))
        assert driver.input_results("end") == [b"0"]

    # --- failure

    def test_a_retry_keeps_the_successor_waiting(self, driver: FlowDriver) -> None:
        store(driver, "a -> b")
        lease = take_one(driver)
        apply(driver, Settlement.retry(lease.id, lease.fence, delay=0, error=b"oops"))
        assert states(driver) == {"a": "ready", "b": "blocked"}

    def test_a_death_cancels_all_that_needed_it(self, driver: FlowDriver) -> None:
        store(driver, "a -> b", "b -> c", "x -> c", "x -> y")
        die(driver, "a")
        assert states(driver) == {
            "a": "dead",
            "b": "cancelled",
            "c": "cancelled",
            "x": "ready",
            "y": "blocked",
        }
        assert get(driver, "c").reason is Reason.UPSTREAM
        seen = info(driver)
        assert (seen.state, seen.finished_at) == (FlowState.FAILED, None)
        succeed(driver, "x")
        succeed(driver, "y")
        assert info(driver).finished_at is not None
        assert info(driver).state is FlowState.FAILED

    @pytest.mark.parametrize("how", ["cancel", "operator", "expiry"])
    def test_every_end_but_success_spoils_the_successor(
        self, driver: FlowDriver, clock: ManualClock, how: str
    ) -> None:
        store(driver, "a -> b", "a ~> c", fields={"a": {"expires_in": 5.0}})
        if how == "cancel":
            finish(driver, ("a", "cancel"))
        elif how == "operator":
            driver.cancel(["a"])
        else:
            clock.advance(5.0)
            assert take(driver, 1, queue="default") != []
        quiesce(driver)
        assert state(driver, "b") is State.CANCELLED
        assert state(driver, "c") in (State.READY, State.RUNNING)

    def test_requeue_of_the_dead_revives_what_it_cancelled(self, driver: FlowDriver) -> None:
        store(driver, "a -> b", "b -> c")
        die(driver, "a")
        assert driver.requeue(["c"], states=frozenset(State)) == [RequeueVerdict.UPSTREAM]
        assert driver.requeue(["a"]) == [RequeueVerdict.REQUEUED]
        quiesce(driver)
        assert states(driver) == {"a": "ready", "b": "blocked", "c": "blocked"}
        assert info(driver).state is FlowState.RUNNING
        for name in "abc":
            succeed(driver, name)
        assert info(driver).state is FlowState.SUCCEEDED

    def test_two_dead_members_and_one_requeued(self, driver: FlowDriver) -> None:
        store(driver, "a -> end", "b -> end", "c -> end")
        die(driver, "a", "b")
        driver.requeue(["a"])
        quiesce(driver)
        assert state(driver, "end") is State.CANCELLED
        succeed(driver, "a", "c")
        assert state(driver, "end") is State.CANCELLED
        driver.requeue(["b"])
        quiesce(driver)
        assert state(driver, "end") is State.BLOCKED
        succeed(driver, "b")
        assert state(driver, "end") is State.READY

    def test_a_succeeded_member_requeued_counts_once(self, driver: FlowDriver) -> None:
        store(driver, "a -> end", "b -> end")
        succeed(driver, "a")
        driver.requeue(["a"], states=frozenset({State.SUCCEEDED}))
        quiesce(driver)
        succeed(driver, "b")
        assert state(driver, "end") is State.BLOCKED
        succeed(driver, "a")
        assert state(driver, "end") is State.READY
        driver.requeue(["a"], states=frozenset({State.SUCCEEDED}))
        quiesce(driver)
        assert state(driver, "end") is State.READY, "what was released is never taken back"
        succeed(driver, "a", "end")
        assert info(driver).state is FlowState.SUCCEEDED

    def test_an_allowed_failure_is_a_value(self, driver: FlowDriver) -> None:
        store(driver, "a ~> end", "b ~> end", tolerated=["a", "b"])
        finish(driver, ("a", "die"), ("b", "succeed"))
        assert state(driver, "end") is State.READY
        assert [one.outcome.state for one in driver.inputs("end")] == [State.DEAD, State.SUCCEEDED]
        succeed(driver, "end")
        assert info(driver).state is FlowState.SUCCEEDED

    def test_an_allowed_failure_requeued_to_success(self, driver: FlowDriver) -> None:
        store(driver, "a ~> end", "b ~> end", tolerated=["a", "b"])
        die(driver, "a")
        driver.requeue(["a"])
        quiesce(driver)
        succeed(driver, "b")
        assert state(driver, "end") is State.BLOCKED
        succeed(driver, "a")
        assert state(driver, "end") is State.READY

    # --- error callbacks

    def test_an_error_callback_runs_once_per_death(self, driver: FlowDriver) -> None:
        store(driver, "a -> b", "a !> oops", "b !> oops")
        die(driver, "a")
        assert states(driver) == {"a": "dead", "b": "cancelled", "oops": "ready"}
        succeed(driver, "oops")
        driver.requeue(["a"])
        quiesce(driver)
        assert state(driver, "oops") is State.BLOCKED
        die(driver, "a")
        assert state(driver, "oops") is State.READY
        succeed(driver, "oops")
        driver.requeue(["a"])
        quiesce(driver)
        for name in "ab":
            succeed(driver, name)
        assert states(driver) == {"a": "succeeded", "b": "succeeded", "oops": "cancelled"}
        assert info(driver).state is FlowState.SUCCEEDED

    # --- the flow as a whole

    def test_cancel_of_a_flow_cancels_what_is_not_finished(self, driver: FlowDriver) -> None:
        store(driver, "a -> b", "c -> d", "e")
        succeed(driver, "a")
        lease = take_one(driver)
        assert driver.cancel_flow(FLOW) is CancelVerdict.REQUESTED
        quiesce(driver)
        assert get(driver, lease.id).cancel_requested
        apply(driver, Settlement.succeed(lease.id, lease.fence, None))
        quiesce(driver)
        ended = states(driver)
        assert ended.pop("a") == ended.pop(lease.id) == "succeeded"
        assert set(ended.values()) == {"cancelled"}
        assert info(driver).state is FlowState.CANCELLED
        assert driver.cancel_flow(FLOW) is CancelVerdict.FINISHED
        assert driver.cancel_flow("nobody") is CancelVerdict.NOT_FOUND

    def test_a_cancelled_flow_can_be_requeued(self, driver: FlowDriver) -> None:
        store(driver, "a -> b", "b -> c")
        driver.cancel_flow(FLOW)
        quiesce(driver)
        assert [get(driver, name).reason for name in "ab"] == [Reason.OPERATOR, Reason.UPSTREAM]
        driver.requeue(["a"], states=frozenset({State.CANCELLED}))
        quiesce(driver)
        assert states(driver) == {"a": "ready", "b": "blocked", "c": "blocked"}
        for name in "abc":
            succeed(driver, name)
        assert info(driver).state is FlowState.SUCCEEDED

    def test_a_flow_past_its_deadline_is_cancelled(
        self, driver: FlowDriver, clock: ManualClock
    ) -> None:
        store(driver, "a -> b", expires_in=60.0)
        assert driver.promote(100).next_due == info(driver).expires_at
        clock.advance(60.0)
        quiesce(driver)
        assert set(states(driver).values()) == {"cancelled"}
        assert [get(driver, name).reason for name in "ab"] == [Reason.EXPIRED, Reason.UPSTREAM]

    def test_a_flow_and_its_jobs_are_kept_together(
        self, driver: FlowDriver, clock: ManualClock
    ) -> None:
        store(
            driver,
            "a -> b",
            retention=Retention(succeeded=100.0),
            fields={"a": {"retention": Retention(0, 0, 0)}},
        )
        succeed(driver, "a")
        clock.advance(1000.0)
        driver.prune(100)
        assert driver.inputs("b")[0].outcome.result == b"result of a"
        succeed(driver, "b")
        clock.advance(99.0)
        assert driver.prune(100) == 0
        clock.advance(1.0)
        while driver.prune(100):
            pass
        assert driver.flow(FLOW) is None
        assert (state(driver, "a"), state(driver, "b")) == (None, None)

    def test_jobs_of_a_flow_are_not_deleted_alone(self, driver: FlowDriver) -> None:
        store(driver, "a -> b")
        die(driver, "a")
        assert driver.delete(["a", "b"]) == [DeleteVerdict.IN_FLOW] * 2
        assert driver.purge(JobFilter()) == 0
        assert driver.delete_flow(FLOW) is DeleteVerdict.DELETED
        while driver.prune(100):
            pass
        assert driver.flow(FLOW) is None
        assert driver.delete_flow(FLOW) is DeleteVerdict.NOT_FOUND

    def test_a_running_flow_is_not_deleted(self, driver: FlowDriver) -> None:
        store(driver, "a -> b")
        assert driver.delete_flow(FLOW) is DeleteVerdict.RUNNING

    # --- a job that hands its work to a flow

    def test_a_job_waits_for_the_flow_it_handed_its_work_to(self, driver: FlowDriver) -> None:
        store(driver, "a -> b")
        lease = take_one(driver)
        whole = flow_of("x -> y", flow_id="child")
        driver.enqueue_flow(whole._replace(seal=False))
        waiting = Settlement.wait_for("a", lease.fence, "child")
        assert settle(driver, waiting)[0] == (Verdict.APPLIED, State.BLOCKED)
        assert settle(driver, waiting)[0].verdict is Verdict.NOT_RUNNING
        quiesce(driver)
        assert info(driver, "child").parent == "a"
        succeed(driver, "x")
        assert state(driver, "a") is State.BLOCKED
        succeed(driver, "y")
        again = take_one(driver)
        assert (again.id, again.awaits, again.attempt) == ("a", "child", 1)
        apply(driver, Settlement.succeed("a", again.fence, b"theirs"))
        assert state(driver, "b") is State.READY

    def test_a_flow_that_is_not_there_or_awaited_already_can_t_be_awaited(
        self, driver: FlowDriver
    ) -> None:
        driver.enqueue([job("a"), job("b")])
        first, second = take(driver, 2)
        nowhere = Settlement.wait_for(first.id, first.fence, "nowhere")
        assert settle(driver, nowhere)[0] == (Verdict.NOT_FOUND, State.RUNNING)
        driver.enqueue_flow(flow_of("x", flow_id="child")._replace(seal=False))
        apply(driver, Settlement.wait_for(first.id, first.fence, "child"))
        taken = Settlement.wait_for(second.id, second.fence, "child")
        assert settle(driver, taken)[0] == (Verdict.NOT_FOUND, State.RUNNING)

    def test_cancel_of_a_waiting_job_cancels_its_flow(self, driver: FlowDriver) -> None:
        driver.enqueue([job("a")])
        lease = take_one(driver)
        driver.enqueue_flow(flow_of("x -> y", flow_id="child")._replace(seal=False))
        apply(driver, Settlement.wait_for("a", lease.fence, "child"))
        assert driver.cancel(["a"]) == [CancelVerdict.CANCELLED]
        quiesce(driver)
        assert set(states(driver, "child").values()) == {"cancelled"}

    # --- large ones

    def test_a_large_fan_out_moves_page_by_page(self, driver: FlowDriver) -> None:
        size = 2 * defaults.FLOW_PAGE + 10
        whole = flow_of(*(f"root -> m{n}" for n in range(size)))
        for part in parts_of(whole, defaults.BATCH):
            driver.enqueue_flow(part)
        lease = take_one(driver)
        assert lease.id == "root"
        apply(driver, Settlement.succeed("root", lease.fence, None))
        ready = sum(node == "ready" for node in states(driver).values())
        assert ready <= defaults.FLOW_PAGE
        assert driver.promote(1).more
        quiesce(driver)
        assert len(take(driver, size + 1)) == size
