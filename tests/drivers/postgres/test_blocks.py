"""A reserve goes straight to the jobs that are there, over whatever was taken before, and misses
none that is being put there meanwhile."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from taskharbor.drivers.base import Want
from taskharbor.drivers.postgres import PostgresDriver
from taskharbor.settlement import Settlement
from tests.drivers.postgres.support import job, migrated
from tests.servers.postgres import PostgresServer


@pytest.fixture
def driver(postgres_server: PostgresServer) -> Iterator[PostgresDriver]:
    driver = migrated(postgres_server.url)
    yield driver
    driver.close()


def ids(driver: PostgresDriver, limit: int = 10) -> list[str]:
    """Reserve and settle."""
    reserved = driver.exchange("holder", (), Want(("default",), limit, 30.0)).reserved
    driver.exchange("holder", [Settlement.succeed(one.id, one.fence, None) for one in reserved])
    return [one.id for one in reserved]


def blocks(driver: PostgresDriver) -> int:
    with psycopg.connect(driver.url.partition("?")[0]) as connection:
        count = f"SELECT count(*) FROM {driver._store.address.schema}.blocks"
        row = connection.execute(count.encode()).fetchone()
    assert row is not None
    return int(row[0])


def test_a_block_is_forgotten_when_it_is_empty(driver: PostgresDriver) -> None:
    driver.enqueue([job("a"), job("b", priority=5)])
    assert blocks(driver) == 2  # of two priorities
    assert ids(driver) == ["b", "a"]
    assert ids(driver) == []
    assert blocks(driver) == 0


def test_a_block_is_kept_for_jobs_that_cannot_be_seen_yet(
    driver: PostgresDriver, postgres_server: PostgresServer
) -> None:
    driver.enqueue([job("a")])
    with psycopg.connect(postgres_server.url) as connection:
        driver.enqueue([job("b")], connection=connection)
        assert ids(driver) == ["a"]
        assert ids(driver) == []
    assert ids(driver) == ["b"]


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_a_snapshot_older_than_the_end_of_a_block_loses_no_job(
    driver: PostgresDriver, postgres_server: PostgresServer, level: str
) -> None:
    driver.enqueue([job("a")])
    with psycopg.connect(postgres_server.url) as connection:
        connection.execute(f"SET TRANSACTION ISOLATION LEVEL {level}".encode())
        connection.execute("SELECT 1")
        assert ids(driver) == ["a"]
        assert ids(driver) == []
        driver.enqueue([job("b")], connection=connection)
    assert ids(driver) == ["b"]


def test_a_held_snapshot_does_not_make_reserves_step_over_what_was_taken(
    driver: PostgresDriver, postgres_server: PostgresServer
) -> None:
    """Nothing can be vacuumed, or marked dead in the index, while the snapshot is held."""
    driver.enqueue([job(f"j{number:05}") for number in range(20_000)])
    with psycopg.connect(postgres_server.url) as holder:
        holder.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        holder.execute("SELECT 1")
        for _ in range(150):
            assert len(ids(driver, 100)) == 100
        before = entries_read(driver)
        for _ in range(10):
            assert len(ids(driver, 100)) == 100
        # At most a block of what was taken before, and the jobs themselves, for each reserve.
        assert entries_read(driver) - before <= 10 * (4096 + 100)


def entries_read(driver: PostgresDriver) -> int:
    """What the driver's connection has read from the index of ready so far."""
    index = f"'{driver._store.address.schema}.ready_pkey'::regclass"
    with driver._store.connections.lend() as connection:
        connection.execute("SELECT pg_stat_force_next_flush()")
        query = f"SELECT pg_stat_get_tuples_returned({index})".encode()
        row = connection.execute(query).fetchone()
    assert row is not None
    return int(row[0])
