"""Workers that somebody keeps running: a post is manned again when its worker is gone."""

from __future__ import annotations

import mmap
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import psutil

from taskharbor.worker.config import ExitCode
from tests.chaos import inside, ledger, tasks
from tests.chaos.orders import LEASE_SECONDS, QUEUES
from tests.scenarios.worker import Worker
from tests.waiting import wait_until

Role = Literal["child", "generation", "supervisor", "maintenance"]
Pool = Literal["process", "thread", "async"]

COUNT_SECONDS = 0.5
"""How often the processes of a worker are counted, which costs a look at all of the machine's."""
START_SECONDS = 120.0
END_SECONDS = 60.0


class Post:
    """The place of one worker: its directory, clock and URL stay when the worker is replaced.

    ``old``: whoever is started runs the app as it was before its last deploy. ``directory`` is made
    here.
    """

    def __init__(
        self,
        number: int,
        url: str,
        directory: Path,
        *,
        old: bool = False,
        app_path: str = "tests.chaos.tasks:app",
        pool: Pool = "process",
        concurrency: int = 2,
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        directory.mkdir()
        inside.prepare(directory)
        self.number = number
        self.old = old
        self._url = url
        self._directory = directory
        self._app_path = app_path
        self._pool = pool
        self._concurrency = concurrency
        self._lease_seconds = lease_seconds
        clock = directory / "clock"
        clock.write_bytes(inside.OFFSET.pack(0.0))
        with clock.open("r+b") as file:
            self._clock = mmap.mmap(file.fileno(), 0)
        self._environment = {
            inside.CLOCK: str(clock),
            ledger.DIRECTORY: str(self.ledger),
        }
        self._workers: list[Worker] = []
        self._count_at = 0.0
        self._leaving = False
        self.worker: Worker | None = None

    @property
    def ledger(self) -> Path:
        """What the jobs of all posts write."""
        return self._directory.parent / "ledger"

    # --- its worker ------------------------------------------------------------------------

    def man(self) -> None:
        """Start a worker, unless one runs, and don't wait for it."""
        if self.worker is not None:
            return
        version = {tasks.OLD_VERSION: "1"} if self.old else {}
        self.worker = Worker(
            self._url,
            self._directory,
            number=len(self._workers) + 1,
            environment={**self._environment, **version},
            app_path=self._app_path,
            queues=tuple((name, 1) for name in QUEUES),
            concurrency=self._concurrency,
            lease_seconds=self._lease_seconds,
            grace_seconds=3.0,
            pool=self._pool,
            slots=1 if self._pool == "process" else 3,
            log_level="info",
        )
        self._workers.append(self.worker)
        self._leaving = False
        self.worker.start(ready=False)

    @property
    def ready(self) -> bool:
        """All children are there (some are not while they are being replaced), and are to stay."""
        return not self._leaving and len(self.find("child")) >= self._concurrency

    def wait_ready(self) -> None:
        # A look at it costs more than the usual wait between two looks.
        wait_until(
            lambda: self.ready,
            seconds=START_SECONDS,
            pause=COUNT_SECONDS / 5,
            what=f"the children of post {self.number}",
        )

    def look(self) -> int | None:
        """The exit code of a worker that has ended meanwhile; the post is empty then."""
        if self.worker is None:
            return None
        if time.monotonic() >= self._count_at:
            self.worker.processes()  # remembers who is there, for `leftovers`
            self._count_at = time.monotonic() + COUNT_SECONDS
        code = self.worker.poll()
        if code is not None:
            self.worker = None
        return code

    def find(self, role: Role) -> list[psutil.Process]:
        """The living processes of that role; none while they are being replaced."""
        if self.worker is None:
            return []
        # The children's names go on with their numbers.
        return [p for p in self.worker.processes() if self.worker.role(p).startswith(f"th-{role}")]

    def family(self) -> list[psutil.Process]:
        return [] if self.worker is None else self.worker.processes()

    def terminate(self) -> None:
        """Ask the worker, if there is one, for an orderly end."""
        if self.worker is not None:
            self._leaving = True
            self.worker.send(signal.SIGTERM)

    def ask_to_leave(self) -> None:
        """In any state: a stopped process is resumed."""
        if self.worker is not None:
            self.worker.resume()
        self.terminate()

    def wait_left(self) -> int:
        """The worker's exit code, after it was asked. Raises TimeoutError if it does not end."""
        if self.worker is None:
            return ExitCode.OK
        code = self.worker.wait(END_SECONDS)
        self.worker = None
        return code

    def leave(self) -> int:
        """Both of them."""
        self.ask_to_leave()
        return self.wait_left()

    def close(self) -> None:
        """End whatever is left; AssertionError or TimeoutError if that was not to be."""
        for worker in self._workers:
            worker.__exit__()
        self._clock.close()

    def log(self) -> str:
        return "\n".join(worker.log() for worker in self._workers)

    # --- its clock -------------------------------------------------------------------------

    def shift_clock(self, seconds: float) -> Callable[[], None]:
        """Every process of this post reads a wall clock that is off by ``seconds``; undo."""
        inside.OFFSET.pack_into(self._clock, 0, seconds)
        return lambda: inside.OFFSET.pack_into(self._clock, 0, 0.0)
