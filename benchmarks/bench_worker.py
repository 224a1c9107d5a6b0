"""A whole worker on a store: ``python benchmarks/bench_worker.py [sqlite redis postgres]``.

Starts ``taskharbor worker -c 2`` and measures what a user sees: how fast a backlog drains and
whether a larger one drains slower, enqueue one by one and in bulk, pickup by an idle worker, the
next attempt after kill -9 of a child, idle CPU, memory of one more child. Servers are started here
with their default durability (Postgres: fsync and synchronous_commit on; Redis: append-only file,
everysec).

Every figure is the median of the runs with the lowest and the highest. The machine's other work is
in them: compare figures of one run only.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from taskharbor import TaskHarbor, current_job
from taskharbor.drivers.base import Migratable
from taskharbor.ids import new_id
from taskharbor.states import State
from taskharbor.task import Task
from tests.servers.postgres import PostgresServer
from tests.servers.redis import RedisServer
from tests.waiting import wait_until

app = TaskHarbor()


@app.task
def noop() -> None:
    pass


@app.task(store_result=False)
def noop_without_result() -> None:
    pass


@app.task
def started_at() -> float:
    return time.time()


@app.task
def slow() -> int:
    """Killed in its first attempt; tells when its second began."""
    if current_job().attempt == 1:
        Path(os.environ["BENCH_MARK"]).write_text(str(os.getpid()))
        time.sleep(60)
    return time.time_ns()


class Store(NamedTuple):
    """``fresh()`` gives the URL of an empty store; ``cpu()`` the store's own CPU seconds so far."""

    name: str
    fresh: Callable[[], str]
    cpu: Callable[[], float]


class Figure(NamedTuple):
    store: str
    what: str
    unit: str
    values: list[float]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--long", action="store_true", help="targets' sizes, five runs")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    parser.add_argument("stores", nargs="*", default=[], help="sqlite, redis, postgres; all")
    options = parser.parse_args()
    figures: list[Figure] = []
    print(f"{'store':10}{'what':44}{'median':>12}{'lowest':>12}{'highest':>12}  unit")
    for name, opened in STORES.items():
        if options.stores and name not in options.stores:
            continue
        with opened() as store:
            for figure in measure(store, long=options.long):
                figures.append(figure)
                show(figure)
    if options.json:
        options.json.write_text(json.dumps([figure._asdict() for figure in figures], indent=1))


def show(figure: Figure) -> None:
    low, high = min(figure.values), max(figure.values)
    middle = statistics.median(figure.values)
    numbers = "".join(f"{number:12,.6g}" for number in (round_(middle), round_(low), round_(high)))
    print(f"{figure.store:10}{figure.what:44}{numbers}  {figure.unit}", flush=True)


def round_(value: float) -> float:
    return float(f"{value:.3g}")


def measure(store: Store, *, long: bool) -> Iterator[Figure]:
    runs = 5 if long else 2
    small, large = (20_000, 200_000) if long else (5_000, 20_000)
    for what, task in (("results kept", noop), ("no results", noop_without_result)):
        drains = [drain(store, task, small) for _ in range(runs)]
        label = f"drain {small:,} no-op jobs, {what}"
        yield Figure(store.name, label, "jobs/s", [d.rate for d in drains])
        yield Figure(store.name, "  children's CPU", "µs/job", [d.child_cpu for d in drains])
        yield Figure(store.name, "  store's CPU", "µs/job", [d.store_cpu for d in drains])
    big = [drain(store, noop, large).rate for _ in range(1 if not long else 2)]
    yield Figure(store.name, f"drain {large:,} no-op jobs", "jobs/s", big)
    yield Figure(store.name, "delay()", "jobs/s", [one_by_one(store, 1_000) for _ in range(runs)])
    bulk = [in_bulk(store, small) for _ in range(runs)]
    yield Figure(store.name, "enqueue_many()", "jobs/s", bulk)
    yield from waiting(store, 200 if long else 50, idle_seconds=10 if long else 3)
    yield Figure(store.name, "next attempt after kill -9", "ms", recover(store, runs))


# --- throughput ----------------------------------------------------------------------------------


class Drain(NamedTuple):
    rate: float
    child_cpu: float
    store_cpu: float


def drain(store: Store, task: Task[[], None], jobs: int) -> Drain:
    """From the moment the first job is done: starting processes is not what is measured."""
    url = store.fresh()
    with opened_app(url):
        fill(task, jobs)
        with worker(url) as processes:
            first = wait_until(done, seconds=60, what="the first job")
            begin, before = time.perf_counter(), cpu(children(processes))
            store_before = store.cpu()
            wait_until(lambda: done() >= jobs, seconds=600, what="the last job")
            seconds = time.perf_counter() - begin
            spent = cpu(children(processes)) - before
            rest = jobs - first
            return Drain(
                rest / seconds, spent / rest * 1e6, (store.cpu() - store_before) / rest * 1e6
            )


