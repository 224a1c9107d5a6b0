"""Does a worker slow down when more jobs wait? The first jobs of a backlog, drained."""

from __future__ import annotations

from collections.abc import Iterator

from harness.figures import Metric
from harness.processes import worker
from harness.stores import Store
from workload import noop

from measurements.common import Value, fill, opened, tally, watch
from measurements.size import Size

DRAINED = 20_000
IN_MEMORY = 100_000
"""The memory store is for development: a million jobs there would measure the machine's memory."""


def metric(waiting: int) -> Metric:
    return Metric(f"backlog_{waiting}", f"{waiting:,} waiting", "jobs/s", "backlog")


def measure(store: Store, size: Size) -> Iterator[Value]:
    for waiting in size.backlogs:
        if store.name == "memory" and waiting > IN_MEMORY:
            continue
        with opened(store) as url, tally() as directory:
            fill(noop.s(), waiting)
            with worker(url, BENCH_TALLY=str(directory)) as process:
                few = min(waiting, DRAINED)
                yield metric(waiting), watch(store, url, process, directory, few).rate
