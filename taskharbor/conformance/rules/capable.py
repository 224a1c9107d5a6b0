"""What a driver must do if it says that it can."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from taskharbor.clock import ManualClock
from taskharbor.conformance import racer
from taskharbor.conformance.harness import Harness
from taskharbor.conformance.rules.races import Racers
from taskharbor.conformance.rules.waiting import check_no_wake_up_is_lost
from taskharbor.conformance.sharding import in_one_shard
from taskharbor.conformance.support import (
    QUEUE,
    Suite,
    apply,
    get,
    ids,
    job,
    put,
    settle,
    state,
    take,
    take_one,
)
from taskharbor.drivers.base import Enqueued, InspectableDriver, JobFilter, Migratable, Settled
from taskharbor.ids import new_id
from taskharbor.lease import Verdict
from taskharbor.settlement import Settlement
from taskharbor.states import State


class SharingRules(Suite):
    """``shared``: drivers on one URL are one store."""

    @pytest.fixture
    def other(
        self, driver: InspectableDriver, harness: Harness, clock: ManualClock
    ) -> InspectableDriver:
        return harness.connect(clock)

    @in_one_shard
    def test_two_drivers_see_the_same_jobs(
        self, driver: InspectableDriver, other: InspectableDriver
    ) -> None:
        driver.enqueue([job("a", idempotency_key="k"), job("b")])
        assert other.enqueue([job("c", idempotency_key="k")]) == [Enqueued("a", created=False)]
        first = take_one(driver, holder="one")
        second = take_one(other, holder="two")
        assert (first.id, second.id) == ("a", "b")
        assert second.fence > first.fence
        assert other.held("one") == [first]
        apply(other, Settlement.succeed("a", first.fence, b"result"))
        assert get(driver) == get(other)

    def test_a_pause_is_for_all(self, driver: InspectableDriver, other: InspectableDriver) -> None:
        put(driver, "a")
        driver.pause(QUEUE)
        assert take(other) == []
        other.resume(QUEUE)
        assert ids(take(driver)) == ["a"]

    def test_a_retired_holder_is_retired_for_all(
        self, driver: InspectableDriver, other: InspectableDriver
    ) -> None:
        """Its last reserve may come on a connection that was slow."""
        holder = new_id()
        put(driver, "a", "b")
        lease = take_one(driver, holder=holder)
        assert other.retire(holder) == [lease]
        assert take(driver, holder=holder) == []

    def test_there_is_one_leader_over_all(
        self, driver: InspectableDriver, other: InspectableDriver
    ) -> None:
        name = new_id()
        assert driver.lead(name, "one", 10) is not None
        assert other.lead(name, "two", 10) is None

    def test_no_wake_up_from_another_driver_is_lost(
        self, live: InspectableDriver, harness: Harness
    ) -> None:
        check_no_wake_up_is_lost(live, harness.connect())


class DurableRules(Suite):
    """``durable``: what was acknowledged is there after a crash."""

    @in_one_shard
    def test_everything_survives_a_crash(
        self, driver: InspectableDriver, harness: Harness, clock: ManualClock
    ) -> None:
        put(driver, "a", "b", "c", "d", "e")
        put(driver, "later", delay=60.0)
        driver.enqueue([job("keyed", idempotency_key="k", queue="paused")])
        done, dead, running = take(driver, 3)
        apply(
            driver,
            Settlement.succeed("a", done.fence, b"result"),
            Settlement.die("b", dead.fence, error=b"error"),
        )
        driver.cancel(["c", "d"])
        driver.pause("paused")
        everyone = ["a", "b", "c", "d", "e", "later", "keyed"]
        before = [get(driver, job_id) for job_id in everyone]
        queues = driver.queues()

        harness.crash()
        after = harness.connect(clock)

        assert [get(after, job_id) for job_id in everyone] == before
        assert [(q.name, q.paused, q.counts) for q in after.queues()] == [
            (q.name, q.paused, q.counts) for q in queues
        ]
        assert after.held(running.holder) == [running._replace(cancel_requested=True)]
        assert take(after, 10, queue=(QUEUE, "paused")) != []
        assert after.enqueue([job("other", idempotency_key="k", queue="paused")]) == [
            Enqueued("keyed", created=False)
        ]

    def test_what_a_killed_process_was_told_is_there(self, harness: Harness) -> None:
        harness.connect()
        racers = Racers(1)
        try:
            (job_ids,) = racers.run(racer.acknowledge, harness.url, jobs=100)
            racers.kill()
        finally:
            racers.stop()
        harness.crash()
        after = harness.connect()
        states = Counter(outcome and outcome.state for outcome in after.results(job_ids))
        assert states == {State.SUCCEEDED: 50, State.RUNNING: 1, State.READY: 49}
        (last,) = after.held("racer")
        assert last.id == "a50" or after.capabilities.sharded
        harness.close()

    def test_a_settle_whose_reply_was_lost_in_a_crash_hears_already(
        self, driver: InspectableDriver, harness: Harness, clock: ManualClock
    ) -> None:
        put(driver, "a")
        lease = take_one(driver)
        done = Settlement.succeed("a", lease.fence, b"result")
        apply(driver, done)
        harness.crash()
        after = harness.connect(clock)
        assert settle(after, done) == [Settled(Verdict.ALREADY, State.SUCCEEDED)]

    def test_fences_go_on_growing_after_a_crash(
        self, driver: InspectableDriver, harness: Harness, clock: ManualClock
    ) -> None:
        put(driver, "a")
        lease = take_one(driver)
        apply(driver, Settlement.succeed("a", lease.fence, None))
        driver.delete(["a"])
        harness.crash()
        after = harness.connect(clock)
        put(after, "a")
        assert take_one(after).fence > lease.fence

    def test_the_retired_stay_retired_after_a_crash(
        self, driver: InspectableDriver, harness: Harness, clock: ManualClock
    ) -> None:
        holder = new_id()
        put(driver, "a")
        driver.retire(holder)
        harness.crash()
        assert take(harness.connect(clock), holder=holder) == []

    @in_one_shard
    def test_the_order_stays_after_a_crash(
        self, driver: InspectableDriver, harness: Harness, clock: ManualClock
    ) -> None:
        put(driver, "z", "y")
        harness.crash()
        after = harness.connect(clock)
        put(after, "b", "a")
        assert ids(take(after, 10)) == ["z", "y", "b", "a"]


class _ChangedMindError(Exception):
    """The caller's own code fails inside its transaction."""


