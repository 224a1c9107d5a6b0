"""Flows: what a chord costs over as many plain jobs, and how soon a successor starts."""

from __future__ import annotations

import time
from collections.abc import Iterator

from harness.figures import Metric
from harness.processes import worker
from harness.stores import Store
from harness.tally import count
from workload import app, callback, noop, started_at

from measurements.common import Value, opened, tally
from measurements.size import Size
from measurements.throughput import drain
from taskharbor import chain, chord, group

GROUP = "flows"
PLAIN = Metric("flow_plain", "as many plain jobs", "jobs/s", GROUP)
CHORD = Metric("flow_chord", "members of a chord", "jobs/s", GROUP)
STORING = Metric("flow_store", "storing the chord", "members/s", GROUP)
CALLBACK = Metric("flow_callback", "last member's end to the callback's start", "ms", GROUP)
STEP = Metric("flow_step", "a step of a chain", "ms", GROUP)


def measure(store: Store, size: Size) -> Iterator[Value]:
    """Nothing for a store without flows."""
    with opened(store):
        if not app.driver.capabilities.flows:
            return
    yield PLAIN, drain(store, noop.s(), size.members).rate
    yield from chords(store, size.members)
    yield STEP, step(store, size.steps)


def chords(store: Store, members: int) -> Iterator[Value]:
    with opened(store) as url, tally() as directory:
        app.driver.queues()  # connects
        begin = time.perf_counter()
        flow = chord(group(noop.s() for _ in range(members)), callback.s()).delay()
        yield STORING, members / (time.perf_counter() - begin)
        with worker(url, BENCH_TALLY=str(directory)):
            started, results = flow.get(timeout=600)
            done = count(directory)
        if (done.jobs, results) != (members, members):
            raise RuntimeError(f"{store.name}: {done.jobs} members ran, {results} results came")
        yield CHORD, (members - 1) / (done.last - done.first)
        yield CALLBACK, (started - done.last) * 1e3


def step(store: Store, steps: int) -> float:
    """Milliseconds from one step's run to the next one's, on an otherwise idle worker."""
    with opened(store) as url, tally() as directory, worker(url, BENCH_TALLY=str(directory)):
        started_at.delay().get(timeout=60)
        chain(noop.si() for _ in range(steps)).delay().get(timeout=300)
        done = count(directory)
    return (done.last - done.first) / (steps - 1) * 1e3
