"""Money moves between accounts, 10 000 times in the long form, while anything is killed at random:
each movement happens exactly once, and the books balance to the cent."""

from __future__ import annotations

import pytest

from tests.scenarios.bank import Bank
from tests.scenarios.banking import APP_PATH, app, books, url
from tests.scenarios.conftest import StartWorker
from tests.scenarios.worker import Worker

__all__ = ["app", "books", "url"]


@pytest.mark.timeout(1200)
def test_every_movement_happens_exactly_once(
    worker: StartWorker, books: Bank, long_form: bool
) -> None:
    def start() -> Worker:
        return worker(
            app_path=APP_PATH,
            log_level="warning",
            lease_seconds=2.0,
            concurrency=4,
            ready=False,
        )

    found = books.ride_out(
        start,
        jobs=10_000 if long_form else 600,
        every_seconds=0.25,
        deadline_seconds=900 if long_form else 600,
    )
    print(found)
    assert found.succeeded == found.booked_once == found.jobs
    assert found.wrong_accounts == {}
    assert sum(found.strikes.values()) >= 5
