"""What becomes of a job that two calls move at once, where neither sees yet what the other did."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import psycopg
import pytest

from taskharbor.drivers.base import CancelVerdict, Want
from taskharbor.drivers.postgres import PostgresDriver
from taskharbor.flow.plan import Flow, Node, Part
from taskharbor.lease import Reservation
from taskharbor.settlement import Settlement
from taskharbor.states import State
from tests.drivers.postgres.support import job, migrated
from tests.servers.postgres import PostgresServer
from tests.waiting import wait_until

T = TypeVar("T")


@pytest.fixture
def driver(postgres_server: PostgresServer) -> Iterator[PostgresDriver]:
    driver = migrated(postgres_server.url)
    yield driver
    driver.close()


def take_one(driver: PostgresDriver) -> Reservation:
    (lease,) = driver.exchange("holder", (), Want(("default",), 1, 1000.0)).reserved
    return lease


def end(driver: PostgresDriver, settlement: Settlement) -> str:
    return driver.exchange("holder", [settlement]).settled[0].verdict.value


def while_open(
    server: PostgresServer, driver: PostgresDriver, first: str, then: Callable[[], T]
) -> T:
    """What ``then`` returns, which is called before the transaction of the statement ``first``
    (of the schema ``th``) is committed: it may have to wait for that."""
    schema = driver._store.address.schema
    with psycopg.connect(server.url) as connection, ThreadPoolExecutor(1) as pool:
        connection.execute(first.replace("th.", f"{schema}.").encode())
        answer = pool.submit(then)
        wait_until(lambda: answer.done() or _waits(server), what="the other call")
        connection.commit()
        return answer.result(90)


def _waits(server: PostgresServer) -> bool:
    with psycopg.connect(server.url) as connection:
        row = connection.execute("SELECT 1 FROM pg_locks WHERE NOT granted LIMIT 1").fetchone()
    return row is not None


def test_a_job_put_back_while_its_flow_ends_is_not_forgotten(
    driver: PostgresDriver, postgres_server: PostgresServer
) -> None:
    """It is blocked again, for a flow that is under way; whoever ends that has to see it."""
    driver.enqueue([job("parent")])
    lease = take_one(driver)
    driver.enqueue_flow(Part(Flow("child", 1, 0), (Node(job("member")),)))
    end(driver, Settlement.wait_for("parent", lease.fence, "child"))
    for _ in ("member", "parent"):
        lease = take_one(driver)
        end(driver, Settlement.die(lease.id, lease.fence, error=None))
    driver.requeue(["member"])
    member = take_one(driver)
    put_back = "SELECT th.requeue(NULL, '{parent}', '{dead}', NULL, NULL, 0, true)"
    succeed = Settlement.succeed("member", member.fence, None)
    assert while_open(postgres_server, driver, put_back, lambda: end(driver, succeed)) == "applied"
    assert take_one(driver).id == "parent"


def test_a_cancel_finds_a_job_that_is_being_promoted(
    driver: PostgresDriver, postgres_server: PostgresServer
) -> None:
    """It is neither where it was when the cancel began, nor finished."""
    driver.enqueue([job("a", delay=600.0)])
    promote = "SELECT th.promote(1e10, '-infinity', 10)"
    verdicts = while_open(postgres_server, driver, promote, lambda: driver.cancel(["a"]))
    assert verdicts == [CancelVerdict.CANCELLED]
    assert driver.results(["a"])[0].state is State.CANCELLED  # type: ignore[union-attr]
