"""Processes of a worker die at the worst moment: only what was really running pays for it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from taskharbor import TaskFailed
from taskharbor.codec import Failure
from tests.scenarios import shop
from tests.scenarios.conftest import StartWorker, on_both_stores
from tests.waiting import PATIENCE_SECONDS, best_of, wait_until

pytestmark = on_both_stores


def test_a_job_whose_child_is_killed_runs_again_within_a_second_and_a_half(
    worker: StartWorker, tmp_path: Path
) -> None:
    # So long that whoever waits for it fails the test.
    running = worker(lease_seconds=600.0)

    def recovery() -> float:
        job = shop.until_first.delay(str(tmp_path / "never"))
        (first,) = running.wait_noted("started", job=job.id)
        os.kill(first["pid"], signal.SIGKILL)
        killed = time.time()
        second = running.wait_noted("started", job=job.id, count=2)[1]
        assert second["attempt"] == 2
        assert job.get(timeout=90) == "attempt 2"
        history = shop.app.driver.get(job.id)
        assert history is not None
        lost = history.history[0]
        assert lost.error is not None
        assert "SIGKILL" in Failure.decode(lost.error).message
        return float(second["at"] - killed)

    assert best_of(recovery, below=1.5, tries=10) < 1.5


def test_a_job_that_always_kills_its_child_is_dead_with_the_signal_named(
    worker: StartWorker,
) -> None:
    running = worker()
    job = shop.die_by.delay(int(signal.SIGSEGV))
    with pytest.raises(TaskFailed, match="SIGSEGV"):
        job.get(timeout=90)
    assert [entry["attempt"] for entry in running.journal_entries("started")] == [1, 2, 3]


def test_an_exit_code_is_named_too(worker: StartWorker) -> None:
    worker()
    job = shop.exit_with.using(max_attempts=1).delay(77)
    with pytest.raises(TaskFailed, match="code 77"):
        job.get(timeout=90)


def test_other_childrens_jobs_are_untouched(worker: StartWorker, tmp_path: Path) -> None:
    running = worker(concurrency=3)
    bystanders = [shop.until.using(max_attempts=1).delay(str(tmp_path / "go")) for _ in range(2)]
    running.wait_noted("started", count=2)
    victim = shop.die_by.delay(int(signal.SIGKILL))
    with pytest.raises(TaskFailed):
        victim.get(timeout=90)
    (tmp_path / "go").touch()
    assert [job.get(timeout=90) for job in bystanders] == ["seen", "seen"]
    for job in bystanders:
        assert len(running.journal_entries("started", job.id)) == 1


def test_only_the_running_job_is_charged_for_what_the_dead_child_held(
    worker: StartWorker, app: Any, tmp_path: Path
) -> None:
    """99 finished, one running, 300 more prefetched, and none may run twice: max_attempts=1."""
    noted = shop.noted.using(max_attempts=1)
    before = app.enqueue_many([noted.s(n) for n in range(99)])
    victim = shop.until.using(max_attempts=1).delay(str(tmp_path / "never"))
    after = app.enqueue_many([noted.s(n) for n in range(300)])
    running = worker(concurrency=1, prefetch_max=1000)
    (started,) = running.wait_noted("started", job=victim.id)
    os.kill(started["pid"], signal.SIGKILL)
    with pytest.raises(TaskFailed, match="SIGKILL"):
        victim.get(timeout=90)
    for job in (*before, *after):
        job.get(timeout=90)
    jobs = [app.driver.get(job.id) for job in (*before, *after)]
    assert {job.attempts for job in jobs} == {1}
    ran = [entry["job"] for entry in running.journal_entries("ran")]
    # What had finished and was not settled yet may run again; nothing else may.
    assert set(ran) == {job.id for job in (*before, *after)}
    assert len(ran) - len(set(ran)) <= 99


def test_a_worker_whose_supervisor_is_killed_is_gone_whatever_it_does(
    worker: StartWorker, tmp_path: Path
) -> None:
    running = worker(lease_seconds=5.0)
    holder = shop.hold_gil.delay(600.0)
    held = shop.until_first.delay(str(tmp_path / "never"))
    running.wait_noted("started", count=2)
    tree = running.processes()
    assert len(tree) == 5
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    _, alive = psutil.wait_procs(tree[1:], timeout=PATIENCE_SECONDS)
    assert alive == []
    other = worker(lease_seconds=5.0)
    other.wait_noted("started", job=held.id, count=2)
    assert held.get(timeout=90) == "attempt 2"
    other.wait_noted("started", job=holder.id, count=2)
    other.send(signal.SIGKILL)


def test_the_apps_handlers_are_told_of_losses(
    worker: StartWorker, app: Any, tmp_path: Path
) -> None:
    (tmp_path / "listening.py").write_text(
        "import os, pathlib\n"
        "from tests.scenarios.shop import app\n"
        "def write(name, event):\n"
        "    line = f'{event.job_id} {event.attempt} {event.move}\\n'\n"
        "    with open(name, 'a') as file:\n"
        "        file.write(line)\n"
        "app.signals.lost.connect(lambda event: write('lost', event))\n"
        "app.signals.dead.connect(lambda event: write('dead', event))\n"
    )
    worker(app_path="listening:app")
    job = shop.die_by.using(max_attempts=2).delay(int(signal.SIGKILL))
    with pytest.raises(TaskFailed):
        job.get(timeout=90)
    dead = wait_until(lambda: lines(tmp_path / "dead"), what="the signal")
    assert dead == [f"{job.id} 2 die"]
    assert lines(tmp_path / "lost") == [f"{job.id} 1 retry", f"{job.id} 2 die"]


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def test_a_generation_that_is_killed_takes_its_children_along_and_is_replaced(
    worker: StartWorker, app: Any, tmp_path: Path
) -> None:
    running = worker()
    job = shop.until_first.delay(str(tmp_path / "never"))
    (first,) = running.wait_noted("started", job=job.id)
    running.generation().kill()
    second = running.wait_noted("started", job=job.id, count=2)[1]
    assert second["pid"] != first["pid"]
    assert job.get(timeout=90) == "attempt 2"


def test_maintenance_that_is_killed_still_settles_what_was_lost_meanwhile(
    worker: StartWorker, app: Any, tmp_path: Path
) -> None:
    running = worker()
    job = shop.until_first.delay(str(tmp_path / "never"))
    (first,) = running.wait_noted("started", job=job.id)
    maintenance = running.maintenance()
    maintenance.suspend()
    os.kill(first["pid"], signal.SIGKILL)
    running.wait_event("child was killed by SIGKILL")
    maintenance.kill()
    assert job.get(timeout=90) == "attempt 2"
