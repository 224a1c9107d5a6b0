"""What operators do: cancel, requeue, delete, purge; and strings that mean no good."""

from __future__ import annotations

from typing import Any

from taskharbor.clock import ManualClock
from taskharbor.conformance.sharding import in_one_shard
from taskharbor.conformance.support import (
    EVERYTHING,
    HOLDER,
    LEASE,
    QUEUE,
    Suite,
    apply,
    get,
    ids,
    put,
    settle,
    state,
    take,
    take_one,
)
from taskharbor.drivers.base import (
    CancelVerdict,
    DeleteVerdict,
    InspectableDriver,
    JobFilter,
    Renewal,
    RequeueVerdict,
)
from taskharbor.lease import Verdict
from taskharbor.settlement import Settlement
from taskharbor.states import Reason, State

HOSTILE = [
    "",
    " ",
    "nobody",
    "a\x00",
    "\x00",
    "\ud800",
    "a\udfffb",
    "naïve ☃ 🚀",
    "a" * 100_000,
    "'; DROP TABLE jobs; --",
    "{}",
    "*",
    "%",
    "../a",
    "a\n",
    "A",
]


def _dead(driver: InspectableDriver, job_id: str = "a", **fields: Any) -> None:
    """A dead job with one attempt; nothing else may be ready in its queue."""
    put(driver, job_id, **fields)
    lease = take_one(driver, queue=fields.get("queue", QUEUE))
    assert lease.id == job_id
    apply(driver, Settlement.die(job_id, lease.fence, error=b"error"))


class CancelRules(Suite):
    def test_waiting_jobs_are_cancelled_now(
        self, driver: InspectableDriver, clock: ManualClock
    ) -> None:
        put(driver, "ready")
        put(driver, "scheduled", delay=60.0)
        assert driver.cancel(["ready", "scheduled"]) == [CancelVerdict.CANCELLED] * 2
        for job_id in ("ready", "scheduled"):
            cancelled = get(driver, job_id)
            assert (cancelled.state, cancelled.reason) == (State.CANCELLED, Reason.OPERATOR)
            assert (cancelled.finished_at, cancelled.history) == (clock.now(), ())
        assert take(driver) == []
        assert driver.promote(10).next_due is None

    def test_a_running_job_goes_on_until_its_holder_knows(self, driver: InspectableDriver) -> None:
        put(driver, "a")
        take_one(driver)
        assert driver.cancel(["a"]) == [CancelVerdict.REQUESTED]
        running = get(driver)
        assert (running.state, running.reason) == (State.RUNNING, Reason.RESERVED)
        assert running.cancel_requested

    def test_finished_jobs_stay_as_they_ended(self, driver: InspectableDriver) -> None:
        _dead(driver)
        put(driver, "b")
        apply(driver, Settlement.succeed("b", take_one(driver).fence, b"result"))
        before = get(driver), get(driver, "b")
        assert driver.cancel(["a", "b"]) == [CancelVerdict.FINISHED] * 2
        assert (get(driver), get(driver, "b")) == before

    def test_verdicts_in_order_also_for_a_job_named_twice(self, driver: InspectableDriver) -> None:
        put(driver, "running")
        take_one(driver)
        put(driver, "ready", "other")
        assert driver.cancel(["ready", "nobody", "running", "ready", "running"]) == [
            CancelVerdict.CANCELLED,
            CancelVerdict.NOT_FOUND,
            CancelVerdict.REQUESTED,
            CancelVerdict.FINISHED,
            CancelVerdict.REQUESTED,
        ]
        assert state(driver, "other") is State.READY
        assert driver.cancel([]) == []

    def test_the_reason_is_kept(self, driver: InspectableDriver) -> None:
        put(driver, "running")
        lease = take_one(driver)
        put(driver, "ready")
        driver.cancel(["running", "ready"], Reason.TASK)
        driver.cancel(["running"], Reason.OPERATOR)
        apply(driver, Settlement.release("running", lease.fence))
        assert get(driver, "running").reason is Reason.TASK
        assert get(driver, "ready").reason is Reason.TASK

    def test_many_jobs_are_cancelled_in_one_call(self, driver: InspectableDriver) -> None:
        job_ids = [f"a{number}" for number in range(1000)]
        put(driver, *job_ids)
        assert driver.cancel(job_ids) == [CancelVerdict.CANCELLED] * 1000


