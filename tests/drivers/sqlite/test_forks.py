"""Connections and forks, connections and threads."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from pathlib import Path

from taskharbor.drivers.sqlite import SQLiteDriver, connect
from tests.drivers.sqlite.conftest import job
from tests.waiting import wait_until

_PROJECT = Path(__file__).parents[3]

# The parent closes all it has while the child goes on, then opens the file again: where the child
# holds no lock of its own, that close removes the log that the child goes on writing to.
_FORK_IDLE = """
import os, sys
from taskharbor.drivers.sqlite import connect
from taskharbor.message import Message

def put(name):
    return driver.enqueue([Message(id=name, task="t", body=b"")])[0].created

driver = connect(sys.argv[1])
put("parent-before")
turn, pass_on = os.pipe()
if os.fork() == 0:
    put("child-before")
    os.close(pass_on)
    os.read(turn, 1)
    put("child-after")
    seen = driver.get("parent-after")
    driver.close()
    os._exit(seen is None)
put("parent-between")
driver.close()
driver = connect(sys.argv[1])
put("parent-after")
os.close(pass_on)
assert os.wait()[1] == 0
driver.close()
"""

_FORK_IN_USE = """
import os, sys, threading
from taskharbor.drivers.sqlite import connect, connections
from taskharbor.errors import ConfigurationError
from taskharbor.message import Message

connections.FORK_PATIENCE = 0.05
driver = connect(sys.argv[1])
inside, over = threading.Event(), threading.Event()

def hold():
    with driver._store.writing():
        inside.set()
        over.wait()

thread = threading.Thread(target=hold)
thread.start()
inside.wait()
if os.fork() == 0:
    try:
        connect(sys.argv[1])
    except ConfigurationError as error:
        print(error)
        sys.exit(0)
    sys.exit(1)
assert os.wait()[1] == 0
over.set()
thread.join()
assert driver.enqueue([Message(id="parent", task="t", body=b"")])[0].created
driver.close()
"""


def _run(code: str, url: str) -> str:
    done = subprocess.run(
        # Newer Pythons warn of any fork with threads about; these tests are about nothing else.
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code, url],
        cwd=_PROJECT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_both_sides_of_a_fork_go_on_when_the_parent_was_idle(url: str) -> None:
    _run(_FORK_IDLE, url)
    driver = connect(url)
    names = ["parent-before", "parent-between", "parent-after", "child-before", "child-after"]
    assert None not in driver.results(names)
    driver.close()


def test_a_child_forked_in_the_midst_of_a_call_refuses_the_file(url: str) -> None:
    assert "forked while a connection" in _run(_FORK_IN_USE, url)


def test_each_thread_has_a_connection_and_takes_it_along(driver: SQLiteDriver, path: Path) -> None:
    driver.enqueue([job()])
    before = _descriptors(path)
    several = threading.Barrier(4)
    leave = threading.Event()

    def look() -> None:
        assert driver.get("a") is not None
        several.wait()
        leave.wait()

    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    several.wait()
    assert _descriptors(path) > before
    leave.set()
    for thread in threads:
        thread.join()
    wait_until(lambda: _descriptors(path) == before, what="the threads' connections to go")


def test_a_driver_that_nobody_closed_leaves_no_descriptor(url: str, path: Path) -> None:
    driver = connect(url)
    driver.wait(("default",), 0)
    del driver
    gc.collect()
    assert _descriptors(path) == 0


def test_a_driver_that_is_open_when_python_ends_makes_no_noise(url: str) -> None:
    code = "import sys; from taskharbor.drivers.sqlite import connect; d = connect(sys.argv[1])"
    assert _run(f"{code}; d.wait(('default',), 0)", url) == ""


def test_close_ends_the_connections_of_all_threads(url: str, path: Path) -> None:
    driver = connect(url)
    done, leave = threading.Event(), threading.Event()

    def look() -> None:
        driver.get("a")
        done.set()
        leave.wait()

    thread = threading.Thread(target=look)
    thread.start()
    done.wait()
    driver.close()
    assert _descriptors(path) == 0
    leave.set()
    thread.join()


def _descriptors(path: Path) -> int:
    """How many connections of this process are open. The log has a descriptor for each; of the
    database itself SQLite keeps some for later, so as not to lose its locks."""
    count = 0
    for entry in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{entry}")
        except OSError:  # the descriptor of the listing itself
            continue
        count += target.startswith(f"{path}-wal")
    return count
