"""Lending connections: the one given back last first, and never more than may be open."""

from __future__ import annotations

from contextlib import closing

import psycopg
import pytest

from taskharbor.drivers.postgres import connect, connections
from taskharbor.errors import ConfigurationError, StoreUnavailable
from taskharbor.ids import new_id
from tests.drivers.postgres.support import migrated
from tests.servers.pgbouncer import PgBouncer
from tests.servers.postgres import PostgresServer
from tests.waiting import wait_until


def test_no_more_are_lent_than_the_pool_allows(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "LEND_SECONDS", 0.05)
    with closing(migrated(postgres_server.url, pool="2")) as driver:
        lend = driver._store.connections.lend
        for _ in range(3):
            with lend() as first, lend() as second:
                assert first is not second
                with pytest.raises(StoreUnavailable, match=r"all 2 connections .* raise \?pool="):
                    driver.queues()
            assert driver.queues() == []


def test_the_one_given_back_last_is_lent_first_unless_it_is_closed(
    postgres_server: PostgresServer,
) -> None:
    with closing(migrated(postgres_server.url)) as driver:
        lend = driver._store.connections.lend
        with lend() as first, lend() as second:
            pass
        with lend() as again:
            assert again is first  # which was given back after the second
        first.close()
        with lend() as other:
            assert other is second
        second.close()
        with lend() as new:
            assert new.execute("SELECT 1").fetchone() == (1,)


def test_those_that_were_not_needed_for_long_are_closed_but_for_the_last(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(migrated(postgres_server.url)) as driver:
        lend = driver._store.connections.lend
        with lend() as needed, lend() as second, lend() as third:
            pass
        with lend():
            pass
        assert not second.closed
        assert not third.closed
        monkeypatch.setattr(connections, "KEEP_SECONDS", 0.05)

        def others_are_closed() -> bool:
            with lend() as one:
                assert one is needed
            return second.closed and third.closed

        wait_until(others_are_closed, what="the others to be closed")
        assert not needed.closed


def test_behind_a_pooler_another_default_isolation_is_refused(
    postgres15_server: PostgresServer, pgbouncer_server: PgBouncer
) -> None:
    """What a session sets there may be for somebody else's."""
    name = f"strict_{new_id()}"
    strict = f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'"
    direct = postgres15_server.create_database(name)
    with psycopg.connect(direct, autocommit=True) as connection:
        connection.execute(strict.encode())
    with closing(connect(direct)) as driver, driver._store.connections.lend() as lent:
        assert lent.execute("SHOW transaction_isolation").fetchone() == ("read committed",)
    with (
        closing(connect(pgbouncer_server.database_url(name))) as driver,
        pytest.raises(ConfigurationError, match="ALTER ROLE"),
    ):
        driver.version()
