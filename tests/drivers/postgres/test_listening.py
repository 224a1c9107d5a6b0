"""Who is told of what, by notifications alone: looking again by oneself is put off for an hour, and
so is the thread's looking around for others to read for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import psycopg
import pytest

from taskharbor.drivers.base import Want
from taskharbor.drivers.postgres import PostgresDriver, connect, listening, waiting
from taskharbor.drivers.postgres.listening import Ear
from taskharbor.drivers.postgres.topics import Heard
from taskharbor.errors import StoreUnavailable
from taskharbor.settlement import Settlement
from tests.drivers.postgres.support import job, migrated, set_turn
from tests.proxy import TcpProxy
from tests.servers.postgres import PostgresServer
from tests.waiting import wait_until

PATIENCE = 90.0


@pytest.fixture(autouse=True)
def _no_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "FIRST_LOOKS", ())
    monkeypatch.setattr(waiting, "LOOK_SECONDS", 3600.0)
    monkeypatch.setattr(listening, "_TURN_SECONDS", 3600.0)


@pytest.fixture
def driver(postgres_server: PostgresServer) -> Iterator[PostgresDriver]:
    with closing(migrated(postgres_server.url, application_name="listens")) as driver:
        set_turn(driver, 1)
        yield driver


def waiter(wait: Callable[..., Any], *arguments: Any) -> threading.Thread:
    thread = threading.Thread(target=wait, args=(*arguments, 3600.0), daemon=True)
    thread.start()
    return thread


def registered(driver: PostgresDriver, *topics: str) -> None:
    """Returns when somebody waits for each of ``topics``, and would be told."""
    table = f"SELECT topic FROM {driver._store.address.schema}.waiters".encode()

    def all_there() -> bool:
        with driver._store.connections.lend() as connection:
            return {topic for (topic,) in connection.execute(table)} >= set(topics)

    wait_until(all_there, seconds=PATIENCE, what=f"{topics} to be waited for")


def ends(thread: threading.Thread) -> bool:
    thread.join(PATIENCE)
    return not thread.is_alive()


def settle_one(driver: PostgresDriver, queue: str) -> None:
    (lease,) = driver.exchange("holder", (), Want((queue,), 1, 60.0)).reserved
    driver.exchange("holder", [Settlement.succeed(lease.id, lease.fence, b"")])


def test_one_who_waits_again_and_again_is_told_each_time(driver: PostgresDriver) -> None:
    for turn in range(5):
        waits = waiter(driver.wait, ("q",))
        registered(driver, "w:q")
        driver.enqueue([job(f"j{turn}", queue="q")])
        assert ends(waits)
        settle_one(driver, "q")


def test_the_first_to_wait_gets_the_connection_from_the_thread_that_opened_it(
    driver: PostgresDriver,
) -> None:
    """The thread once took it again before it was had, about every fifth time."""
    for turn in range(25):
        with closing(connect(driver.url)) as other:
            waits = waiter(other.wait, ("q",))
            registered(driver, "w:q")
            driver.enqueue([job(f"j{turn}", queue="q")])
            assert ends(waits)
        settle_one(driver, "q")


def test_several_who_wait_are_told_whoever_of_them_leaves_first(driver: PostgresDriver) -> None:
    first = waiter(driver.wait, ("a",))
    registered(driver, "w:a")  # and reads what comes, being alone
    others = [waiter(driver.wait, (name,)) for name in "bcd"]
    registered(driver, "w:a", "w:b", "w:c", "w:d")
    driver.enqueue([job("1", queue="c")])
    assert ends(others[1])
    driver.enqueue([job("2", queue="a")])
    assert ends(first)
    driver.enqueue([job("3", queue="d")])
    assert ends(others[2])
    driver.enqueue([job("4", queue="b")])
    assert ends(others[0])


def test_one_who_waits_for_results_beside_one_who_waits_for_jobs_is_told(
    driver: PostgresDriver,
) -> None:
    driver.enqueue([job("x", queue="results")])
    jobs = waiter(driver.wait, ("jobs",))
    registered(driver, "w:jobs")
    result = waiter(driver.wait_results, ["x"])
    registered(driver, "w:jobs", "d:x")
    settle_one(driver, "results")
    assert ends(result)
    driver.enqueue([job("y", queue="jobs")])
    assert ends(jobs)


def test_a_broken_connection_is_replaced_and_who_waits_registers_anew(
    driver: PostgresDriver, postgres_server: PostgresServer
) -> None:
    waits = waiter(driver.wait, ("q",))
    registered(driver, "w:q")
    schema = driver._store.address.schema
    with psycopg.connect(postgres_server.url, autocommit=True) as other:
        other.execute(f"DELETE FROM {schema}.waiters".encode())
        # What the one that listens did last was the look that registered.
        cut = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'listens' AND query LIKE '%.first_ready_at(%'"
        )
        assert other.execute(cut).fetchall() == [(True,)]
    # Until it listens again it looks by itself; a new wait opens the connection.
    driver.enqueue([job("1", queue="q")])
    assert ends(waits)
    settle_one(driver, "q")
    again = waiter(driver.wait, ("q",))
    registered(driver, "w:q")
    driver.enqueue([job("2", queue="q")])
    assert ends(again)


def look(ear: Ear) -> list[tuple[Any, ...]]:
    return ear.rows("any_ready", topics=None, queues=["q"])


@contextmanager
def waiting_alone(driver: PostgresDriver) -> Iterator[tuple[Ear, Heard]]:
    """Registered for ``q``, with a connection that listens and that only the test reads."""
    ear = driver._waiting._ear
    ear._seizing += 1
    with ear.hearing(["w:q"]) as heard:
        wait_until(lambda: ear._line, seconds=PATIENCE, what="the connection")
        assert ear.rows("any_ready", topics=heard.topics, queues=["q"]) == [(False,)]
        yield ear, heard


def test_a_notification_that_comes_with_an_answer_is_told(driver: PostgresDriver) -> None:
    with waiting_alone(driver) as (ear, heard):
        driver.enqueue([job("1", queue="q")])
        assert look(ear) == [(True,)]
        assert heard.told


def test_a_look_that_finds_the_connection_broken_is_made_over_another(
    driver: PostgresDriver, postgres_server: PostgresServer
) -> None:
    with waiting_alone(driver) as (ear, _), psycopg.connect(postgres_server.url) as other:
        assert ear._line is not None
        pid = ear._line._connection.info.backend_pid
        other.execute("SELECT pg_terminate_backend(%s, 90000)", [pid])
        assert look(ear) == [(False,)]
        wait_until(lambda: ear._line is None, seconds=PATIENCE, what="it to be given up")


def test_a_look_that_the_server_does_not_answer_ends_the_connection(
    postgres_server: PostgresServer,
) -> None:
    with (
        TcpProxy.before(postgres_server.url) as proxy,
        closing(migrated(proxy.url)) as driver,
        waiting_alone(driver) as (ear, _),
    ):
        assert ear._line is not None
        ear._line._connection.patience = 0.5
        proxy.stall()
        with pytest.raises(StoreUnavailable, match=r"no answer within 0\.5 s"):
            look(ear)
        wait_until(lambda: ear._line is None, seconds=PATIENCE, what="it to be given up")
        proxy.heal()
        assert look(ear) == [(False,)]


def test_closing_ends_the_wait_of_one_who_reads(driver: PostgresDriver) -> None:
    waits = waiter(driver.wait, ("q",))
    registered(driver, "w:q")
    driver.close()
    assert ends(waits)