class RequeueRules(Suite):
    def test_a_dead_job_goes_back_in_line(
        self, driver: InspectableDriver, clock: ManualClock
    ) -> None:
        _dead(driver)
        before = get(driver)
        clock.advance(5)
        assert driver.requeue(["a"]) == [RequeueVerdict.REQUEUED]
        back = get(driver)
        assert (back.state, back.reason, back.due_at) == (State.READY, Reason.OPERATOR, clock.now())
        assert (back.attempts, back.losses, back.finished_at) == (0, 0, None)
        assert (back.history, back.error) == (before.history, before.error)
        assert back.enqueued_at == before.enqueued_at
        assert take_one(driver).attempt == 1

    def test_a_succeeded_job_runs_again_without_its_result(self, driver: InspectableDriver) -> None:
        put(driver, "a")
        lease = take_one(driver)
        done = Settlement.succeed("a", lease.fence, b"result")
        apply(driver, done)
        assert driver.requeue(["a"], states=frozenset({State.SUCCEEDED})) == [
            RequeueVerdict.REQUEUED
        ]
        assert get(driver).result is None
        assert settle(driver, done)[0].verdict is Verdict.NOT_RUNNING
        take_one(driver)
        assert settle(driver, done)[0].verdict is Verdict.MISMATCH

    def test_a_cancelled_job_runs_again_uncancelled(self, driver: InspectableDriver) -> None:
        put(driver, "a")
        lease = take_one(driver)
        driver.cancel(["a"])
        apply(driver, Settlement.release("a", lease.fence))
        assert driver.requeue(["a"]) == [RequeueVerdict.WRONG_STATE]
        driver.requeue(["a"], states=frozenset({State.CANCELLED}))
        again = take_one(driver)
        assert not again.cancel_requested
        assert apply(driver, Settlement.retry("a", again.fence, delay=0, error=None))[0].state is (
            State.READY
        )

    def test_an_expired_job_may_start_now(
        self, driver: InspectableDriver, clock: ManualClock
    ) -> None:
        put(driver, "a", expires_in=5.0)
        clock.advance(5)
        assert take(driver) == []
        driver.requeue(["a"], states=frozenset({State.CANCELLED}))
        assert get(driver).expires_at is None
        assert ids(take(driver)) == ["a"]

    def test_only_jobs_in_one_of_the_states(self, driver: InspectableDriver) -> None:
        put(driver, "scheduled", delay=60.0)
        _dead(driver, "dead")
        put(driver, "running")
        take_one(driver)
        put(driver, "ready", "cancelled")
        driver.cancel(["cancelled"])
        everyone = ["scheduled", "dead", "running", "ready", "cancelled", "nobody"]
        wrong = RequeueVerdict.WRONG_STATE
        assert driver.requeue(everyone, states=frozenset({State.CANCELLED})) == [
            *[wrong] * 4,
            RequeueVerdict.REQUEUED,
            RequeueVerdict.NOT_FOUND,
        ]
        assert driver.requeue(everyone, states=frozenset(State)) == [
            wrong,
            RequeueVerdict.REQUEUED,
            *[wrong] * 3,
            RequeueVerdict.NOT_FOUND,
        ]

    def test_only_jobs_of_the_queue(self, driver: InspectableDriver) -> None:
        _dead(driver, "a", queue="q1")
        _dead(driver, "b", queue="q2")
        put(driver, "c", queue="q2")
        assert driver.requeue(["a", "b", "c"], queue="q1") == [
            RequeueVerdict.REQUEUED,
            RequeueVerdict.WRONG_QUEUE,
            RequeueVerdict.WRONG_STATE,
        ]
        assert state(driver, "b") is State.DEAD

    def test_a_job_named_twice_is_requeued_once(self, driver: InspectableDriver) -> None:
        _dead(driver)
        assert driver.requeue(["a", "a"]) == [RequeueVerdict.REQUEUED, RequeueVerdict.WRONG_STATE]
        assert driver.requeue([]) == []

    def test_it_may_wait(self, driver: InspectableDriver, clock: ManualClock) -> None:
        for job_id in ("delay", "eta", "past"):
            _dead(driver, job_id)
        driver.requeue(["delay"], delay=5.0)
        driver.requeue(["eta"], eta=clock.now() + 7)
        driver.requeue(["past"], eta=clock.now() - 7)
        seen = {job_id: get(driver, job_id) for job_id in ("delay", "eta", "past")}
        assert {job_id: (one.state, one.due_at - clock.now()) for job_id, one in seen.items()} == {
            "delay": (State.SCHEDULED, 5),
            "eta": (State.SCHEDULED, 7),
            "past": (State.READY, 0),
        }
        assert driver.promote(10).next_due == clock.now() + 5

    def test_attempts_may_stay(self, driver: InspectableDriver) -> None:
        put(driver, "a")
        lease = take_one(driver)
        apply(driver, Settlement.die("a", lease.fence, error=None, loss=True))
        driver.requeue(["a"], reset_attempts=False)
        assert (get(driver).attempts, get(driver).losses) == (1, 1)
        again = take_one(driver)
        assert (again.attempt, again.losses) == (2, 1)

    @in_one_shard
    def test_it_keeps_its_place(self, driver: InspectableDriver) -> None:
        _dead(driver, "a")
        put(driver, "b")
        driver.requeue(["a"])
        assert ids(take(driver, 2)) == ["a", "b"]

    @in_one_shard
    def test_many_jobs_are_requeued_in_one_call(self, driver: InspectableDriver) -> None:
        job_ids = [f"a{number}" for number in range(500)]
        put(driver, *job_ids)
        apply(
            driver,
            *(Settlement.die(one.id, one.fence, error=None) for one in take(driver, 500)),
        )
        assert driver.requeue(job_ids) == [RequeueVerdict.REQUEUED] * 500
        assert ids(take(driver, 500)) == job_ids


