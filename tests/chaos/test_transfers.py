"""Money moves between accounts, 10 000 times in the long form, while anything is killed at random:
each movement happens exactly once, and the books balance to the cent."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from taskharbor import TaskHarbor
from taskharbor.drivers.base import Migratable
from tests.scenarios import bank
from tests.scenarios.conftest import StartWorker
from tests.scenarios.worker import Worker
from tests.servers import PostgresServer


@pytest.fixture
def url(postgres_server: PostgresServer) -> str:
    return postgres_server.create_database("bank")


@pytest.fixture
def app(url: str) -> Iterator[TaskHarbor]:
    bank.app.close()
    # By its name, the storm leaves this process' connections alone.
    bank.app.url = f"{url}?application_name=auditor"
    assert isinstance(bank.app.driver, Migratable)
    bank.app.driver.migrate()
    yield bank.app
    bank.app.close()


@pytest.mark.timeout(1200)
def test_every_movement_happens_exactly_once(
    worker: StartWorker, app: TaskHarbor, url: str, long_form: bool
) -> None:
    at = bank.Bank(url)

    def start() -> Worker:
        return worker(
            app_path="tests.scenarios.bank:app",
            log_level="warning",
            lease_seconds=2.0,
            concurrency=4,
            ready=False,
        )

    books = at.ride_out(
        start,
        jobs=10_000 if long_form else 600,
        every_seconds=0.25,
        deadline_seconds=900 if long_form else 200,
    )
    print(books)
    at.close()
    assert books.succeeded == books.booked_once == books.jobs
    assert books.wrong_accounts == {}
    assert sum(books.strikes.values()) >= 5
