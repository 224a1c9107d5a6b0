"""What the scenarios share in which a server misbehaves under load."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any, Self

from taskharbor import AsyncResult, TaskHarbor
from taskharbor.drivers.base import Migratable
from taskharbor.errors import StoreUnavailable
from taskharbor.states import State
from tests.scenarios import shop
from tests.scenarios.worker import Worker

Jobs = list[AsyncResult[str]]

MOST_SECONDS = 60.0
"""From the server's return until work goes on. Between two tries lies a second at most
(recovery.MOST_DELAY_SECONDS); the rest is for machines that are busy with other things. Far less
than LEASE: who waits for a lease instead of trying again is too late."""

LEASE: dict[str, Any] = {"lease_seconds": 600.0, "heartbeat_seconds": 5.0}
"""Settings of a worker whose leases last longer than any test."""


def order(app: TaskHarbor, number: int) -> Jobs:
    """Jobs with one attempt, so that a second run or a loss that was charged shows."""
    return app.enqueue_many([shop.nap.using(max_attempts=1).s(0.01) for _ in range(number)])


@contextmanager
def shop_at(url: str) -> Iterator[TaskHarbor]:
    """The shop's app, in this process, for a URL that only the test knows."""
    shop.app.close()
    shop.app.url = url
    if isinstance(shop.app.driver, Migratable):
        shop.app.driver.migrate()
    yield shop.app
    shop.app.close()


def check_all_ran_once(running: Worker, app: TaskHarbor, jobs: Jobs) -> None:
    """Every job that was acknowledged is over: it ran once, and succeeded once."""
    app.close()  # this process' own connections may have gone with the server
    for job in jobs:
        assert job.get(timeout=90) == "rested"
    runs = Counter(entry["job"] for entry in running.journal_entries("started"))
    assert runs == Counter(job.id for job in jobs)
    assert {record and record.attempts for record in map(app.driver.get, runs)} == {1}
    (queue,) = app.driver.queues()
    assert {state: number for state, number in queue.counts.items() if number} == {
        State.SUCCEEDED: len(jobs)
    }


class Customer:
    """Orders all the time, so that neither work nor requests run out in an outage.

    An order that is not acknowledged is repeated with the same ids until it is. Use as a context
    manager; ``leave`` when the outages are over.
    """

    BATCH = 10
    PATIENCE = 60
    """Jobs that are open before it waits with the next order."""

    def __init__(self, app: TaskHarbor, running: Worker) -> None:
        self.jobs: Jobs = []
        self._app = app
        self._running = running
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._order_until_left, name="customer")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def leave(self) -> Jobs:
        """All that was ordered, and acknowledged."""
        self._left.set()
        self._thread.join(60)
        assert not self._thread.is_alive()
        return self.jobs

    def _order_until_left(self) -> None:
        numbers = count()
        while not self._left.is_set():
            if len(self.jobs) - len(self._running.journal_entries("finished")) > self.PATIENCE:
                self._left.wait(0.05)
                continue
            ids = [f"order-{next(numbers)}" for _ in range(self.BATCH)]
            while not self._order(ids):
                time.sleep(0.02)

    def _order(self, ids: list[str]) -> bool:
        naps = [shop.nap.using(max_attempts=1, job_id=one).s(0.01) for one in ids]
        try:
            self.jobs += self._app.enqueue_many(naps)
        except StoreUnavailable:
            return False
        return True
