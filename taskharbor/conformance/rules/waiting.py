"""Waiting for jobs and results, on the store's own clock and with real threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait as wait_for_all

import pytest

from taskharbor.conformance.sharding import in_one_shard
from taskharbor.conformance.support import FORGET_AT_ONCE, Suite, apply, put, take, take_one
from taskharbor.drivers.base import (
    SCHEDULE,
    CancelVerdict,
    InspectableDriver,
    Outcome,
    RequeueVerdict,
)
from taskharbor.settlement import Settlement
from taskharbor.states import Reason, State

LONG = 120.0
"""Seconds that no wait here should ever take."""
SOON = 60.0
"""For what comes at once, on a machine that is busy with other things."""


class ResultRules(Suite):
    @in_one_shard
    def test_results_say_how_each_job_stands(self, driver: InspectableDriver) -> None:
        put(driver, "a", "b", "c", "d")
        put(driver, "later", delay=60.0)
        first, second, _ = take(driver, 3)
        apply(
            driver,
            Settlement.succeed("a", first.fence, b"result"),
            Settlement.retry("b", second.fence, delay=9, error=b"error"),
        )
        assert driver.results(["later", "a", "nobody", "b", "c", "d", "a"]) == [
            Outcome(State.SCHEDULED, Reason.ENQUEUED),
            Outcome(State.SUCCEEDED, Reason.SUCCEEDED, b"result"),
            None,
            Outcome(State.SCHEDULED, Reason.RAISED, None, b"error"),
            Outcome(State.RUNNING, Reason.RESERVED),
            Outcome(State.READY, Reason.ENQUEUED),
            Outcome(State.SUCCEEDED, Reason.SUCCEEDED, b"result"),
        ]
        assert driver.results([]) == []

    def test_many_results_in_one_call(self, driver: InspectableDriver) -> None:
        job_ids = [f"a{number}" for number in range(1000)]
        put(driver, *job_ids)
        assert driver.results(job_ids) == [Outcome(State.READY, Reason.ENQUEUED)] * 1000


class WaitRules(Suite):
    @in_one_shard
    def test_what_is_finished_or_gone_is_not_waited_for(self, live: InspectableDriver) -> None:
        put(live, "a", "b")
        apply(live, Settlement.succeed("a", take_one(live).fence, b"result"))
        started = time.monotonic()
        outcomes = live.wait_results(["b", "a"], LONG)
        assert [outcome and outcome.state for outcome in outcomes] == [
            State.READY,
            State.SUCCEEDED,
        ]
        assert live.wait_results(["nobody", "b"], LONG)[0] is None
        assert time.monotonic() - started < SOON

    def test_a_wait_ends_with_its_time(self, live: InspectableDriver) -> None:
        put(live, "a")
        started = time.monotonic()
        assert live.wait_results(["a"], 0.1) == [Outcome(State.READY, Reason.ENQUEUED)]
        assert live.wait_results(["a"], 0) == [Outcome(State.READY, Reason.ENQUEUED)]
        took = time.monotonic() - started
        assert 0.09 <= took < SOON

    @in_one_shard
    def test_a_wait_does_not_end_for_less_than_an_end(self, live: InspectableDriver) -> None:
        put(live, "a", "b")
        started = time.monotonic()
        with ThreadPoolExecutor(1) as pool:
            waiter = pool.submit(live.wait_results, ["a"], 0.4)
            lease = take_one(live)
            apply(live, Settlement.retry("a", lease.fence, delay=0, error=b"error"))
            live.cancel(["b"])
            put(live, "c")
            assert waiter.result(SOON) == [Outcome(State.READY, Reason.RAISED, None, b"error")]
        assert time.monotonic() - started >= 0.39

    @pytest.mark.parametrize("end", ["succeed", "die", "cancel", "operator", "delete"])
    @in_one_shard
    def test_a_waiter_wakes_when_the_job_ends(self, live: InspectableDriver, end: str) -> None:
        put(live, "a", "b")
        with ThreadPoolExecutor(1) as pool:
            waiter = pool.submit(live.wait_results, ["b", "a"], LONG)
            self._finish(live, end)
            outcomes = waiter.result(SOON)
        finished = outcomes[1]
        assert finished is None or finished.state.terminal

    @staticmethod
    def _finish(live: InspectableDriver, end: str) -> None:
        if end == "operator":
            live.cancel(["a"])
        elif end == "delete":
            live.delete(["a"])
        else:
            fence = take_one(live).fence
            ending = {
                "succeed": Settlement.succeed("a", fence, b"result"),
                "die": Settlement.die("a", fence, error=None),
                "cancel": Settlement.cancel("a", fence),
            }
            apply(live, ending[end])

    def test_a_waiter_wakes_when_a_job_is_gone_at_once(self, live: InspectableDriver) -> None:
        put(live, "a", retention=FORGET_AT_ONCE)
        with ThreadPoolExecutor(1) as pool:
            waiter = pool.submit(live.wait_results, ["a"], LONG)
            apply(live, Settlement.succeed("a", take_one(live).fence, None))
            assert waiter.result(SOON) == [None]

    def test_no_wake_up_is_lost(self, live: InspectableDriver) -> None:
        check_no_wake_up_is_lost(live, live)

    def test_many_waiters_all_wake(self, live: InspectableDriver) -> None:
        put(live, "a")
        with ThreadPoolExecutor(8) as pool:
            waiters = [pool.submit(live.wait_results, ["a"], LONG) for _ in range(8)]
            apply(live, Settlement.succeed("a", take_one(live).fence, b"r"))
            for waiter in waiters:
                assert waiter.result(SOON) == [Outcome(State.SUCCEEDED, Reason.SUCCEEDED, b"r")]

    def test_waiting_for_jobs_ends_with_its_time(self, live: InspectableDriver) -> None:
        """More can't be asked: a wake-up is a hint."""
        started = time.monotonic()
        live.wait(["default", "other"], 0.1)
        live.wait(["default"], 0)
        live.wait([], 0.1)
        assert time.monotonic() - started < SOON

    def test_waiting_for_jobs_is_not_disturbed_by_work(self, live: InspectableDriver) -> None:
        with ThreadPoolExecutor(1) as pool:
            waiter = pool.submit(live.wait, ["default"], 1.0)
            put(live, "a")
            put(live, "b", queue="other")
            apply(live, Settlement.release("a", take_one(live).fence))
            waiter.result(SOON)


