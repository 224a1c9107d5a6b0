"""A real worker for a scenario: started, watched, signalled, and gone at the end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import psutil

from taskharbor.worker.config import WorkerConfig
from tests.family import family
from tests.waiting import PATIENCE_SECONDS, wait_until

ROOT = Path(__file__).resolve().parents[2]
APP = "tests.scenarios.shop:app"
START_SECONDS = 200.0
"""Three programs start one after the other, and import what they need."""
_MAIN = (
    "import sys; from taskharbor.worker.config import WorkerConfig; "
    "from taskharbor.worker.run import run_worker; "
    "sys.exit(run_worker(WorkerConfig.from_json(sys.argv[1])))"
)


class Worker:
    """``taskharbor worker`` with its tree of processes. Use as a context manager: leaving it ends
    the worker and fails if a process of it is still there."""

    def __init__(
        self,
        url: str,
        directory: Path,
        *,
        number: int = 1,
        environment: Mapping[str, str] | None = None,
        **settings: Any,
    ) -> None:
        settings = {"app_path": APP, "concurrency": 2, "log_level": "debug", **settings}
        self.config = WorkerConfig(**settings)
        self.directory = directory
        self.journal = directory / "journal"
        self.log_path = directory / f"worker-{number}.log"
        self._url = url
        self._environment = dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._known: dict[int, psutil.Process] = {}

    def start(self, *, ready: bool = True) -> Self:
        environment = {
            **os.environ,
            "TASKHARBOR_URL": self._url,
            "JOURNAL": str(self.journal),
            "PYTHONPATH": os.pathsep.join([str(self.directory), str(ROOT)]),
            **self._environment,
        }
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _MAIN, self.config.to_json()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                env=environment,
            )
        if ready:
            wait_until(
                lambda: len(self.children()) == self.config.concurrency,
                seconds=START_SECONDS,
                what=f"the children of the worker:\n{self.log()}",
            )
        return self

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    # --- its processes ---------------------------------------------------------------------

    def processes(self) -> list[psutil.Process]:
        """All living processes of the tree, the supervisor first."""
        try:
            living = family(psutil.Process(self.pid))
        except psutil.NoSuchProcess:
            living = []
        ours = [p for p in living if _name(p).startswith("th-") or p.pid == self.pid]
        self._known.update({p.pid: p for p in ours})
        return ours

    def children(self) -> list[psutil.Process]:
        return [p for p in self.processes() if _name(p).startswith("th-child")]

    def generation(self) -> psutil.Process:
        (process,) = self.named("th-generation")
        return process

    def maintenance(self) -> psutil.Process:
        (process,) = self.named("th-maintenance")
        return process

    @staticmethod
    def role(process: psutil.Process) -> str:
        """``th-child``, ``th-supervisor``…; empty for one that is gone."""
        return _name(process)

    def named(self, name: str) -> list[psutil.Process]:
        return [p for p in self.processes() if _name(p) == name]

    def leftovers(self) -> list[psutil.Process]:
        """Processes of this worker, ever seen, that still run."""
        return [p for p in self._known.values() if runs(p)]

    # --- what it wrote ---------------------------------------------------------------------

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def events(self, event: str | None = None) -> list[dict[str, Any]]:
        """The log lines whose event begins with ``event``."""
        lines = [json.loads(line) for line in _whole_lines(self.log()) if line.startswith("{")]
        return [line for line in lines if event is None or line["event"].startswith(event)]

    def journal_entries(self, what: str | None = None, job: str | None = None) -> list[Any]:
        """What the tasks noted, oldest first."""
        if not self.journal.exists():
            return []
        entries = [json.loads(line) for line in _whole_lines(self.journal.read_text())]
        return [
            entry
            for entry in entries
            if (what is None or entry["what"] == what) and (job is None or entry["job"] == job)
        ]

    def wait_noted(
        self,
        what: str,
        *,
        job: str | None = None,
        count: int = 1,
        seconds: float = PATIENCE_SECONDS,
    ) -> list[Any]:
        def enough() -> list[Any]:
            entries = self.journal_entries(what, job)
            return entries if len(entries) >= count else []

        return wait_until(enough, seconds=seconds, what=f"{count} × {what}:\n{self.log()}")

    def wait_event(
        self, event: str, *, count: int = 1, seconds: float = PATIENCE_SECONDS
    ) -> list[Any]:
        def enough() -> list[dict[str, Any]]:
            events = self.events(event)
            return events if len(events) >= count else []

        return wait_until(enough, seconds=seconds, what=f"{count} × {event}:\n{self.log()}")

    # --- what is done to it ----------------------------------------------------------------

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def wait(self, seconds: float = PATIENCE_SECONDS) -> int:
        """The exit code."""
        assert self._process is not None
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise TimeoutError(f"the worker did not end:\n{self.log()}") from error

    def poll(self) -> int | None:
        """The exit code; None while it runs."""
        assert self._process is not None
        return self._process.poll()

    def resume(self) -> None:
        """Let every process of the tree go on that was stopped."""
        for process in self.processes():
            _resume(process)

    def stop(self, seconds: float = PATIENCE_SECONDS) -> int:
        self.send(signal.SIGTERM)
        return self.wait(seconds)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *error: object) -> None:
        if self._process is None:
            return
        self.processes()
        if self._process.poll() is None:
            for process in self.leftovers():
                _resume(process)
            self.send(signal.SIGQUIT)
            try:
                self._process.wait(PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        try:
            wait_until(lambda: not self.leftovers(), what="the end of all processes")
        finally:
            for process in self.leftovers():
                process.kill()


def _whole_lines(text: str) -> list[str]:
    # A reader may meet a writer in the middle of a line.
    return text[: text.rfind("\n") + 1].splitlines()


def _name(process: psutil.Process) -> str:
    # Not psutil's name(): it prefers a longer one from the command line.
    try:
        return Path(f"/proc/{process.pid}/comm").read_text().strip()
    except OSError:
        return ""


def runs(process: psutil.Process) -> bool:
    """False also for one that has ended and was not waited for."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _resume(process: psutil.Process) -> None:
    try:
        process.send_signal(signal.SIGCONT)
    except psutil.NoSuchProcess:
        pass
