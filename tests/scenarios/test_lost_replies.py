"""The store did what was asked, and the answer never came."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.scenarios import shop
from tests.scenarios.conftest import StartWorker

LOSSY = '''
"""The shop, on a connection that loses every third answer to an exchange that reserved or settled
something."""
from taskharbor.errors import StoreUnavailable
from tests.scenarios.shop import app

class Lossy:
    def __init__(self, driver):
        self._driver = driver
        self._exchanges = 0

    def __getattr__(self, name):
        return getattr(self._driver, name)

    def exchange(self, holder, settlements, want=None):
        reply = self._driver.exchange(holder, settlements, want)
        if reply.reserved or reply.settled:
            self._exchanges += 1
            if self._exchanges % 3 == 1:
                print("a reply is lost", flush=True)
                raise StoreUnavailable("the connection was cut before the reply arrived")
        return reply

@app.child_start
def lose_replies():
    app._driver = Lossy(app.driver)
'''


def test_lost_replies_cost_no_lease_and_no_attempt(
    worker: StartWorker, app: Any, tmp_path: Path
) -> None:
    (tmp_path / "lossy.py").write_text(LOSSY)
    jobs = app.enqueue_many([shop.noted.using(max_attempts=1).s(n) for n in range(500)])
    # A lease as long as this means that whoever waits for it fails the test.
    running = worker(app_path="lossy:app", lease_seconds=600.0)
    for job in jobs:
        job.get(timeout=90)
    assert running.log().count("a reply is lost") >= 4
    records = [app.driver.get(job.id) for job in jobs]
    assert {record.attempts for record in records} == {1}
    ran = [entry["job"] for entry in running.journal_entries("ran")]
    assert sorted(ran) == sorted(job.id for job in jobs)
