"""Time: what promote moves, what prune takes away, who leads."""

from __future__ import annotations

import pytest

from taskharbor.clock import ManualClock
from taskharbor.conformance.sharding import in_one_shard
from taskharbor.conformance.support import (
    FORGET_AT_ONCE,
    HOLDER,
    LEASE,
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
    Extended,
    InspectableDriver,
    JobFilter,
    Renewal,
    Settled,
)
from taskharbor.ids import new_id
from taskharbor.lease import Guard, Verdict
from taskharbor.message import Retention
from taskharbor.settlement import Settlement
from taskharbor.states import Reason, State


class PromoteRules(Suite):
    def test_due_jobs_become_ready(self, driver: InspectableDriver, clock: ManualClock) -> None:
        put(driver, "a", delay=5.0)
        put(driver, "b", delay=5.25)
        clock.advance(5)
        promoted = driver.promote(10)
        assert (promoted.moved, promoted.more, promoted.now) == (1, False, clock.now())
        assert promoted.next_due == clock.now() + 0.25
        assert (get(driver).state, get(driver).reason) == (State.READY, Reason.DUE)
        assert state(driver, "b") is State.SCHEDULED

    def test_nothing_scheduled_nothing_due(self, driver: InspectableDriver) -> None:
        put(driver, "a")
        promoted = driver.promote(10)
        assert (promoted.moved, promoted.next_due, promoted.more) == (0, None, False)

    @in_one_shard
    def test_no_more_than_asked_the_earliest_first(
        self, driver: InspectableDriver, clock: ManualClock
    ) -> None:
        for number in range(7):
            put(driver, f"a{number}", delay=7.0 - number)
        clock.advance(7)
        first = driver.promote(3)
        assert (first.moved, first.more) == (3, True)
        assert first.next_due is not None
        assert first.next_due <= clock.now()
        assert ids(driver.list_jobs(JobFilter(state=State.READY)).jobs) == ["a6", "a5", "a4"]
        assert driver.promote(3).moved == 3
        assert driver.promote(3).moved == 1
        assert driver.promote(3) == (0, None, False, clock.now())

    def test_a_scheduled_job_past_its_expiry_is_cancelled_due_or_not(
        self, driver: InspectableDriver, clock: ManualClock
    ) -> None:
        put(driver, "never-due", delay=60.0, expires_in=10.0)
        put(driver, "due-too", delay=5.0, expires_in=10.0)
        assert driver.promote(10).next_due == clock.now() + 5
        clock.advance(10)
        promoted = driver.promote(10)
        assert (promoted.moved, promoted.next_due) == (2, None)
        for job_id in ("never-due", "due-too"):
            gone = get(driver, job_id)
            assert (gone.state, gone.reason) == (State.CANCELLED, Reason.EXPIRED)
            assert gone.finished_at == clock.now()

    def test_the_next_expiry_of_a_scheduled_job_is_due_too(
        self, driver: InspectableDriver, clock: ManualClock
    ) -> None:
        put(driver, "a", delay=60.0, expires_in=10.0)
        assert driver.promote(10).next_due == clock.now() + 10

    def test_ready_and_running_jobs_are_left_alone(
        self, driver: InspectableDriver, clock: ManualClock
    ) -> None:
        put(driver, "running", expires_in=10.0)
        take_one(driver)
        put(driver, "ready", expires_in=10.0)
        clock.advance(10)
        assert driver.promote(10).moved == 0
        assert (state(driver, "running"), state(driver, "ready")) == (State.RUNNING, State.READY)

    def test_a_paused_queue_s_jobs_become_ready_too(
        self, driver: InspectableDriver, clock: ManualClock
    ) -> None:
        put(driver, "a", delay=5.0)
        driver.pause("default")
        clock.advance(5)
        assert driver.promote(10).moved == 1
        assert state(driver) is State.READY

    def test_a_retry_is_promoted_like_a_new_job(
        self, driver: InspectableDriver, clock: ManualClock
    ) -> None:
        put(driver, "a")
        lease = take_one(driver)
        apply(driver, Settlement.retry("a", lease.fence, delay=5, error=None))
        clock.advance(5)
        assert driver.promote(10).moved == 1
        assert take_one(driver).attempt == 2

    def test_many_due_jobs_move_in_bounded_steps(
        self, driver: InspectableDriver, clock: ManualClock
    ) -> None:
        put(driver, *(f"a{number}" for number in range(2500)), delay=1.0)
        clock.advance(1)
        moved, more = [], True
        while more:
            promoted = driver.promote(1000)
            moved.append(promoted.moved)
            more = promoted.more
        assert sum(moved) == 2500
        assert max(moved) <= 1000


