"""What the conformance suite can't see of ``memory://name``: a server that comes and goes."""

import os
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from taskharbor.clock import ManualClock
from taskharbor.drivers import single
from taskharbor.drivers.base import InspectableDriver, JobFilter, Renewal
from taskharbor.drivers.memory import wire
from taskharbor.drivers.memory.place import Place
from taskharbor.drivers.registry import connect
from taskharbor.errors import (
    ConfigurationError,
    InvalidCursor,
    InvalidLease,
    SchemaMismatch,
    StoreUnavailable,
)
from taskharbor.message import Message
from tests.waiting import wait_until

REPOSITORY = Path(__file__).resolve().parents[3]
URL = "memory://jobs?linger=0.2"


@pytest.fixture(autouse=True)
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A runtime directory of the test's own: short, because a socket's path must be."""
    directory = Path(tempfile.mkdtemp(prefix="th-"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(directory))
    yield directory
    wait_until(lambda: not [*directory.glob("taskharbor/*.sock")], what="the server's end")
    shutil.rmtree(directory)


@pytest.fixture
def driver() -> Iterator[InspectableDriver]:
    driver = connect(URL)
    yield driver
    driver.close()


def greet(protocol: str = wire.PROTOCOL) -> tuple[socket.socket, list[object]]:
    """A connection of our own to the running server, and its answer to our hello."""
    connection = Place.of("jobs").connect(60.0)
    assert connection is not None
    wire.send(connection, [wire.MAGIC, protocol])
    return connection, wire.receive(connection)


def server_pid() -> int:
    connection, (status, pid) = greet()
    connection.close()
    assert status == "ok"
    assert isinstance(pid, int)
    return pid


def kill_server() -> None:
    pid = server_pid()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not _listening(), what="the server's death")


def _listening() -> bool:
    connection = Place.of("jobs").connect(60.0)
    if connection is not None:
        connection.close()
    return connection is not None


def closed(connection: socket.socket) -> bool:
    """Whether the server hung up; with what we sent still unread, that is a reset."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def put(driver: InspectableDriver, job_id: str) -> None:
    driver.enqueue([Message(id=job_id, task="demo", body=b"x")])


def job_ids(driver: InspectableDriver) -> set[str]:
    return {job.id for job in driver.list_jobs(JobFilter()).jobs}


def test_only_its_user_can_reach_the_socket(runtime: Path, driver: InspectableDriver) -> None:
    place = runtime / "taskharbor"
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert stat.S_IMODE((place / "jobs.sock").stat().st_mode) == 0o600


def test_a_directory_that_others_may_enter_is_refused(runtime: Path) -> None:
    (runtime / "taskharbor").mkdir(mode=0o755)
    with pytest.raises(ConfigurationError, match="only you can enter"):
        connect(URL)


def test_a_link_in_place_of_the_directory_is_refused(runtime: Path) -> None:
    (runtime / "elsewhere").mkdir(mode=0o700)
    (runtime / "taskharbor").symlink_to(runtime / "elsewhere")
    with pytest.raises(ConfigurationError, match="only you can enter"):
        connect(URL)


def test_many_first_clients_start_one_server() -> None:
    start = threading.Barrier(8)
    drivers: list[InspectableDriver] = []

    def client(number: int) -> None:
        start.wait()
        driver = connect(URL)
        put(driver, f"job-{number}")
        drivers.append(driver)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(drivers) == 8
    assert {frozenset(job_ids(driver)) for driver in drivers} == {
        frozenset(f"job-{number}" for number in range(8))
    }
    for driver in drivers:
        driver.close()


def test_first_clients_in_many_processes_start_one_server() -> None:
    code = (
        "import sys\n"
        "from taskharbor.drivers.registry import connect\n"
        "from taskharbor.message import Message\n"
        "driver = connect('memory://jobs?linger=120')\n"
        "driver.enqueue([Message(id=sys.argv[1], task='demo', body=b'')])\n"
        "driver.close()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    clients = [
        subprocess.Popen([sys.executable, "-c", code, f"job-{n}"], env=environment)
        for n in range(5)
    ]
    assert [client.wait(timeout=240) for client in clients] == [0] * 5
    with_all = connect(URL)
    assert job_ids(with_all) == {f"job-{n}" for n in range(5)}
    with_all.close()
    kill_server()
    Place.of("jobs").socket_path.unlink()


def test_the_server_outlives_a_client_but_not_its_linger(driver: InspectableDriver) -> None:
    put(driver, "a")
    second = connect(URL)
    driver.close()
    assert job_ids(second) == {"a"}
    pid = server_pid()
    second.close()
    wait_until(lambda: not _alive(pid), what="the server's end")
    assert not Place.of("jobs").socket_path.exists()


def test_a_server_ends_on_sigterm_also_when_its_first_client_ignores_that() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    held = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM,))
    try:
        driver = connect(URL)
        put(driver, "a")
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
        signal.signal(signal.SIGTERM, before)
    pid = server_pid()
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not _alive(pid), what="the server's end")
    driver.close()
    Place.of("jobs").socket_path.unlink()


def test_a_server_with_a_client_does_not_end(driver: InspectableDriver) -> None:
    put(driver, "a")
    # Longer than the linger, spent on the server's side of an open connection.
    driver.wait(["nothing-here"], 0.6)
    assert job_ids(driver) == {"a"}


