"""Stopping: nothing is lost, nothing is charged, and nothing goes on for ever."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import Any

import pytest

from taskharbor import State, TaskFailed
from taskharbor.worker.config import ExitCode
from tests.scenarios import shop
from tests.scenarios.conftest import StartWorker
from tests.waiting import wait_until


def test_term_under_load_hands_back_uncharged_and_runs_no_short_job_twice(
    worker: StartWorker, app: Any
) -> None:
    jobs = app.enqueue_many([shop.nap.using(max_attempts=1).s(0.05) for _ in range(400)])
    first = worker(lease_seconds=30.0)
    first.wait_noted("finished", count=20)
    assert first.stop() == ExitCode.OK
    states = [app.driver.get(job.id) for job in jobs]
    assert {record.state for record in states} == {State.SUCCEEDED, State.READY}
    assert all(record.attempts == 0 for record in states if record.state is State.READY)
    second = worker(lease_seconds=30.0, concurrency=6)
    for job in jobs:
        job.get(timeout=90)
    started = [entry["job"] for entry in second.journal_entries("started")]
    assert sorted(started) == sorted(job.id for job in jobs)


def test_a_running_job_may_end_within_the_grace(worker: StartWorker) -> None:
    running = worker(grace_seconds=60.0)
    job = shop.nap.delay(1.0)
    running.wait_noted("started")
    assert running.stop() == ExitCode.OK
    assert job.get(timeout=90) == "rested"
    assert len(running.journal_entries("started")) == 1


def test_a_job_that_outlives_every_grace_is_dead_in_the_end(worker: StartWorker, app: Any) -> None:
    job = shop.overstay.delay(60.0)
    for number, expected in enumerate((State.READY, State.DEAD), 1):
        running = worker(grace_seconds=0.2)
        running.wait_noted("started", count=number)
        assert running.stop() == ExitCode.FORCED
        assert job.state is expected
    record = app.driver.get(job.id)
    assert (record.losses, record.reason) == (2, "worker_lost")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_second_signal_ends_it_at_once(
    worker: StartWorker, app: Any, number: signal.Signals
) -> None:
    running = worker(grace_seconds=600.0)
    job = shop.nap.delay(600.0)
    running.wait_noted("started")
    running.send(number)
    running.wait_event("stopping")
    running.send(number)
    assert running.wait() == ExitCode.FORCED
    record = app.driver.get(job.id)
    assert (record.state, record.attempts, record.losses) == (State.READY, 0, 1)


def test_quit_ends_it_at_once(worker: StartWorker, app: Any) -> None:
    running = worker(grace_seconds=600.0)
    job = shop.hold_gil.delay(600.0)
    running.wait_noted("started")
    running.send(signal.SIGQUIT)
    assert running.wait() == ExitCode.FORCED
    assert app.driver.get(job.id).state is State.READY


def test_an_idle_worker_stops_with_exit_code_0_and_waits_for_no_grace(worker: StartWorker) -> None:
    running = worker(grace_seconds=600.0)
    running.send(signal.SIGINT)
    assert running.wait() == ExitCode.OK


def test_a_job_past_its_hard_limit_is_killed_charged_and_named(
    worker: StartWorker, app: Any
) -> None:
    worker()
    job = shop.never_ends.delay()
    with pytest.raises(TaskFailed, match="time limit"):
        job.get(timeout=90)
    record = app.driver.get(job.id)
    assert [attempt.reason for attempt in record.history] == ["timed_out", "timed_out"]


def test_usr1_writes_the_tracebacks_of_all_processes_one_after_another(
    worker: StartWorker, tmp_path: Path
) -> None:
    running = worker()
    shop.until.delay(str(tmp_path / "end"))
    running.wait_noted("started")
    running.send(signal.SIGUSR1)
    others = ("generation", "maintenance", "child 0", "child 1")
    lasts = {"supervisor": "in <module>", **dict.fromkeys(others, "in _run_module_as_main")}
    parts: dict[str, str] = {}

    def whole() -> bool:
        parts.update(_tracebacks(running.log()))
        return all(parts.get(name, "").rstrip().endswith(last) for name, last in lasts.items())

    wait_until(whole, what="the tracebacks of all processes")
    assert {part.count("Current thread") for part in parts.values()} == {1}
    assert 'supervisor.py", line' in parts["supervisor"]
    assert 'maintenance/process.py", line' in parts["maintenance"]
    # Of the children one is in the task, below its own heading.
    assert [" in until\n" in parts[name] for name in ("child 0", "child 1")].count(True) == 1


def _tracebacks(log: str) -> dict[str, str]:
    """What was written below each heading, without the log's own lines."""
    lines = "".join(line for line in log.splitlines(keepends=True) if not line.startswith("{"))
    pieces = re.split(r"^--- ([a-z0-9 ]+), process \d+ ---\n", lines, flags=re.MULTILINE)
    return dict(zip(pieces[1::2], pieces[2::2], strict=True))
