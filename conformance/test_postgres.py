"""The Postgres driver."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from taskharbor.conformance import (
    Conformance,
    Durable,
    Harness,
    Migrates,
    Shared,
    Transactional,
)
from taskharbor.ids import new_id
from tests.servers.postgres import PostgresServer


class PostgresHarness(Harness):
    """A schema of its own on ``server``."""

    def __init__(self, server: PostgresServer) -> None:
        self._schema = "th_" + new_id()
        super().__init__(f"{server.url}?namespace={self._schema}")
        self._server = server

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        with psycopg.connect(self._server.url) as connection:
            yield connection

    def crash(self) -> None:
        self._server.kill()
        self.close()
        self._server.start()

    def drop(self) -> None:
        with psycopg.connect(self._server.url, autocommit=True) as connection:
            connection.execute(f'DROP SCHEMA IF EXISTS "{self._schema}" CASCADE'.encode())


class TestPostgres(Conformance, Shared, Durable, Transactional, Migrates):
    @pytest.fixture
    def harness(self, postgres_server: PostgresServer) -> Iterator[Harness]:
        harness = PostgresHarness(postgres_server)
        yield harness
        harness.drop()
