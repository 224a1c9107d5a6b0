"""Workers that are measured, and what their processes cost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

BENCHMARKS = Path(__file__).resolve().parents[1]
STOP_SECONDS = 60
CHILDREN = 2


@contextmanager
def worker(url: str, **environment: str) -> Iterator[psutil.Process]:
    """``taskharbor worker -c 2`` with the tasks of ``workload``, as a user starts it."""
    path = os.pathsep.join([str(BENCHMARKS), str(BENCHMARKS.parent)])
    command = [sys.executable, "-m", "taskharbor", "worker", "-A", "workload:app"]
    process = subprocess.Popen(
        [*command, "-c", str(CHILDREN), "-l", "error"],
        env={**os.environ, "TASKHARBOR_URL": url, "PYTHONPATH": path, **environment},
        stdout=subprocess.DEVNULL,
    )
    try:
        yield psutil.Process(process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(STOP_SECONDS)


def family(pid: int) -> list[psutil.Process]:
    """The process and all that came from it."""
    parent = psutil.Process(pid)
    return [parent, *parent.children(recursive=True)]


def children(worker_: psutil.Process) -> list[psutil.Process]:
    """The worker's children that run jobs."""

    def title(process: psutil.Process) -> str:
        return Path(f"/proc/{process.pid}/comm").read_text()

    return [process for process in family(worker_.pid) if title(process).startswith("th-child")]


def cpu(processes: Iterable[psutil.Process]) -> float:
    """CPU seconds that the processes have used, user and system."""
    spent = 0.0
    for process in processes:
        try:
            spent += sum(process.cpu_times()[:2])
        except psutil.NoSuchProcess:  # a server's helper that ended meanwhile
            continue
    return spent


def cpu_of_families(pids: Iterable[int]) -> float:
    """CPU seconds of the processes and all that came from them, also of those that have ended and
    were waited for: some fork for each job."""
    spent = 0.0
    for process in (member for pid in pids for member in family(pid)):
        try:
            spent += sum(process.cpu_times()[:4])  # the last two: of children that have ended
        except psutil.NoSuchProcess:  # counted by whoever waited for it, or lost with a crash
            continue
    return spent
