"""A server that is gone, full, read-only or in the way: which error, and that it works again."""

from contextlib import closing

import psycopg
import pytest

from taskharbor.drivers.base import Want
from taskharbor.drivers.postgres import PostgresDriver, connect, connections
from taskharbor.errors import StoreError, StoreReadOnly, StoreUnavailable
from taskharbor.lease import Verdict
from taskharbor.settlement import Settlement
from taskharbor.states import State
from tests.drivers.postgres.support import beside, job, migrated
from tests.proxy import TcpProxy
from tests.servers.postgres import PostgresServer
from tests.waiting import wait_until

WANT = Want(("default",), 10, 600.0)


def run(server: PostgresServer, statement: str, *arguments: object) -> None:
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(statement.encode(), arguments)


def terminate(server: PostgresServer, name: str) -> None:
    run(
        server,
        "SELECT pg_terminate_backend(pid, 90000) FROM pg_stat_activity WHERE application_name = %s",
        name,
    )


def take_connections(server: PostgresServer, number: int) -> list[psycopg.Connection]:
    """Also those of which the server has not noticed yet that their clients left."""
    taken: list[psycopg.Connection] = []

    def all_taken() -> bool:
        try:
            taken.append(psycopg.connect(server.url))
        except psycopg.OperationalError:
            pass
        return len(taken) == number

    wait_until(all_taken, what=f"{number} connections")
    return taken


def test_a_terminated_backend_costs_one_call(postgres_server: PostgresServer) -> None:
    driver = migrated(postgres_server.url, application_name="terminated")
    driver.enqueue([job("a")])
    terminate(postgres_server, "terminated")
    with pytest.raises(StoreUnavailable):
        driver.exchange("holder", (), WANT)
    (reserved,) = driver.exchange("holder", (), WANT).reserved
    terminate(postgres_server, "terminated")
    done = Settlement.succeed("a", reserved.fence, None)
    with pytest.raises(StoreUnavailable):
        driver.exchange("holder", [done])
    assert driver.exchange("holder", [done]).settled[0].verdict is Verdict.APPLIED
    driver.close()


def test_a_killed_server_loses_nothing_and_is_found_again() -> None:
    with PostgresServer() as server:
        driver = migrated(server.url)
        driver.enqueue([job("a"), job("b")])
        (a, b) = driver.exchange("holder", (), WANT).reserved
        driver.exchange("holder", [Settlement.succeed("a", a.fence, b"r")])
        server.kill()
        for _ in range(3):
            with pytest.raises(StoreUnavailable):
                driver.held("holder")
        server.start()
        assert driver.held("holder") == [b]
        outcome = driver.results(["a"])[0]
        assert outcome is not None
        assert (outcome.state, outcome.result) == (State.SUCCEEDED, b"r")
        driver.close()


def test_too_many_connections_is_an_outage() -> None:
    settings = {"max_connections": "5", "superuser_reserved_connections": "0"}
    with PostgresServer(settings=settings | {"reserved_connections": "0"}) as server:
        driver = migrated(server.url)
        driver.close()
        driver = connect(driver.url)
        taken = take_connections(server, 5)
        with pytest.raises(StoreUnavailable, match="too many clients"):
            driver.enqueue([job("a")])
        for connection in taken:
            connection.close()

        def is_let_in() -> bool:
            try:
                return driver.enqueue([job("a")])[0].created
            except StoreUnavailable:  # the server has not noticed yet that those have left
                return False

        wait_until(is_let_in, what="a connection")
        driver.close()


def test_a_server_that_became_read_only_is_left(postgres_server: PostgresServer) -> None:
    """The connections to it are given up: the next may lead to another host of the URL."""
    driver = migrated(postgres_server.url, application_name="demoted")
    with driver._store.connections.lend() as connection:
        connection.execute("SET default_transaction_read_only = on")
    with pytest.raises(StoreReadOnly, match="primary"):
        driver.enqueue([job("a")])
    assert driver.enqueue([job("a")])[0].created
    driver.close()


def test_a_statement_timeout_is_an_outage(postgres_server: PostgresServer) -> None:
    driver = migrated(postgres_server.url)
    driver.enqueue([job("a")])
    hurried = beside(driver, options="-c%20statement_timeout=1000")
    with psycopg.connect(postgres_server.url) as blocker:
        blocker.execute(f"LOCK TABLE {driver._store.address.schema}.ready".encode())
        with pytest.raises(StoreUnavailable, match="statement timeout"):
            hurried.exchange("holder", (), WANT)
    assert len(driver.exchange("holder", (), WANT).reserved) == 1
    hurried.close()
    driver.close()


def test_calls_that_are_given_up_do_not_wait_on_at_the_server(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock that is held for minutes would otherwise take one more session for each new try."""
    monkeypatch.setattr(connections, "CANCEL_SECONDS", 60.0)
    driver = migrated(postgres_server.url)
    driver.enqueue([job("a")])
    hurried = beside(driver, answer_seconds="2", application_name="hurried")
    waiting = (
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'hurried'"
        " AND wait_event_type = 'Lock'"
    )
    with (
        psycopg.connect(postgres_server.url, autocommit=True) as look,
        psycopg.connect(postgres_server.url) as blocker,
    ):
        blocker.execute(f"LOCK TABLE {driver._store.address.schema}.ready".encode())
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match="no answer"):
                hurried.exchange("holder", (), WANT)
        wait_until(lambda: look.execute(waiting).fetchone() == (0,), what="the calls to end")
    assert len(driver.exchange("holder", (), WANT).reserved) == 1
    hurried.close()
    driver.close()


def test_a_server_that_hangs_with_open_sockets_is_an_outage(
    postgres_server: PostgresServer,
) -> None:
    driver = migrated(postgres_server.url)
    driver.enqueue([job("a")])
    with (
        TcpProxy.before(postgres_server.url) as proxy,
        closing(beside(driver, url=proxy.url, answer_seconds="3.5")) as hurried,
    ):
        assert hurried.held("holder") == []
        proxy.stall()
        with pytest.raises(StoreUnavailable, match=r"no answer within 3\.5 s"):
            hurried.exchange("holder", (), WANT)
        proxy.heal()
        # Nothing was reserved, or, when the request arrives after all, without our knowing.
        wait_until(
            lambda: driver.held("holder") or driver.exchange("holder", (), WANT).reserved,
            what="the job to be there",
        )
    driver.close()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("/postgres", "/nowhere"), "createdb"),
        (("//postgres@", "//nobody@"), "mend the URL"),
        (("127.0.0.1:", "127.0.0.1:1"), "answer|port"),
    ],
)
def test_a_url_to_nowhere_says_what_is_wrong(
    postgres_server: PostgresServer, change: tuple[str, str], says: str
) -> None:
    before, after = change
    url = postgres_server.url[::-1].replace(before[::-1], after[::-1], 1)[::-1]
    driver: PostgresDriver = connect(url)
    with pytest.raises((StoreError, StoreUnavailable), match=says):
        driver.queues()
    driver.close()
