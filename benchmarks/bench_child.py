"""What a child of the worker pays per no-op job: ``python benchmarks/bench_child.py [--long]``.

First each stage alone, then a real child process that drains a store from start to end, and two of
them on one SQLite file. Stages are the best of several runs; the drains are one run each. CPU is
the child's own (user and system, both threads).
"""

from __future__ import annotations

import argparse
import mmap
import os
import signal
import tempfile
import time
import timeit
from collections.abc import Callable
from pathlib import Path

from taskharbor.app import TaskHarbor
from taskharbor.drivers.base import Exchange, Settled, Want
from taskharbor.ids import new_id
from taskharbor.lease import Reservation, Verdict
from taskharbor.settlement import Settlement
from taskharbor.states import Move, State
from taskharbor.worker.attempt import Attempt, Station
from taskharbor.worker.child import run_child
from taskharbor.worker.config import ChildContext, WorkerConfig
from taskharbor.worker.executor import Executor
from taskharbor.worker.held import Held
from taskharbor.worker.logs import configure_logging
from taskharbor.worker.settler import Settler
from taskharbor.worker.table import ChildTable, SharedTable, boot_time
from taskharbor.worker.wake import Wake
from taskharbor.worker.waker import Alarm

BATCH = 128
LEASE_SECONDS = 30.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--long", action="store_true", help="ten times the jobs")
    options = parser.parse_args()
    jobs = 100_000 if options.long else 10_000
    configure_logging("warning", "human", role="benchmark")
    print_stages(runs=15 if options.long else 3)
    print(f"\ndrain {jobs} no-op jobs{'':24}jobs/s   child CPU µs/job")
    drain("memory://", jobs, children=1)
    for children in (1, 2):
        with tempfile.TemporaryDirectory() as directory:
            drain(f"sqlite:///{Path(directory) / 'jobs.db'}", jobs, children=children)


# --- stage by stage -----------------------------------------------------------------------------


def print_stages(*, runs: int) -> None:
    print(f"{'stage, per job in batches of ' + str(BATCH):44}µs")
    with tempfile.TemporaryDirectory() as directory, SharedTable(1, 1) as table:
        for scheme, url in (
            ("memory", "memory://"),
            ("sqlite", f"sqlite:///{Path(directory) / 'jobs.db'}"),
        ):
            seconds = time_exchange(url, rounds=4 * runs)
            print(f"  exchange, {scheme:32}{seconds / BATCH * 1e6:6.2f}")
        app = make_app("memory://", Meter())
        bench = StageBench(app, table.child(0))
        for name, stage in bench.stages().items():
            best = min(timeit.Timer(stage).repeat(runs, 5)) / 5
            print(f"  {name:42}{best / BATCH * 1e6:6.2f}")


def time_exchange(url: str, *, rounds: int) -> float:
    """Seconds of one exchange that settles a batch and reserves the next; the fastest round."""
    app = make_app(url, Meter())
    fill(app, (rounds + 1) * BATCH)
    want = Want(("default",), BATCH, LEASE_SECONDS)
    reserved = app.driver.exchange("holder", (), want).reserved
    best = float("inf")
    for _ in range(rounds):
        done = [Settlement.succeed(job.id, job.fence, b"\xc0") for job in reserved]
        began = time.perf_counter()
        reserved = app.driver.exchange("holder", done, want).reserved
        best = min(best, time.perf_counter() - began)
    app.close()
    return best