class RetentionRules(Suite):
    KEEP = Retention(succeeded=10.0, cancelled=20.0, dead=30.0)

    def _one_of_each(self, driver: InspectableDriver, retention: Retention) -> None:
        put(driver, "succeeded", "dead", "cancelled", retention=retention)
        fences = {lease.id: lease.fence for lease in take(driver, 2)}
        apply(
            driver,
            Settlement.succeed("succeeded", fences["succeeded"], b"result"),
            Settlement.die("dead", fences["dead"], error=b"error"),
        )
        driver.cancel(["cancelled"])

    @in_one_shard
    def test_each_end_has_its_own_retention(
        self, driver: InspectableDriver, clock: ManualClock
    ) -> None:
        self._one_of_each(driver, self.KEEP)
        left = []
        for _ in range(4):
            clock.advance(9.75)
            while driver.prune(100):
                pass
            left.append(sorted(ids(driver.list_jobs(JobFilter()).jobs)))
            clock.advance(0.25)
            while driver.prune(100):
                pass
        assert left == [
            ["cancelled", "dead", "succeeded"],
            ["cancelled", "dead"],
            ["dead"],
            [],
        ]

    @in_one_shard
    def test_a_record_is_there_until_prune_took_it(
        self, driver: InspectableDriver, clock: ManualClock
    ) -> None:
        self._one_of_each(driver, self.KEEP)
        clock.advance(1000)
        assert get(driver, "succeeded").result == b"result"
        counts = []
        while count := driver.prune(2):
            counts.append(count)
        assert max(counts) == 2
        assert sum(counts) >= 3
        assert driver.list_jobs(JobFilter()).jobs == []
        assert driver.results(["succeeded", "dead", "cancelled"]) == [None, None, None]

    @in_one_shard
    def test_what_is_not_terminal_is_never_pruned(
        self, driver: InspectableDriver, clock: ManualClock
    ) -> None:
        self._one_of_each(driver, self.KEEP)
        driver.requeue(["dead"])
        put(driver, "running", priority=5)
        put(driver, "scheduled", delay=86_400.0 * 60)
        take_one(driver)
        clock.advance(86_400 * 365)
        while driver.prune(100):
            pass
        left = ids(driver.list_jobs(JobFilter()).jobs)
        assert sorted(left) == ["dead", "running", "scheduled"]

    def test_prune_of_nothing_is_0(self, driver: InspectableDriver) -> None:
        put(driver, "a")
        while driver.prune(100):
            pass
        assert state(driver) is State.READY

    @in_one_shard
    def test_retention_counts_from_the_last_end(
        self, driver: InspectableDriver, clock: ManualClock
    ) -> None:
        self._one_of_each(driver, self.KEEP)
        clock.advance(29)
        driver.requeue(["dead"])
        lease = take_one(driver)
        apply(driver, Settlement.die("dead", lease.fence, error=None))
        clock.advance(29)
        while driver.prune(100):
            pass
        assert state(driver, "dead") is State.DEAD

    # --- retention 0 -----------------------------------------------------------------------------

    def test_retention_0_is_gone_at_once_for_everyone(self, driver: InspectableDriver) -> None:
        put(driver, "a", "b", retention=FORGET_AT_ONCE)
        fences = {lease.id: lease.fence for lease in take(driver, 2)}
        put(driver, "c", retention=FORGET_AT_ONCE)
        assert (
            settle(
                driver,
                Settlement.succeed("a", fences["a"], b"result"),
                Settlement.die("b", fences["b"], error=b"error"),
            )
            == [Settled(Verdict.APPLIED, None)] * 2
        )
        assert driver.cancel(["c"]) == [CancelVerdict.CANCELLED]
        everyone = ["a", "b", "c"]
        assert [state(driver, job_id) for job_id in everyone] == [None] * 3
        assert driver.results(everyone) == [None] * 3
        assert driver.list_jobs(JobFilter()).jobs == []
        assert driver.queues() == []
        assert driver.held(HOLDER) == []
        assert driver.cancel(everyone) == [CancelVerdict.NOT_FOUND] * 3
        assert driver.delete(everyone) == [DeleteVerdict.NOT_FOUND] * 3

    @pytest.mark.parametrize("guard", Guard)
    def test_a_replay_after_retention_0_still_hears_already(
        self, driver: InspectableDriver, clock: ManualClock, guard: Guard
    ) -> None:
        put(driver, "a", retention=FORGET_AT_ONCE)
        lease = take_one(driver)
        if guard is Guard.EXPIRED:
            clock.advance(LEASE)
        done = Settlement.die("a", lease.fence, error=None, guard=guard)
        apply(driver, done)
        for _ in range(3):
            assert settle(driver, done) == [Settled(Verdict.ALREADY, None)]
            clock.advance(LEASE / 4)
        driver.prune(1000)
        assert settle(driver, done) == [Settled(Verdict.ALREADY, None)]

    def test_others_do_not_hear_already(self, driver: InspectableDriver) -> None:
        put(driver, "a", retention=FORGET_AT_ONCE)
        lease = take_one(driver)
        done = Settlement.succeed("a", lease.fence, None)
        apply(driver, done)
        gone = Settled(Verdict.NOT_FOUND, None)
        assert (
            settle(
                driver,
                done._replace(fence=lease.fence + 1),
                done._replace(fence=lease.fence - 1),
                Settlement.retry("a", lease.fence, delay=0, error=None),
            )
            == [gone] * 3
        )
        assert driver.extend(HOLDER, [Renewal("a", lease.fence)], LEASE) == [
            Extended(Verdict.NOT_FOUND)
        ]

    def test_the_memory_of_a_replay_ends(
        self, driver: InspectableDriver, clock: ManualClock
    ) -> None:
        put(driver, "a", retention=FORGET_AT_ONCE)
        lease = take_one(driver)
        done = Settlement.succeed("a", lease.fence, None)
        apply(driver, done)
        clock.advance(LEASE)
        while driver.prune(1000):
            pass
        assert settle(driver, done) == [Settled(Verdict.NOT_FOUND, None)]

    def test_an_id_that_was_forgotten_can_come_again(
        self, driver: InspectableDriver, clock: ManualClock
    ) -> None:
        put(driver, "a", retention=FORGET_AT_ONCE)
        old = take_one(driver)
        done = Settlement.succeed("a", old.fence, None)
        apply(driver, done)
        assert put(driver, "a")[0].created
        assert settle(driver, done) == [Settled(Verdict.NOT_RUNNING, State.READY)]
        new = take_one(driver)
        assert new.fence > old.fence
        assert settle(driver, done) == [Settled(Verdict.MISMATCH, State.RUNNING)]
        clock.advance(LEASE * 2)
        while driver.prune(1000):
            pass
        assert state(driver) is State.RUNNING

    def test_expiry_with_retention_0_leaves_nothing(
        self, driver: InspectableDriver, clock: ManualClock
    ) -> None:
        put(driver, "ready", expires_in=5.0, retention=FORGET_AT_ONCE)
        put(driver, "scheduled", delay=9.0, expires_in=5.0, retention=FORGET_AT_ONCE)
        clock.advance(5)
        assert driver.promote(10).moved == 1
        assert take(driver) == []
        assert driver.queues() == []

    def test_a_cancelled_attempt_with_retention_0_leaves_nothing(
        self, driver: InspectableDriver
    ) -> None:
        put(driver, "a", retention=FORGET_AT_ONCE)
        lease = take_one(driver)
        driver.cancel(["a"])
        retry = Settlement.retry("a", lease.fence, delay=5, error=None)
        assert apply(driver, retry) == [Settled(Verdict.APPLIED, None)]
        assert state(driver) is None


