"""Lending connections: the one given back last first, and never more than may be open."""

from __future__ import annotations

from contextlib import closing

import pytest

from taskharbor.drivers.postgres import connections
from taskharbor.errors import StoreUnavailable
from tests.drivers.postgres.support import migrated
from tests.servers.postgres import PostgresServer


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
