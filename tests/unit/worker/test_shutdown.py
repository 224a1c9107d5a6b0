"""When a child stops, and how it says so."""

from __future__ import annotations

from taskharbor.worker.config import ExitCode
from taskharbor.worker.shutdown import Budget, Shutdown


def test_a_stop_drains_and_exits_clean() -> None:
    shutdown = Shutdown()
    shutdown.stop()
    assert (shutdown.draining, shutdown.leaving) == (True, False)
    assert shutdown.exit_code(running=0) is ExitCode.OK


def test_a_second_stop_does_not_interrupt_what_runs() -> None:
    shutdown = Shutdown()
    shutdown.stop()
    shutdown.stop()
    assert not shutdown.leaving


def test_leaving_while_jobs_run_is_said_in_the_exit_code() -> None:
    shutdown = Shutdown()
    shutdown.leave()
    assert shutdown.leaving
    assert shutdown.exit_code(running=2) is ExitCode.FORCED
    assert shutdown.exit_code(running=0) is ExitCode.OK


def test_the_reason_to_drain_is_the_exit_code_unless_told_to_stop() -> None:
    shutdown = Shutdown()
    shutdown.drain(ExitCode.RECYCLED)
    shutdown.drain(ExitCode.RETIRED)
    assert shutdown.exit_code(running=0) is ExitCode.RECYCLED
    shutdown.stop()
    assert shutdown.exit_code(running=0) is ExitCode.OK


def test_an_orphan_stays_one_whatever_else_it_is_told() -> None:
    shutdown = Shutdown()
    shutdown.leave(ExitCode.ORPHANED)
    shutdown.stop()
    assert shutdown.exit_code(running=1) is ExitCode.ORPHANED


def test_a_budget_of_tasks_is_never_exceeded() -> None:
    budget = Budget(tasks=10)
    assert budget.allows(128, spoken_for=0) == 10
    assert budget.allows(128, spoken_for=7) == 3
    assert budget.allows(1, spoken_for=12) == 0
    assert not budget.used_up(started=9)
    assert budget.used_up(started=10)


def test_a_budget_of_memory() -> None:
    budget = Budget(memory_bytes=1000)
    assert budget.watches_memory
    assert budget.allows(128, spoken_for=10**9) == 128
    assert not budget.used_up(started=10**9, memory_bytes=1000)
    assert budget.used_up(started=0, memory_bytes=1001)


def test_no_budget_no_end() -> None:
    budget = Budget()
    assert not budget.watches_memory
    assert not budget.used_up(started=10**9, memory_bytes=10**15)
