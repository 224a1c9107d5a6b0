"""The Postgres driver: on Postgres 18, on 15, and through PgBouncer in transaction mode."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from taskharbor import defaults
from taskharbor.conformance import (
    Conformance,
    Durable,
    Harness,
    Migrates,
    Shared,
    SharedFlowing,
    Transactional,
    TransactionalFlowSettle,
)
from taskharbor.ids import new_id
from tests.servers.pgbouncer import PgBouncer
from tests.servers.postgres import PostgresServer

WAYS_OUT = (
    "COMMIT",
    "ROLLBACK",
    "COMMIT AND CHAIN",
    "COMMIT; BEGIN",
    "COMMIT; BEGIN; SELECT pg_current_xact_id()",
    "COMMIT; BEGIN ISOLATION LEVEL REPEATABLE READ",
    "COMMIT; BEGIN ISOLATION LEVEL SERIALIZABLE",
)


def _executes(statement: str) -> Callable[[Any], None]:
    return lambda connection: connection.execute(statement)


class PostgresHarness(Harness):
    """A schema on ``server``, emptied after each test; the driver goes to ``url``."""

    def __init__(self, server: PostgresServer, url: str, schema: str) -> None:
        # A machine that is busy with other tests is slow, not away.
        patience = "connect_timeout=60&answer_seconds=60"
        super().__init__(f"{url}?namespace={schema}&{patience}", reuse=True)
        self._server = server
        self._schema = schema
        self._page = defaults.FLOW_PAGE
        self._effects = f"{schema}_effects"
        self._wrote = False
        self._writing = threading.Lock()

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        with psycopg.connect(self._server.url) as connection:
            yield connection

    def page_flows_by(self, size: int) -> None:
        if size != defaults.FLOW_PAGE:
            self._set_page(size)

    def _set_page(self, size: int) -> None:
        self._page = size
        page = f"CREATE OR REPLACE FUNCTION {self._schema}.flow_page() RETURNS integer"
        with psycopg.connect(self._server.url) as connection:
            connection.execute(f"{page} LANGUAGE sql IMMUTABLE AS 'SELECT {size}'".encode())

    def write(self, connection: Any, what: str) -> None:
        with self._writing:  # by several threads
            if not self._wrote:
                self._run(f"CREATE TABLE {self._effects} (what text)")
                self._wrote = True
        connection.execute(f"INSERT INTO {self._effects} VALUES (%s)", (what,))

    def written(self) -> list[str]:
        assert self._wrote
        return sorted(what for (what,) in self._run(f"SELECT what FROM {self._effects}"))

    def ways_out(self) -> Mapping[str, Callable[[Any], None]]:
        return {statement: _executes(statement) for statement in WAYS_OUT}

    def close(self) -> None:
        super().close()
        if self._page != defaults.FLOW_PAGE:  # the schema serves other tests as well
            self._set_page(defaults.FLOW_PAGE)
        if self._wrote:
            self._run(f"DROP TABLE {self._effects}")
            self._wrote = False

    def _run(self, statement: str) -> list[Any]:
        with psycopg.connect(self._server.url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def crash(self) -> None:
        self._server.kill()
        self.disconnect()
        self._server.start()


@pytest.fixture(scope="class")
def schema() -> str:
    """Migrating takes longer than most tests: one schema serves them all."""
    return "th_" + new_id()


class AllParts(
    Conformance,
    Shared,
    Durable,
    Transactional,
    TransactionalFlowSettle,
    Migrates,
    SharedFlowing,
):
    """Postgres can all that a driver may say it can."""


class TestPostgres(AllParts):
    @pytest.fixture
    def harness(self, postgres_server: PostgresServer, schema: str) -> Harness:
        return PostgresHarness(postgres_server, postgres_server.url, schema)


class TestPostgres15(AllParts):
    @pytest.fixture
    def harness(self, postgres15_server: PostgresServer, schema: str) -> Harness:
        return PostgresHarness(postgres15_server, postgres15_server.url, schema)


class TestPgBouncer(AllParts):
    @pytest.fixture
    def harness(
        self, postgres15_server: PostgresServer, pgbouncer_server: PgBouncer, schema: str
    ) -> Harness:
        return PostgresHarness(postgres15_server, pgbouncer_server.url, schema)
