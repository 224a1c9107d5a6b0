"""Statements as the driver sends them: arguments by name, prepared when they come again."""

from __future__ import annotations

from contextlib import closing

import psycopg
import pytest

from taskharbor.drivers.base import JobFilter
from taskharbor.drivers.postgres import connect
from taskharbor.drivers.postgres.connections import Connection
from taskharbor.drivers.postgres.statements import PREPARE_AFTER, Statement
from taskharbor.errors import StoreUnavailable
from taskharbor.ids import new_id
from taskharbor.message import Message
from tests.drivers.postgres.support import a_namespace, job, migrated
from tests.servers.postgres import PostgresServer

SUM = Statement(b"SELECT %(a)s::int + %(b)s::int + %(a)s::int, %(text)s::text")
PREPARED = "SELECT statement FROM pg_prepared_statements"


def test_an_argument_that_stands_twice_is_sent_once() -> None:
    assert SUM.text == b"SELECT $1::int + $2::int + $1::int, $3::text"
    assert SUM.names == ["a", "b", "text"]


@pytest.mark.parametrize("pooler", ["no", "yes"])
def test_what_comes_again_is_prepared_unless_a_pooler_would_lose_it(
    postgres_server: PostgresServer, pooler: str
) -> None:
    with (
        closing(migrated(postgres_server.url, pooler=pooler)) as driver,
        driver._store.connections.lend() as connection,
    ):
        for turn in range(PREPARE_AFTER):
            answer = connection.run(SUM, {"a": 1, "b": turn, "text": "ü"})
            assert answer == [(turn + 2, "ü")]
        assert connection.execute(PREPARED).fetchall() == []
        assert connection.run(SUM, {"a": 1, "b": 2, "text": None}) == [(4, None)]  # of other types
        assert connection.run(SUM, {"a": 1, "b": 2, "text": "x"}) == [(4, "x")]
        assert connection.run(SUM, {"a": 1, "b": 2, "text": "x"}) == [(4, "x")]
        prepared = [text for (text,) in connection.execute(PREPARED)]
        assert prepared == ([SUM.text.decode()] if pooler == "no" else [])


def test_a_statement_without_rows_and_one_that_fails_leave_the_connection_usable(
    postgres_server: PostgresServer,
) -> None:
    with closing(
        Connection.connect(postgres_server.url, autocommit=True, prepare_threshold=None)
    ) as connection:
        assert connection.run(Statement(b"CREATE TEMP TABLE t (a int)"), {}) == []
        with pytest.raises(psycopg.errors.DivisionByZero):
            connection.run(Statement(b"SELECT 1 / %(zero)s::int"), {"zero": 0})
        assert connection.run(Statement(b"SELECT a FROM t"), {}) == []
        assert connection.run(SUM, {"a": 1, "b": 1, "text": ""}) == [(3, "")]


def test_a_rollback_that_makes_the_server_forget_what_was_prepared_breaks_no_later_call(
    postgres_server: PostgresServer,
) -> None:
    """psycopg prepares the statements of a batch that takes several, and forgets all of them,
    ours included, when it rolls back."""

    def twice(key: str) -> list[Message]:
        return [job(new_id(), idempotency_key=key) for _ in range(2)]

    url = postgres_server.url + "?options=-c%20lock_timeout%3D100"
    with (
        closing(connect(f"{url}&namespace={a_namespace()}&pooler=no")) as driver,
        psycopg.connect(postgres_server.url) as caller,
    ):
        driver.migrate()
        for turn in range(PREPARE_AFTER + 1):
            driver.enqueue([job(new_id())])
            driver.enqueue(twice(f"k{turn}"))
        driver.enqueue(twice("held"), connection=caller)
        with pytest.raises(StoreUnavailable, match="lock timeout"):
            driver.enqueue(twice("held"))
        caller.rollback()
        for _ in range(PREPARE_AFTER + 1):
            driver.enqueue([job(new_id())])
            assert driver.enqueue(twice("held"))[1].created is False
        assert len(driver.list_jobs(JobFilter()).jobs) == 3 * (PREPARE_AFTER + 1) + 1
