"""How fast a backlog of each kind of job drains, and what 1,000 jobs cost in CPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from harness.figures import Metric
from harness.processes import worker
from harness.stores import Store
from workload import cpu_1ms, noop, noop_without_result, sleep_1ms, take

from measurements.common import Drain, Value, fill, opened, tally, wait_for_success, watch
from measurements.size import Size
from taskharbor.signature import Signature

GROUP = "throughput"
COST = "cost"
NOOP = Metric("noop", "no-op, results kept", "jobs/s", GROUP)
NOOP_WITHOUT_RESULT = Metric("noop_without_result", "no-op, results not kept", "jobs/s", GROUP)
PAYLOAD = Metric("payload_10kib", "10 KiB of arguments", "jobs/s", GROUP)
SLEEP = Metric("sleep_1ms", "1 ms of sleep", "jobs/s", GROUP)
CPU = Metric("cpu_1ms", "1 ms of CPU", "jobs/s", GROUP)
WORKER_CPU = Metric("worker_cpu", "the whole worker", "CPU s per 1,000 jobs", COST)
STORE_CPU = Metric("store_cpu", "the store's processes", "CPU s per 1,000 jobs", COST)

PAYLOAD_BYTES = b"x" * 10_240
PAYLOADS_AT_ONCE = 500


def measure(store: Store, size: Size) -> Iterator[Value]:
    kept = drain(store, noop.s(), size.jobs)
    yield NOOP, kept.rate
    yield WORKER_CPU, kept.worker_cpu
    if kept.store_cpu:
        yield STORE_CPU, kept.store_cpu
    yield NOOP_WITHOUT_RESULT, drain(store, noop_without_result.s(), size.jobs).rate
    payload = drain(store, take.s(PAYLOAD_BYTES), size.long_jobs, at_once=PAYLOADS_AT_ONCE)
    yield PAYLOAD, payload.rate
    yield SLEEP, drain(store, sleep_1ms.s(), size.long_jobs).rate
    yield CPU, drain(store, cpu_1ms.s(), size.long_jobs).rate


def drain(store: Store, call: Signature[Any], jobs: int, *, at_once: int = 10_000) -> Drain:
    with opened(store) as url, tally() as directory:
        fill(call, jobs, at_once=at_once)
        with worker(url, BENCH_TALLY=str(directory)) as process:
            drained = watch(store, url, process, directory, jobs)
            wait_for_success(jobs)
            return drained
