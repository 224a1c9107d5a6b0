"""``transactional_settle``: what a task writes and the settle of its job commit together, or
neither does. A write without its success is as bad as a success without its write."""

# ruff: noqa: PT012 (what is expected is raised on leaving the transaction)

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import cast

import pytest

from taskharbor.clock import ManualClock
from taskharbor.conformance.flow_support import FlowSuite, flow_of, quiesce, states, store
from taskharbor.conformance.harness import Harness
from taskharbor.conformance.support import (
    HOLDER,
    LEASE,
    Suite,
    apply,
    get,
    ids,
    job,
    put,
    reap,
    settle,
    state,
    take,
    take_one,
)
from taskharbor.drivers.base import (
    CancelVerdict,
    InspectableDriver,
    Renewal,
    Settled,
    Transaction,
    Transactional,
)
from taskharbor.drivers.flows import FlowDriver
from taskharbor.errors import (
    JobNotFound,
    JobNotRunning,
    LeaseError,
    LeaseExpired,
    LeaseMismatch,
    TransactionEnded,
)
from taskharbor.lease import Guard, Reservation, Verdict
from taskharbor.settlement import Settlement
from taskharbor.states import State

RACERS = 4


class _ChangedMindError(Exception):
    """The task's own code fails."""


class TransactionalSettleRules(Suite):
    """One attempt and its transaction."""

    @pytest.fixture
    def begins(self, driver: InspectableDriver) -> Transactional:
        assert isinstance(driver, Transactional)
        return driver

    # --- the two ends -------------------------------------------------------------------------

    def test_writes_and_settle_commit_together(
        self, driver: InspectableDriver, begins: Transactional, harness: Harness
    ) -> None:
        put(driver, "a", "b")
        lease = take_one(driver)
        with begins.begin(lease) as transaction:
            harness.write(transaction.connection, "done")
            transaction.succeed(b"result")
            assert (harness.written(), state(driver)) == ([], State.RUNNING)
        assert harness.written() == ["done"]
        found = get(driver)
        assert (found.state, found.result, found.attempts) == (State.SUCCEEDED, b"result", 1)
        assert driver.held(HOLDER) == []
        (queue,) = driver.queues()
        assert (queue.counts[State.SUCCEEDED], queue.counts[State.RUNNING]) == (1, 0)

    def test_the_same_success_sent_again_hears_already(
        self, driver: InspectableDriver, begins: Transactional
    ) -> None:
        """As a worker does that did not hear of its commit."""
        put(driver, "a")
        lease = take_one(driver)
        with begins.begin(lease) as transaction:
            transaction.succeed(None)
        again = Settlement.succeed("a", lease.fence, None)
        assert settle(driver, again) == [Settled(Verdict.ALREADY, State.SUCCEEDED)]
        later = Settlement.retry("a", lease.fence, delay=0, error=None)
        assert settle(driver, later) == [Settled(Verdict.NOT_RUNNING, State.SUCCEEDED)]

    def test_without_a_success_nothing_stays_and_the_lease_goes_on(
        self, driver: InspectableDriver, begins: Transactional, harness: Harness
    ) -> None:
        put(driver, "a")
        lease = take_one(driver)
        with begins.begin(lease) as transaction:
            harness.write(transaction.connection, "never")
            transaction.verify()
        assert (harness.written(), state(driver)) == ([], State.RUNNING)
        apply(driver, Settlement.retry("a", lease.fence, delay=0, error=b"no"))

    @pytest.mark.parametrize("settled", [False, True])
    def test_an_exception_undoes_everything(
        self, driver: InspectableDriver, begins: Transactional, harness: Harness, settled: bool
    ) -> None:
        put(driver, "a")
        lease = take_one(driver)
        with pytest.raises(_ChangedMindError), begins.begin(lease) as transaction:
            harness.write(transaction.connection, "never")
            if settled:
                transaction.succeed(None)
            raise _ChangedMindError
        assert (harness.written(), state(driver)) == ([], State.RUNNING)
        assert driver.held(HOLDER) == [lease]

    def test_jobs_enqueued_in_it_share_its_fate(
        self, driver: InspectableDriver, begins: Transactional
    ) -> None:
        put(driver, "a")
        lease = take_one(driver)
        with begins.begin(lease) as transaction:
            driver.enqueue([job("never")], connection=transaction.connection)
        with begins.begin(lease) as transaction:
            driver.enqueue([job("next")], connection=transaction.connection)
            transaction.succeed(None)
            assert state(driver, "next") is None
        assert ids(take(driver, 10)) == ["next"]

    def test_attempts_at_the_same_time_have_transactions_of_their_own(
        self, driver: InspectableDriver, begins: Transactional, harness: Harness
    ) -> None:
        put(driver, "a", "b")
        a, b = take(driver, 2)
        with begins.begin(a) as first, begins.begin(b) as second:
            harness.write(first.connection, "a")
            harness.write(second.connection, "b")
            second.succeed(None)
        assert harness.written() == ["b"]
        assert (state(driver, "a"), state(driver, "b")) == (State.RUNNING, State.SUCCEEDED)

    # --- leases -------------------------------------------------------------------------------

    def test_a_lease_that_is_lost_does_not_begin(
        self, driver: InspectableDriver, begins: Transactional, clock: ManualClock
    ) -> None:
        put(driver, "a")
        lease = take_one(driver)
        clock.advance(LEASE)
        with pytest.raises(LeaseExpired), begins.begin(lease):
            raise AssertionError
        reap(driver)
        with pytest.raises(JobNotRunning), begins.begin(lease):
            raise AssertionError
        take_one(driver)
        with pytest.raises(LeaseMismatch), begins.begin(lease):
            raise AssertionError
        with pytest.raises(JobNotFound), begins.begin(lease._replace(id="nobody")):
            raise AssertionError

    def test_a_lease_that_expires_inside_rolls_back(
        self,
        driver: InspectableDriver,
        begins: Transactional,
        harness: Harness,
        clock: ManualClock,
    ) -> None:
        put(driver, "a")
        lease = take_one(driver)
        with pytest.raises(LeaseExpired), begins.begin(lease) as transaction:
            harness.write(transaction.connection, "late")
            clock.advance(LEASE)
            transaction.succeed(None)
        assert (harness.written(), state(driver)) == ([], State.RUNNING)
        assert ids(driver.expired(10)) == ["a"]

    def test_what_another_worker_did_is_not_done_twice(
        self,
        driver: InspectableDriver,
        begins: Transactional,
        harness: Harness,
        clock: ManualClock,
    ) -> None:
        put(driver, "a")
        first = take_one(driver)
        with pytest.raises(LeaseMismatch), begins.begin(first) as slow:
            harness.write(slow.connection, "first")
            clock.advance(LEASE)
            reap(driver)
            second = take_one(driver, holder="other")
            with begins.begin(second) as quick:
                harness.write(quick.connection, "second")
                quick.succeed(b"second")
            slow.succeed(b"first")
        assert (harness.written(), get(driver).result) == (["second"], b"second")

    def test_who_was_taken_for_dead_does_not_hear_already(
        self, driver: InspectableDriver, begins: Transactional, harness: Harness
    ) -> None:
        """A loss is settled by the lost attempt's own fence."""
        put(driver, "a")
        lease = take_one(driver)
        with pytest.raises(JobNotRunning), begins.begin(lease) as transaction:
            harness.write(transaction.connection, "undead")
            apply(driver, Settlement.die("a", lease.fence, error=None, guard=Guard.ANY))
            transaction.succeed(None)
        assert (harness.written(), state(driver)) == ([], State.DEAD)

    def test_the_lease_is_extended_and_the_job_cancelled_from_outside_meanwhile(
        self,
        driver: InspectableDriver,
        begins: Transactional,
        harness: Harness,
        clock: ManualClock,
    ) -> None:
        """The settle is the first to lock anything of the job."""
        put(driver, "a")
        lease = take_one(driver)
        with begins.begin(lease) as transaction:
            harness.write(transaction.connection, "long")
            for _ in range(3):
                clock.advance(LEASE - 1)
                renewal = Renewal("a", lease.fence, saved=b"half")
                (extended,) = driver.extend(HOLDER, [renewal], LEASE)
                assert extended.verdict is Verdict.APPLIED
            assert driver.cancel(["a"]) == [CancelVerdict.REQUESTED]
            transaction.succeed(None)
        assert (harness.written(), state(driver)) == (["long"], State.SUCCEEDED)

    def test_of_many_with_one_lease_only_one_commits(
        self, driver: InspectableDriver, begins: Transactional, harness: Harness
    ) -> None:
        """A process that was copied while it ran, say."""
        put(driver, "a")
        lease = take_one(driver)

        def attempt(number: int) -> bool:
            try:
                with begins.begin(lease) as transaction:
                    harness.write(transaction.connection, str(number))
                    transaction.succeed(str(number).encode())
            except (LeaseError, JobNotRunning):
                return False
            return True

        with ThreadPoolExecutor(RACERS) as pool:
            committed = list(pool.map(attempt, range(RACERS)))
        assert committed.count(True) == 1
        result = get(driver).result
        assert result is not None
        assert harness.written() == [result.decode()] == [str(committed.index(True))]

    # --- tasks that leave their transaction -----------------------------------------------------

    def test_a_task_that_left_its_transaction_can_t_succeed(
        self, driver: InspectableDriver, begins: Transactional, harness: Harness
    ) -> None:
        ways = harness.ways_out()
        assert ways, "name the ways in which a task can end its transaction"
        for number, (name, leave) in enumerate(ways.items()):
            put(driver, f"j{number}")
            lease = take_one(driver)
            with pytest.raises(TransactionEnded), begins.begin(lease) as transaction:
                leave(transaction.connection)
                transaction.succeed(None)
            assert state(driver, lease.id) is State.RUNNING, name

    def test_a_task_that_left_its_transaction_and_failed_is_found_out(
        self, driver: InspectableDriver, begins: Transactional, harness: Harness
    ) -> None:
        """What it committed stays: to run it again would do that twice."""
        for number, (name, leave) in enumerate(harness.ways_out().items()):
            put(driver, f"j{number}")
            with begins.begin(take_one(driver)) as transaction:
                leave(transaction.connection)
                assert _is_found_out(transaction), name


