"""A worker on Postgres that never runs out of no-ops, and what becomes of the tables meanwhile.

For two thirds of the time nothing is in the way: dead rows and the size of indexes have to be flat,
as ``soak.Record`` judges it. In the last third a session holds a snapshot, so that no row that is
deleted can be forgotten: calls may take longer, but not ever longer, and as soon as it is over they
take as long as before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles

import psycopg

from taskharbor import TaskHarbor
from taskharbor.drivers.base import InspectableDriver, Renewal, Want
from taskharbor.drivers.registry import connect
from taskharbor.settlement import Settlement
from taskharbor.states import State
from tests.chaos.soak import Record
from tests.scenarios import shop
from tests.scenarios.outages import shop_at
from tests.scenarios.worker import Worker
from tests.servers.postgres import PostgresServer

BACKLOG = 20_000
"""Jobs in line at most; more are enqueued when there are fewer than half of them."""
CALM, HELD, AFTER = "calm", "held", "after"
SAMPLE_SECONDS = 1.0
AFTER_SECONDS = 30.0
MOST_LATENCY = 10.0
"""How often the time of calls may be that of calm times, ``SLACK_SECONDS`` added, while a snapshot
is held. It would be hundreds of times if they read past every row that was deleted."""
SLACK_SECONDS = 0.05

_SIZES = {
    "dead rows / 10 000": "SELECT coalesce(sum(n_dead_tup), 0) / 10000.0 FROM pg_stat_user_tables",
    "MB of indexes": "SELECT coalesce(sum(pg_relation_size(indexrelid)), 0) / 1048576.0"
    " FROM pg_stat_user_indexes",
    "MB of tables": "SELECT coalesce(sum(pg_relation_size(relid)), 0) / 1048576.0"
    " FROM pg_stat_user_tables",
}


@dataclass(slots=True)
class Figures:
    """``latencies``: seconds, by phase and by the name of the call."""

    record: Record = field(default_factory=Record)
    latencies: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)

    def add(self, phase: str, call: str, seconds: float) -> None:
        self.latencies.setdefault(phase, {}).setdefault(call, []).append(seconds)

    def too_slow(self, phase: str) -> list[str]:
        """Calls that took much longer in ``phase`` than in calm times."""
        found = []
        for call, calm in self.latencies[CALM].items():
            here, most = median(self.latencies[phase][call]), MOST_LATENCY * median(calm)
            if here > most + SLACK_SECONDS:
                found.append(f"{call}: {here:.4f} s, {median(calm):.4f} s before")
        return found

    def describe(self) -> str:
        lines = [f"{phase}: {rate:.0f} jobs/s" for phase, rate in self.rates.items()]
        for phase, calls in self.latencies.items():
            for call, seconds in calls.items():
                late = quantiles(seconds, n=20)[-1]
                lines.append(
                    f"{phase:6} {call:8} p50 {1000 * median(seconds):8.1f} ms"
                    f"  p95 {1000 * late:8.1f} ms  last {1000 * seconds[-1]:8.1f} ms"
                )
        return "\n".join([*lines, self.record.describe()])


class FullRate:
    """``run`` drains for ``seconds`` and says what was measured."""

    def __init__(self, directory: Path, *, seconds: float) -> None:
        self._directory = directory
        self._seconds = seconds
        self._figures = Figures()
        self._ended = 0

    def run(self) -> Figures:
        with ExitStack() as stack:
            server = stack.enter_context(PostgresServer(durable=True))
            app = stack.enter_context(shop_at(server.url))
            driver = stack.enter_context(closing(connect(server.url)))
            look = stack.enter_context(psycopg.connect(server.url, autocommit=True))
            stack.enter_context(Worker(server.url, self._directory, log_level="warning"))
            self._phase(CALM, self._seconds * 2 / 3, app, driver, look)
            with server.held_snapshot():
                self._phase(HELD, self._seconds / 3, app, driver, look)
            look.execute("VACUUM")  # as autovacuum would within a minute
            self._phase(AFTER, AFTER_SECONDS, app, driver, look)
        return self._figures

    def _phase(
        self,
        phase: str,
        seconds: float,
        app: TaskHarbor,
        driver: InspectableDriver,
        look: psycopg.Connection,
    ) -> None:
        began = time.monotonic()
        ended, sample_at = self._enqueued(driver), began
        while (now := time.monotonic()) < began + seconds:
            self._fill(app, driver)
            for name, call in _calls(driver):
                sent = time.perf_counter()
                call()
                self._figures.add(phase, name, time.perf_counter() - sent)
            if phase == CALM and now >= sample_at:
                sample_at = now + SAMPLE_SECONDS
                for name, query in _SIZES.items():
                    (value,) = look.execute(query.encode()).fetchone() or (0,)
                    self._figures.record.add(name, float(value))
            time.sleep(0.1)  # to measure the worker's load, not the watcher's
        done = self._enqueued(driver) - ended
        self._figures.rates[phase] = done / (time.monotonic() - began)

    def _enqueued(self, driver: InspectableDriver) -> int:
        return self._figures.record.enqueued - _ready(driver)

    def _fill(self, app: TaskHarbor, driver: InspectableDriver) -> None:
        missing = BACKLOG - _ready(driver)
        if missing < BACKLOG / 2:
            return
        for _ in range(missing // 1000):
            app.enqueue_many([shop.forgotten.s(number) for number in range(1000)])
            self._figures.record.enqueued += 1000


def _ready(driver: InspectableDriver) -> int:
    return sum(queue.counts[State.READY] for queue in driver.queues() if queue.name == "default")


def _calls(driver: InspectableDriver) -> Iterator[tuple[str, Callable[[], object]]]:
    """What workers and their maintenance ask all the time."""
    yield "claim", lambda: _claim(driver)
    yield "expired", lambda: driver.expired(100)
    yield "held", lambda: driver.held("watcher")
    yield "extend", lambda: driver.extend("watcher", [Renewal("nobody's", 1)], 30.0)
    yield "promote", lambda: driver.promote(100)
    yield "prune", lambda: driver.prune(100)


def _claim(driver: InspectableDriver) -> None:
    """As a worker does: take one of those that are in line, and end it."""
    for job in driver.exchange("watcher", (), Want(("default",), 1, 30.0)).reserved:
        driver.exchange("watcher", [Settlement.succeed(job.id, job.fence, None)])
