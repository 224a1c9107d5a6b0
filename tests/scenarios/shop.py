"""The app that the scenarios run. Its tasks note what they do in a journal file."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from ctypes import PyDLL
from pathlib import Path
from typing import Any

from taskharbor import Fixed, Reject, TaskHarbor, current_job, group

app = TaskHarbor(backoff=Fixed(0.05))


def note(what: str, **facts: Any) -> None:
    """Append a line to the journal: one write, so that lines of many processes never mix."""
    job = current_job()
    entry = {
        "what": what,
        "job": job.id,
        "attempt": job.attempt,
        "pid": os.getpid(),
        "at": time.time(),
        **facts,
    }
    fd = os.open(os.environ["JOURNAL"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(fd, json.dumps(entry).encode() + b"\n")
    finally:
        os.close(fd)


@app.task(store_result=False)
def noop(number: int) -> None:
    pass


@app.task(store_result=False, keep_succeeded=5.0)
def forgotten(number: int) -> None:
    pass


@app.task
def noted(number: int = 0) -> int:
    note("ran", number=number)
    return number


@app.task
def nap(seconds: float) -> str:
    note("started")
    time.sleep(seconds)
    note("finished")
    return "rested"


@app.task(max_losses=2, max_attempts=100)
def overstay(seconds: float) -> None:
    """Longer than any grace."""
    note("started")
    time.sleep(seconds)


@app.task
async def async_until(path: str) -> str:
    """Runs until the file ``path`` exists."""
    note("started")
    while not Path(path).exists():  # noqa: ASYNC110, ASYNC240 - another process makes it
        await asyncio.sleep(0.01)
    note("finished")
    return "seen"


@app.task
def until(path: str) -> str:
    """Runs until the file ``path`` exists."""
    note("started")
    while not Path(path).exists():
        time.sleep(0.01)
    note("finished")
    return "seen"


@app.task
def until_first(path: str) -> str:
    """The first attempt runs until ``path`` exists, later ones end at once."""
    note("started")
    while current_job().attempt == 1 and not Path(path).exists():
        time.sleep(0.01)
    note("finished")
    return f"attempt {current_job().attempt}"


@app.task(max_attempts=3)
def die_by(number: int) -> None:
    """Kills the process that runs it with signal ``number``."""
    note("started")
    os.kill(os.getpid(), number)
    time.sleep(60)


@app.task(max_attempts=3)
def exit_with(code: int) -> None:
    note("started")
    os._exit(code)


@app.task
def hold_gil(seconds: float) -> str:
    """Keeps every other thread of its process from running."""
    note("started")
    # PyDLL, unlike CDLL, does not release the GIL around a call; a signal would end the sleep.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, range(1, signal.NSIG))
    PyDLL(None).usleep(int(seconds * 1_000_000))
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    note("finished")
    return "let go"


@app.task
def hold_gil_until(path: str) -> str:
    """Like ``hold_gil``, until the file ``path`` exists."""
    note("started")
    libc = PyDLL(None)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, range(1, signal.NSIG))
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000.0)  # between two calls, too, nobody else gets a turn
    while libc.access(os.fsencode(path), 0) != 0:
        libc.usleep(10_000)
    sys.setswitchinterval(interval)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    note("finished")
    return "let go"


@app.task(timeout=1.0, max_attempts=2)
def never_ends(ignore: bool = True) -> None:
    """Runs into its limit and ignores it."""
    note("started")
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, signal.NSIG))
    while True:
        try:
            time.sleep(60)
        except BaseException:
            if not ignore:
                raise


@app.task
def refuse() -> None:
    raise Reject("never")


@app.task
def grow(megabytes: int) -> int:
    """Leaves the process that much bigger."""
    _ballast.append(b"x" * (megabytes << 20))
    note("ran")
    return os.getpid()


_ballast: list[bytes] = []


# --- parts of flows ---------------------------------------------------------------------------


@app.task
def add(x: int, y: int) -> int:
    return x + y


@app.task
def total(numbers: list[int]) -> int:
    return sum(numbers)


@app.task
def count(values: list[Any]) -> int:
    note("counted")
    return len(values)


@app.task
def spread(parts: int) -> Any:
    return group(add.s(i, i) for i in range(parts)) | total.s()


@app.task
def spread_noted(parts: int) -> Any:
    note("spread")
    return group(add.s(i, i) for i in range(parts)) | total.s()


@app.task
def needs(path: str) -> str:
    return Path(path).read_text()