class HintRules(Suite):
    """``schedule_hints``: who waits for the schedule hears of what is due sooner than all else."""

    @pytest.mark.parametrize("way", ["enqueued", "retried", "requeued"])
    def test_who_waits_hears_of_what_is_due_soon(self, live: InspectableDriver, way: str) -> None:
        def undo() -> None:
            assert live.cancel(["a"]) == [CancelVerdict.CANCELLED]
            live.delete(["a"])

        put(live, "later", delay=3600.0)
        check_a_hint_comes(live, lambda: _schedule(live, way), undo)

    def test_a_wait_for_the_schedule_ends_with_its_time(self, live: InspectableDriver) -> None:
        put(live, "ready")
        started = time.monotonic()
        live.wait([SCHEDULE], 0.2)
        assert 0.19 <= time.monotonic() - started < SOON, "a ready job is no news of the schedule"


def _schedule(live: InspectableDriver, way: str) -> None:
    """A job that is due in half a second."""
    if way == "enqueued":
        put(live, "a", delay=0.5)
        return
    put(live, "a")
    fence = take_one(live).fence
    if way == "retried":
        apply(live, Settlement.retry("a", fence, delay=0.5, error=b"error"))
    else:
        apply(live, Settlement.die("a", fence, error=None))
        assert live.requeue(["a"], delay=0.5) == [RequeueVerdict.REQUEUED]


def check_a_hint_comes(
    live: InspectableDriver, happen: Callable[[], None], undo: Callable[[], None]
) -> None:
    """Who waits for the schedule wakes when something has happened: again and again, because it may
    not have been waiting yet, and undone each time, because the same again would be no news."""
    with ThreadPoolExecutor(1) as pool:
        waiter = pool.submit(live.wait, [SCHEDULE], LONG)
        deadline = time.monotonic() + SOON
        while not waiter.done():
            assert time.monotonic() < deadline, "no hint"
            happen()
            wait_for_all([waiter], 0.25)
            undo()


def check_no_wake_up_is_lost(waiting: InspectableDriver, ending: InspectableDriver) -> None:
    """Jobs end on one driver before, while and after a waiter registers on another (which may be
    the same): every waiter wakes."""
    put(ending, *(f"a{number}" for number in range(60)))
    for number, lease in enumerate(take(ending, 60)):
        done = Settlement.succeed(lease.id, lease.fence, b"r")
        begins = threading.Event()

        def wait(job_id: str = lease.id, begins: threading.Event = begins) -> list[Outcome | None]:
            begins.set()
            return waiting.wait_results([job_id], LONG)

        with ThreadPoolExecutor(1) as pool:
            if number % 3 == 0:
                apply(ending, done)
            waiter = pool.submit(wait)
            if number % 3 == 1:
                begins.wait(LONG)
            if number % 3:
                apply(ending, done)
            assert waiter.result(SOON) == [Outcome(State.SUCCEEDED, Reason.SUCCEEDED, b"r")]
