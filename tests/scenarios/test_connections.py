"""How many connections a worker on Postgres opens."""

from __future__ import annotations

import pytest

from tests.scenarios import bank
from tests.scenarios.banking import APP_PATH, app, books, url
from tests.scenarios.conftest import StartWorker

__all__ = ["app", "books", "url"]

CHILDREN = 3


@pytest.mark.timeout(180)
def test_a_child_has_three_connections_at_most_and_maintenance_three(
    worker: StartWorker, books: bank.Bank
) -> None:
    """Two, and one for transactional tasks; heartbeats are as frequent here as can be."""
    orders = [bank.transfer.s(number % 7, 7 + number % 7, 5) for number in range(300)]
    jobs = bank.app.enqueue_many(orders)
    worker(app_path=APP_PATH, concurrency=CHILDREN, lease_seconds=1.0)
    most = 0
    for job in jobs:
        job.get(timeout=90)
        most = max(most, books.connections())
    print(f"{most} connections")
    assert CHILDREN < most <= 3 * CHILDREN + 3
