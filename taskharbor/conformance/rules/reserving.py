"""Reserve: which jobs, in which order, with what lease."""

from __future__ import annotations

from itertools import pairwise

import pytest

from taskharbor.clock import ManualClock
from taskharbor.conformance.sharding import in_one_shard
from taskharbor.conformance.support import (
    HOLDER,
    LEASE,
    QUEUE,
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
from taskharbor.drivers.base import InspectableDriver, JobFilter, Settled, Want
from taskharbor.errors import InvalidLease
from taskharbor.lease import Reservation, Verdict
from taskharbor.settlement import Settlement
from taskharbor.states import Reason, State


class ReserveRules(Suite):
    def test_a_reservation_says_all_that_a_worker_needs(
        self, driver: InspectableDriver, clock: ManualClock
    ) -> None:
        message = job(queue="mail", priority=3)
        driver.enqueue([message])
        enqueued_at = clock.now()
        clock.advance(5)
        exchange = driver.exchange(HOLDER, (), Want(("mail",), 1, 12.5))
        (lease,) = exchange.reserved
        assert lease == Reservation(
            id="a",
            queue="mail",
            task="demo.task",
            body=message.body,
            fence=lease.fence,
            attempt=1,
            losses=0,
            priority=3,
            enqueued_at=enqueued_at,
            reserved_at=clock.now(),
            lease_expires_at=clock.now() + 12.5,
            holder=HOLDER,
        )
        assert exchange.now == clock.now()
        running = get(driver)
        assert (running.state, running.reason) == (State.RUNNING, Reason.RESERVED)
        assert (running.holder, running.fence, running.attempts) == (HOLDER, lease.fence, 1)
        assert (running.reserved_at, running.lease_expires_at) == (
            lease.reserved_at,
            lease.lease_expires_at,
        )

    @in_one_shard
    def test_higher_priority_first_then_first_enqueued(
        self, driver: InspectableDriver, clock: ManualClock
    ) -> None:
        driver.enqueue([job("z", priority=0), job("y", priority=-100), job("x", priority=100)])
        driver.enqueue([job("c"), job("b", priority=1), job("a", priority=-1)])
        clock.advance(1)
        driver.enqueue([job("late", priority=100), job("last", priority=-100)])
        expected = ["x", "late", "b", "z", "c", "a", "y", "last"]
        assert ids(take(driver, 3)) == expected[:3]
        assert ids(take(driver, 10)) == expected[3:]

    @in_one_shard
    def test_a_job_that_comes_back_keeps_its_place(
        self, driver: InspectableDriver, clock: ManualClock
    ) -> None:
        put(driver, "a", "b", "c", "d", "e")
        fences = {lease.id: lease.fence for lease in take(driver, 4)}
        clock.advance(1)
        put(driver, "f")
        apply(
            driver,
            Settlement.snooze("d", fences["d"], delay=5),
            Settlement.release("c", fences["c"]),
            Settlement.retry("b", fences["b"], delay=0, error=None),
            Settlement.die("a", fences["a"], error=None),
        )
        driver.requeue(["a"])
        clock.advance(5)
        driver.promote(10)
        assert ids(take(driver, 10)) == ["a", "b", "c", "d", "e", "f"]

    @in_one_shard
    def test_a_scheduled_job_has_the_place_of_its_enqueue(
        self, driver: InspectableDriver, clock: ManualClock
    ) -> None:
        put(driver, "a", delay=5.0)
        put(driver, "b")
        clock.advance(5)
        driver.promote(10)
        assert ids(take(driver, 10)) == ["a", "b"]

    @in_one_shard
    def test_all_of_the_first_queue_before_the_next(self, driver: InspectableDriver) -> None:
        put(driver, "x1", "x2", queue="x", priority=100)
        put(driver, "y1", "y2", queue="y", priority=-100)
        put(driver, "z1", queue="z")
        assert ids(take(driver, 3, queue=("y", "x"))) == ["y1", "y2", "x1"]
        assert ids(take(driver, 10, queue=("y", "none", "x", "z"))) == ["x2", "z1"]

    def test_no_more_than_wanted_and_no_other_queue_s(self, driver: InspectableDriver) -> None:
        put(driver, *(f"a{number}" for number in range(10)))
        put(driver, "b", queue="other")
        assert len(driver.exchange(HOLDER, (), Want((QUEUE,), 4, LEASE)).reserved) == 4
        assert len(take(driver, 100)) == 6
        assert state(driver, "b") is State.READY

    def test_more_is_false_when_there_is_no_more(self, driver: InspectableDriver) -> None:
        """Else an idle worker would ask again and again."""
        assert not driver.exchange(HOLDER, (), Want((QUEUE,), 5, LEASE)).more
        put(driver, "a")
        assert not driver.exchange(HOLDER, (), Want((QUEUE,), 5, LEASE)).more
        assert not driver.exchange(HOLDER, (), Want((QUEUE,), 5, LEASE)).more

    def test_asking_while_there_is_more_gets_everything(self, driver: InspectableDriver) -> None:
        put(driver, *(f"a{number}" for number in range(1500)))
        taken, more = 0, True
        while more:
            exchange = driver.exchange(HOLDER, (), Want((QUEUE,), 128, LEASE))
            taken, more = taken + len(exchange.reserved), exchange.more
        assert taken == 1500

    @in_one_shard
    def test_no_job_for_two_holders(self, driver: InspectableDriver) -> None:
        put(driver, "a", "b", "c")
        first = take(driver, 2, holder="one")
        second = take(driver, 2, holder="two")
        assert ids(first) + ids(second) == ["a", "b", "c"]

    def test_the_reserve_sees_what_the_settle_released(self, driver: InspectableDriver) -> None:
        put(driver, "a")
        lease = take_one(driver)
        exchange = driver.exchange(
            HOLDER, [Settlement.release("a", lease.fence)], Want((QUEUE,), 1, LEASE)
        )
        assert exchange.settled == [Settled(Verdict.APPLIED, State.READY)]
        (again,) = exchange.reserved
        assert (again.id, again.attempt) == ("a", 1)
        assert again.fence > lease.fence

    def test_a_refused_settlement_does_not_stop_the_reserve(
        self, driver: InspectableDriver
    ) -> None:
        put(driver, "a")
        exchange = driver.exchange(
            HOLDER, [Settlement.succeed("nobody", 1, None)], Want((QUEUE,), 1, LEASE)
        )
        assert exchange.settled == [Settled(Verdict.NOT_FOUND, None)]
        assert ids(exchange.reserved) == ["a"]

    def test_an_impossible_lease_settles_nothing(self, driver: InspectableDriver) -> None:
        put(driver, "a")
        lease = take_one(driver)
        with pytest.raises(InvalidLease):
            driver.exchange(
                HOLDER, [Settlement.succeed("a", lease.fence, None)], Want((QUEUE,), 1, 0)
            )
        assert state(driver) is State.RUNNING

    def test_an_empty_exchange_tells_the_time(
        self, driver: InspectableDriver, clock: ManualClock
    ) -> None:
        clock.advance(12.25)
        exchange = driver.exchange(HOLDER, ())
        assert (exchange.settled, exchange.reserved, exchange.now) == ([], [], clock.now())

    def test_a_due_job_waits_for_promote(
        self, driver: InspectableDriver, clock: ManualClock
    ) -> None:
        put(driver, "a", delay=5.0)
        clock.advance(10)
        assert take(driver) == []
        driver.promote(10)
        assert ids(take(driver)) == ["a"]

    def test_the_longest_lease_is_a_day(
        self, driver: InspectableDriver, clock: ManualClock
    ) -> None:
        put(driver, "a")
        assert take_one(driver, lease=86_400).lease_expires_at == clock.now() + 86_400

    # --- fences ----------------------------------------------------------------------------------

    @in_one_shard
    def test_fences_grow_over_jobs_queues_and_holders(self, driver: InspectableDriver) -> None:
        put(driver, *(f"a{number}" for number in range(20)))
        put(driver, *(f"b{number}" for number in range(20)), queue="other")
        fences: list[int] = []
        for number in range(10):
            for queue in (QUEUE, "other"):
                taken = take(driver, 2, queue=queue, holder=f"h{number % 3}")
                fences += [lease.fence for lease in taken]
        assert len(fences) == 40
        assert all(earlier < later for earlier, later in pairwise(fences))
        assert fences[0] > 0

    def test_a_fence_is_never_reused_for_an_id_that_comes_back(
        self, driver: InspectableDriver
    ) -> None:
        newest = 0
        for _ in range(5):
            put(driver, "a")
            lease = take_one(driver)
            assert lease.fence > newest
            assert settle(driver, Settlement.succeed("a", newest, None))[0] == Settled(
                Verdict.MISMATCH, State.RUNNING
            )
            newest = lease.fence
            apply(driver, Settlement.succeed("a", newest, None))
            driver.delete(["a"])

    # --- pause -----------------------------------------------------------------------------------

    @in_one_shard
    def test_a_paused_queue_gives_nothing(self, driver: InspectableDriver) -> None:
        put(driver, "a")
        driver.pause(QUEUE)
        driver.pause(QUEUE)
        assert take(driver) == []
        assert put(driver, "b")[0].created, "enqueue goes on"
        assert take(driver, holder="a new worker") == []
        put(driver, "c", queue="other")
        assert ids(take(driver, 10, queue=(QUEUE, "other"))) == ["c"]
        driver.resume(QUEUE)
        driver.resume(QUEUE)
        assert ids(take(driver, 10)) == ["a", "b"]

    def test_a_queue_can_be_paused_before_it_has_jobs(self, driver: InspectableDriver) -> None:
        driver.pause("later")
        put(driver, "a", queue="later")
        assert take(driver, queue="later") == []
        driver.resume("later")
        assert ids(take(driver, queue="later")) == ["a"]

    @in_one_shard
    def test_what_runs_in_a_paused_queue_is_settled(self, driver: InspectableDriver) -> None:
        put(driver, "a", "b")
        first, second = take(driver, 2)
        driver.pause(QUEUE)
        apply(
            driver,
            Settlement.succeed("a", first.fence, None),
            Settlement.release("b", second.fence),
        )
        assert take(driver) == []

    # --- expiry ----------------------------------------------------------------------------------

    def test_a_job_past_its_expiry_is_cancelled_and_not_reserved(
        self, driver: InspectableDriver, clock: ManualClock
    ) -> None:
        put(driver, "a", expires_in=10.0)
        put(driver, "b", expires_at=clock.now() + 10.25)
        clock.advance(10)
        assert ids(take(driver, 10)) == ["b"]
        gone = get(driver)
        assert (gone.state, gone.reason) == (State.CANCELLED, Reason.EXPIRED)
        assert gone.finished_at == clock.now()
        assert gone.history == ()

    def test_a_job_that_had_expired_when_it_came_is_never_reserved(
        self, driver: InspectableDriver, clock: ManualClock
    ) -> None:
        put(driver, "a", expires_at=clock.now() - 1)
        assert state(driver) is State.READY
        assert take(driver) == []
        assert state(driver) is State.CANCELLED

    def test_expiry_does_not_touch_a_running_job_but_its_next_attempt(
        self, driver: InspectableDriver, clock: ManualClock
    ) -> None:
        put(driver, "a", expires_in=10.0)
        lease = take_one(driver)
        clock.advance(20)
        assert driver.promote(10).moved == 0
        assert state(driver) is State.RUNNING
        apply(driver, Settlement.retry("a", lease.fence, delay=0, error=None))
        assert take(driver) == []
        assert (get(driver).state, get(driver).reason) == (State.CANCELLED, Reason.EXPIRED)

    def test_a_lost_attempt_of_an_expired_job_is_not_repeated(
        self, driver: InspectableDriver, clock: ManualClock
    ) -> None:
        put(driver, "a", expires_in=10.0)
        take_one(driver)
        clock.advance(LEASE)
        reap(driver)
        assert take(driver) == []
        assert get(driver).reason is Reason.EXPIRED

    @in_one_shard
    def test_many_expired_jobs_are_skipped_in_bounded_steps(
        self, driver: InspectableDriver, clock: ManualClock
    ) -> None:
        put(driver, *(f"a{number}" for number in range(3000)), expires_in=1.0)
        put(driver, "b")
        clock.advance(1)
        exchange = driver.exchange(HOLDER, (), Want((QUEUE,), 1, LEASE))
        assert exchange.reserved == []
        assert exchange.more, "a worker that is told to wait would not find b"
        cancelled = driver.queues()[0].counts[State.CANCELLED]
        assert 0 < cancelled < 3000
        assert ids(take(driver, 100)) == ["b"]
        assert driver.list_jobs(JobFilter(state=State.READY)).jobs == []