def test_a_server_whose_directory_was_removed_ends(
    runtime: Path, driver: InspectableDriver
) -> None:
    pid = server_pid()
    shutil.rmtree(runtime / "taskharbor")
    driver.close()
    wait_until(lambda: not _alive(pid), what="the server's end")


def test_a_stale_socket_file_is_replaced(driver: InspectableDriver) -> None:
    put(driver, "a")
    kill_server()
    assert Place.of("jobs").socket_path.exists()
    again = connect(URL)
    assert job_ids(again) == set()
    again.close()


def test_a_lost_server_is_unavailable_and_the_next_call_starts_anew(
    driver: InspectableDriver,
) -> None:
    put(driver, "a")
    kill_server()
    with pytest.raises(StoreUnavailable, match="lost the memory server"):
        put(driver, "b")
    put(driver, "c")
    assert job_ids(driver) == {"c"}


def test_fences_of_a_later_server_go_on_above() -> None:
    fences = []
    for _ in range(2):
        driver = connect(URL)
        put(driver, "a")
        reservation = single.reserve(driver, "holder", "default", lease_seconds=30)
        assert reservation is not None
        fences.append(reservation.fence)
        kill_server()
        driver.close()
    assert fences[0] < fences[1]
    Place.of("jobs").socket_path.unlink()


def test_a_server_that_does_not_answer_is_unavailable() -> None:
    driver = connect("memory://jobs?linger=0.2&timeout=8")
    pid = server_pid()
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    try:
        with pytest.raises(StoreUnavailable):
            put(driver, "a")
    finally:
        os.kill(pid, signal.SIGCONT)
        driver.close()


@pytest.mark.parametrize(
    "rubbish",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        struct.pack(">I", 0xFFFFFFFF),
        struct.pack(">I", 100) + b"too short",
        struct.pack(">I", 3) + b"\xc1\xc1\xc1",
        struct.pack(">I", 4) + wire.pack([1, 2, 3]),
        b"",
    ],
)
def test_rubbish_closes_its_own_connection_only(driver: InspectableDriver, rubbish: bytes) -> None:
    put(driver, "a")
    for greeted in (False, True):
        connection = greet()[0] if greeted else Place.of("jobs").connect(60.0)
        assert connection is not None
        with connection:
            connection.sendall(rubbish)
            connection.shutdown(socket.SHUT_WR)
            assert closed(connection)
    assert job_ids(driver) == {"a"}


@pytest.mark.parametrize(
    "request_",
    [
        ["__init__", None, []],
        ["_settle", None, []],
        ["enqueue", "now", []],
        ["enqueue", None],
        "enqueue",
    ],
)
def test_only_the_contract_can_be_called(driver: InspectableDriver, request_: object) -> None:
    connection, _ = greet()
    with connection:
        wire.send(connection, request_)
        assert closed(connection)


def test_a_call_with_wrong_arguments_is_an_error_and_no_more(driver: InspectableDriver) -> None:
    connection, _ = greet()
    with connection:
        wire.send(connection, ["enqueue", None, [1, 2, 3]])
        status, name, _message = wire.receive(connection)
        assert (status, name) == ("error", "TypeError")
        wire.send(connection, ["queues", None, []])
        assert wire.receive(connection) == ["ok", []]


def test_another_version_is_told_so(driver: InspectableDriver) -> None:
    connection, reply = greet("1-0-other")
    connection.close()
    assert reply[:2] == ["error", SchemaMismatch.__name__]
    assert "different versions" in str(reply[2])


def test_the_stores_errors_travel_with_their_type(driver: InspectableDriver) -> None:
    with pytest.raises(InvalidLease, match="impossible"):
        driver.extend("holder", [Renewal("a", 1)], -1)
    with pytest.raises(InvalidCursor, match="begin again"):
        driver.list_jobs(JobFilter(), cursor="page two")


def test_an_injected_clock_travels_with_each_call() -> None:
    clock = ManualClock()
    driver = connect(URL, clock=clock)
    driver.enqueue([Message(id="a", task="demo", body=b"", delay=10)])
    assert driver.promote(10).moved == 0
    clock.advance(10)
    promoted = driver.promote(10)
    assert (promoted.moved, promoted.now) == (1, clock.now())
    driver.close()


def test_a_driver_is_refused_after_a_fork(driver: InspectableDriver) -> None:
    pid = os.fork()
    if pid == 0:
        try:
            driver.queues()
        except ConfigurationError:
            os._exit(7)
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 7
    assert driver.queues() == []


def test_a_closed_driver_is_refused(driver: InspectableDriver) -> None:
    driver.close()
    driver.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        driver.queues()


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("memory://jobs?linger=-1", "linger=-1"),
        ("memory://jobs?linger=soon", "linger=soon"),
        ("memory://jobs?timeout=nan", "timeout=nan"),
        ("memory://jobs?size=3", "unknown setting size"),
        ("memory://jobs/more", "write memory://"),
        ("memory://a@b", "can't name"),
        (f"memory://{'n' * 41}", "1 to 40"),
        ("memory://?linger=1", "takes no settings"),
    ],
)
def test_urls_that_cannot_work(url: str, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        connect(url)


def test_a_path_too_long_for_a_socket_is_refused(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = runtime / ("d" * 80)
    deep.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))
    with pytest.raises(ConfigurationError, match="shorter"):
        connect(URL)


def test_a_server_that_cannot_start_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(StoreUnavailable, match=r"did not start .*jobs\.log"):
        connect(URL)


def _alive(pid: int) -> bool:
    try:
        # Adopted by init; where that reaps nobody, a zombie is left.
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
