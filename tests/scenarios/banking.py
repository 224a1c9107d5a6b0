"""The bank's app on a database of the test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from taskharbor import TaskHarbor
from taskharbor.drivers.base import Migratable
from taskharbor.ids import new_id
from tests.scenarios import bank
from tests.servers import PostgresServer

APP_PATH = "tests.scenarios.bank:app"


@pytest.fixture
def url(postgres_server: PostgresServer) -> str:
    return postgres_server.create_database(f"bank_{new_id()}")


@pytest.fixture
def app(url: str) -> Iterator[TaskHarbor]:
    bank.app.close()
    # By its name, a storm leaves this process' connections alone.
    bank.app.url = f"{url}?application_name=auditor"
    assert isinstance(bank.app.driver, Migratable)
    bank.app.driver.migrate()
    yield bank.app
    bank.app.close()


@pytest.fixture
def books(url: str, app: TaskHarbor) -> Iterator[bank.Bank]:
    one = bank.Bank(url)
    yield one
    one.close()