class TransactionalRules(Suite):
    """``transactional_enqueue``: the jobs come with the caller's commit, or not at all."""

    def test_a_job_appears_with_the_commit(
        self, driver: InspectableDriver, harness: Harness
    ) -> None:
        with harness.transaction() as connection:
            answer = driver.enqueue([job("a"), job("b")], connection=connection)
            assert answer == [Enqueued("a", created=True), Enqueued("b", created=True)]
            assert state(driver) is None
        assert ids(take(driver, 10)) == ["a", "b"]

    def test_a_rollback_leaves_nothing(self, driver: InspectableDriver, harness: Harness) -> None:
        def change_mind() -> None:
            with harness.transaction() as connection:
                driver.enqueue([job("a", idempotency_key="k")], connection=connection)
                raise _ChangedMindError

        with pytest.raises(_ChangedMindError):
            change_mind()
        assert driver.list_jobs(JobFilter()).jobs == []
        assert driver.queues() == []
        assert driver.enqueue([job("b", idempotency_key="k")]) == [Enqueued("b", created=True)]

    def test_what_is_stored_already_is_found(
        self, driver: InspectableDriver, harness: Harness
    ) -> None:
        driver.enqueue([job("a", idempotency_key="k"), job("b")])
        with harness.transaction() as connection:
            assert driver.enqueue(
                [job("c", idempotency_key="k"), job("b"), job("d")], connection=connection
            ) == [
                Enqueued("a", created=False),
                Enqueued("b", created=False),
                Enqueued("d", created=True),
            ]
        assert ids(take(driver, 10)) == ["a", "b", "d"]

    def test_the_driver_works_on_while_the_caller_s_transaction_is_open(
        self, driver: InspectableDriver, harness: Harness
    ) -> None:
        put(driver, "a")
        with harness.transaction() as connection:
            assert state(driver) is State.READY
            driver.enqueue([job("b")], connection=connection)
            assert driver.results(["a", "b"])[1] is None
        assert ids(take(driver, 10)) == ["a", "b"]


class MigratableRules(Suite):
    """``migrates``: the schema comes and grows by ``migrate``."""

    def test_a_migrated_store_needs_no_migration(self, driver: InspectableDriver) -> None:
        assert isinstance(driver, Migratable)
        version = driver.version()
        assert version > 0
        assert driver.migrate() == []
        assert driver.version() == version

    def test_migrate_keeps_the_jobs(
        self, driver: InspectableDriver, harness: Harness, clock: ManualClock
    ) -> None:
        put(driver, "a")
        again = harness.connect(clock)
        assert isinstance(again, Migratable)
        again.migrate()
        assert ids(take(again)) == ["a"]

    def test_many_may_migrate_at_once(self, harness: Harness, clock: ManualClock) -> None:
        with ThreadPoolExecutor(4) as pool:
            drivers = list(pool.map(lambda _: harness.connect(clock), range(4)))
        put(drivers[0], "a")
        assert ids(take(drivers[3])) == ["a"]
        harness.close()
