"""No statement of the hot path walks a backlog."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from taskharbor.drivers.base import JobFilter, Want
from taskharbor.drivers.sqlite import SQLiteDriver
from taskharbor.drivers.sqlite.queries import load
from taskharbor.message import Message
from taskharbor.settlement import Settlement
from taskharbor.states import State

_QUERIES = Path(__file__).parents[3] / "taskharbor/drivers/sqlite/queries"
_BY_OPERATORS = {"inspect"}
"""Lists walk what they show; everything else must find its rows."""
_SHORT = ("th_leases", "th_queues", "th_counts", "th_store")
"""What may be scanned: as long as the number of running jobs, or of queues."""

_SORTS_A_PAGE = {"leases.expired", "flow_moves.groups"}


def _statements() -> Iterator[tuple[str, str]]:
    for file in sorted(_QUERIES.glob("*.sql")):
        if file.stem not in _BY_OPERATORS:
            for name, statement in load(file.stem).items():
                yield f"{file.stem}.{name}", statement


@pytest.mark.parametrize(("name", "statement"), list(_statements()))
def test_no_statement_scans_a_long_table(
    path: Path, driver: SQLiteDriver, name: str, statement: str
) -> None:
    with closing(sqlite3.connect(path)) as connection:
        arguments = ["[]"] * statement.count("?")
        plan = connection.execute(f"EXPLAIN QUERY PLAN {statement}", arguments).fetchall()
    for *_, step in plan:
        scan = re.match(r"SCAN (\w+)(.*)", step)
        if scan is None:
            assert "TEMP B-TREE" not in step or name in _SORTS_A_PAGE, plan
            continue
        alias = re.search(rf"(th_\w+) {scan[1]}\b", statement)
        table = alias[1] if alias else scan[1]
        short = table in _SHORT or not table.startswith("th_")
        assert short or statement.endswith("LIMIT 1"), plan


def test_a_deep_backlog_is_drained_as_fast_as_a_shallow_one(driver: SQLiteDriver) -> None:
    """Measured in CPU time of this thread, the better of several rounds: a machine that runs
    tests is busy. The benchmark has the larger numbers."""
    _fill(driver, 2_000)
    shallow = _cost_of_a_round(driver)
    _fill(driver, 60_000)
    deep = _cost_of_a_round(driver)
    assert deep < shallow * 2.5


def _fill(driver: SQLiteDriver, count: int) -> None:
    begin = sum(queue.counts[State.READY] for queue in driver.queues())
    for first in range(begin, begin + count, 1000):
        driver.enqueue(
            [
                Message(
                    id=f"job{first + offset}", task="t", body=bytes(50), priority=offset % 3 - 1
                )
                for offset in range(1000)
            ]
        )


def _cost_of_a_round(driver: SQLiteDriver) -> float:
    costs = []
    for _ in range(8):
        begin = time.thread_time()
        reserved = driver.exchange("h", (), Want(("default",), 100, 30.0)).reserved
        driver.exchange("h", [Settlement.release(job.id, job.fence) for job in reserved])
        driver.expired(100)
        driver.promote(100)
        driver.queues()
        driver.list_jobs(JobFilter(state=State.DEAD))
        costs.append(time.thread_time() - begin)
    return min(costs)
