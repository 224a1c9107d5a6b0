"""A reserve goes straight to the jobs that are there, over whatever was taken before, and misses
none that is being put there meanwhile. So do those who look for leases."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from taskharbor.drivers.base import JobFilter, Want
from taskharbor.drivers.postgres import PostgresDriver, connect
from taskharbor.settlement import Settlement
from taskharbor.states import State
from tests.drivers.postgres.support import job, migrated, ran
from tests.servers.postgres import PostgresServer
from tests.waiting import wait_until


@pytest.fixture
def driver(postgres_server: PostgresServer) -> Iterator[PostgresDriver]:
    driver = migrated(postgres_server.url)
    yield driver
    driver.close()


def blocks(driver: PostgresDriver, table: str = "blocks") -> int:
    with psycopg.connect(driver.url.partition("?")[0]) as connection:
        count = f"SELECT count(*) FROM {driver._store.address.schema}.{table}"
        row = connection.execute(count.encode()).fetchone()
    assert row is not None
    return int(row[0])


def start_block(driver: PostgresDriver) -> None:
    """As if a job had just got its number in the next block."""
    seqs = f"'{driver._store.address.schema}.seqs'"
    first = f"SELECT setval({seqs}, ((pg_sequence_last_value({seqs}) >> 12) + 1) << 12)"
    with psycopg.connect(driver.url.partition("?")[0]) as connection:
        connection.execute(first.encode())


def test_a_block_is_forgotten_when_it_is_empty_and_gets_no_more_jobs(
    driver: PostgresDriver,
) -> None:
    driver.enqueue([job("a"), job("b", priority=5)])
    assert blocks(driver) == 2  # of two priorities
    assert ran(driver) == ["b", "a"]
    assert ran(driver) == []
    assert blocks(driver) == 2
    start_block(driver)
    assert ran(driver) == []
    assert blocks(driver) == 0


def test_a_block_is_kept_for_jobs_that_cannot_be_seen_yet(
    driver: PostgresDriver, postgres_server: PostgresServer
) -> None:
    driver.enqueue([job("a")])
    with psycopg.connect(postgres_server.url) as connection:
        driver.enqueue([job("b")], connection=connection)
        start_block(driver)
        assert ran(driver) == ["a"]
        assert ran(driver) == []
    assert ran(driver) == ["b"]


def test_a_default_isolation_of_the_worker_s_role_loses_no_job(
    driver: PostgresDriver, postgres_server: PostgresServer
) -> None:
    """An exchange whose snapshot is as old as its beginning would take the block for empty."""
    strict = connect(f"{driver.url}&options=-c%20default_transaction_isolation%3Dserializable")
    driver.enqueue([job("a")])
    assert ran(driver, limit=1) == ["a"]
    holder = f"{driver._store.address.schema}.late"
    with (
        psycopg.connect(postgres_server.url, autocommit=True) as look,
        psycopg.connect(postgres_server.url) as connection,
        ThreadPoolExecutor(1) as pool,
    ):
        # What a retire of this holder would take, for an exchange waits for it.
        connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 1))", (holder,))
        taking = pool.submit(strict.exchange, "late", (), Want(("default",), 1, 30.0))
        waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        wait_until(lambda: look.execute(waits).fetchone() != (0,), what="the exchange to wait")
        driver.enqueue([job("b")])
        connection.commit()
        taken = [one.id for one in taking.result(90).reserved]
    assert taken or ran(driver) == ["b"]
    strict.close()


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_a_snapshot_older_than_the_end_of_a_block_loses_no_job(
    driver: PostgresDriver, postgres_server: PostgresServer, level: str
) -> None:
    driver.enqueue([job("a")])
    with psycopg.connect(postgres_server.url) as connection:
        connection.execute(f"SET TRANSACTION ISOLATION LEVEL {level}".encode())
        connection.execute("SELECT 1")
        start_block(driver)
        assert ran(driver) == ["a"]
        assert ran(driver) == []
        assert blocks(driver) == 0
        # As if it had got its number before the block was full.
        connection.execute(f"SELECT setval('{driver._store.address.schema}.seqs', 1)".encode())
        driver.enqueue([job("b")], connection=connection)
    assert ran(driver) == ["b"]


# --- leases, found by the blocks of their jobs ----------------------------------------------------


def test_leases_out_of_a_block_that_was_forgotten_are_found(driver: PostgresDriver) -> None:
    driver.enqueue([job("a"), job("b", priority=5)])
    want = Want(("default",), 10, 30.0)
    leases = driver.exchange("holder", (), want).reserved
    start_block(driver)
    assert driver.exchange("other", (), want).reserved == []
    assert (blocks(driver), blocks(driver, "lease_blocks")) == (0, 2)  # of two priorities
    assert driver.expired(10) == []
    assert driver.held("holder") == leases
    assert driver.list_jobs(JobFilter(state=State.RUNNING)).jobs != []
    assert blocks(driver, "lease_blocks") == 1
    assert driver.retire("holder") == leases
    driver.exchange("", [Settlement.succeed(one.id, one.fence, None) for one in leases])
    assert driver.expired(10) == []
    assert blocks(driver, "lease_blocks") == 0


def test_a_look_for_expired_leases_forgets_no_lease_that_is_just_made(
    driver: PostgresDriver, postgres_server: PostgresServer
) -> None:
    """The block is written down by whoever finds nothing ready in it, when the lease is there."""
    driver.enqueue([job("a")])
    start_block(driver)
    schema = driver._store.address.schema
    want = Want(("default",), 1, 30.0)
    with psycopg.connect(postgres_server.url) as slow:
        slow.execute(
            f"INSERT INTO {schema}.lease_blocks SELECT seq >> 12 FROM {schema}.jobs".encode()
        )
        slow.commit()
        slow.execute(
            f"SELECT * FROM {schema}.exchange(NULL, 'slow', true, '{{}}', '{{}}', '{{}}', NULL,"
            f" NULL, NULL, NULL, NULL, NULL, NULL, NULL, '{{default}}', 1, 30)".encode()
        )
        assert driver.expired(10) == []
        assert blocks(driver, "lease_blocks") == 0
        assert driver.exchange("other", (), want).reserved == []
    assert [lease.id for lease in driver.held("slow")] == ["a"]
    assert driver.exchange("other", (), want).reserved == []
    assert (blocks(driver), blocks(driver, "lease_blocks")) == (0, 1)
    assert [lease.id for lease in driver.held("slow")] == ["a"]
