"""Enqueueing in the caller's own transaction."""

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any

import psycopg
import pytest
import sqlalchemy
from psycopg.rows import dict_row

from taskharbor import TaskHarbor, chain, defaults
from taskharbor.drivers.postgres import PostgresDriver
from taskharbor.errors import ConfigurationError, StoreUnavailable
from taskharbor.flow.plan import Flow, Node, Part
from taskharbor.ids import new_id
from tests.drivers.postgres.support import job, migrated, ran, set_turn
from tests.servers.postgres import PostgresServer
from tests.waiting import wait_until


def test_the_caller_s_row_factory_and_savepoints_do_not_matter(
    postgres_server: PostgresServer,
) -> None:
    driver = migrated(postgres_server.url)
    with psycopg.connect(postgres_server.url, row_factory=dict_row) as connection:
        driver.enqueue([job("a", idempotency_key="k")], connection=connection)
        connection.execute("SAVEPOINT before_b")
        driver.enqueue([job("b")], connection=connection)
        connection.execute("ROLLBACK TO before_b")
        found = driver.enqueue([job("c", idempotency_key="k")], connection=connection)
        assert found[0].id == "a"
        assert driver.results(["a"]) == [None]
    assert [one is not None for one in driver.results(["a", "b", "c"])] == [True, False, False]
    driver.close()


def test_in_a_pipeline_the_answers_are_waited_for(postgres_server: PostgresServer) -> None:
    driver = migrated(postgres_server.url)
    app = TaskHarbor(driver.url)

    @app.task(name="demo.add")
    def add(a: int, b: int) -> int:
        return a + b

    driver.enqueue([job("a", idempotency_key="k")])
    with psycopg.connect(postgres_server.url) as connection, connection.pipeline():
        found = driver.enqueue([job("b"), job("c", idempotency_key="k")], connection=connection)
        flow = chain(add.s(1, 1), add.s(1)).apply_async(connection=connection)
    assert [(one.id, one.created) for one in found] == [("b", True), ("a", False)]
    assert driver.results(["b"])[0] is not None
    assert [info.id for info in driver.list_flows().flows] == [flow.id]
    app.close()
    driver.close()


def test_a_transaction_that_the_server_gave_up_is_an_outage(
    postgres_server: PostgresServer,
) -> None:
    driver = migrated(postgres_server.url)
    with psycopg.connect(postgres_server.url, autocommit=True) as look:
        connection = psycopg.connect(postgres_server.url)
        connection.execute("SET idle_in_transaction_session_timeout = '10ms'")
        there = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s"
        pid = connection.info.backend_pid
        wait_until(lambda: look.execute(there, (pid,)).fetchone() == (0,), what="it to go")
        with pytest.raises(StoreUnavailable, match="idle-in-transaction"):
            driver.enqueue([job("a")], connection=connection)
        connection.close()
    driver.close()


@pytest.fixture
def ear(postgres_server: PostgresServer) -> Iterator[psycopg.Connection]:
    with psycopg.connect(postgres_server.url, autocommit=True) as connection:
        yield connection


def listen(ear: psycopg.Connection, driver: PostgresDriver) -> None:
    channel = psycopg.sql.Identifier(f"{driver._store.address.schema}.jobs")
    ear.execute(psycopg.sql.SQL("LISTEN {}").format(channel))


def test_the_wake_up_comes_with_the_commit(
    postgres_server: PostgresServer, ear: psycopg.Connection
) -> None:
    """Also when nobody was waiting when the job was enqueued."""
    driver = migrated(postgres_server.url)
    listen(ear, driver)
    with psycopg.connect(postgres_server.url) as connection:
        driver.enqueue([job("a"), job("b")], connection=connection)
        assert list(ear.notifies(timeout=0.1)) == []
    heard = [notify.payload for notify in ear.notifies(timeout=90, stop_after=1)]
    assert heard == ["w:default"]
    driver.close()


def test_the_wake_up_for_a_flow_comes_with_the_commit(
    postgres_server: PostgresServer, ear: psycopg.Connection
) -> None:
    """To those who may run its first jobs."""
    driver = migrated(postgres_server.url)
    listen(ear, driver)
    app = TaskHarbor(driver.url)
    first, second = (app.task(name=name, queue=name)(len) for name in ("first", "second"))
    with psycopg.connect(postgres_server.url) as connection:
        chain(first.s("a"), second.si("b")).apply_async(connection=connection)
        assert list(ear.notifies(timeout=0.1)) == []
    heard = [notify.payload for notify in ear.notifies(timeout=90, stop_after=1)]
    assert heard == ["w:first"]
    app.close()
    driver.close()