def _is_found_out(transaction: Transaction) -> bool:
    try:
        transaction.verify()
    except TransactionEnded:
        return True
    return False


class TransactionalFlowRules(FlowSuite):
    """``transactional_settle`` and ``flows``: what a settle moves, moves with the commit."""

    def test_successors_are_released_by_the_commit(
        self, driver: FlowDriver, harness: Harness
    ) -> None:
        store(driver, "a -> b", "b -> c")
        lease = take_one(driver)
        with self._begins(driver).begin(lease) as transaction:
            harness.write(transaction.connection, "a")
            transaction.succeed(b"result")
            assert states(driver) == {"a": "running", "b": "blocked", "c": "blocked"}
            assert take(driver) == []
        quiesce(driver)
        assert states(driver) == {"a": "succeeded", "b": "ready", "c": "blocked"}
        (value,) = driver.inputs("b")
        assert (value.outcome.result, harness.written()) == (b"result", ["a"])

    def test_a_rollback_after_the_settle_moves_nothing(
        self, driver: FlowDriver, harness: Harness
    ) -> None:
        store(driver, "a -> b")
        lease = take_one(driver)
        with pytest.raises(_ChangedMindError), self._begins(driver).begin(lease) as transaction:
            harness.write(transaction.connection, "never")
            transaction.succeed(None)
            raise _ChangedMindError
        quiesce(driver)
        assert states(driver) == {"a": "running", "b": "blocked"}
        assert harness.written() == []
        apply(driver, Settlement.succeed("a", lease.fence, None))
        quiesce(driver)
        assert states(driver) == {"a": "succeeded", "b": "ready"}

    def test_a_lost_lease_moves_nothing(
        self, driver: FlowDriver, harness: Harness, clock: ManualClock
    ) -> None:
        store(driver, "a -> b")
        lease = take_one(driver)
        with pytest.raises(LeaseExpired), self._begins(driver).begin(lease) as transaction:
            harness.write(transaction.connection, "late")
            clock.advance(LEASE)
            transaction.succeed(None)
        quiesce(driver)
        assert (states(driver), harness.written()) == ({"a": "running", "b": "blocked"}, [])

    def test_members_that_commit_at_the_same_time_release_their_chord_once(
        self, driver: FlowDriver, harness: Harness
    ) -> None:
        members = [f"m{number}" for number in range(2 * RACERS)]
        driver.enqueue_flow(flow_of(*(f"{member} -> end" for member in members)))
        begins = self._begins(driver)

        def attempt(lease: Reservation) -> None:
            with begins.begin(lease) as transaction:
                harness.write(transaction.connection, lease.id)
                transaction.succeed(lease.id.encode())

        leases = take(driver, len(members))
        with ThreadPoolExecutor(RACERS) as pool:
            list(pool.map(attempt, leases))
        quiesce(driver)
        assert harness.written() == sorted(members)
        (end,) = take(driver, 10)
        assert (end.id, end.attempt) == ("end", 1)
        assert [value.outcome.result for value in driver.inputs("end")] == [
            member.encode() for member in members
        ]

    @staticmethod
    def _begins(driver: FlowDriver) -> Transactional:
        assert isinstance(driver, Transactional)
        return cast("Transactional", driver)
