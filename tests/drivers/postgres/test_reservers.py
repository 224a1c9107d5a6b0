"""Many reservers at once: each job goes to one of them, and nobody is left waiting."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import psycopg

from taskharbor.drivers.base import Want
from taskharbor.drivers.postgres import PostgresDriver
from taskharbor.ids import new_id
from taskharbor.lease import Verdict
from taskharbor.settlement import Settlement
from taskharbor.states import State
from tests.drivers.postgres.support import job, migrated
from tests.servers.postgres import PostgresServer

RESERVERS = 64
QUEUES = tuple(f"queue-{number}" for number in range(8))
JOBS = 1_600
BATCH = 5


def test_64_reservers_on_8_queues_share_the_jobs(postgres_server: PostgresServer) -> None:
    driver = migrated(postgres_server.url, pool=str(RESERVERS))
    names = [f"job-{number}" for number in range(JOBS)]
    driver.enqueue([job(name, queue=QUEUES[n % len(QUEUES)]) for n, name in enumerate(names)])
    with ThreadPoolExecutor(RESERVERS) as pool:
        runs = [pool.submit(_reserve_and_settle, driver) for _ in range(RESERVERS)]
        fences = [fence for run in runs for fence in run.result(timeout=120).items()]
    ran = Counter(name for name, _ in fences)
    assert ran == Counter(names)
    assert len({fence for _, fence in fences}) == JOBS
    counts = Counter[State]()
    for queue in driver.queues():
        counts.update(queue.counts)
    assert counts[State.SUCCEEDED] == JOBS
    assert counts[State.READY] == counts[State.RUNNING] == 0
    driver.close()


def _reserve_and_settle(driver: PostgresDriver) -> dict[str, int]:
    """The fences of the jobs that one holder ran, until there is nothing for it."""
    holder, want = new_id(), Want(QUEUES, BATCH, 60.0)
    ran: dict[str, int] = {}
    settlements: list[Settlement] = []
    while True:
        answer = driver.exchange(holder, settlements, want)
        assert all(settled.verdict is Verdict.APPLIED for settled in answer.settled)
        if not answer.reserved:
            return ran
        for lease in answer.reserved:
            assert lease.id not in ran
            ran[lease.id] = lease.fence
        settlements = [Settlement.succeed(one.id, one.fence, b"r") for one in answer.reserved]


def test_a_busy_reserver_finds_jobs_that_somebody_took_in_a_transaction_that_was_rolled_back(
    postgres_server: PostgresServer,
) -> None:
    """One that has just settled as much as it asks for passes over rows that others have begun to
    take, and looks at them when there is nothing else, or by chance (once in 20 times)."""
    want = Want(("default",), 1, 60.0)
    with closing(migrated(postgres_server.url)) as driver:
        driver.enqueue([job("taken"), job("first"), job("second")])
        with psycopg.connect(postgres_server.url) as other:
            take = (
                f"SELECT * FROM {driver._store.address.schema}.take(1e9, 'default', 1, false, NULL)"
            )
            other.execute(take.encode())
            other.rollback()
        driver.enqueue([job("busy", priority=9)])
        ran, leases = [], driver.exchange("busy", (), want).reserved
        while leases:
            ran += [lease.id for lease in leases]
            done = [Settlement.succeed(lease.id, lease.fence, b"r") for lease in leases]
            leases = driver.exchange("busy", done, want).reserved
        assert ran[0] == "busy"
        assert [name for name in ran if name != "taken"] == ["busy", "first", "second"]
        assert sorted(ran) == ["busy", "first", "second", "taken"]


def test_a_job_whose_taking_was_rolled_back_keeps_its_priority(
    postgres_server: PostgresServer,
) -> None:
    """Before others of a lower one, and before another queue."""
    with closing(migrated(postgres_server.url)) as driver:
        driver.enqueue([job(f"{n}", priority=n // 3) for n in range(9)])
        driver.enqueue([job("else", queue="else")])
        with psycopg.connect(postgres_server.url) as other:
            other.execute(f"DELETE FROM {driver._store.address.schema}.ready".encode())
            other.rollback()
        driver.enqueue([job(f"later-{n}", priority=n // 3) for n in range(9)])
        want = Want(("default", "else"), 2, 60.0)
        ran, leases = [], driver.exchange("busy", (), want).reserved
        while leases:
            ran += [(lease.queue, lease.priority) for lease in leases]
            done = [Settlement.succeed(lease.id, lease.fence, b"r") for lease in leases]
            leases = driver.exchange("busy", done, want).reserved
        assert len(ran) == 19
        assert ran == sorted(ran, key=lambda place: (place[0], -place[1]))
