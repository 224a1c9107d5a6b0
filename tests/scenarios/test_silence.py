"""Children whose heartbeat falls silent: starved by the GIL, stopped, or suspended altogether."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import psutil

from taskharbor import State
from taskharbor.lease import Guard
from taskharbor.settlement import Settlement
from tests.scenarios import shop
from tests.scenarios.conftest import StartWorker, on_both_stores
from tests.waiting import wait_until

LEASE = 4.0
QUICK: dict[str, float] = {"lease_seconds": LEASE, "heartbeat_seconds": LEASE / 10}
"""Leases that a test can wait out, held by a worker that may stand still for seconds itself."""

pytestmark = on_both_stores


def test_a_task_that_holds_the_gil_for_three_leases_runs_once_and_keeps_its_lease(
    worker: StartWorker, app: Any
) -> None:
    running = worker(**QUICK)
    job = shop.hold_gil.delay(3 * LEASE)
    assert job.get(timeout=90) == "let go"
    assert len(running.journal_entries("started", job.id)) == 1
    record = app.driver.get(job.id)
    assert (record.attempts, record.losses) == (1, 0)


def test_jobs_prefetched_by_a_child_that_holds_the_gil_go_elsewhere_uncharged(
    worker: StartWorker, app: Any, tmp_path: Path
) -> None:
    running = worker(**QUICK, concurrency=1)
    # Quick jobs first, so that the child believes in prefetching.
    app.enqueue_many([shop.noop.s(n) for n in range(300)])
    blocker = shop.hold_gil_until.using(max_attempts=1).delay(str(tmp_path / "go"))
    behind = app.enqueue_many([shop.noted.using(max_attempts=1).s(n) for n in range(20)])
    running.wait_noted("started", job=blocker.id)
    other = worker(**QUICK, concurrency=1)
    for job in behind:
        job.get(timeout=90)
    assert not other.journal_entries("finished", blocker.id)
    (tmp_path / "go").touch()
    assert {app.driver.get(job.id).attempts for job in behind} == {1}
    assert blocker.get(timeout=90) == "let go"


def test_a_stopped_childs_late_settle_changes_nothing_and_is_logged(
    worker: StartWorker, app: Any, tmp_path: Path
) -> None:
    running = worker(**QUICK)
    go = tmp_path / "go"
    job = shop.until_first.delay(str(go))
    (first,) = running.wait_noted("started", job=job.id)
    os.kill(first["pid"], signal.SIGSTOP)
    assert job.get(timeout=90) == "attempt 2"
    go.touch()
    # It would kill a child that is awake, lost its lease and has not said anything yet.
    running.send(signal.SIGSTOP)
    os.kill(first["pid"], signal.SIGCONT)
    zombie = running.wait_event("settlement refused")
    running.send(signal.SIGCONT)
    assert zombie[0]["job_id"] == job.id
    record = app.driver.get(job.id)
    assert record.state is State.SUCCEEDED
    assert job.get() == "attempt 2"
    assert [attempt.number for attempt in record.history] == [1, 2]


def test_a_worker_suspended_past_its_leases_starts_none_of_its_prefetched_jobs(
    worker: StartWorker, app: Any, tmp_path: Path
) -> None:
    app.enqueue_many([shop.noop.s(n) for n in range(300)])
    running = worker(**QUICK, concurrency=1)
    blocker = shop.nap.using(max_attempts=3).delay(0.3)
    behind = app.enqueue_many([shop.noted.using(max_attempts=3).s(n) for n in range(20)])
    running.wait_noted("started", job=blocker.id)
    tree = running.processes()
    for process in tree:
        process.suspend()
    begun = {entry["job"] for entry in running.journal_entries("ran")}
    held = {
        job.id
        for job in behind
        if app.driver.get(job.id).state is State.RUNNING and job.id not in begun
    }
    fences = {job_id: app.driver.get(job_id).fence for job_id in held}
    wait_until(lambda: all(lease_is_over(app, job_id) for job_id in held), what="the leases")
    resumed = time.time()
    for process in reversed(tree):
        process.resume()
    for job in (blocker, *behind):
        job.get(timeout=90)
    for job_id in held:
        (ran,) = running.journal_entries("ran", job_id)
        assert ran["at"] >= resumed
        # It ran under a new lease, not under the one that was over.
        assert app.driver.get(job_id).history[-1].fence > fences[job_id]


def lease_is_over(app: Any, job_id: str) -> bool:
    record = app.driver.get(job_id)
    return bool(record.state is not State.RUNNING or record.lease_expires_at < time.time())


def test_a_silent_child_that_lost_its_lease_is_killed(
    worker: StartWorker, app: Any, tmp_path: Path
) -> None:
    running = worker(**QUICK, concurrency=1)
    job = shop.hold_gil.delay(600.0)
    (started,) = running.wait_noted("started", job=job.id)
    running.wait_event("a child has no heartbeat")
    # Somebody else takes the job: an operator's hand in the store.
    (reservation,) = app.driver.retire(app.driver.get(job.id).holder)
    verdict = app.driver.exchange(
        "operator", [Settlement.die(job.id, reservation.fence, error=None, guard=Guard.ANY)]
    )
    assert verdict.settled[0].state is State.DEAD
    running.wait_event("killing a child: its lease is lost")
    wait_until(lambda: not psutil.pid_exists(started["pid"]))
