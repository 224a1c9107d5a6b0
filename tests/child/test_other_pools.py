"""Several jobs at once in one child: threads, and tasks of an event loop."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from typing import Literal

import pytest

from taskharbor.codec import Failure, decode
from taskharbor.context import current_job
from taskharbor.states import Reason, State
from taskharbor.worker.config import ExitCode
from taskharbor.worker.executor import Executor
from tests.child.harness import Yard
from tests.waiting import wait_until

Concurrent = Literal["thread", "async"]


@pytest.mark.parametrize("pool", ["thread", "async"])
def test_it_drains_a_queue_of_sync_and_async_tasks_and_stops_clean(
    yard: Yard, pool: Concurrent
) -> None:
    @yard.app.task
    def plain(x: int) -> int:
        return 2 * x

    @yard.app.task
    async def coroutine(x: int) -> int:
        await asyncio.sleep(0)
        return 3 * x

    plains = yard.app.enqueue_many([plain.s(x) for x in range(200)])
    coroutines = yard.app.enqueue_many([coroutine.s(x) for x in range(200)])
    child = yard.child(pool=pool, slots=5)
    yard.wait_for_count(State.SUCCEEDED, 400)
    assert child.stop() == ExitCode.OK
    for factor, results in ((2, plains), (3, coroutines)):
        values = [decode(yard.job(result.id).result or b"") for result in results]
        assert values == [factor * x for x in range(200)]


def test_threads_run_as_many_jobs_at_once_as_there_are_slots(yard: Yard) -> None:
    together = threading.Barrier(4)

    @yard.app.task(max_attempts=1)
    def meet() -> int:
        return together.wait(timeout=90)

    yard.app.enqueue_many([meet.s() for _ in range(8)])
    yard.child(pool="thread", slots=4)
    yard.wait_for_count(State.SUCCEEDED, 8)


def test_a_loop_runs_as_many_jobs_at_once_as_there_are_slots(yard: Yard) -> None:
    running: set[str] = set()
    all_in = asyncio.Event()

    @yard.app.task(max_attempts=1)
    async def meet() -> int:
        running.add(current_job().id)
        most = len(running)
        if most == 50:
            all_in.set()
        await asyncio.wait_for(all_in.wait(), 90)
        running.discard(current_job().id)
        return most

    results = yard.app.enqueue_many([meet.s() for _ in range(100)])
    yard.child(pool="async", slots=50)
    yard.wait_for_count(State.SUCCEEDED, 100)
    assert max(decode(yard.job(result.id).result or b"") for result in results) == 50


@pytest.mark.parametrize("pool", ["thread", "async"])
def test_a_free_slot_is_filled_while_the_others_are_held(yard: Yard, pool: Concurrent) -> None:
    ledger = yard.ledger

    @yard.app.task(timeout=None)
    def hold() -> None:
        ledger.write("in")
        time.sleep(600)

    @yard.app.task
    def quick() -> None: ...

    yard.app.enqueue_many([hold.s() for _ in range(2)])
    child = yard.child(pool=pool, slots=3)
    wait_until(lambda: ledger.lines() == ["in", "in"], what="two held slots")
    yard.app.enqueue_many([quick.s() for _ in range(50)])
    child.wake.add()
    yard.wait_for_count(State.SUCCEEDED, 50)
    assert yard.count(State.RUNNING) == 2


def test_the_soft_limit_cancels_a_coroutine(yard: Yard) -> None:
    @yard.app.task(timeout=0.2, max_attempts=1)
    async def sleeper() -> None:
        await asyncio.sleep(30)

    result = sleeper.delay()
    yard.child(pool="async", slots=5)
    assert yard.wait_for_state(result.id, State.DEAD).reason is Reason.TIMED_OUT


def test_a_coroutine_that_cancels_itself_has_failed_and_frees_its_slot(yard: Yard) -> None:
    @yard.app.task(max_attempts=1)
    async def cancels_itself() -> None:
        current = asyncio.current_task()
        assert current is not None
        current.cancel()
        await asyncio.sleep(30)

    @yard.app.task
    async def after() -> None: ...

    first = cancels_itself.delay()
    yard.child(pool="async", slots=1)
    job = yard.wait_for_state(first.id, State.DEAD)
    assert Failure.decode(job.error or b"").type == "CancelledError"
    yard.wait_for_state(after.delay().id, State.SUCCEEDED)


@pytest.mark.parametrize("pool", ["thread", "async"])
def test_sigquit_ends_the_child_at_once_whatever_runs(yard: Yard, pool: Concurrent) -> None:
    ledger = yard.ledger

    @yard.app.task(timeout=None)
    async def clings() -> None:
        ledger.write("in")
        while True:
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                ledger.write("cancelled")

    clings.delay()
    child = yard.child(pool=pool, slots=2)
    ledger.wait_for("in")
    child.send(signal.SIGQUIT)
    assert child.wait() == ExitCode.FORCED
    assert ledger.lines() == ["in"]
    assert len(child.row.started) == 1


def test_a_bug_that_loses_a_slot_ends_the_child(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*arguments: object) -> None:
        raise RuntimeError("a bug of ours")

    @yard.app.task
    async def never() -> None: ...

    monkeypatch.setattr(Executor, "run_async", fail)
    never.delay()
    child = yard.child(pool="async", slots=2)
    assert child.wait() == ExitCode.INTERNAL
    assert "a bug of ours" in child.log


def test_a_task_in_a_thread_sees_its_limit_when_it_looks(yard: Yard) -> None:
    @yard.app.task(timeout=0.2, max_attempts=1)
    def looks() -> None:
        while True:
            current_job().check()
            time.sleep(0.01)

    result = looks.delay()
    yard.child(pool="thread", slots=2)
    assert yard.wait_for_state(result.id, State.DEAD).reason is Reason.TIMED_OUT


def test_a_job_past_its_hard_limit_ends_the_child(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskharbor.defaults.HARD_TIMEOUT_AFTER_SECONDS", 0.2)

    @yard.app.task(timeout=0.1)
    async def blocks_the_loop() -> None:
        time.sleep(30)  # noqa: ASYNC251 - what it must not do

    result = blocks_the_loop.delay()
    child = yard.child(pool="async", slots=2)
    assert child.wait() == ExitCode.HARD_LIMIT
    assert [slot.job_id for slot in child.row.started] == [result.id]


@pytest.mark.parametrize("pool", ["thread", "async"])
def test_a_stop_lets_running_jobs_end(yard: Yard, pool: Concurrent, noted_stop: str) -> None:
    ledger = yard.ledger

    @yard.app.task
    def slow() -> None:
        ledger.write("in")
        ledger.wait_for(noted_stop)

    yard.app.enqueue_many([slow.s() for _ in range(10)])
    child = yard.child(pool=pool, slots=3)
    wait_until(lambda: len(ledger.lines()) == 3, what="three running jobs")
    assert child.stop() == ExitCode.OK
    assert yard.count(State.SUCCEEDED) == 3
    assert yard.count(State.READY) == 7


@pytest.mark.parametrize("pool", ["thread", "async"])
@pytest.mark.parametrize("coroutine", [False, True])
def test_a_process_that_a_task_forks_ends_with_the_task(
    yard: Yard, pool: Concurrent, coroutine: bool
) -> None:
    def fork() -> int:
        pid = os.fork()
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) if pid else -1

    @yard.app.task(max_attempts=1)
    def forks() -> int:
        return fork()

    @yard.app.task(max_attempts=1)
    async def coroutine_forks() -> int:
        return fork()

    result = (coroutine_forks if coroutine else forks).delay()
    yard.child(pool=pool, slots=2)
    assert decode(yard.wait_for_state(result.id, State.SUCCEEDED).result or b"") == 0


@pytest.mark.parametrize("pool", ["thread", "async"])
def test_leases_of_many_running_jobs_are_extended(yard: Yard, pool: Concurrent) -> None:
    ledger = yard.ledger

    @yard.app.task
    def long() -> None:
        ledger.write("in")
        ledger.wait_for("go")

    results = yard.app.enqueue_many([long.s() for _ in range(4)])
    yard.child(pool=pool, slots=4, heartbeat_seconds=0.2)
    wait_until(lambda: ledger.lines() == ["in"] * 4, what="four running jobs")
    first = max(yard.lease_end(result.id) for result in results)

    def extended() -> bool:
        return min(yard.lease_end(result.id) for result in results) > first + 1.0

    wait_until(extended, what="more than one extension of each")
    ledger.write("go")
    for result in results:
        assert yard.wait_for_state(result.id, State.SUCCEEDED).attempts == 1


@pytest.mark.parametrize("pool", ["thread", "async"])
def test_a_child_is_used_up_after_its_number_of_tasks(yard: Yard, pool: Concurrent) -> None:
    @yard.app.task
    def noop() -> None: ...

    yard.app.enqueue_many([noop.s() for _ in range(100)])
    child = yard.child(pool=pool, slots=4, max_tasks_per_child=30)
    assert child.wait() == ExitCode.RECYCLED
    assert yard.count(State.SUCCEEDED) == 30
    assert yard.count(State.READY) == 70