def done() -> int:
    return sum(queue.counts[State.SUCCEEDED] for queue in app.driver.queues())


def fill(task: Task[[], None], jobs: int) -> None:
    for first in range(0, jobs, 10_000):
        count = min(10_000, jobs - first)
        app.enqueue_many([task.s() for _ in range(count)])


def one_by_one(store: Store, jobs: int) -> float:
    with opened_app(store.fresh()):
        noop.delay()
        begin = time.perf_counter()
        for _ in range(jobs):
            noop.delay()
        return jobs / (time.perf_counter() - begin)


def in_bulk(store: Store, jobs: int) -> float:
    with opened_app(store.fresh()):
        noop.delay()
        begin = time.perf_counter()
        fill(noop, jobs)
        return jobs / (time.perf_counter() - begin)


# --- one job at a time ---------------------------------------------------------------------------


def waiting(store: Store, jobs: int, *, idle_seconds: float) -> Iterator[Figure]:
    url = store.fresh()
    with opened_app(url), worker(url) as processes:
        started_at.delay().get(timeout=30)
        latencies = []
        for _ in range(jobs):
            at = time.time()
            latencies.append((started_at.delay().get(timeout=30) - at) * 1e3)
        latencies.sort()
        yield Figure(store.name, "pickup by an idle worker, p50", "ms", [latencies[jobs // 2]])
        yield Figure(store.name, "pickup, p99", "ms", [latencies[int(jobs * 0.99)]])
        before, begin = cpu(family(processes)), time.monotonic()
        time.sleep(idle_seconds)
        share = (cpu(family(processes)) - before) / (time.monotonic() - begin)
        yield Figure(store.name, "idle CPU of the whole worker", "% of a core", [share * 100])
        own = [child.memory_full_info().uss / 1e6 for child in children(processes)]
        yield Figure(store.name, "own memory of a child (USS)", "MB", own)


def recover(store: Store, runs: int) -> list[float]:
    return [recover_once(store.fresh()) for _ in range(runs)]


def recover_once(url: str) -> float:
    with tempfile.TemporaryDirectory() as directory, opened_app(url):
        mark = Path(directory) / "pid"
        with worker(url, BENCH_MARK=str(mark)):
            job = slow.delay()
            wait_until(lambda: mark.exists() and mark.read_text(), seconds=30, what="a start")
            killed = time.time_ns()
            os.kill(int(mark.read_text()), signal.SIGKILL)
            return (job.get(timeout=60) - killed) / 1e6


# --- processes -----------------------------------------------------------------------------------


@contextmanager
def opened_app(url: str) -> Iterator[None]:
    app.close()
    app.url = url
    try:
        yield
    finally:
        app.close()


@contextmanager
def worker(url: str, **environment: str) -> Iterator[psutil.Process]:
    here = Path(__file__).resolve()
    path = os.pathsep.join([str(here.parent), str(here.parents[1])])
    process = subprocess.Popen(
        [sys.executable, "-m", "taskharbor", "worker", "-A", "bench_worker:app", "-c", "2"],
        env={**os.environ, "TASKHARBOR_URL": url, "PYTHONPATH": path, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield psutil.Process(process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def family(worker_: psutil.Process) -> list[psutil.Process]:
    return [worker_, *worker_.children(recursive=True)]


def children(worker_: psutil.Process) -> list[psutil.Process]:
    def title(process: psutil.Process) -> str:
        return Path(f"/proc/{process.pid}/comm").read_text()

    return [process for process in family(worker_) if title(process).startswith("th-child")]


def cpu(processes: Sequence[psutil.Process]) -> float:
    spent = 0.0
    for process in processes:
        try:
            spent += sum(process.cpu_times()[:2])
        except psutil.NoSuchProcess:  # a server's helper that ended meanwhile
            continue
    return spent


# --- stores --------------------------------------------------------------------------------------


@contextmanager
def sqlite() -> Iterator[Store]:
    with tempfile.TemporaryDirectory() as directory:
        yield Store("sqlite", lambda: f"sqlite:///{directory}/{new_id()}.db", lambda: 0.0)


@contextmanager
def redis() -> Iterator[Store]:
    with RedisServer(aof="everysec") as server:
        yield Store(
            "redis",
            lambda: f"{server.url}?namespace={new_id()}",
            lambda: cpu([psutil.Process(server.pid)]),
        )


@contextmanager
def postgres() -> Iterator[Store]:
    with PostgresServer(durable=True) as server:

        def fresh() -> str:
            url = f"{server.url}?namespace=th_{new_id()}"
            migrated = TaskHarbor(url)
            assert isinstance(migrated.driver, Migratable)
            migrated.driver.migrate()
            migrated.close()
            return url

        yield Store("postgres", fresh, lambda: cpu(family(psutil.Process(server.pid))))


STORES = {"sqlite": sqlite, "redis": redis, "postgres": postgres}

if __name__ == "__main__":
    main()
