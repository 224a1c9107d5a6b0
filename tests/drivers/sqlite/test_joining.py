"""``connection=``: what the conformance suite can't know of SQLite's own connections."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from taskharbor.drivers.sqlite import SQLiteDriver
from taskharbor.errors import ConfigurationError, StoreUnavailable
from taskharbor.message import Message
from tests.drivers.sqlite.conftest import job


@pytest.fixture
def connection(path: Path, driver: SQLiteDriver) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, timeout=0.1)) as connection:
        connection.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY)")
        yield connection


def test_a_transaction_begins_as_sqlite3_itself_would_begin_it(
    driver: SQLiteDriver, connection: sqlite3.Connection
) -> None:
    driver.enqueue([job()], connection=connection)
    assert connection.in_transaction
    assert driver.get("a") is None
    connection.commit()
    assert driver.get("a") is not None


def test_a_failed_enqueue_leaves_the_caller_s_transaction_as_it_was(
    driver: SQLiteDriver, connection: sqlite3.Connection
) -> None:
    connection.execute("INSERT INTO orders VALUES (1)")
    broken = Message(id="b", task="t", body="no bytes at all \ud800")  # type: ignore[arg-type]
    with pytest.raises(UnicodeEncodeError):
        driver.enqueue([job("a"), broken], connection=connection)
    driver.enqueue([job("c")], connection=connection)
    connection.commit()
    assert connection.execute("SELECT id FROM orders").fetchall() == [(1,)]
    assert [outcome is not None for outcome in driver.results(["a", "b", "c"])] == [
        False,
        False,
        True,
    ]


def test_row_factories_of_the_caller_do_not_matter(
    driver: SQLiteDriver, connection: sqlite3.Connection
) -> None:
    connection.row_factory = lambda cursor, row: {"row": row}
    assert driver.enqueue([job("a", idempotency_key="k")], connection=connection)[0].created
    assert not driver.enqueue([job("b", idempotency_key="k")], connection=connection)[0].created
    connection.commit()


def test_autocommit_is_refused(path: Path, driver: SQLiteDriver) -> None:
    refused = pytest.raises(ConfigurationError, match="no open transaction")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection, refused:
        driver.enqueue([job()], connection=connection)


def test_another_file_is_refused(tmp_path: Path, driver: SQLiteDriver) -> None:
    with closing(sqlite3.connect(tmp_path / "other.db")) as connection:
        connection.execute("CREATE TABLE orders (id)")
        connection.execute("BEGIN")
        with pytest.raises(ConfigurationError, match="another database"):
            driver.enqueue([job()], connection=connection)


def test_what_is_no_connection_is_refused(driver: SQLiteDriver) -> None:
    with pytest.raises(ConfigurationError, match="dbapi_connection"):
        driver.enqueue([job()], connection=object())


def test_a_snapshot_that_is_too_old_says_how_to_begin(
    driver: SQLiteDriver, connection: sqlite3.Connection
) -> None:
    connection.execute("BEGIN")
    connection.execute("SELECT * FROM orders").fetchall()
    driver.enqueue([job("other")])
    with pytest.raises(StoreUnavailable, match="BEGIN IMMEDIATE"):
        driver.enqueue([job()], connection=connection)
    connection.rollback()
    driver.enqueue([job()], connection=connection)
    connection.commit()
