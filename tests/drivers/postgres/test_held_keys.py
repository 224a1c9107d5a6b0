"""A caller's transaction with ``connection=`` may stay open for as long as it likes. Whoever ends
or prunes the jobs whose idempotency keys it met does not wait for it."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from taskharbor.clock import ManualClock
from taskharbor.drivers.base import Enqueued, Want
from taskharbor.drivers.postgres import PostgresDriver
from taskharbor.message import Retention
from taskharbor.settlement import Settlement
from tests.drivers.postgres.support import job, migrated
from tests.servers.postgres import PostgresServer

A_MINUTE = Retention(60.0, 60.0, 60.0)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1_000_000.0)


@pytest.fixture
def driver(postgres_server: PostgresServer, clock: ManualClock) -> Iterator[PostgresDriver]:
    driver = migrated(postgres_server.url, clock=clock)
    yield driver
    driver.close()


@pytest.fixture
def caller(postgres_server: PostgresServer) -> Iterator[psycopg.Connection]:
    with psycopg.connect(postgres_server.url) as connection:
        yield connection


def run(driver: PostgresDriver) -> list[str | None]:
    """Reserve all and settle it; the states."""
    reserved = driver.exchange("holder", (), Want(("default",), 10, 30.0)).reserved
    successes = [Settlement.succeed(one.id, one.fence, None) for one in reserved]
    return [settled.state for settled in driver.exchange("holder", successes).settled]


def keys(driver: PostgresDriver) -> int:
    with psycopg.connect(driver.url.partition("?")[0]) as connection:
        count = f"SELECT count(*) FROM {driver._store.address.schema}.keys"
        row = connection.execute(count.encode()).fetchone()
    assert row is not None
    return int(row[0])


def test_a_job_ends_while_a_transaction_has_met_its_key(
    driver: PostgresDriver, caller: psycopg.Connection
) -> None:
    driver.enqueue([job("a", idempotency_key="k", key_until="terminal")])
    found = driver.enqueue([job("b", idempotency_key="k")], connection=caller)
    assert found == [Enqueued("a", False, True)]
    assert run(driver) == ["succeeded"]
    assert driver.enqueue([job("c", idempotency_key="k")])[0].created


def test_a_job_is_pruned_while_a_transaction_has_met_its_key(
    driver: PostgresDriver, caller: psycopg.Connection, clock: ManualClock
) -> None:
    driver.enqueue([job("a", idempotency_key="k", retention=A_MINUTE)])
    assert run(driver) == ["succeeded"]
    found = driver.enqueue([job("b", idempotency_key="k")], connection=caller)
    assert found == [Enqueued("a", False, True)]
    clock.advance(61.0)
    assert driver.prune(10) == 1
    assert (driver.results(["a"]), keys(driver)) == ([None], 0)


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_job_whose_key_a_transaction_takes_over_is_pruned_after_it(
    driver: PostgresDriver, caller: psycopg.Connection, clock: ManualClock, end: str
) -> None:
    fields = {"idempotency_key": "k", "key_until": 30.0, "retention": A_MINUTE}
    driver.enqueue([job("a", **fields), job("other", retention=A_MINUTE)])
    assert run(driver) == ["succeeded"] * 2
    clock.advance(61.0)
    assert driver.enqueue([job("b", **fields)], connection=caller)[0].created
    assert driver.prune(10) == 1
    assert [one is not None for one in driver.results(["a", "other"])] == [True, False]
    getattr(caller, end)()
    driver._over[0].anew.next_at = 0.0
    assert driver.prune(10) == 1
    assert [one is not None for one in driver.results(["a", "b"])] == [False, end == "commit"]
    assert keys(driver) == (1 if end == "commit" else 0)


def test_a_key_that_is_given_back_between_two_looks_is_taken(
    driver: PostgresDriver, caller: psycopg.Connection, postgres_server: PostgresServer
) -> None:
    """The first look finds it held; before the second its job is gone. To fail would cost callers
    their transactions."""
    driver.enqueue([job("a", idempotency_key="k")])
    schema = driver._store.address.schema
    # Between the looks the batch is written, and so the trigger comes.
    caller.execute(
        f"""CREATE FUNCTION {schema}.delete_first() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM {schema}.out_of_line(ARRAY[1]);
            PERFORM {schema}.forget(ARRAY[1]);
            RETURN NULL;
        END $$""".encode()
    )
    caller.execute(
        f"CREATE TRIGGER meanwhile AFTER INSERT ON {schema}.jobs EXECUTE FUNCTION "
        f"{schema}.delete_first()".encode()
    )
    found = driver.enqueue([job("b", idempotency_key="k"), job("c")], connection=caller)
    assert found == [Enqueued("b", True), Enqueued("c", True)]
    caller.commit()
    assert [one is not None for one in driver.results(["a", "b", "c"])] == [False, True, True]
