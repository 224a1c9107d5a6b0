"""100 000 jobs under kill -9 of a random child every 200 ms."""

from __future__ import annotations

import pytest

from taskharbor import TaskHarbor
from tests.scenarios.conftest import StartWorker, on_both_stores
from tests.scenarios.storm import ride_out


@pytest.mark.long
@on_both_stores
@pytest.mark.timeout(900)
def test_a_hundred_thousand_jobs_survive_random_kills(worker: StartWorker, app: TaskHarbor) -> None:
    running = worker(log_level="warning")
    ledger = ride_out(running, app, jobs=100_000, every_seconds=0.2, deadline_seconds=600)
    print(ledger)
    assert ledger.succeeded == ledger.jobs
    assert ledger.left == 0
