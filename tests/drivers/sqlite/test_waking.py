"""Waking others: soon, for nothing as little as may be, and without litter."""

from __future__ import annotations

import sqlite3
import statistics
import subprocess
import sys
import threading
import time
from contextlib import closing
from itertools import count, islice
from pathlib import Path

import pytest

from taskharbor.drivers.base import Want
from taskharbor.drivers.sqlite import SQLiteDriver, connect, wake
from taskharbor.settlement import Settlement
from taskharbor.states import State
from tests.drivers.sqlite.conftest import job
from tests.waiting import PATIENCE_SECONDS, best_of, wait_until

LONG = 2 * PATIENCE_SECONDS
"""Seconds that no wait here should ever take."""

_PROJECT = Path(__file__).parents[3]

# Prints the moment at which it has reserved each job; CLOCK_MONOTONIC is one for all processes.
_SERVE = """
import sys, time
from taskharbor.drivers.base import Want
from taskharbor.drivers.sqlite import connect
driver = connect(sys.argv[1])
driver.wait(("default",), 0)
print("ready", flush=True)
while True:
    for job in driver.exchange("idle", (), Want(("default",), 1, 30.0)).reserved:
        print(time.monotonic(), flush=True)
    driver.wait(("default",), 10)
"""


def test_an_idle_process_has_a_new_job_within_milliseconds(driver: SQLiteDriver, url: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _SERVE, url], cwd=_PROJECT, stdout=subprocess.PIPE, text=True
    ) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
        times, numbers = worker.stdout, count()

        def wait() -> float:
            """Seconds, the median of 15."""
            waits = []
            for number in islice(numbers, 15):
                time.sleep(0.02)  # so that it is idle again
                begin = time.monotonic()
                driver.enqueue([job(f"job{number}")])
                waits.append(float(times.readline()) - begin)
            return statistics.median(waits)

        # The benchmark has the true figures; a machine that runs tests is busy.
        best = best_of(wait, below=0.02)
        worker.kill()
    assert best < 0.02


@pytest.mark.parametrize("deaf", [False, True])
def test_a_waiter_costs_next_to_nothing(
    driver: SQLiteDriver, deaf: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if deaf:
        monkeypatch.setattr(wake, "_inotify", lambda path: None)
    driver.wait(("default",), 0)
    before, began = time.thread_time(), time.monotonic()
    driver.wait(("default",), 1.0)
    assert time.monotonic() - began >= 1.0
    assert time.thread_time() - before < (0.2 if deaf else 0.02)


def test_who_cannot_hear_looks_often(
    url: str, driver: SQLiteDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wake, "_inotify", lambda path: None)
    with closing(connect(url)) as other:
        other.wait(("default",), 0)
        timer = threading.Timer(0.1, lambda: driver.enqueue([job()]))
        began = time.monotonic()
        timer.start()
        other.wait(("default",), LONG)
        assert time.monotonic() - began < PATIENCE_SECONDS
        timer.join()


def test_a_commit_of_another_program_is_noticed(path: Path, driver: SQLiteDriver) -> None:
    """Its commit rings for nobody."""
    driver.enqueue([job()])
    driver.pause("default")
    driver.wait(("default",), 0)

    def resume() -> None:
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("UPDATE th_queues SET paused = 0")

    timer = threading.Timer(0.1, resume)
    began = time.monotonic()
    timer.start()
    driver.wait(("default",), LONG)
    assert time.monotonic() - began < PATIENCE_SECONDS
    timer.join()


def test_a_backlog_alone_does_not_make_waiting_a_busy_loop(driver: SQLiteDriver) -> None:
    driver.enqueue([job()])
    driver.wait(("default",), 10)
    began = time.monotonic()
    driver.wait(("default",), 0.3)
    assert time.monotonic() - began >= 0.3


def test_a_ring_between_two_waits_is_kept(driver: SQLiteDriver, url: str) -> None:
    with closing(connect(url)) as other:
        other.wait(("default",), 0)
        driver.enqueue([job()])
        began = time.monotonic()
        other.wait(("default",), LONG)
        assert time.monotonic() - began < PATIENCE_SECONDS


def test_no_end_falls_between_the_look_and_the_wait(driver: SQLiteDriver, url: str) -> None:
    """Whoever waits for a result hears of an end at whatever moment it comes."""
    for number in range(50):
        job_id = f"job{number}"
        driver.enqueue([job(job_id)])
        (lease,) = driver.exchange("h", (), Want(("default",), 1, 30.0)).reserved
        settlement = Settlement.succeed(job_id, lease.fence, None)
        waiter = threading.Thread(target=driver.wait_results, args=([job_id], LONG))
        began = time.monotonic()
        waiter.start()
        time.sleep(number / 50 * 0.002)
        with closing(connect(url)) as other:
            other.exchange("h", [settlement])
        waiter.join()
        assert time.monotonic() - began < PATIENCE_SECONDS


def test_closing_ends_a_wait(url: str) -> None:
    driver = connect(url)
    waiter = threading.Thread(target=driver.wait, args=(("default",), LONG))
    waiter.start()
    slots = driver._store.connections._slots
    wait_until(lambda: any(slot.watch is not None for slot in list(slots)))
    driver.close()
    waiter.join(PATIENCE_SECONDS)
    assert not waiter.is_alive()


def test_nothing_but_sqlite_s_own_files_is_left_by_a_crash(path: Path, url: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _SERVE, url], cwd=_PROJECT, stdout=subprocess.PIPE, text=True
    ) as worker:
        assert worker.stdout is not None
        worker.stdout.readline()
        worker.kill()
    assert {file.name for file in path.parent.iterdir()} <= {
        "jobs.db",
        "jobs.db-wal",
        "jobs.db-shm",
    }
    with closing(connect(url)) as driver:
        driver.enqueue([job()])
        assert driver.results(["a"])[0] is not None
    assert [file.name for file in path.parent.iterdir()] == ["jobs.db"]


def test_a_waiter_hears_of_jobs_that_joined_another_transaction(
    path: Path, driver: SQLiteDriver, url: str
) -> None:
    with closing(connect(url)) as other:
        other.wait(("default",), 0)

        def commit_late() -> None:
            with closing(sqlite3.connect(path)) as connection:
                connection.execute("BEGIN IMMEDIATE")
                driver.enqueue([job()], connection=connection)
                time.sleep(0.03)
                connection.commit()

        thread = threading.Thread(target=commit_late)
        began = time.monotonic()
        thread.start()
        other.wait(("default",), LONG)
        assert time.monotonic() - began < PATIENCE_SECONDS
        thread.join()
    outcome = driver.results(["a"])[0]
    assert outcome is not None
    assert outcome.state is State.READY
