"""Calls that overlap, and the times that are written down of them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import psycopg

from taskharbor.drivers.base import Want
from taskharbor.settlement import Settlement
from tests.drivers.postgres.support import job, migrated
from tests.servers.postgres import PostgresServer
from tests.waiting import wait_until

WANT = Want(("default",), 10, 30.0)
_WAITING = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"


def test_a_reserve_that_had_to_wait_gives_leases_from_when_it_took_the_jobs(
    postgres_server: PostgresServer,
) -> None:
    """Otherwise a lease seems to begin before the one before it ended. Found by a storm."""
    with (
        closing(migrated(postgres_server.url)) as driver,
        psycopg.connect(postgres_server.url, autocommit=True) as other,
        ThreadPoolExecutor(1) as pool,
    ):
        driver.enqueue([job("a")])
        (first,) = driver.exchange("one", (), WANT).reserved
        with other.transaction():  # what a reserve takes to exclude a retire of its holder
            holder = f"{driver._store.address.schema}.two"
            other.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 1))", (holder,))
            waiting = pool.submit(driver.exchange, "two", (), WANT)
            wait_until(lambda: other.execute(_WAITING).fetchone() == (1,))
            driver.exchange("one", [Settlement.retry("a", first.fence, delay=0.0, error=None)])
        reply = waiting.result(90)
        ended = driver.get("a")
        assert ended is not None
        (attempt,) = ended.history
        assert ended.reserved_at is not None
        assert ended.reserved_at >= attempt.ended_at
        assert [each.reserved_at for each in reply.reserved] == [ended.reserved_at]