class DeleteRules(Suite):
    @in_one_shard
    def test_all_but_running_jobs_are_deleted(self, driver: InspectableDriver) -> None:
        put(driver, "scheduled", delay=60.0)
        _dead(driver, "dead")
        put(driver, "running", "ready")
        take_one(driver)
        assert driver.delete(["scheduled", "dead", "running", "ready", "nobody", "ready"]) == [
            DeleteVerdict.DELETED,
            DeleteVerdict.DELETED,
            DeleteVerdict.RUNNING,
            DeleteVerdict.DELETED,
            DeleteVerdict.NOT_FOUND,
            DeleteVerdict.NOT_FOUND,
        ]
        assert ids(driver.list_jobs(EVERYTHING).jobs) == ["running"]
        assert take(driver) == []
        assert driver.promote(10).next_due is None
        assert driver.delete([]) == []

    @in_one_shard
    def test_nothing_of_a_deleted_job_comes_back_with_its_id(
        self, driver: InspectableDriver
    ) -> None:
        put(driver, "a", priority=5, queue="old")
        lease = take_one(driver, queue="old")
        driver.extend(HOLDER, [Renewal("a", lease.fence, b"progress", b"saved")], LEASE)
        apply(driver, Settlement.die("a", lease.fence, error=b"error", loss=True))
        driver.delete(["a"])
        put(driver, "b")
        put(driver, "a")
        fresh = get(driver)
        assert (fresh.attempts, fresh.losses, fresh.history) == (0, 0, ())
        assert (fresh.progress, fresh.saved, fresh.error) == (None, None, None)
        assert ids(take(driver, 2)) == ["b", "a"], "a new job has a new place"

    @in_one_shard
    def test_purge_takes_what_matches_and_does_not_run(self, driver: InspectableDriver) -> None:
        put(driver, "a", "b", "c", queue="q1")
        put(driver, "d", "e", queue="q2", task="other")
        take_one(driver, queue="q1")
        assert driver.purge(JobFilter(queue="q1", task="other")) == 0
        assert driver.purge(JobFilter(state=State.RUNNING)) == 0
        assert driver.purge(JobFilter(queue="q1")) == 2
        assert driver.purge(JobFilter(task="other"), limit=1) == 1
        assert driver.purge(EVERYTHING) == 1
        assert ids(driver.list_jobs(EVERYTHING).jobs) == ["a"]

    def test_purge_in_bounded_steps_until_0(self, driver: InspectableDriver) -> None:
        put(driver, *(f"a{number}" for number in range(250)))
        counts = []
        while count := driver.purge(JobFilter(state=State.READY), limit=100):
            counts.append(count)
        assert sum(counts) == 250
        assert max(counts) <= 100
        assert driver.queues() == []


class HostileRules(Suite):
    """Strings that no job was ever called."""

    def test_unknown_ids_are_not_found_whatever_their_characters(
        self, driver: InspectableDriver
    ) -> None:
        put(driver, "a")
        before = get(driver)
        strange = [*HOSTILE, *HOSTILE]
        assert driver.cancel(strange) == [CancelVerdict.NOT_FOUND] * len(strange)
        assert driver.delete(strange) == [DeleteVerdict.NOT_FOUND] * len(strange)
        assert driver.requeue(strange) == [RequeueVerdict.NOT_FOUND] * len(strange)
        assert driver.results(strange) == [None] * len(strange)
        assert [driver.get(one) for one in strange] == [None] * len(strange)
        extended = driver.extend(HOLDER, [Renewal(one, 1) for one in strange], LEASE)
        assert {one.verdict for one in extended} == {Verdict.NOT_FOUND}
        assert driver.wait_results(strange, 0) == [None] * len(strange)
        assert get(driver) == before

    def test_an_unknown_id_does_not_disturb_its_neighbours(self, driver: InspectableDriver) -> None:
        put(driver, "a", "b")
        leases = take(driver, 2)
        done = [Settlement.succeed(lease.id, lease.fence, None) for lease in leases]
        strange = [Settlement.succeed(one, leases[0].fence, None) for one in HOSTILE]
        settled = settle(driver, done[0], *strange, done[1])
        assert [one.verdict for one in settled] == [
            Verdict.APPLIED,
            *[Verdict.NOT_FOUND] * len(strange),
            Verdict.APPLIED,
        ]