class StageBench:
    """One batch of jobs, and each part of its way through a child by itself."""

    def __init__(self, app: TaskHarbor, table: ChildTable) -> None:
        self.app = app
        fill(app, BATCH)
        want = Want(("default",), BATCH, LEASE_SECONDS)
        self.reply: Exchange = app.driver.exchange("holder", (), want)
        self.jobs: list[Reservation] = self.reply.reserved
        self.answers = [Settled(Verdict.APPLIED, State.SUCCEEDED)] * BATCH
        self.held = [Held(job, 0.0) for job in self.jobs]
        self.table = table
        self.station = Station(
            app.driver, "holder", Settler(), table, Alarm(), slots=1, lease_seconds=LEASE_SECONDS
        )
        self.executor = Executor(app)
        assert self.executor.run(self.jobs[0], Idle()).move is Move.SUCCEED

    def stages(self) -> dict[str, Callable[[], None]]:
        return {
            "settler: add, claim, finish, take, answered": self.settle,
            "attempt: made and begun (table written)": self.begin,
            "attempt: noted as finished, clock read": self.end,
            "executor: run": self.run,
        }

    def settle(self) -> None:
        settler = Settler()
        settler.add(self.jobs, deadline=boot_time() + LEASE_SECONDS)
        now = boot_time()
        while (held := settler.claim(now)) is not None:
            job = held.reservation
            settler.finish(held, Settlement.succeed(job.id, job.fence, b"\xc0"))
        settler.answered(settler.take(), self.answers)

    def begin(self) -> None:
        for held in self.held:
            Attempt(self.station, held, 0, 1.0).begin(3600.0)

    def end(self) -> None:
        for _ in self.held:
            self.table.finished(0)
            boot_time()

    def run(self) -> None:
        run = self.executor.run
        for held in self.held:
            run(held.reservation, Idle())


class Idle:
    """A control that does nothing: what is left is the executor's own."""

    deadline: float | None = None
    interrupt: Callable[[], None] | None = None
    interrupted = False
    urgent = False
    settled = False
    cancelled = False

    def begin(self, timeout: float | None) -> None: ...

    def now(self) -> float:
        return 0.0

    def save(self, value: bytes) -> None: ...

    def progress(self, value: bytes) -> None: ...


# --- whole children -----------------------------------------------------------------------------


class Meter:
    """What the children of one drain report, in memory that they share with their parent."""

    def __init__(self, children: int = 1) -> None:
        self._child = 0
        self._numbers = memoryview(mmap.mmap(-1, 4 * 8 * children)).cast("d")

    def start(self, child: int) -> None:
        self._child = child
        self._numbers[4 * child + 1] = time.monotonic()

    def job(self) -> None:
        self._numbers[4 * self._child] += 1

    def end(self, cpu_seconds: float) -> None:
        self._numbers[4 * self._child + 2] = cpu_seconds

    @property
    def jobs(self) -> int:
        return int(sum(self._numbers[0::4]))

    @property
    def cpu_seconds(self) -> float:
        return sum(self._numbers[2::4])

    @property
    def started_at(self) -> float:
        """When the last child began; 0 while one has not."""
        times = self._numbers[1::4].tolist()
        return max(times) if all(times) else 0.0


def make_app(url: str, meter: Meter) -> TaskHarbor:
    app = TaskHarbor(url)

    def noop() -> None:
        meter.job()

    app.task(name="noop")(noop)
    return app


def fill(app: TaskHarbor, jobs: int) -> None:
    app.enqueue_many([app.tasks["noop"].s() for _ in range(jobs)])


def drain(url: str, jobs: int, *, children: int) -> None:
    """Children that are forked, drain the store, and are told to stop when it is empty."""
    meter = Meter(children)
    app = make_app(url, meter)
    if url != "memory://":  # that store lives and dies with the process it is in
        fill(app, jobs)
        app.close()
    with SharedTable(children, 1) as table:
        wake = Wake.create()
        parent = os.getpid()
        pids = []
        for index in range(children):
            pid = os.fork()
            if pid == 0:
                if url == "memory://":
                    fill(app, jobs)
                context = ChildContext(
                    app=app,
                    config=WorkerConfig(app_path="benchmark"),
                    holder=new_id(),
                    index=index,
                    table=table.child(index),
                    wake=wake,
                    parent=parent,
                )
                os._exit(serve(context, meter))
            pids.append(pid)
        while meter.jobs < jobs:
            time.sleep(0.001)
        seconds = time.monotonic() - meter.started_at
        for pid in pids:
            os.kill(pid, signal.SIGTERM)
        for pid in pids:
            os.waitpid(pid, 0)
    name = f"{url.partition(':')[0]}, {children} child{'ren' if children > 1 else ''}"
    print(f"  {name:42}{jobs / seconds:9.0f}{meter.cpu_seconds / jobs * 1e6:20.1f}")


def serve(context: ChildContext, meter: Meter) -> int:
    meter.start(context.index)
    before = time.process_time()
    code = run_child(context)
    meter.end(time.process_time() - before)
    return code


if __name__ == "__main__":
    main()
