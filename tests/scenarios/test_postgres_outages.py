"""What Postgres may do to workers under load: they go on by themselves, and run every job once.

Every job has one attempt only, so a second run, a loss that was charged or a job left behind shows.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from taskharbor import TaskHarbor
from tests.scenarios.conftest import StartWorker
from tests.scenarios.outages import LEASE, MOST_SECONDS, Jobs, check_all_ran_once, order, shop_at
from tests.scenarios.worker import Worker
from tests.servers import PostgresServer
from tests.servers.postgres import PostgresStandby
from tests.waiting import wait_until


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as one:
        yield one


@pytest.fixture
def url(server: PostgresServer) -> str:
    return server.url


def check_it_went_on(running: Worker, app: TaskHarbor, jobs: Jobs, back_at: float) -> None:
    """``back_at``: when the store was there again. Says how long after that the work went on."""
    app.close()  # this process' own connections may have gone with the server
    jobs += order(app, 20)  # a worker that was quick has nothing left
    check_all_ran_once(running, app, jobs)
    runs = running.journal_entries("started")
    waited = min(run["at"] for run in runs if run["at"] > back_at) - back_at
    print(f"at work again after {waited:.2f} s")
    assert waited < MOST_SECONDS


def test_too_many_connections(server: PostgresServer, tmp_path: Path) -> None:
    """Of the role; of the server it is the same error, see tests/drivers/postgres."""
    with psycopg.connect(server.url, autocommit=True) as operator:
        operator.execute("CREATE ROLE clerk LOGIN")
        operator.execute("GRANT CREATE ON DATABASE postgres TO clerk")
        url = server.url.replace("postgres@", "clerk@")
        with shop_at(url) as app, Worker(url, tmp_path, **LEASE) as running:
            jobs = order(app, 600)
            before = {process.pid for process in running.processes()}
            running.wait_noted("started", count=50)
            operator.execute("ALTER ROLE clerk CONNECTION LIMIT 0")
            _terminate_others(operator)
            running.wait_event("store does not answer")
            # Who was in the middle of a request names the terminated connection first.
            wait_until(lambda: "too many connections" in running.log(), what="the reason")
            operator.execute("ALTER ROLE clerk CONNECTION LIMIT -1")
            check_it_went_on(running, app, jobs, time.time())
            assert {process.pid for process in running.processes()} == before


def _terminate_others(connection: psycopg.Connection) -> int:
    row = connection.execute(
        "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity"
        " WHERE application_name = 'taskharbor'"
    ).fetchone()
    assert row is not None
    return int(row[0])


def test_a_server_that_becomes_read_only(
    worker: StartWorker, app: TaskHarbor, server: PostgresServer
) -> None:
    jobs = order(app, 600)
    running = worker(**LEASE)
    before = {process.pid for process in running.processes()}
    running.wait_noted("started", count=50)
    server.set("default_transaction_read_only", "on")
    running.wait_event("store does not answer")
    server.set("default_transaction_read_only", "DEFAULT")
    check_it_went_on(running, app, jobs, time.time())
    assert {process.pid for process in running.processes()} == before


def test_statements_that_time_out(
    worker: StartWorker, app: TaskHarbor, server: PostgresServer
) -> None:
    jobs = order(app, 600)
    running = worker(**LEASE)
    before = {process.pid for process in running.processes()}
    running.wait_noted("started", count=50)
    with psycopg.connect(server.url) as blocker:
        blocker.execute("SET statement_timeout = 0")
        # No longer than here: on a busy machine other statements need that much as well.
        server.set("statement_timeout", "200")
        blocker.execute("LOCK TABLE taskharbor.leases")
        running.wait_event("store does not answer")
        server.set("statement_timeout", "DEFAULT")
    check_it_went_on(running, app, jobs, time.time())
    assert {process.pid for process in running.processes()} == before


def test_backends_that_are_terminated_again_and_again(
    worker: StartWorker, app: TaskHarbor, server: PostgresServer
) -> None:
    jobs = order(app, 600)
    app.close()
    running = worker(**LEASE)
    before = {process.pid for process in running.processes()}
    running.wait_noted("started", count=20)
    terminated = 0
    with psycopg.connect(server.url, autocommit=True) as operator:
        # Enough of them in any case, and more while there is work.
        while terminated < 15 or (
            terminated < 60 and len(running.journal_entries("started")) < 300
        ):
            terminated += _terminate_others(operator)
    check_it_went_on(running, app, jobs, time.time())
    assert {process.pid for process in running.processes()} == before


def test_failover_to_a_standby(server: PostgresServer, tmp_path: Path) -> None:
    """The URL names both; the work goes on where writes are taken."""
    with PostgresStandby(server) as standby:
        hosts = f"127.0.0.1:{server.port},127.0.0.1:{standby.port}"
        url = f"postgresql://postgres@{hosts}/postgres?target_session_attrs=read-write"
        with shop_at(url) as app, Worker(url, tmp_path, **LEASE) as running:
            jobs = order(app, 600)
            before = {process.pid for process in running.processes()}
            running.wait_noted("started", count=50)
            server.kill()
            running.wait_event("store does not answer")
            standby.promote()
            check_it_went_on(running, app, jobs, time.time())
            assert {process.pid for process in running.processes()} == before


def test_immediate_restarts_under_load(
    worker: StartWorker, app: TaskHarbor, server: PostgresServer
) -> None:
    jobs = order(app, 900)
    app.close()
    running = worker(**LEASE)
    before = {process.pid for process in running.processes()}
    for count in (50, 300, 550):
        running.wait_noted("started", count=count)
        server.stop_immediately()
        server.start()
        back_at = time.time()
    check_it_went_on(running, app, jobs, back_at)
    assert {process.pid for process in running.processes()} == before
