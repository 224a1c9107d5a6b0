"""Workers beside a store that another version of TaskHarbor has, or has not yet, migrated."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from taskharbor import State, TaskHarbor
from taskharbor.drivers.base import Migratable
from taskharbor.worker.config import ExitCode
from tests.drivers.postgres.support import a_namespace
from tests.scenarios import shop
from tests.scenarios.conftest import StartWorker
from tests.servers import PostgresServer
from tests.waiting import PATIENCE_SECONDS


@pytest.fixture
def namespace() -> str:
    return a_namespace()


@pytest.fixture
def url(postgres_server: PostgresServer, namespace: str) -> str:
    return f"{postgres_server.url}?namespace={namespace}"


@pytest.fixture
def operator(postgres_server: PostgresServer) -> Iterator[psycopg.Connection]:
    with psycopg.connect(postgres_server.url, autocommit=True) as connection:
        yield connection


def migrate_to_a_later_version(operator: psycopg.Connection, namespace: str) -> None:
    operator.execute(f"INSERT INTO \"{namespace}\".migrations VALUES (9999, 'later')".encode())


def test_a_worker_refuses_to_start_on_a_newer_schema(
    worker: StartWorker, app: TaskHarbor, operator: psycopg.Connection, namespace: str
) -> None:
    waits = shop.noted.delay(1)
    migrate_to_a_later_version(operator, namespace)
    running = worker(ready=False)
    assert running.wait() == ExitCode.CONFIGURATION
    (error,) = running.events("the worker can't run")
    assert "upgrade TaskHarbor here" in error["error"]
    assert waits.state is State.READY


def test_a_worker_whose_schema_becomes_newer_ends_what_it_runs_and_goes(
    worker: StartWorker,
    app: TaskHarbor,
    operator: psycopg.Connection,
    namespace: str,
    tmp_path: Path,
) -> None:
    running = worker(concurrency=1)
    runs, waits = shop.until.delay(str(tmp_path / "go on")), shop.noted.delay(1)
    running.wait_noted("started", job=runs.id)
    migrate_to_a_later_version(operator, namespace)
    running.wait_event("maintenance can't use the store")
    (tmp_path / "go on").touch()
    assert running.wait() == ExitCode.CONFIGURATION
    assert "upgrade TaskHarbor here" in running.events("the worker can't run")[0]["error"]
    assert (runs.state, waits.state) == (State.SUCCEEDED, State.READY)
    record = app.driver.get(waits.id)
    assert record is not None
    assert (record.attempts, record.losses) == (0, 0)


def test_a_worker_that_came_before_the_migration_waits_for_it(
    worker: StartWorker, app: TaskHarbor, operator: psycopg.Connection, namespace: str
) -> None:
    operator.execute(f'DROP SCHEMA "{namespace}" CASCADE'.encode())
    running = worker()
    (warning, *_) = running.wait_event("store does not answer")
    assert "taskharbor migrate" in warning["error"]
    assert isinstance(app.driver, Migratable)
    app.driver.migrate()
    assert shop.noted.delay(2).get(timeout=PATIENCE_SECONDS) == 2
    assert running.stop() == ExitCode.OK
