"""What goes wrong while it runs: each a clear error, and then it works again."""

from __future__ import annotations

import os
import resource
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from taskharbor.drivers.base import JobFilter, Want
from taskharbor.drivers.sqlite import SQLiteDriver, connect
from taskharbor.errors import InvalidJob, StoreError, StoreFull, StoreUnavailable
from taskharbor.message import Message
from taskharbor.settlement import Settlement
from taskharbor.states import State
from tests.drivers.sqlite.conftest import job

_PROJECT = Path(__file__).parents[3]


def test_a_lock_that_is_held_too_long_is_an_error_and_then_forgotten(path: Path, url: str) -> None:
    with closing(connect(f"{url}?busy_timeout=0.1")) as driver:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreUnavailable, match="busy_timeout"):
                driver.enqueue([job()])
            assert driver.get("a") is None  # reading goes on
            other.execute("ROLLBACK")
        assert driver.enqueue([job()])[0].created


def test_a_lock_that_is_held_for_a_while_is_waited_for(path: Path, driver: SQLiteDriver) -> None:
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        timer = threading.Timer(0.3, lambda: other.execute("ROLLBACK"))
        timer.start()
        assert driver.enqueue([job()])[0].created
        timer.join()


def test_a_full_store_keeps_nothing_of_the_request(driver: SQLiteDriver) -> None:
    driver.enqueue([job("before")])
    connection = driver._store.connections.slot().connection
    assert connection is not None
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages}")
    large = [Message(id=f"large{n}", task="t", body=bytes(100_000)) for n in range(5)]
    with pytest.raises(StoreFull, match="free space"):
        driver.enqueue(large)
    assert driver.results(["before", "large0"])[1] is None
    connection.execute("PRAGMA max_page_count = 1000000")
    assert all(one.created for one in driver.enqueue(large))


_OVER_THE_LIMIT = """
import sys
from taskharbor.drivers.sqlite import connect
from taskharbor.message import Message
driver = connect(sys.argv[1])
try:
    driver.enqueue([Message(id=str(n), task="t", body=bytes(100_000)) for n in range(50)])
except Exception as error:
    print(type(error).__name__, error)
driver.enqueue([Message(id="small", task="t", body=b"")])
"""


def test_a_file_size_limit_is_no_crash(url: str) -> None:
    limit = 1 << 20
    said = subprocess.run(
        [sys.executable, "-c", _OVER_THE_LIMIT, url],
        cwd=_PROJECT,
        check=True,
        capture_output=True,
        text=True,
        timeout=240,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    ).stdout
    assert said.startswith(StoreUnavailable.__name__)
    assert "quota" in said
    with closing(connect(url)) as driver:
        assert driver.results(["small", "0"])[1] is None
        assert driver.get("small") is not None


def test_a_damaged_file_says_how_to_save_what_is_left(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    with closing(connect(f"sqlite:///{path}")) as driver:
        driver.enqueue([Message(id=f"j{n}", task="t", body=bytes(300)) for n in range(1000)])
    with path.open("r+b") as file:
        file.seek(40_000)
        file.write(os.urandom(200_000))
    with pytest.raises(StoreError, match=r"damaged.*recover"):
        _drain(f"sqlite:///{path}")


def _drain(url: str) -> None:
    with closing(connect(url)) as driver:
        while driver.exchange("h", (), Want(("default",), 100, 30.0)).reserved:
            pass


def test_a_signal_handler_that_raises_in_the_midst_of_a_call_leaves_no_lock(
    driver: SQLiteDriver, url: str
) -> None:
    """As a soft time limit does, here after every line of the driver."""
    driver.enqueue([job("first")])
    impatient = connect(f"{url}?busy_timeout=0")
    for lines in range(1, 1000):
        batch = [job(f"job{lines}")]
        interrupted = _interrupt(lines, partial(driver.enqueue, batch))
        assert impatient.enqueue([job(f"other{lines}")])[0].created
        if not interrupted:
            break
    assert not interrupted
    assert driver.get(f"job{lines}") is not None
    impatient.close()


def _interrupt(lines: int, call: Callable[[], object]) -> bool:
    """Call, and raise before the driver's ``lines``-th line; False if it never came to that."""
    left = lines

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal left
        if "/drivers/sqlite/" not in frame.f_code.co_filename:
            return None
        if event == "line":
            left -= 1
            if left == 0:
                raise InterruptedError
        return trace

    sys.settrace(trace)
    try:
        call()
    except InterruptedError:
        return True
    finally:
        sys.settrace(None)
    return False


def test_a_call_from_a_signal_handler_in_the_midst_of_another_is_refused(
    driver: SQLiteDriver,
) -> None:
    refused = pytest.raises(StoreError, match="in the midst of another call")
    with driver._store.writing(), refused:
        driver.enqueue([job("inner")])
    assert driver.enqueue([job("inner")])[0].created


def test_a_deleted_file_is_made_anew(path: Path, driver: SQLiteDriver) -> None:
    driver.enqueue([job("old")])
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()
    assert driver.enqueue([job("new")])[0].created
    assert driver.results(["old"]) == [None]
    with closing(connect(f"sqlite:///{path}")) as other:
        assert other.get("new") is not None


def test_a_closed_driver_says_so(driver: SQLiteDriver) -> None:
    driver.close()
    driver.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        driver.enqueue([job()])


def test_one_bad_settlement_does_not_disturb_its_neighbours(driver: SQLiteDriver) -> None:
    driver.enqueue([job("a"), job("b")])
    a, b = driver.exchange("h", (), Want(("default",), 2, 30.0)).reserved
    settled = driver.exchange(
        "h",
        [
            Settlement.succeed("a", a.fence, b"1"),
            Settlement.succeed("\ud800", 1 << 70, None),
            Settlement.succeed("b\x00", b.fence, None),
            Settlement.succeed("b", b.fence, b"2"),
        ],
    ).settled
    assert [one.state for one in settled] == [State.SUCCEEDED, None, None, State.SUCCEEDED]


def test_names_that_no_text_encoding_knows_are_just_not_there(driver: SQLiteDriver) -> None:
    driver.enqueue([job()])
    assert driver.list_jobs(JobFilter(queue="\ud800")).jobs == []
    assert driver.list_jobs(JobFilter(task="\ud800")).jobs == []
    assert driver.purge(JobFilter(queue="\ud800")) == 0
    assert driver.exchange("h", (), Want(("\ud800",), 1, 30.0)).reserved == []
    with pytest.raises(InvalidJob, match="queue"):
        driver.pause("\ud800")
