"""What is over leaves nothing behind."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from taskharbor import defaults
from taskharbor.clock import ManualClock
from taskharbor.drivers.base import Want
from taskharbor.drivers.sqlite import SQLiteDriver, connect
from taskharbor.message import Message, Retention
from taskharbor.settlement import Settlement
from tests.drivers.sqlite.conftest import job

_WANT = Want(("default",), 1000, 30.0)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def driver(url: str, clock: ManualClock) -> Iterator[SQLiteDriver]:
    driver = connect(url, clock=clock)
    yield driver
    driver.close()


def _rows(path: Path) -> dict[str, int]:
    """Rows of each table that holds jobs or what is left of them."""
    with closing(sqlite3.connect(path)) as connection:
        tables = [
            name
            for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            if name.startswith("th_") and name not in ("th_store", "th_queues", "th_counts")
        ]
        return {
            name: connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0]
            for name in tables
        }


def test_pruning_leaves_no_row_of_a_job(
    path: Path, driver: SQLiteDriver, clock: ManualClock
) -> None:
    brief = Retention(0, 0, 0)
    driver.enqueue([job(f"kept{n}", idempotency_key=f"k{n}") for n in range(6)])
    driver.enqueue([job(f"gone{n}", idempotency_key=f"g{n}", retention=brief) for n in range(6)])
    for _ in range(3):
        reserved = driver.exchange("h", (), _WANT).reserved
        driver.exchange(
            "h", [Settlement.retry(j.id, j.fence, delay=0, error=b"error") for j in reserved]
        )
    driver.cancel(["kept0", "gone0"])
    reserved = driver.exchange("h", (), _WANT).reserved
    driver.exchange("h", [Settlement.succeed(j.id, j.fence, b"result") for j in reserved[:6]])
    driver.exchange("h", [Settlement.die(j.id, j.fence, error=b"error") for j in reserved[6:]])
    driver.retire("h")
    clock.advance(defaults.KEEP_DEAD_SECONDS)
    while driver.prune(3):
        pass
    assert not any(_rows(path).values()), _rows(path)


def test_the_file_reuses_its_room(path: Path, driver: SQLiteDriver, clock: ManualClock) -> None:
    def rush() -> int:
        driver.enqueue(
            [Message(id=f"{clock.now()}-{n}", task="t", body=bytes(500)) for n in range(500)]
        )
        reserved = driver.exchange("h", (), _WANT).reserved
        driver.exchange("h", [Settlement.succeed(j.id, j.fence, bytes(500)) for j in reserved])
        clock.advance(2 * defaults.KEEP_SUCCEEDED_SECONDS)
        while driver.prune(1000):
            pass
        with closing(sqlite3.connect(path)) as connection:
            pages: int = connection.execute("PRAGMA page_count").fetchone()[0]
            return pages

    first = [rush() for _ in range(3)]
    later = [rush() for _ in range(10)]
    assert max(later) <= max(first) * 1.1


def test_the_file_shrinks_after_a_rush(
    path: Path, driver: SQLiteDriver, clock: ManualClock
) -> None:
    driver.enqueue([Message(id=f"j{n}", task="t", body=bytes(100_000)) for n in range(500)])
    driver.cancel([f"j{n}" for n in range(500)])
    clock.advance(2 * defaults.KEEP_CANCELLED_SECONDS)
    while driver.prune(1000):
        pass
    for _ in range(100):
        driver.prune(1000)
    driver.close()
    assert path.stat().st_size < 20_000_000


def test_the_history_of_a_job_is_bounded_in_the_file(path: Path, driver: SQLiteDriver) -> None:
    driver.enqueue([job()])
    for _ in range(defaults.MAX_HISTORY + 20):
        (lease,) = driver.exchange("h", (), _WANT).reserved
        driver.exchange("h", [Settlement.snooze("a", lease.fence, delay=0)])
    assert _rows(path)["th_attempts"] == defaults.MAX_HISTORY
    found = driver.get("a")
    assert found is not None
    assert found.attempts == 0


def test_a_wide_row_is_not_rewritten_by_a_move(path: Path, driver: SQLiteDriver) -> None:
    """A job with a large body costs its retries no more than a small one."""
    driver.enqueue([Message(id="a", task="t", body=bytes(1_000_000))])
    with closing(connect(driver.url)) as other:
        connection = other._store.connections.slot().connection
        assert connection is not None
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    for _ in range(20):
        (lease,) = driver.exchange("h", (), _WANT).reserved
        driver.exchange("h", [Settlement.retry("a", lease.fence, delay=0, error=b"error")])
    log = path.with_name(f"{path.name}-wal")
    assert log.stat().st_size < 2_000_000
