"""The SQLite driver, on a file of its own for every test."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from taskharbor.conformance import (
    Conformance,
    Durable,
    Harness,
    Migrates,
    Shared,
    SharedFlowing,
    Transactional,
)


class SQLiteHarness(Harness):
    def __init__(self, path: Path) -> None:
        # SQLite's queue for the lock is not fair: 64 racers may hold one up for long.
        super().__init__(f"sqlite:///{path}?busy_timeout=120")
        self._path = path

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self._path)) as connection, connection:
            connection.execute("BEGIN")
            yield connection


class TestSQLite(Conformance, Shared, Durable, Transactional, Migrates, SharedFlowing):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> Harness:
        return SQLiteHarness(tmp_path / "jobs.db")