class LeadRules(Suite):
    # Terms outlive a test; each test has a name of its own.

    @pytest.fixture
    def name(self) -> str:
        return new_id()

    def test_one_leader_at_a_time(
        self, driver: InspectableDriver, clock: ManualClock, name: str
    ) -> None:
        term = driver.lead(name, "one", 10)
        assert term is not None
        assert term.expires_at == clock.now() + 10
        assert driver.lead(name, "two", 10) is None
        clock.advance(9.75)
        assert driver.lead(name, "two", 10) is None
        clock.advance(0.25)
        successor = driver.lead(name, "two", 10)
        assert successor is not None
        assert successor.number > term.number
        assert driver.lead(name, "one", 10) is None

    def test_a_leader_stays_by_asking_again(
        self, driver: InspectableDriver, clock: ManualClock, name: str
    ) -> None:
        first = driver.lead(name, "one", 10)
        assert first is not None
        for _ in range(5):
            clock.advance(9)
            again = driver.lead(name, "one", 10)
            assert again == (first.number, clock.now() + 10)
            assert driver.lead(name, "two", 10) is None

    def test_a_leader_may_shorten_its_term(
        self, driver: InspectableDriver, clock: ManualClock, name: str
    ) -> None:
        """So that a leader that stops need not keep the others waiting."""
        driver.lead(name, "one", 60)
        shortened = driver.lead(name, "one", 0.25)
        assert shortened is not None
        assert shortened.expires_at == clock.now() + 0.25
        clock.advance(0.25)
        assert driver.lead(name, "two", 10) is not None

    def test_names_are_apart(self, driver: InspectableDriver, name: str) -> None:
        assert driver.lead(name, "one", 10) is not None
        assert driver.lead(name + "-other", "two", 10) is not None

    def test_terms_are_numbered_upwards(
        self, driver: InspectableDriver, clock: ManualClock, name: str
    ) -> None:
        numbers = []
        for number in range(10):
            term = driver.lead(name, f"h{number % 3}", 5)
            assert term is not None
            numbers.append(term.number)
            clock.advance(5)
        assert numbers == sorted(set(numbers))
