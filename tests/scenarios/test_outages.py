"""The store goes away under a worker and comes back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from taskharbor import AsyncResult, TaskHarbor
from tests.proxy import TcpProxy
from tests.scenarios import shop
from tests.scenarios.conftest import StartWorker
from tests.scenarios.worker import Worker
from tests.servers import PostgresServer, RedisServer
from tests.servers.process import ServerProcess


@pytest.fixture(params=["redis", "postgres"])
def server(request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    """A server of this test's own, to be killed."""
    one: ServerProcess = RedisServer(aof="always") if request.param == "redis" else PostgresServer()
    with one:
        yield one


@pytest.fixture
def url(server: ServerProcess) -> str:
    return server.url


def enqueue_naps(app: TaskHarbor, number: int, seconds: float) -> list[AsyncResult[str]]:
    return app.enqueue_many([shop.nap.using(max_attempts=1).s(seconds) for _ in range(number)])


def wait_for_results(app: TaskHarbor, jobs: list[AsyncResult[str]]) -> None:
    app.close()  # this process' own connections went with the server
    for job in jobs:
        assert job.get(timeout=90) == "rested"


def wait_until_noticed(running: Worker) -> None:
    """Maintenance talks to the store all the time: it is the first to notice."""
    running.wait_event("the store is away", count=3)


def test_jobs_survive_a_killed_store_without_a_second_run(
    worker: StartWorker, app: TaskHarbor, server: ServerProcess
) -> None:
    jobs = enqueue_naps(app, 60, 0.05)
    running = worker(lease_seconds=600.0)  # however long the server needs to come back
    before = {process.pid for process in running.processes()}
    running.wait_noted("finished", count=10)
    server.kill()
    wait_until_noticed(running)
    server.start()
    wait_for_results(app, jobs)
    started = [entry["job"] for entry in running.journal_entries("started")]
    # The leases held over the outage, and what was settled just before it is settled once.
    assert sorted(started) == sorted(job.id for job in jobs)
    assert {process.pid for process in running.processes()} == before


@pytest.mark.parametrize("server", ["redis"], indirect=True)
def test_jobs_survive_a_store_that_hangs(
    app: TaskHarbor, server: ServerProcess, tmp_path: Path
) -> None:
    jobs = enqueue_naps(app, 60, 0.05)
    with (
        TcpProxy.before(server.url) as proxy,
        Worker(proxy.url, tmp_path, lease_seconds=600.0) as running,
    ):
        running.wait_noted("finished", count=10)
        before = {process.pid for process in running.processes()}
        proxy.stall()
        wait_until_noticed(running)
        proxy.heal()
        wait_for_results(app, jobs)
        assert {process.pid for process in running.processes()} == before


def test_leases_that_ended_in_an_outage_are_nobodys_fault(
    worker: StartWorker, app: TaskHarbor, server: ServerProcess
) -> None:
    running = worker(lease_seconds=4.0)
    (job,) = enqueue_naps(app, 1, 8.0)
    running.wait_noted("started", job=job.id)
    server.kill()
    running.wait_noted("finished", job=job.id)
    server.start()
    # max_attempts=1: had the expiry been charged, the job would be dead.
    wait_for_results(app, [job])