def test_with_notify_off_the_caller_s_transaction_does_not_notify(
    postgres_server: PostgresServer,
) -> None:
    """One that notifies can't be prepared for a commit in two phases."""
    driver = migrated(postgres_server.url, notify="off")
    app = TaskHarbor(driver.url)
    task = app.task(name="demo.len")(len)
    name = new_id()
    with psycopg.connect(postgres_server.url, autocommit=True) as connection:
        connection.execute("BEGIN")
        driver.enqueue([job("a")], connection=connection)
        flow = chain(task.s("a"), task.si("b")).apply_async(connection=connection)
        connection.execute(f"PREPARE TRANSACTION '{name}'".encode())
        assert driver.results(["a"]) == [None]
        connection.execute(f"COMMIT PREPARED '{name}'".encode())
    assert driver.results(["a"]) != [None]
    assert [info.id for info in driver.list_flows().flows] == [flow.id]
    app.close()
    driver.close()


def test_nobody_is_notified_unless_somebody_waits(
    postgres_server: PostgresServer, ear: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskharbor.drivers.postgres.enqueue.LOOK_SECONDS", 0.0)
    driver = migrated(postgres_server.url)
    set_turn(driver, 1)
    listen(ear, driver)
    driver.enqueue([job("a")])
    waits(driver)
    driver.enqueue([job("b")])
    driver.enqueue([job("c")])
    heard = [notify.payload for notify in ear.notifies(timeout=90, stop_after=1)]
    heard += [notify.payload for notify in ear.notifies(timeout=1)]
    assert heard == ["w:default"]  # once, for b: c is the same news
    driver.close()


def waits(driver: PostgresDriver) -> None:
    """Somebody does, for a job."""
    driver._store.rows("any_ready", topics=["w:default"], queues=["default"])


@contextmanager
def waited_for(server: PostgresServer, notify: str) -> Iterator[tuple[PostgresDriver, Any]]:
    """A driver, where somebody waits for a job, and a task on the same schema."""
    with (
        closing(migrated(server.url, notify=notify)) as driver,
        closing(TaskHarbor(driver.url)) as app,
    ):
        set_turn(driver, 100)
        waits(driver)
        yield driver, app.task(name="demo.len")(len)


def test_who_comes_to_wait_while_a_long_statement_runs_is_told_by_it(
    postgres_server: PostgresServer, ear: psycopg.Connection
) -> None:
    driver = migrated(postgres_server.url)
    schema = driver._store.address.schema
    listen(ear, driver)
    turn = f"SELECT {schema}.turn()".encode()
    slow = f"""DO $$ BEGIN
        PERFORM pg_advisory_xact_lock(hashtextextended('{schema}', 0));
        PERFORM {schema}.tell(ARRAY['w:default']);
    END $$"""

    def is_told() -> bool:
        with (
            psycopg.connect(postgres_server.url) as holder,
            psycopg.connect(postgres_server.url, autocommit=True) as other,
            ThreadPoolExecutor(1) as pool,
        ):
            holder.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (schema,))
            told = pool.submit(other.execute, slow.encode())
            held_up = ("SELECT cardinality(pg_blocking_pids(%s)) > 0", (other.info.backend_pid,))
            wait_until(lambda: ear.execute(*held_up).fetchone() == (True,), what="it to wait")
            began = ear.execute(turn).fetchone()
            wait_until(lambda: ear.execute(turn).fetchone() != began, what="the next turn")
            waits(driver)
            holder.rollback()
            told.result(90)
        return bool(list(ear.notifies(timeout=1, stop_after=1)))

    # (Again where all this took longer than a registration counts.)
    wait_until(is_told, what="the notification")
    driver.close()


@pytest.mark.parametrize("notify", ["on", "off"])
def test_who_waited_for_what_an_open_transaction_brings_holds_up_no_maintenance(
    postgres_server: PostgresServer, notify: str
) -> None:
    with (
        waited_for(postgres_server, notify) as (driver, task),
        psycopg.connect(postgres_server.url) as connection,
    ):
        driver.enqueue([job("a")], connection=connection)
        chain(task.s("a"), task.si("b")).apply_async(connection=connection)
        set_turn(driver, 104)
        assert driver.prune(10) == 0


