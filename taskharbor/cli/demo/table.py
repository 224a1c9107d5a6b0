"""The database that the demo's jobs import into."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from taskharbor.cli.demo.orders import Order, checksum

_BUSY_SECONDS = 20.0


class Running(NamedTuple):
    """An attempt that has begun and not ended."""

    fence: int
    job_id: str
    pid: int


class Table:
    """The imported orders, and which attempts wrote them. One connection, for one thread."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = NORMAL")
        self._upsert = _sql("upsert_order.sql")

    def create(self) -> None:
        self._connection.executescript(_sql("tables.sql"))

    def close(self) -> None:
        self._connection.close()

    @contextmanager
    def attempt(self, fence: int, job_id: str, chunk: int, pid: int) -> Iterator[None]:
        """Notes when the attempt begins and when it ends, whichever way, unless it is killed."""
        self._connection.execute(
            "INSERT INTO attempts VALUES (?, ?, ?, ?, ?, NULL)",
            (fence, job_id, chunk, pid, time.time()),
        )
        try:
            yield
        finally:
            self._connection.execute(
                "UPDATE attempts SET ended_at = ? WHERE fence = ?", (time.time(), fence)
            )

    def write(self, orders: Iterable[Order], fence: int) -> None:
        """Store the orders in one transaction."""
        self._connection.execute("BEGIN IMMEDIATE")
        with self._connection:
            self._connection.executemany(self._upsert, ((*order, fence) for order in orders))

    def rows(self) -> int:
        count: int = self._connection.execute("SELECT count(*) FROM orders").fetchone()[0]
        return count

    def written_again(self) -> int:
        """Rows that more than one attempt wrote, counted each time after the first."""
        query = "SELECT coalesce(sum(writes - 1), 0) FROM orders"
        again: int = self._connection.execute(query).fetchone()[0]
        return again

    def checksum(self) -> str:
        rows = self._connection.execute(
            "SELECT order_id, customer_key, country, placed_on, cents FROM orders ORDER BY order_id"
        )
        return checksum(Order(*row) for row in rows)

    def half_done(self) -> Running | None:
        """An attempt that runs and has written some of its rows."""
        row = self._connection.execute(
            "SELECT fence, job_id, pid FROM attempts WHERE ended_at IS NULL"
            " AND fence IN (SELECT fence FROM orders) ORDER BY fence DESC"
        ).fetchone()
        return row and Running(*row)

    def interrupted(self, fence: int) -> bool:
        """Whether the attempt never ended."""
        query = "SELECT ended_at IS NULL FROM attempts WHERE fence = ?"
        return bool(self._connection.execute(query, (fence,)).fetchone()[0])

    def next_start(self, after: Running) -> float | None:
        """When the job of an attempt was begun again, by the clock of ``time.time``."""
        row = self._connection.execute(
            "SELECT min(started_at) FROM attempts WHERE job_id = ? AND fence > ?",
            (after.job_id, after.fence),
        ).fetchone()
        started_at: float | None = row[0]
        return started_at


def _sql(name: str) -> str:
    return (files("taskharbor.cli.demo") / name).read_text(encoding="utf-8")
