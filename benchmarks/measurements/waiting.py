"""A worker with nothing to do: how soon it takes a job, what it costs, how much memory it has."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

from harness.figures import Metric
from harness.processes import children, cpu, family, worker
from harness.stores import Store
from workload import started_at

from measurements.common import Value, opened
from measurements.size import Size

GROUP = "pickup"
P50 = Metric("pickup_p50", "delay() to the job's start, p50", "ms", GROUP)
P95 = Metric("pickup_p95", "delay() to the job's start, p95", "ms", GROUP)
P99 = Metric("pickup_p99", "delay() to the job's start, p99", "ms", GROUP)
MOST = Metric("pickup_max", "delay() to the job's start, max", "ms", GROUP)
IDLE_CPU = Metric("idle_cpu", "idle CPU of the whole worker", "% of a core", "idle")
PSS = Metric("child_pss", "memory of a child (PSS)", "MB", "idle")
USS = Metric("child_uss", "memory of a child alone (USS)", "MB", "idle")


def measure(store: Store, size: Size) -> Iterator[Value]:
    with opened(store) as url, worker(url) as process:
        started_at.delay().get(timeout=60)
        latencies = sorted(pickup() for _ in range(size.pickups))
        yield P50, percentile(latencies, 50)
        yield P95, percentile(latencies, 95)
        yield P99, percentile(latencies, 99)
        yield MOST, latencies[-1]
        before, begin = cpu(family(process.pid)), time.monotonic()
        time.sleep(size.idle_seconds)
        spent = cpu(family(process.pid)) - before
        yield IDLE_CPU, spent / (time.monotonic() - begin) * 100
        memory = [child.memory_full_info() for child in children(process)]
        yield PSS, statistics.mean(one.pss for one in memory) / 1e6
        yield USS, statistics.mean(one.uss for one in memory) / 1e6


def pickup() -> float:
    """Milliseconds from before ``delay()`` to the job's first line."""
    at = time.time()
    return (started_at.delay().get(timeout=60) - at) * 1e3


def percentile(ordered: list[float], percent: int) -> float:
    """The nearest rank: a value that occurred."""
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]
