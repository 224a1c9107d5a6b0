"""How fast one process enqueues, job by job and in bulk."""

from __future__ import annotations

import time
from collections.abc import Iterator

from harness.figures import Metric
from harness.stores import Store
from workload import noop

from measurements.common import Value, fill, opened
from measurements.size import Size

ONE = Metric("delay", "delay(), one by one", "jobs/s", "enqueue")
MANY = Metric("enqueue_many", "enqueue_many(), 10,000 at once", "jobs/s", "enqueue")


def measure(store: Store, size: Size) -> Iterator[Value]:
    with opened(store):
        noop.delay()  # connects
        begin = time.perf_counter()
        for _ in range(size.singles):
            noop.delay()
        yield ONE, size.singles / (time.perf_counter() - begin)
    with opened(store):
        noop.delay()
        begin = time.perf_counter()
        fill(noop.s(), size.jobs)
        yield MANY, size.jobs / (time.perf_counter() - begin)
