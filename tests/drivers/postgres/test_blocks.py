"""A reserve goes straight to the jobs that are there, over whatever was taken before, and misses
none that is being put there meanwhile. So do those who look for leases."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from taskharbor.clock import ManualClock
from taskharbor.drivers.base import JobFilter, Want
from taskharbor.drivers.postgres import PostgresDriver, connect
from taskharbor.message import Retention
from taskharbor.settlement import Settlement
from taskharbor.states import State
from tests.drivers.postgres.support import job, migrated
from tests.servers.postgres import PostgresServer
from tests.waiting import wait_until

BRIEFLY = Retention(60.0, 60.0, 60.0)
UNKEPT = Retention(0.0, 0.0, 0.0)


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
    assert ids(driver) == ["b", "a"]
    assert ids(driver) == []
    assert blocks(driver) == 2
    start_block(driver)
    assert ids(driver) == []
    assert blocks(driver) == 0


def test_a_block_is_kept_for_jobs_that_cannot_be_seen_yet(
    driver: PostgresDriver, postgres_server: PostgresServer
) -> None:
    driver.enqueue([job("a")])
    with psycopg.connect(postgres_server.url) as connection:
        driver.enqueue([job("b")], connection=connection)
        start_block(driver)
        assert ids(driver) == ["a"]
        assert ids(driver) == []
    assert ids(driver) == ["b"]


def test_a_default_isolation_of_the_worker_s_role_loses_no_job(
    driver: PostgresDriver, postgres_server: PostgresServer
) -> None:
    """An exchange whose snapshot is as old as its beginning would take the block for empty."""
    strict = connect(f"{driver.url}&options=-c%20default_transaction_isolation%3Dserializable")
    driver.enqueue([job("a")])
    assert ids(driver, limit=1) == ["a"]
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
    assert taken or ids(driver) == ["b"]
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
        assert ids(driver) == ["a"]
        assert ids(driver) == []
        assert blocks(driver) == 0
        # As if it had got its number before the block was full.
        connection.execute(f"SELECT setval('{driver._store.address.schema}.seqs', 1)".encode())
        driver.enqueue([job("b")], connection=connection)
    assert ids(driver) == ["b"]


def test_a_held_snapshot_does_not_make_reserves_step_over_what_was_taken(
    driver: PostgresDriver, postgres_server: PostgresServer
) -> None:
    """Nothing can be vacuumed, or marked dead in the index, while the snapshot is held."""
    driver.enqueue([job(f"j{number:05}") for number in range(20_000)])
    with postgres_server.held_snapshot():
        for _ in range(150):
            assert len(ids(driver, 100)) == 100
        before = entries_read(driver, "ready_pkey")
        for _ in range(10):
            assert len(ids(driver, 100)) == 100
        # At most a block of what was taken before, and the jobs themselves, for each reserve.
        assert entries_read(driver, "ready_pkey") - before <= 10 * (4096 + 100)
        (lost,) = driver.exchange("lost", (), Want(("default",), 1, 0.001)).reserved
        before = entries_read(driver, "leases_pkey")
        for _ in range(10):
            assert driver.held("lost") == [lost]
            assert driver.expired(10) == [lost]
            assert driver.list_jobs(JobFilter(state=State.RUNNING)).jobs[0].id == lost.id
        # 16 000 leases have come and gone. Those of the block in use and of the one before it are
        # looked at: by `held`, by the listing, and by `expired` twice.
        assert entries_read(driver, "leases_pkey") - before <= 10 * 4 * 2 * 4096
        assert entries_read(driver, "leases") == 0


@pytest.mark.parametrize(
    ("kept", "index", "most"),
    [(BRIEFLY, "ended_prune_at", 5000), (UNKEPT, "tombstones_prune_at", 2000)],
)
def test_a_held_snapshot_does_not_make_prune_step_over_what_was_pruned(
    postgres_server: PostgresServer, kept: Retention, index: str, most: int
) -> None:
    clock = ManualClock()
    driver = migrated(postgres_server.url, clock=clock)
    with postgres_server.held_snapshot():
        for turn in range(4):
            driver.enqueue([job(f"{turn}-{number}", retention=kept) for number in range(500)])
            while ids(driver, 100):
                clock.advance(0.1)
            clock.advance(60.0)
            before = entries_read(driver, index)
            while driver.prune(100):
                pass
            # (Each page would read past all that was pruned: 10 000 entries in the last turn. Once
            # a minute one does.)
            assert entries_read(driver, index) - before <= most
        assert driver.list_jobs(JobFilter()).jobs == []
    driver.close()


def test_a_held_snapshot_does_not_make_promote_step_over_what_became_due(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock()
    driver = migrated(postgres_server.url, clock=clock)
    with postgres_server.held_snapshot():
        driver.enqueue([job(f"j{number:04}", delay=1.0 + number) for number in range(2000)])
        # One look from the beginning, and no more of them: they take ever longer.
        monkeypatch.setattr("taskharbor.drivers.postgres.places.ANEW_SHARE", 1e-9)
        for _ in range(100):
            clock.advance(20.0)
            before = entries_read(driver, "scheduled_wake_at")
            assert driver.promote(100).moved == 20
        # What became due since the last call, twice, and the next one.
        assert entries_read(driver, "scheduled_wake_at") - before <= 100
    driver.close()


def test_what_came_late_to_its_place_is_promoted_all_the_same(
    postgres_server: PostgresServer,
) -> None:
    """Its transaction was open for longer than its delay, and promoting has gone on meanwhile."""
    clock = ManualClock()
    driver = migrated(postgres_server.url, clock=clock)
    driver.enqueue([job("soon", delay=5.0)])
    with psycopg.connect(postgres_server.url) as slow:
        driver.enqueue([job("slow", delay=1.0)], connection=slow)
        clock.advance(10.0)
        assert driver.promote(10).moved == 1
    wait_until(lambda: driver.promote(10).moved == 1, what="it to be found")
    assert sorted(ids(driver)) == ["slow", "soon"]
    driver.close()


def test_what_expired_before_it_is_put_off_is_promoted_all_the_same(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its expiry lies before the place where promoting goes on."""
    monkeypatch.setattr("taskharbor.drivers.postgres.places.ANEW_SHARE", 1e-9)
    clock = ManualClock()
    driver = migrated(postgres_server.url, clock=clock)
    names = ["retried", "retried-with-others", "enqueued", "enqueued-with-others"]
    driver.enqueue([job(name, expires_in=2.0) for name in names[:2]])
    one, other = driver.exchange("holder", (), Want(("default",), 2, 600.0)).reserved
    clock.advance(10.0)
    assert driver.promote(10).moved == 0
    retries = [
        Settlement.retry(lost.id, lost.fence, delay=5.0, error=None) for lost in (one, other)
    ]
    driver.exchange("holder", [retries[0], retries[0]])  # one by one
    driver.exchange("holder", [retries[1]])
    driver.enqueue([job(names[2], delay=5.0, expires_at=clock.now() - 8.0)])
    driver.enqueue([job(names[3], delay=5.0, expires_at=clock.now() - 8.0), job("now")])
    assert driver.promote(10).moved == 4
    states = [found.state for found in driver.results(names) if found is not None]
    assert states == [State.CANCELLED] * 4
    driver.close()


def entries_read(driver: PostgresDriver, relation: str) -> int:
    """What the driver's connection has read so far from an index, or in scans of a whole table."""
    name = f"'{driver._store.address.schema}.{relation}'::regclass"
    with driver._store.connections.lend() as connection:
        connection.execute("SELECT pg_stat_force_next_flush()")
        query = f"SELECT pg_stat_get_tuples_returned({name})".encode()
        row = connection.execute(query).fetchone()
    assert row is not None
    return int(row[0])


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
