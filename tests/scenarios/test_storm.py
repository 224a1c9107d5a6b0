"""Children are killed at random while they drain a queue: every job succeeds."""

from __future__ import annotations

from taskharbor import TaskHarbor
from tests.scenarios.conftest import StartWorker, on_both_stores
from tests.scenarios.storm import ride_out


@on_both_stores
def test_ten_thousand_jobs_survive_random_kills(worker: StartWorker, app: TaskHarbor) -> None:
    running = worker(log_level="warning")
    ledger = ride_out(running, app, jobs=10_000, every_seconds=0.05, deadline_seconds=200)
    print(ledger)
    assert ledger.succeeded == ledger.jobs
    assert ledger.left == 0
    assert ledger.kills >= 3
