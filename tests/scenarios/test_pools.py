"""Thread and async pools: several jobs in one child, each with a limit of its own."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from taskharbor import TaskFailed
from tests.scenarios import shop
from tests.scenarios.conftest import StartWorker


@pytest.mark.parametrize("pool", ["thread", "async"])
def test_slots_run_side_by_side(worker: StartWorker, app: Any, tmp_path: Path, pool: str) -> None:
    running = worker(concurrency=1, pool=pool, slots=8)
    task = shop.async_until if pool == "async" else shop.until
    jobs = app.enqueue_many([task.s(str(tmp_path / "go")) for _ in range(8)])
    started = running.wait_noted("started", count=8)
    (tmp_path / "go").touch()
    for job in jobs:
        assert job.get(timeout=90) == "seen"
    assert len({entry["pid"] for entry in started}) == 1


@pytest.mark.parametrize("pool", ["thread", "async"])
def test_a_killed_childs_started_jobs_are_all_charged(
    worker: StartWorker, app: Any, tmp_path: Path, pool: str
) -> None:
    running = worker(concurrency=1, pool=pool, slots=4)
    jobs = [shop.until_first.delay(str(tmp_path / "never")) for _ in range(4)]
    started = running.wait_noted("started", count=4)
    os.kill(started[0]["pid"], signal.SIGKILL)
    assert [job.get(timeout=90) for job in jobs] == ["attempt 2"] * 4


def test_of_a_thread_pool_killed_for_one_jobs_limit_only_that_job_is_charged(
    worker: StartWorker, app: Any, tmp_path: Path
) -> None:
    running = worker(concurrency=1, pool="thread", slots=4)
    go = tmp_path / "go"
    innocents = [shop.until.using(max_attempts=1).delay(str(go)) for _ in range(3)]
    culprit = shop.never_ends.using(max_attempts=1).delay()
    running.wait_noted("started", count=4)
    with pytest.raises(TaskFailed, match="time limit"):
        culprit.get(timeout=90)
    assert app.driver.get(culprit.id).reason == "timed_out"
    go.touch()
    assert [job.get(timeout=90) for job in innocents] == ["seen"] * 3
    for job in innocents:
        record = app.driver.get(job.id)
        assert (record.attempts, record.losses) == (1, 1)
