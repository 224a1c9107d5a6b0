"""A thread that waits for the GIL must not keep the write lock meanwhile."""

from __future__ import annotations

import shlex
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import PyDLL
from pathlib import Path

from taskharbor.drivers.base import Renewal, Want
from taskharbor.drivers.sqlite import SQLiteDriver
from tests.drivers.sqlite.conftest import job

TRIALS = 12
"""When an extension was a transaction of several statements, every third trial failed."""
_TAKE_THE_LOCK = """
import sqlite3, sys
sqlite3.connect(sys.argv[1], timeout=10, isolation_level=None).execute("BEGIN IMMEDIATE")
"""


def test_a_heartbeat_that_waits_for_the_gil_keeps_nobody_waiting(
    path: Path, driver: SQLiteDriver
) -> None:
    """However a task comes to hold it: here, in calls of C that give it up only when they are
    over, each of which waits for another process to get the lock."""
    driver.enqueue([job(str(number)) for number in range(4)])
    reserved = driver.exchange("h", (), Want(("default",), 4, 600.0)).reserved
    renewals = [Renewal(reserved[0].id, reserved[0].fence, progress=b"half", saved=b"so far")]
    renewals += [Renewal(other.id, other.fence) for other in reserved[1:]]
    # PyDLL, unlike CDLL, keeps the GIL around a call.
    run = PyDLL(None).system
    command = shlex.join([sys.executable, "-ISc", _TAKE_THE_LOCK, str(path)]).encode()
    with beating(driver, renewals):
        taken = [run(command) for _ in range(TRIALS)]
    assert taken == [0] * TRIALS


@contextmanager
def beating(driver: SQLiteDriver, renewals: list[Renewal]) -> Iterator[None]:
    """Another thread extends leases, again and again."""
    over = threading.Event()

    def beat() -> None:
        while not over.is_set():
            driver.extend("h", renewals, 600.0)

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