@pytest.mark.parametrize("level", list(psycopg.IsolationLevel)[1:])
def test_a_flow_in_an_open_transaction_holds_up_no_other_flow(
    postgres_server: PostgresServer, level: psycopg.IsolationLevel
) -> None:
    """One that was just begun, and is too large to be walked at once."""
    driver = migrated(postgres_server.url)
    size = defaults.FLOW_PAGE + 1
    with psycopg.connect(postgres_server.url) as connection:
        connection.isolation_level = level
        connection.execute("SELECT 1")
        nodes = tuple(Node(job(f"j{number}")) for number in range(size))
        driver.enqueue_flow(Part(Flow("large", size, 0), nodes, 0, (), True))
        small = Part(Flow("small", 1, 0), (Node(job("a")),), 0, (), True)
        assert driver.enqueue_flow(small, connection=connection).created
        assert len(ran(driver, size)) == size
    assert ran(driver) == ["a"]
    assert [flow.finished_at is None for flow in driver.list_flows().flows] == [False, False]
    driver.close()


@pytest.mark.parametrize("notify", ["on", "off"])
def test_a_transaction_with_an_old_snapshot_tells_those_whom_others_have_told(
    postgres_server: PostgresServer, notify: str
) -> None:
    with waited_for(postgres_server, notify) as (driver, task):
        with psycopg.connect(postgres_server.url) as connection:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.execute("SELECT 1")
            driver.enqueue([job("a")])
            driver.enqueue([job("b")], connection=connection)
            chain(task.s("a"), task.si("b")).apply_async(connection=connection)
        assert driver.results(["b"]) != [None]


def test_a_task_s_delay_joins_too(postgres_server: PostgresServer) -> None:
    driver = migrated(postgres_server.url)
    app = TaskHarbor(driver.url)

    @app.task(name="demo.add")
    def add(a: int, b: int) -> int:
        return a + b

    with psycopg.connect(postgres_server.url) as connection:
        result = add.apply_async((1, 2), connection=connection)
        many = app.enqueue_many([add.s(n, n) for n in range(3)], connection=connection)
        connection.rollback()
    ids = [result.id, *(each.id for each in many)]
    assert driver.results(ids) == [None] * 4
    with psycopg.connect(postgres_server.url) as connection:
        result = add.apply_async((1, 2), connection=connection)
    assert driver.results([result.id])[0] is not None
    app.close()
    driver.close()


def test_the_recipe_for_sqlalchemy(postgres_server: PostgresServer) -> None:
    driver = migrated(postgres_server.url)
    engine = sqlalchemy.create_engine(postgres_server.url.replace("://", "+psycopg://"))
    with engine.begin() as connection:
        driver.enqueue([job("a")], connection=connection.connection.dbapi_connection)
        connection.rollback()
    with engine.begin() as connection:
        driver.enqueue([job("b")], connection=connection.connection.dbapi_connection)
    engine.dispose()
    assert [one is not None for one in driver.results(["a", "b"])] == [False, True]
    driver.close()


DJANGO = """
import sys
from urllib.parse import urlsplit
import django
from django.conf import settings
url = urlsplit(sys.argv[1])
settings.configure(DATABASES={"default": {
    "ENGINE": "django.db.backends.postgresql", "HOST": url.hostname, "PORT": url.port,
    "USER": url.username, "NAME": url.path[1:],
}})
django.setup()
from django.db import connection, transaction
from taskharbor.drivers.registry import connect
from tests.drivers.postgres.support import job
driver = connect(sys.argv[1])
try:
    with transaction.atomic():
        driver.enqueue([job("a")], connection=connection.connection)
        raise LookupError
except LookupError:
    pass
with transaction.atomic():
    driver.enqueue([job("b")], connection=connection.connection)
"""


def test_the_recipe_for_django(postgres_server: PostgresServer) -> None:
    """In a process of its own: Django's settings are the process's."""
    driver = migrated(postgres_server.url)
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    command = [sys.executable, "-c", DJANGO, driver.url]
    subprocess.run(command, env=environment, check=True, timeout=240)
    assert [one is not None for one in driver.results(["a", "b"])] == [False, True]
    driver.close()


@pytest.mark.parametrize("connection", [object(), "postgresql://localhost"])
def test_what_is_no_connection_is_refused(postgres_server: PostgresServer, connection: Any) -> None:
    driver = migrated(postgres_server.url)
    with pytest.raises(ConfigurationError, match=r"SQLAlchemy: connection\.connection"):
        driver.enqueue([job("a")], connection=connection)
    driver.close()
