"""Many children over few connections: PgBouncer in transaction mode before the server."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from taskharbor import TaskHarbor
from tests.scenarios import shop
from tests.scenarios.conftest import StartWorker
from tests.servers import PostgresServer
from tests.servers.pgbouncer import PgBouncer

CHILDREN = 64
POOL = 6


@pytest.fixture
def url(postgres15_server: PostgresServer) -> Iterator[str]:
    postgres15_server.create_database("pooled")
    with PgBouncer(postgres15_server, pool_size=POOL) as pooler:
        yield pooler.database_url("pooled")


def test_64_children_work_over_a_pool_of_six(
    worker: StartWorker, app: TaskHarbor, postgres15_server: PostgresServer
) -> None:
    # Nobody begins before all are there: the first children could do it all on a slow machine.
    app.driver.pause("default")
    jobs = app.enqueue_many([shop.nap.using(max_attempts=1).s(0.1) for _ in range(10 * CHILDREN)])
    running = worker(concurrency=CHILDREN)
    app.driver.resume("default")
    most = 0
    with psycopg.connect(postgres15_server.url, autocommit=True) as look:
        for job in jobs:
            assert job.get(timeout=90) == "rested"
            row = look.execute(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE datname = 'pooled' AND backend_type = 'client backend'"  # no autovacuum
            ).fetchone()
            assert row is not None
            most = max(most, row[0])
    workers = {entry["pid"] for entry in running.journal_entries("started")}
    print(f"{len(workers)} children over {most} connections")
    assert len(workers) > 2 * POOL  # all of them, unless the machine is slow to connect some
    assert most <= POOL
