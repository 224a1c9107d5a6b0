"""Enqueueing in the caller's own transaction."""

from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from taskharbor import TaskHarbor
from taskharbor.errors import ConfigurationError
from tests.drivers.postgres.support import job, migrated
from tests.servers.postgres import PostgresServer


def test_the_caller_s_row_factory_and_savepoints_do_not_matter(
    postgres_server: PostgresServer,
) -> None:
    driver = migrated(postgres_server.url)
    with psycopg.connect(postgres_server.url, row_factory=dict_row) as connection:
        driver.enqueue([job("a", idempotency_key="k")], connection=connection)
        with connection.transaction():
            driver.enqueue([job("b")], connection=connection)
            raise psycopg.Rollback
        found = driver.enqueue([job("c", idempotency_key="k")], connection=connection)
        assert found[0].id == "a"
        assert driver.results(["a"]) == [None]
    assert [one is not None for one in driver.results(["a", "b", "c"])] == [True, False, False]
    driver.close()


def test_the_wake_up_comes_with_the_commit(postgres_server: PostgresServer) -> None:
    """Also when nobody was waiting when the job was enqueued."""
    driver = migrated(postgres_server.url)
    channel = f"{driver._store.address.schema}.jobs"
    listen = psycopg.sql.SQL("LISTEN {}").format(psycopg.sql.Identifier(channel))
    with psycopg.connect(postgres_server.url, autocommit=True) as ear:
        ear.execute(listen)
        with psycopg.connect(postgres_server.url) as connection:
            driver.enqueue([job("a"), job("b")], connection=connection)
            assert list(ear.notifies(timeout=0.1)) == []
        heard = [notify.payload for notify in ear.notifies(timeout=5, stop_after=1)]
    assert heard == ["w:default"]
    driver.close()


def test_nobody_is_notified_unless_somebody_waits(postgres_server: PostgresServer) -> None:
    driver = migrated(postgres_server.url)
    channel = f"{driver._store.address.schema}.jobs"
    listen = psycopg.sql.SQL("LISTEN {}").format(psycopg.sql.Identifier(channel))
    with psycopg.connect(postgres_server.url, autocommit=True) as ear:
        ear.execute(listen)
        driver.enqueue([job("a")])
        driver._store.rows("register", now=None, topics=["w:default"])
        driver.enqueue([job("b")])
        driver.enqueue([job("c")])
        heard = [notify.payload for notify in ear.notifies(timeout=1)]
    assert heard == ["w:default"]  # once, for b: c is the same news
    driver.close()


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


@pytest.mark.parametrize("connection", [object(), "postgresql://localhost"])
def test_what_is_no_connection_is_refused(postgres_server: PostgresServer, connection: Any) -> None:
    driver = migrated(postgres_server.url)
    with pytest.raises(ConfigurationError, match=r"SQLAlchemy: connection\.connection"):
        driver.enqueue([job("a")], connection=connection)
    driver.close()
