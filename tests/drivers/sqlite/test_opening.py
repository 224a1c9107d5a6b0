"""Opening: many at once, old and new schemas, files that can't work."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from taskharbor.drivers.base import Want
from taskharbor.drivers.sqlite import SQLiteDriver, connect, schema
from taskharbor.errors import (
    ConfigurationError,
    SchemaMismatch,
    StoreError,
    StoreReadOnly,
    TaskHarborError,
)
from taskharbor.flow.plan import Flow, Node, Part
from taskharbor.lease import Verdict
from taskharbor.settlement import Settlement
from tests.drivers.sqlite.conftest import job

_PROJECT = Path(__file__).parents[3]
NOBODY = 65534

# Each waits for the starting line to be drawn, so that they meet at the empty file.
_OPEN_TOGETHER = """
import sys
from taskharbor.drivers.sqlite import connect
from taskharbor.message import Message
url, name = sys.argv[1:]
print("ready", flush=True)
sys.stdin.readline()
driver = connect(url)
print(driver.enqueue([Message(id=name, task="t", body=b"")])[0].created)
driver.close()
"""


def test_only_the_owner_can_read_a_new_file_and_those_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    with closing(connect(f"sqlite:///{path}")) as driver:
        driver.enqueue([job("a")])
        modes = {file.name: oct(file.stat().st_mode & 0o777) for file in tmp_path.iterdir()}
    assert modes == dict.fromkeys(("jobs.db", "jobs.db-wal", "jobs.db-shm"), "0o600")


def test_a_file_that_is_there_keeps_its_rights(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    path.touch()
    path.chmod(0o660)
    with closing(connect(f"sqlite:///{path}")) as driver:
        driver.enqueue([job("a")])
        assert oct((tmp_path / "jobs.db-wal").stat().st_mode & 0o777) == "0o660"
    assert oct(path.stat().st_mode & 0o777) == "0o660"


def test_ten_processes_open_an_empty_file_at_once(url: str) -> None:
    racers = [_python(_OPEN_TOGETHER, url, f"job{number}") for number in range(10)]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    answers = [racer.communicate(timeout=240) for racer in racers]
    assert answers == [("True\n", "")] * 10
    with closing(connect(url)) as driver:
        assert None not in driver.results([f"job{number}" for number in range(10)])


def test_a_newer_file_is_refused_with_the_remedy(path: Path, url: str) -> None:
    connect(url).close()
    _set_schema(path, schema.VERSION + 1)
    with pytest.raises(SchemaMismatch, match="pip install --upgrade taskharbor"):
        connect(url)


def test_a_driver_stops_when_a_newer_one_migrates_the_file(
    path: Path, driver: SQLiteDriver
) -> None:
    driver.enqueue([job()])
    _set_schema(path, schema.VERSION + 1)
    with pytest.raises(SchemaMismatch, match="newer TaskHarbor"):
        driver.enqueue([job("b")])
    with pytest.raises(SchemaMismatch, match="newer TaskHarbor"):
        driver.get("a")
    _set_schema(path, schema.VERSION)
    assert driver.get("b") is None


def test_a_file_of_the_first_version_is_migrated_with_its_jobs(path: Path, url: str) -> None:
    """Written as that version did; a flow may come beside its jobs."""
    first = Path(schema.__file__).parent / "migrations" / "0001_initial.sql"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(first.read_text(encoding="utf-8"))
        connection.executescript(
            "INSERT INTO th_queues VALUES (1, 'default', 0); UPDATE th_store SET seq = 2;"
            "INSERT INTO th_counts VALUES (1, 'ready', 1), (1, 'scheduled', 1);"
            "INSERT INTO th_jobs VALUES"
            " (1, 'a', 1, 't', 0, 1, 1, NULL, 9, 9, 9, NULL, NULL, x'', x'01'),"
            " (2, 'b', 1, 't', 0, 1, 5, NULL, 9, 9, 9, NULL, NULL, x'', x'02');"
            "INSERT INTO th_ready VALUES (1, 0, 1, NULL, 1, 'enqueued');"
            "INSERT INTO th_scheduled VALUES (2, 5, 'enqueued')"
        )
    with closing(connect(url)) as driver:
        assert driver.version() == schema.VERSION
        node = Node(job("c"))
        driver.enqueue_flow(Part(Flow("f", 1, 0), (node,), seal=True))
        driver.promote(10)
        taken = driver.exchange("h", (), Want(("default",), 10, 30.0)).reserved
        assert [(lease.id, lease.flow) for lease in taken] == [("a", None), ("b", None), ("c", "f")]
        done = [Settlement.succeed(lease.id, lease.fence, b"1") for lease in taken]
        assert {one.verdict for one in driver.exchange("h", done).settled} == {Verdict.APPLIED}


def test_the_steps_are_named(path: Path, url: str) -> None:
    from taskharbor.drivers.sqlite.address import parse
    from taskharbor.drivers.sqlite.opening import open_connection

    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        assert schema.version(connection) == 0
        assert schema.migrate(connection, parse(url))[0] == "0001_initial"
        assert schema.version(connection) == schema.VERSION
        assert schema.migrate(connection, parse(url)) == []
    open_connection(parse(url)).close()


def test_the_jobs_may_live_in_an_application_s_own_file(path: Path, url: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE users (name TEXT)")
        connection.execute("INSERT INTO users VALUES ('ada')")
        connection.execute("PRAGMA user_version = 7")
    with closing(connect(url)) as driver:
        driver.enqueue([job()])
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT * FROM users").fetchall() == [("ada",)]
        assert connection.execute("PRAGMA user_version").fetchone() == (7,)


def test_a_missing_directory_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=f"mkdir -p {tmp_path}/not/there"):
        connect(f"sqlite:///{tmp_path}/not/there/jobs.db")


def test_a_directory_is_no_database(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is a directory"):
        connect(f"sqlite:///{tmp_path}")


def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("Dear diary, " * 500)
    with pytest.raises(StoreError, match="is not an SQLite database"):
        connect(f"sqlite:///{path}")
    assert path.read_text() == "Dear diary, " * 500


# --- without write permission: as another user, because root may write everywhere -------------


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory that every user can enter."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


def _as_nobody(url: str) -> str:
    """The error that a user without rights gets for an enqueue."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        # Not a program of its own: that user may not be able to read this Python's files either.
        if os.geteuid() == 0:
            os.setuid(NOBODY)
        try:
            with closing(connect(url)) as driver:
                driver.enqueue([job("b")])
            said = "nothing"
        except TaskHarborError as error:
            said = f"{type(error).__name__}: {error}"
        os.write(writer, said.encode())
        os._exit(0)
    os.close(writer)
    with open(reader, encoding="utf-8") as answer:
        said = answer.read()
    os.waitpid(child, 0)
    return said


def test_a_directory_that_cannot_be_written_is_named(public: Path) -> None:
    os.chmod(public, 0o555)
    said = _as_nobody(f"sqlite:///{public}/jobs.db")
    assert said.startswith(StoreReadOnly.__name__)
    assert f"write permission for the file and for {public}" in said


def test_a_file_that_cannot_be_written_is_named(public: Path) -> None:
    url = f"sqlite:///{public}/jobs.db"
    connect(url).close()
    os.chmod(public / "jobs.db", 0o444)
    os.chmod(public, 0o555)
    said = _as_nobody(url)
    assert said.startswith(StoreReadOnly.__name__)
    assert str(public / "jobs.db") in said


def _python(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=_PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _set_schema(path: Path, version: int) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE th_store SET schema = ?", (version,))
