"""Jobs that a process enqueues one after the other go into a block that its session knows to be
open, without a look at it. None of them may end up where no reserve looks."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import psycopg
import pytest

from taskharbor.drivers.base import Want
from taskharbor.drivers.postgres import PostgresDriver, connect
from taskharbor.drivers.postgres import enqueue as module
from taskharbor.drivers.postgres.connections import Connection
from taskharbor.ids import new_id
from taskharbor.settlement import Settlement
from tests.drivers.postgres.support import job, migrated
from tests.servers.postgres import PostgresServer

MOST_SECONDS = 90.0


@pytest.fixture(autouse=True)
def always_in_quick_succession(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 3600.0)


@pytest.fixture
def driver(postgres_server: PostgresServer) -> Iterator[PostgresDriver]:
    driver = migrated(postgres_server.url)
    yield driver
    driver.close()


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What has been sent so far: "one" or "next" for each statement that enqueues."""
    names: list[str] = []
    run = Connection.run

    def spy(self: Connection, statement: Any, arguments: Any) -> Any:
        names.append("next" if "block" in statement.names else "one")
        return run(self, statement, arguments)

    monkeypatch.setattr(Connection, "run", spy)
    return names


def take(driver: PostgresDriver, queue: str = "default") -> list[str]:
    """Reserve all and settle it."""
    taken: list[str] = []
    settlements: list[Settlement] = []
    while True:
        want = Want((queue,), 100, 60.0)
        reserved = driver.exchange("holder", settlements, want).reserved
        if not reserved:
            return taken
        taken += [one.id for one in reserved]
        settlements = [Settlement.succeed(one.id, one.fence, None) for one in reserved]


def skip_numbers(driver: PostgresDriver, count: int) -> None:
    numbers = f"SELECT nextval('{driver._store.address.schema}.seqs') FROM generate_series(1, %s)"
    with psycopg.connect(driver.url.partition("?")[0]) as connection:
        connection.execute(numbers.encode(), (count,))


def test_only_the_first_job_of_a_block_is_put_in_line_by_looking(
    driver: PostgresDriver, sent: list[str]
) -> None:
    skip_numbers(driver, 4090)
    names = [f"j{number:02}" for number in range(12)]
    for name in names:
        driver.enqueue([job(name)])
    # Number 4096 is the first of the second block; what was tried before that took 4096 away.
    assert sent == ["one", *["next"] * 4, "next", "one", *["next"] * 6]
    assert take(driver) == names
    assert driver.get("j11") is not None


def test_each_queue_and_priority_has_a_block_of_its_own(
    driver: PostgresDriver, sent: list[str]
) -> None:
    for number in range(2):
        driver.enqueue([job(f"a{number}")])
        driver.enqueue([job(f"b{number}", priority=7)])
        driver.enqueue([job(f"c{number}", queue="other")])
    assert sent == ["one"] * 3 + ["next"] * 3
    assert take(driver) == ["b0", "b1", "a0", "a1"]
    assert take(driver, "other") == ["c0", "c1"]


def test_what_is_not_due_or_expires_or_has_an_id_of_its_own_goes_the_long_way(
    driver: PostgresDriver, sent: list[str]
) -> None:
    driver.enqueue([job("a")])
    driver.enqueue([job("later", delay=60.0)])
    driver.enqueue([job("expires", expires_in=60.0)])
    driver.enqueue([job("named", digest=b"digest")])
    (again,) = driver.enqueue([job("named", digest=b"digest")])
    assert (again.created, again.same_request) == (False, True)
    assert "next" not in sent
    assert take(driver) == ["a", "expires", "named"]


def test_a_job_that_is_sent_again_is_found(driver: PostgresDriver, sent: list[str]) -> None:
    assert [driver.enqueue([job(name)])[0].created for name in "abb"] == [True, True, False]
    assert sent == ["one", "next", "next", "one", "one"]  # the last one for all of its answer
    assert take(driver) == ["a", "b"]


def test_where_each_call_may_be_another_sessions_nothing_is_kept_in_mind(
    postgres_server: PostgresServer, sent: list[str]
) -> None:
    with closing(migrated(postgres_server.url, pooler="yes")) as driver:
        for number in range(3):
            driver.enqueue([job(f"j{number}")])
        assert "next" not in sent


def test_tables_of_a_schema_made_anew_are_not_taken_for_the_old_ones(
    driver: PostgresDriver, sent: list[str]
) -> None:
    driver.enqueue([job("a")])
    driver.enqueue([job("b")])
    assert sent == ["one", "next"]
    with psycopg.connect(driver.url.partition("?")[0]) as connection:
        connection.execute(f"DROP SCHEMA {driver._store.address.schema} CASCADE".encode())
    with closing(connect(driver.url)) as other:
        other.migrate()
    driver.enqueue([job("c")])
    driver.enqueue([job("d")])
    assert take(driver) == ["c", "d"]


def test_no_job_is_put_where_nobody_looks_while_blocks_fill_up_and_are_closed(
    driver: PostgresDriver,
) -> None:
    """Numbers are used up so fast that blocks are closed while jobs are on their way into them."""
    ended = threading.Event()

    def enqueue(queue: str) -> list[str]:
        with closing(connect(driver.url)) as mine:
            names = [new_id() for _ in range(150)]
            for name in names:
                mine.enqueue([job(name, queue=queue)])
            return names

    def use_up() -> None:
        while not ended.is_set():
            skip_numbers(driver, 1500)

    def drain() -> list[str]:
        taken: list[str] = []
        with closing(connect(driver.url)) as mine:
            while not ended.is_set():
                taken += take(mine) + take(mine, "other")
        return taken

    with ThreadPoolExecutor(7) as pool:
        drains = [pool.submit(drain) for _ in range(2)]
        using = pool.submit(use_up)
        try:
            enqueued = list(pool.map(enqueue, ["default", "other"] * 2, timeout=MOST_SECONDS))
        finally:
            ended.set()
        using.result(MOST_SECONDS)
        taken = [name for one in drains for name in one.result(MOST_SECONDS)]
    taken += take(driver) + take(driver, "other")
    assert sorted(taken) == sorted(name for names in enqueued for name in names)


def test_a_reserver_that_may_not_look_at_the_sequence_closes_nothing(
    driver: PostgresDriver, postgres_server: PostgresServer, sent: list[str]
) -> None:
    schema, role = driver._store.address.schema, f"clerk_{new_id()}"
    with psycopg.connect(postgres_server.url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN".encode())
        for right in (
            "USAGE ON SCHEMA",
            "SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA",
            "UPDATE ON ALL SEQUENCES IN SCHEMA",
        ):
            connection.execute(f"GRANT {right} {schema} TO {role}".encode())
    with closing(connect(driver.url.replace("postgres@", f"{role}@"))) as clerk:
        driver.enqueue([job(new_id())])
        assert len(take(clerk)) == 1
        driver.enqueue([job(new_id())])
        assert len(take(clerk)) == 1
    assert "next" in sent
