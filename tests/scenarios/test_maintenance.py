"""Maintenance without a worker, and the lead passing from one to the next."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from taskharbor import State
from tests.scenarios import shop
from tests.scenarios.conftest import StartWorker
from tests.scenarios.worker import ROOT
from tests.waiting import PATIENCE_SECONDS, wait_until


@pytest.fixture
def maintenance(app: Any, url: str, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """``taskharbor maintenance`` on the scenario's store."""
    command = [sys.executable, "-m", "taskharbor", "maintenance", "--url", url]
    with (tmp_path / "maintenance.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--log-format", "json"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=log,
            stderr=log,
        )
    try:
        wait_until(
            lambda: b"maintenance started" in (tmp_path / "maintenance.log").read_bytes(),
            what="maintenance",
        )
        yield process
    finally:
        process.kill()
        process.wait()


def test_alone_it_promotes_and_brings_a_lost_workers_jobs_back(
    worker: StartWorker, app: Any, tmp_path: Path, maintenance: subprocess.Popen[bytes]
) -> None:
    running = worker(lease_seconds=5.0)
    held = shop.until.delay(str(tmp_path / "never"))
    running.wait_noted("started", job=held.id)
    running.send(signal.SIGKILL)
    running.wait()
    assert wait_until(lambda: held.state is not State.RUNNING)
    record = app.driver.get(held.id)
    assert (record.attempts, record.losses) == (1, 1)
    scheduled = shop.noted.apply_async((1,), countdown=0.2)
    wait_until(lambda: scheduled.state is State.READY, what="the promotion")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_when_asked(maintenance: subprocess.Popen[bytes], number: signal.Signals) -> None:
    maintenance.send_signal(number)
    assert maintenance.wait(PATIENCE_SECONDS) == 0


def test_another_worker_takes_the_lead_over(worker: StartWorker) -> None:
    leader, follower = worker(concurrency=1), worker(concurrency=1)
    leader.send(signal.SIGKILL)
    leader.wait()
    job = shop.noted.apply_async((1,), countdown=0.5)
    assert job.get(timeout=90) == 1
    assert follower.journal_entries("ran", job.id)
