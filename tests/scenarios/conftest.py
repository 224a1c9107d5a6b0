"""A store for each scenario, the shop on it from the outside, and workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from taskharbor import TaskHarbor
from taskharbor.drivers.base import Migratable
from taskharbor.ids import new_id
from tests.scenarios import shop
from tests.scenarios.worker import Worker

StartWorker = Callable[..., Worker]


on_both_stores = pytest.mark.parametrize("url", ["memory", "sqlite"], indirect=True)
"""For scenarios in which the store takes part; the others run on SQLite alone, to save time."""


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if getattr(request, "param", "sqlite") == "memory":
        return f"memory://scenario-{new_id()}?linger=2&timeout=60"
    return f"sqlite:///{tmp_path}/jobs.db?busy_timeout=60"


@pytest.fixture
def app(url: str) -> Iterator[TaskHarbor]:
    """The shop's app, in this process, on the scenario's store."""
    shop.app.close()
    shop.app.url = url
    if isinstance(shop.app.driver, Migratable):
        shop.app.driver.migrate()
    known = dict(shop.app.tasks)
    yield shop.app
    shop.app.close()
    # What a scenario registered on the way is no part of the shop.
    shop.app.tasks.clear()
    shop.app.tasks.update(known)


@pytest.fixture
def worker(app: Any, url: str, tmp_path: Path) -> Iterator[StartWorker]:
    """Start a worker with these settings; all end with the test."""
    with ExitStack() as stack:
        started: list[Worker] = []

        def start(*, ready: bool = True, **settings: Any) -> Worker:
            one = Worker(url, tmp_path, number=len(started) + 1, **settings)
            started.append(one)
            # In this order: one that does not get ready in time has to end as well.
            stack.push(one)
            one.start(ready=ready)
            return one

        yield start
    for one in started:
        assert not one.leftovers()
