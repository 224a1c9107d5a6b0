"""A store with the app on it, filled with jobs, and watched while a worker drains it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from harness.figures import Metric
from harness.processes import cpu, family
from harness.stores import Store
from harness.tally import count
from workload import app

from taskharbor.signature import Signature
from taskharbor.states import State
from tests.waiting import wait_until

Value = tuple[Metric, float]

_FILL = 10_000
_LOOK_SECONDS = 0.005
_DRAIN_SECONDS = 900.0


class Drain(NamedTuple):
    """``rate`` in jobs a second; CPU in seconds for 1,000 jobs."""

    rate: float
    worker_cpu: float
    store_cpu: float


@contextmanager
def opened(store: Store) -> Iterator[str]:
    """The app on an empty store; yields the store's URL."""
    with store.fresh() as url:
        app.close()
        app.url = url
        try:
            yield url
        finally:
            app.close()


@contextmanager
def tally() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="benchmark-") as directory:
        yield Path(directory)


def fill(call: Signature[Any], jobs: int, *, at_once: int = _FILL) -> None:
    for first in range(0, jobs, at_once):
        app.enqueue_many([call] * min(at_once, jobs - first))


def watch(store: Store, url: str, worker: psutil.Process, directory: Path, jobs: int) -> Drain:
    """From the first job to the ``jobs``-th: starting processes is not what is measured."""
    wait_until(lambda: count(directory).jobs, seconds=60, what="the first job")
    first, begin = count(directory), time.monotonic()
    worker_cpu, store_cpu = cpu(family(worker.pid)), store.cpu(url)
    last = first
    while last.jobs < jobs:
        if time.monotonic() - begin > _DRAIN_SECONDS:
            raise TimeoutError(f"{store.name}: {last.jobs} of {jobs} jobs in {_DRAIN_SECONDS} s")
        time.sleep(_LOOK_SECONDS)
        last = count(directory)
    worker_cpu, store_cpu = cpu(family(worker.pid)) - worker_cpu, store.cpu(url) - store_cpu
    thousands = max(last.jobs - first.jobs, 1) / 1000
    rate = (last.jobs - 1) / (last.last - last.first)
    return Drain(rate, worker_cpu / thousands, store_cpu / thousands)


def wait_for_success(jobs: int) -> None:
    """Every one of them has succeeded: a rate of jobs that failed would be no figure."""

    def succeeded() -> bool:
        return sum(queue.counts[State.SUCCEEDED] for queue in app.driver.queues()) >= jobs

    wait_until(succeeded, seconds=60, what=f"the success of {jobs} jobs")
