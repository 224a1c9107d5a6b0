"""Children and generations are replaced: used up, reloaded, or for a change of the source."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from taskharbor.worker.config import ExitCode
from tests.scenarios import shop
from tests.scenarios.conftest import StartWorker
from tests.scenarios.worker import runs
from tests.waiting import wait_until


def test_a_child_is_recycled_after_its_tasks(worker: StartWorker, app: Any) -> None:
    running = worker(concurrency=1, max_tasks_per_child=10)
    jobs = app.enqueue_many([shop.noted.using(max_attempts=1).s(n) for n in range(55)])
    for job in jobs:
        job.get(timeout=90)
    entries = running.journal_entries("ran")
    assert len(entries) == 55
    pids = [entry["pid"] for entry in entries]
    assert max(pids.count(pid) for pid in pids) <= 10


def test_a_child_is_recycled_when_it_has_grown_too_big(worker: StartWorker, app: Any) -> None:
    running = worker(concurrency=1, max_memory_per_child=150 << 20)
    jobs = [shop.grow.using(max_attempts=1).delay(200) for _ in range(3)]
    pids = {job.get(timeout=90) for job in jobs}
    assert len(pids) == 3
    assert len(running.journal_entries("ran")) == 3
    assert running.wait_event("child exited with code 80", count=2)


def test_reload_under_load_loses_and_repeats_nothing(
    worker: StartWorker, app: Any, tmp_path: Path
) -> None:
    running = worker()
    before = {process.pid for process in running.children()}
    jobs = app.enqueue_many([shop.nap.using(max_attempts=1).s(0.01) for _ in range(300)])
    running.wait_noted("finished", count=30)
    running.send(signal.SIGHUP)
    running.wait_event("the new generation takes over")
    for job in jobs:
        job.get(timeout=90)
    started = [entry["job"] for entry in running.journal_entries("started")]
    assert sorted(started) == sorted(job.id for job in jobs)
    wait_until(lambda: not before & {p.pid for p in running.processes()})
    wait_until(lambda: len(running.children()) == 2, what="two children")
    assert running.stop() == ExitCode.OK


def test_a_reload_that_cannot_import_keeps_the_old_generation(
    worker: StartWorker, tmp_path: Path
) -> None:
    source = "from tests.scenarios.shop import app\n"
    module = tmp_path / "edited.py"
    module.write_text(source)
    running = worker(app_path="edited:app")
    before = {process.pid for process in running.children()}
    module.write_text("this is not Python\n")
    running.send(signal.SIGHUP)
    running.wait_event("the app could not be loaded")
    assert {process.pid for process in running.children()} == before
    assert shop.noted.delay(1).get(timeout=90) == 1
    module.write_text(source)
    running.send(signal.SIGHUP)
    running.wait_event("the new generation takes over")
    assert shop.noted.delay(2).get(timeout=90) == 2


def test_a_stop_is_clean_though_an_earlier_reload_cut_a_job_short(
    worker: StartWorker, app: Any, tmp_path: Path
) -> None:
    running = worker(grace_seconds=0.1)
    job = shop.until.delay(str(tmp_path / "let go"))
    running.wait_noted("started", job=job.id)
    running.send(signal.SIGHUP)
    running.wait_event("killing a child: its grace is over")
    (tmp_path / "let go").touch()
    job.get(timeout=90)
    assert running.stop() == ExitCode.OK


def test_reload_option_follows_the_source(worker: StartWorker, tmp_path: Path) -> None:
    module = tmp_path / "followed.py"
    source = "from tests.scenarios.shop import app, note\n@app.task\ndef say():\n    return {!r}\n"
    module.write_text(source.format("old"))
    running = worker(app_path="followed:app", reload=True)
    module.write_text(source.format("brand new"))
    running.wait_event("reloading: files changed")
    running.wait_event("the new generation takes over")
    assert shop.noted.delay(2).get(timeout=90) == 2


def test_repeated_reloads_settle_down(worker: StartWorker, app: Any) -> None:
    running = worker()
    jobs = app.enqueue_many([shop.nap.using(max_attempts=1).s(0.02) for _ in range(200)])
    for _ in range(4):
        running.send(signal.SIGHUP)
        running.wait_noted("finished", count=len(running.journal_entries("finished")) + 1)
    for job in jobs:
        job.get(timeout=90)
    assert len(running.journal_entries("started")) == 200
    wait_until(lambda: len(running.processes()) == 5, what="one generation")


def test_children_die_when_only_their_generation_is_killed(worker: StartWorker) -> None:
    running = worker()
    children = running.children()
    os.kill(running.generation().pid, signal.SIGKILL)
    wait_until(lambda: not any(runs(child) for child in children), what="the children's end")
    wait_until(lambda: len(running.children()) == 2)
