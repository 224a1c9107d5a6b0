"""The app of the benchmarks: the tasks that the workers run.

``BENCH_TALLY`` names the directory of the tally, ``BENCH_MARK`` the file in which a job that is to
be killed leaves the id of its process.
"""

from __future__ import annotations

import os
import time
from functools import cache
from pathlib import Path

from harness.tally import Counter

from taskharbor import TaskHarbor, current_job

app = TaskHarbor()


@cache
def counter() -> Counter:
    return Counter(Path(os.environ["BENCH_TALLY"]))


@app.task
def noop() -> None:
    counter().add()


@app.task(store_result=False)
def noop_without_result() -> None:
    counter().add()


@app.task
def sleep_1ms() -> None:
    time.sleep(0.001)
    counter().add()


@app.task
def cpu_1ms() -> None:
    ends = time.thread_time_ns() + 1_000_000
    while time.thread_time_ns() < ends:
        pass
    counter().add()


@app.task
def take(payload: bytes) -> int:
    counter().add()
    return len(payload)


@app.task
def callback(results: list[None]) -> tuple[float, int]:
    """When it began, on the monotonic clock, and how many results it got."""
    return time.monotonic(), len(results)


@app.task
def started_at() -> float:
    return time.time()


@app.task
def killed_once() -> float:
    """Waits to be killed in its first attempt; tells when its second began."""
    if current_job().attempt == 1:
        Path(os.environ["BENCH_MARK"]).write_text(str(os.getpid()))
        time.sleep(60)
    return time.time()
