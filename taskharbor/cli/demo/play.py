"""The demo itself: start a worker, import, kill a child in the middle, add up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from taskharbor.cli.demo.orders import expected_checksum, write_file
from taskharbor.cli.demo.table import Running, Table
from taskharbor.drivers.base import JobFilter
from taskharbor.errors import TaskHarborError
from taskharbor.states import Reason, State

if TYPE_CHECKING:
    from taskharbor.drivers.base import InspectableDriver, Job

GIVE_UP_SECONDS = 240.0
STOP_SECONDS = 10.0
POLL_SECONDS = 0.02
MOST_KILLS = 5
"""A kill may hit a child between two jobs; then another one is killed."""

OnProgress = Callable[[int, int], None]
"""Told the rows imported so far, and the children killed."""


class DemoFailed(TaskHarborError):
    """The demo could not be played to its end; says where to look."""


@dataclass(frozen=True, slots=True)
class Stage:
    """Where the demo keeps its things."""

    directory: Path

    @property
    def csv(self) -> Path:
        return self.directory / "orders.csv"

    @property
    def database(self) -> Path:
        return self.directory / "imported.db"

    @property
    def url(self) -> str:
        return f"sqlite:///{quote(str(self.directory.absolute() / 'jobs.db'))}"

    @property
    def log(self) -> Path:
        return self.directory / "worker.log"


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What came of it; ``docs/cli.md`` describes it. ``recovery_seconds``: from the kill to the
    next attempt at the interrupted job."""

    rows: int
    rows_expected: int
    rows_written_again: int
    checksum: str
    checksum_expected: str
    jobs: int
    succeeded: int
    retries: int
    crashes: int
    kills: int
    interrupted_job: str | None
    recovery_seconds: float | None
    seconds: float
    url: str
    directory: str

    @property
    def problems(self) -> list[str]:
        """Why the proof fails; empty when it holds."""
        checks = {
            f"{self.rows} rows instead of {self.rows_expected}": self.rows == self.rows_expected,
            "the table's checksum is not the file's": self.checksum == self.checksum_expected,
            f"{self.jobs - self.succeeded} jobs did not succeed": self.jobs == self.succeeded,
            "no child was killed in the middle of a job": self.interrupted_job is not None,
            "the interrupted job was not begun again": self.recovery_seconds is not None,
        }
        return [problem for problem, holds in checks.items() if not holds]


@dataclass(slots=True)
class Crash:
    """What the killing came to. ``interrupted`` is the attempt that was hit in the middle."""

    kills: int = 0
    interrupted: Running | None = None
    killed_at: float = 0.0


def play(stage: Stage, rows: int, concurrency: int, on_progress: OnProgress) -> Summary:
    """Import ``rows`` orders. Raises DemoFailed; leaves its files in ``stage``."""
    from taskharbor.cli.demo.tasks import app, import_file

    write_file(stage.csv, rows)
    expected = expected_checksum(stage.csv)
    app.url = stage.url
    table = Table(stage.database)
    try:
        table.create()
        with _worker(stage, concurrency) as worker:
            began = time.monotonic()
            import_file.delay(stage.csv, stage.database)
            crash = _watch(stage, table, app.driver, worker, rows, on_progress)
            seconds = time.monotonic() - began
        return _add_up(stage, table, app.driver, crash, rows, expected, seconds)
    finally:
        table.close()
        app.close()


# --- the worker -------------------------------------------------------------------------------


@contextmanager
def _worker(stage: Stage, concurrency: int) -> Iterator[subprocess.Popen[bytes]]:
    """A worker in a session of its own: Ctrl-C reaches the demo, and the demo stops it."""
    command = [sys.executable, "-m", "taskharbor", "worker", "-A", "taskharbor.cli.demo.tasks"]
    command += ["-c", str(concurrency), "--url", stage.url, "--log-format", "json"]
    with stage.log.open("wb") as log:
        worker = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield worker
    finally:
        worker.terminate()
        try:
            worker.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()


def _watch(
    stage: Stage,
    table: Table,
    driver: InspectableDriver,
    worker: subprocess.Popen[bytes],
    rows: int,
    on_progress: OnProgress,
) -> Crash:
    """Follow the import to its end; on the way, kill a child in the middle of a job."""
    crash = Crash()
    gives_up = time.monotonic() + GIVE_UP_SECONDS
    while True:
        imported = table.rows()
        on_progress(imported, crash.kills)
        if crash.interrupted is None and imported >= rows * (4 + crash.kills) // 10:
            _kill_one(table, crash)
        if _finished(driver):
            on_progress(table.rows(), crash.kills)
            return crash
        if worker.poll() is not None:
            raise DemoFailed(f"the worker ended by itself ({worker.returncode}); see {stage.log}")
        if time.monotonic() > gives_up:
            raise DemoFailed(
                f"not finished after {GIVE_UP_SECONDS:g} s, with {imported} of {rows} rows; see "
                f"{stage.log}"
            )
        time.sleep(POLL_SECONDS)


def _kill_one(table: Table, crash: Crash) -> None:
    victim = table.half_done()
    if victim is None or crash.kills >= MOST_KILLS:
        return
    try:
        os.kill(victim.pid, signal.SIGKILL)
    except ProcessLookupError:  # it ended since
        return
    crash.kills += 1
    crash.killed_at = time.time()
    # Between the look and the kill the attempt may have ended.
    if table.interrupted(victim.fence):
        crash.interrupted = victim


def _finished(driver: InspectableDriver) -> bool:
    """Whether all jobs have ended, in whatever way."""
    counts: Counter[State] = Counter()
    for queue in driver.queues():
        counts.update(queue.counts)
    return sum(counts.values()) > 1 and not any(counts[s] for s in State if not s.terminal)


# --- the sum ----------------------------------------------------------------------------------


def _add_up(
    stage: Stage,
    table: Table,
    driver: InspectableDriver,
    crash: Crash,
    rows: int,
    expected: str,
    seconds: float,
) -> Summary:
    jobs = list(_all_jobs(driver))
    reasons = Counter(attempt.reason for job in jobs for attempt in job.history)
    victim = crash.interrupted
    begun_again = None if victim is None else table.next_start(victim)
    return Summary(
        rows=table.rows(),
        rows_expected=rows,
        rows_written_again=table.written_again(),
        checksum=table.checksum(),
        checksum_expected=expected,
        jobs=len(jobs),
        succeeded=sum(job.state is State.SUCCEEDED for job in jobs),
        retries=reasons[Reason.RAISED],
        crashes=reasons[Reason.WORKER_LOST],
        kills=crash.kills,
        interrupted_job=victim and victim.job_id,
        recovery_seconds=None if begun_again is None else round(begun_again - crash.killed_at, 3),
        seconds=round(seconds, 3),
        url=stage.url,
        directory=str(stage.directory),
    )


def _all_jobs(driver: InspectableDriver) -> Iterator[Job]:
    """Every job of the store with its history."""
    cursor = None
    while True:
        page = driver.list_jobs(JobFilter(), cursor=cursor)
        for job in page.jobs:
            whole = driver.get(job.id)
            if whole is not None:
                yield whole
        cursor = page.cursor
        if cursor is None:
            return
