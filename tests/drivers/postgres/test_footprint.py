"""What calls cost the server besides their time: row versions, repetitions, listeners."""

from __future__ import annotations

import threading
from contextlib import closing
from math import inf

import psycopg
import pytest

from taskharbor.clock import ManualClock
from taskharbor.drivers.base import Renewal, Want
from taskharbor.drivers.postgres import PostgresDriver
from taskharbor.drivers.postgres.store import CONFLICTS
from taskharbor.errors import StoreUnavailable
from taskharbor.message import Retention
from taskharbor.settlement import Settlement
from tests.drivers.postgres.support import job, migrated
from tests.servers.postgres import PostgresServer
from tests.waiting import wait_until


def test_a_heartbeat_touches_no_index(postgres_server: PostgresServer) -> None:
    """Its row versions stay on their page (HOT), whatever it brings along but progress."""
    with closing(migrated(postgres_server.url)) as driver:
        driver.enqueue([job(f"j{number}") for number in range(10)])
        leases = driver.exchange("holder", (), Want(("default",), 10, 30.0)).reserved
        renewals = [Renewal(lease.id, lease.fence) for lease in leases]
        for turn in range(4):
            driver.extend("holder", renewals, 60.0 + turn)
        name = f"'{driver._store.address.schema}.leases'::regclass"
        count = f"SELECT pg_stat_get_tuples_updated({name}), pg_stat_get_tuples_hot_updated({name})"
        with driver._store.connections.lend() as connection:
            connection.execute("SELECT pg_stat_force_next_flush()")
            assert connection.execute(count.encode()).fetchone() == (40, 40)


@pytest.mark.parametrize("lost", [2, CONFLICTS])
def test_a_call_that_lost_to_another_is_sent_again_a_few_times(
    postgres_server: PostgresServer, lost: int
) -> None:
    with closing(migrated(postgres_server.url)) as driver:
        sent = []

        def step(connection: psycopg.Connection) -> str:
            sent.append(connection)
            if len(sent) <= lost:
                connection.execute("DO $$ BEGIN RAISE deadlock_detected; END $$")
            return "done"

        if lost < CONFLICTS:
            assert driver._store.call(step) == "done"
        else:
            with pytest.raises(StoreUnavailable, match="again and again"):
                driver._store.call(step)
        assert len(sent) == min(lost + 1, CONFLICTS)


def test_with_notify_off_nobody_listens_and_jobs_are_found(
    postgres_server: PostgresServer,
) -> None:
    deaf = migrated(postgres_server.url, notify="off", application_name="deaf")
    with (
        closing(deaf) as driver,
        psycopg.connect(postgres_server.url, autocommit=True) as look,
    ):
        waiter = threading.Thread(target=driver.wait, args=(("default",), 3600.0), daemon=True)
        waiter.start()
        looks = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'deaf'"
        wait_until(lambda: look.execute(looks).fetchone() != (0,), what="it to look")
        driver.enqueue([job("a")])
        waiter.join(90)
        assert not waiter.is_alive()
        assert driver._waiting._ear._thread is None
        table = f"SELECT count(*) FROM {driver._store.address.schema}.waiters"
        assert look.execute(table.encode()).fetchone() == (0,)


def test_what_comes_and_goes_leaves_tables_and_indexes_as_large_as_they_were(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs that are enqueued, run, and pruned in turn, with a vacuum after each, as autovacuum
    would. (``nox -s soak-postgres`` is the long form, with autovacuum itself.)"""
    monkeypatch.setattr("taskharbor.drivers.postgres.driver.TIDY_SECONDS", 0.0)
    monkeypatch.setattr("taskharbor.drivers.postgres.places.SHARE", inf)
    clock = ManualClock()
    kept = Retention(1.0, 1.0, 1.0)
    sizes = []
    with (
        closing(migrated(postgres_server.url, clock=clock)) as driver,
        psycopg.connect(postgres_server.url, autocommit=True) as look,
    ):
        schema = driver._store.address.schema
        tables = look.execute("SELECT relname FROM pg_stat_user_tables WHERE schemaname = %s",
            [schema.strip('"')]).fetchall()  # fmt: skip
        for turn in range(8):
            for batch in range(4):
                driver.enqueue([job(f"{turn}-{batch}-{n}", retention=kept) for n in range(500)])
            settlements: list[Settlement] = []
            while True:
                want = Want(("default",), 100, 30.0)
                leases = driver.exchange("holder", settlements, want).reserved
                if not leases:
                    break
                driver.extend("holder", [Renewal(one.id, one.fence) for one in leases], 60.0)
                settlements = [Settlement.succeed(one.id, one.fence, b"r") for one in leases]
            clock.advance(2.0)
            while driver.prune(500):
                pass
            for (table,) in tables:
                look.execute(f"VACUUM {schema}.{table}".encode())
            size = "SELECT sum(pg_total_relation_size(relid)) FROM pg_stat_user_tables"
            ((total,),) = look.execute(f"{size} WHERE schemaname = %s".encode(),
                [schema.strip('"')]).fetchall()  # fmt: skip
            sizes.append(int(total))
        rest = look.execute(f"SELECT count(*) FROM {schema}.jobs".encode()).fetchone()
    assert rest == (0,)
    assert max(sizes[4:]) <= 1.25 * sizes[3], sizes


def test_the_servers_own_vacuum_does_not_rest_on_the_tables_that_jobs_pass_through() -> None:
    """However slow others' tables are to be cleaned up: 0.4 s for each page here."""
    slow = {
        "autovacuum_naptime": "1s",
        "autovacuum_vacuum_cost_delay": "100ms",
        "autovacuum_vacuum_cost_limit": "1",
    }
    with PostgresServer(settings=slow) as server:
        with closing(migrated(server.url)) as driver:
            _run_and_prune(driver, 8_000)
        counts = (
            "SELECT min(autovacuum_count) > 0 FROM pg_stat_user_tables"
            " WHERE relname IN ('jobs', 'ready', 'leases', 'ended')"
        )
        with psycopg.connect(server.url, autocommit=True) as look:
            wait_until(
                lambda: look.execute(counts).fetchone() == (True,),
                seconds=90,
                what="autovacuum to end a round of every table",
            )


def _run_and_prune(driver: PostgresDriver, count: int) -> None:
    at_once = Retention(0.001, 0.001, 0.001)
    want = Want(("default",), 500, 30.0)
    for start in range(0, count, 500):
        driver.enqueue([job(f"{start + n}", retention=at_once) for n in range(500)])
        leases = driver.exchange("holder", (), want).reserved
        driver.exchange("holder", [Settlement.succeed(one.id, one.fence, None) for one in leases])

    def is_empty() -> bool:
        driver.prune(500)
        return not any(any(queue.counts.values()) for queue in driver.queues())

    wait_until(is_empty, what="the last record to be pruned")
