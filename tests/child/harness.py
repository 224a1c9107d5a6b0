"""A child process on an SQLite file of the test, and the ledger that its tasks write."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from taskharbor.app import TaskHarbor
from taskharbor.drivers.base import InspectableDriver, Job
from taskharbor.ids import new_id
from taskharbor.states import State
from taskharbor.worker.child import run_child
from taskharbor.worker.config import ChildContext, WorkerConfig
from taskharbor.worker.logs import configure_logging
from taskharbor.worker.table import ChildState, SharedTable
from taskharbor.worker.wake import Wake
from tests.waiting import PATIENCE_SECONDS, wait_until

Way = Callable[[InspectableDriver], InspectableDriver]
"""Puts something between a child and its store."""


class Ledger:
    """Lines that tasks append, in the order in which they did."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.touch()

    def write(self, line: str) -> None:
        with self._path.open("a") as file:
            file.write(line + "\n")

    def lines(self) -> list[str]:
        return self._path.read_text().splitlines()

    def wait_for(self, line: str, *, seconds: float = PATIENCE_SECONDS) -> None:
        wait_until(lambda: line in self.lines(), seconds=seconds, what=f"{line!r} in the ledger")


class Child:
    """A forked child, its row of the shared table and its wake-ups."""

    def __init__(self, app: TaskHarbor, log: Path, way: Way | None = None, **settings: Any) -> None:
        self._app = app
        self._way = way
        self._log = log
        self._config = WorkerConfig(app_path="tests", concurrency=1, log_level="debug", **settings)
        self._table = SharedTable(1, self._config.slots)
        self.wake = Wake.create()
        self.holder = new_id()
        self._code: int | None = None
        self.pid = self._fork()

    def _fork(self) -> int:
        self._app.close()  # a driver never crosses a fork
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            os._exit(self._run(parent))
        return pid

    def _run(self, parent: int) -> int:
        try:
            with self._log.open("a", buffering=1) as log:
                os.dup2(log.fileno(), 2)
                sys.stderr = log
                configure_logging("debug", "json", role="child")
                context = ChildContext(
                    app=self._app,
                    config=self._config,
                    holder=self.holder,
                    index=0,
                    table=self._table.child(0),
                    wake=self.wake,
                    parent=parent,
                )
                if self._way is None:
                    return run_child(context)
                with self._app.connected_to(self._way(self._app.driver)):
                    return run_child(context)
        except BaseException:  # noqa: BLE001 - printed, and the test sees the code
            traceback.print_exc(file=sys.stderr)
            return 99

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def wait(self, *, seconds: float = PATIENCE_SECONDS) -> int:
        """The exit code, negative for a signal; TimeoutError if it does not end."""
        wait_until(self._ended, seconds=seconds, what="the child's end")
        assert self._code is not None
        return self._code

    def stop(self) -> int:
        self.send(signal.SIGTERM)
        return self.wait()

    def _ended(self) -> bool:
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
        return self._code is not None

    @property
    def row(self) -> ChildState:
        return self._table.read(0)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def close(self) -> None:
        if not self._ended():
            self.send(signal.SIGKILL)
            self.wait()
        self._table.close()
        self.wake.close()


class Yard:
    """What a test gets: an app on a new store, a ledger, and children on demand."""

    def __init__(self, directory: Path) -> None:
        self.app = TaskHarbor(f"sqlite:///{directory / 'jobs.db'}")
        self.ledger = Ledger(directory / "ledger")
        self.directory = directory
        self._children: list[Child] = []

    def child(self, way: Way | None = None, **settings: Any) -> Child:
        log = self.directory / f"child-{len(self._children)}.log"
        child = Child(self.app, log, way, **settings)
        self._children.append(child)
        return child

    def job(self, job_id: str) -> Job:
        job = self.app.driver.get(job_id)
        assert job is not None
        return job

    def lease_end(self, job_id: str) -> float:
        """When the lease on a running job ends, by the store's clock."""
        end = self.job(job_id).lease_expires_at
        assert end is not None
        return end

    def wait_for_state(
        self, job_id: str, state: State, *, seconds: float = PATIENCE_SECONDS
    ) -> Job:
        def there() -> bool:
            return self.job(job_id).state is state

        wait_until(there, seconds=seconds, what=f"{state} of {job_id}")
        return self.job(job_id)

    def count(self, state: State) -> int:
        return sum(queue.counts.get(state, 0) for queue in self.app.driver.queues())

    def wait_for_count(
        self, state: State, number: int, *, seconds: float = PATIENCE_SECONDS
    ) -> None:
        wait_until(
            lambda: self.count(state) == number, seconds=seconds, what=f"{number} {state} jobs"
        )

    def close(self) -> None:
        for child in self._children:
            child.close()
        self.app.close()


@contextmanager
def open_yard(directory: Path) -> Iterator[Yard]:
    yard = Yard(directory)
    try:
        yield yard
    finally:
        yard.close()
