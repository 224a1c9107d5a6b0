"""A server process that belongs to one test run: started on a free loopback port, gone with it.

Guarantees, on Linux:
- The server dies with the process that started it, however that one dies: the kernel sends it
  `death_signal` (PR_SET_PDEATHSIG). The kernel counts the starting *thread*, so start a server
  from a thread that lives as long as the server has to.
- `kill()` leaves data directory and port as they were: `start()` brings the same server back.
- Data directories left by a run that was killed are removed by the next run.

Elsewhere only a run that ends by itself stops its servers.
"""

import atexit
import ctypes
import os
import pwd
import random
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

import psutil

from tests.family import family
from tests.waiting import wait_until

START_SECONDS = 90.0
STOP_SECONDS = 60.0
PORT_ATTEMPTS = 5

# Below the range from which kernels take the source ports of outgoing connections: a stopped
# server's port is not taken by a client's connection before the server is back. A Redis Cluster
# node's bus listens 10 000 above its port, and that stays below the range too.
PORTS = range(11_000, 22_000)
CLUSTER_BUS_OFFSET = 10_000

_PREFIX = "taskharbor-test-"
_PR_SET_PDEATHSIG = 1


class ServerFailed(RuntimeError):
    """The server did not start; the message carries the end of its log."""


def free_port() -> int:
    """A loopback port that nothing listens on, nor on the cluster bus port that goes with it.

    Another process may take it before it is used: `ServerProcess.start` then tries the next.
    """
    while True:
        port = random.choice(PORTS)
        if _is_free(port) and _is_free(port + CLUSTER_BUS_OFFSET):
            return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def scratch_directory(name: str) -> Path:
    """A new directory that the exit of this process removes, or else the next run's first call."""
    _remove_leftovers()
    prefix = f"{_PREFIX}{os.getpid()}-{name}-"
    path = Path(tempfile.mkdtemp(prefix=prefix, dir=_temporary_directory()))
    atexit.register(_remove_if_owner, path, os.getpid())
    return path


def _temporary_directory() -> Path:
    # A server that refuses to run as root must reach its data under another account.
    chosen = Path(tempfile.gettempdir())
    return chosen if os.geteuid() != 0 or reachable_by_anyone(chosen) else Path("/tmp")


def _remove_if_owner(path: Path, owner: int) -> None:
    # A forked child runs the handlers it inherited while its parent still uses the directory.
    if os.getpid() == owner:
        shutil.rmtree(path, ignore_errors=True)


def _remove_leftovers() -> None:
    for path in _temporary_directory().glob(f"{_PREFIX}*"):
        pid = path.name.removeprefix(_PREFIX).split("-")[0]
        if not psutil.pid_exists(int(pid)):
            shutil.rmtree(path, ignore_errors=True)


def unprivileged_user() -> str | None:
    """The account for servers that refuse to run as root; None where this process is not root."""
    if os.geteuid() != 0:
        return None
    accounts = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in accounts else "nobody"


def reachable_by_anyone(path: Path) -> bool:
    """Whether an account without rights of its own can enter `path`."""
    return all(part.stat().st_mode & stat.S_IXOTH for part in (path, *path.parents))


def _follow_parent_to_death(death_signal: int) -> Callable[[], None] | None:
    """What a child runs before exec, so that it gets `death_signal` when its parent dies."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()

    def set_death_signal() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, int(death_signal))
        # A limit of its files is to look to it as a full disk does: an error, and not its end.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        if os.getppid() != parent:  # it died between fork and prctl: no signal will come
            os._exit(1)

    return set_death_signal


class ServerProcess(ABC):
    """One server with its data directory and port. Use it as a context manager, or `stop()` it."""

    name: str
    stop_signal: signal.Signals = signal.SIGTERM
    death_signal: signal.Signals = signal.SIGKILL
    refuses_root = False

    def __init__(self, *, environment: Mapping[str, str] | None = None) -> None:
        self.directory = scratch_directory(self.name)
        self.log = self.directory / "server.log"
        self.port = free_port()
        self._environment = dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._user = unprivileged_user() if self.refuses_root else None
        if self._user is not None:
            self.give_to_user(self.directory)

    @property
    @abstractmethod
    def url(self) -> str:
        """Where clients connect."""

    @abstractmethod
    def command(self) -> list[str]:
        """The command line that runs the server in the foreground on `self.port`."""

    @abstractmethod
    def is_ready(self) -> bool:
        """Whether *this* process answers on the port; False while it is still starting."""

    @property
    def pid(self) -> int:
        """The server's process id; raises `ServerFailed` when it is not running."""
        if self._process is None:
            raise ServerFailed(f"{self.name} is not running")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it was started, and neither stopped nor killed since."""
        return self._process is not None

    @property
    def ended(self) -> bool:
        """Whether it has ended by itself since it was started."""
        return self._process is not None and self._process.poll() is not None

    def start(self) -> Self:
        """Start, and return when the server answers.

        The first start moves on to another port when somebody else took the chosen one; a later
        start keeps port and data. Raises `ServerFailed` with the log's end.
        """
        attempts = 1 if self.log.exists() else PORT_ATTEMPTS
        while True:
            attempts -= 1
            self._launch()
            try:
                wait_until(self._answers, seconds=START_SECONDS, what=f"{self.name} to answer")
                return self
            except (ServerFailed, TimeoutError) as error:
                message = f"{error}\n{self.log_tail()}"
                self.kill()
                if not attempts:
                    raise ServerFailed(message) from error
                self.port = free_port()

    def _answers(self) -> bool:
        process = self._process
        if process is not None and process.poll() is not None:
            raise ServerFailed(f"{self.name} ended with exit code {process.returncode}")
        return self.is_ready()

    def _launch(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command(),
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self._environment},
                user=self._user,
                group=None if self._user is None else pwd.getpwnam(self._user).pw_gid,
                extra_groups=None if self._user is None else [],
                # Only this hook runs between fork and exec, and it takes no lock.
                preexec_fn=_follow_parent_to_death(self.death_signal),  # noqa: PLW1509
            )
        self._owner = os.getpid()
        atexit.register(self._stop_at_exit)

    def stop(self, number: signal.Signals | None = None) -> None:
        """End the server in an orderly way, or by another signal; a server that does not end is
        killed. Idempotent."""
        atexit.unregister(self._stop_at_exit)
        process = self._process
        if process is None:
            return
        process.send_signal(signal.SIGCONT)
        process.send_signal(number or self.stop_signal)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None

    def _stop_at_exit(self) -> None:
        # A forked child inherits this handler, and its end is not the end of the server's use.
        if os.getpid() == self._owner:
            self.stop()

    def kill(self) -> None:
        """SIGKILL the server with all its processes, as a power cut would, and wait for them."""
        atexit.unregister(self._stop_at_exit)
        process = self._process
        if process is None:
            return
        family = self._family()
        for member in family:
            _ignore_gone(member.kill)
        process.wait()
        psutil.wait_procs(family, timeout=STOP_SECONDS)
        self._process = None

    def restart(self) -> Self:
        """Stop in an orderly way and start again on the same port and data."""
        self.stop()
        return self.start()

    def pause(self) -> None:
        """SIGSTOP: connections stay open and nothing answers. Ends with `resume()` or `stop()`."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT after `pause()`."""
        os.kill(self.pid, signal.SIGCONT)

    def log_tail(self, lines: int = 30) -> str:
        """The end of what the server wrote."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def give_to_user(self, path: Path) -> None:
        """Hand `path` to the account that the server runs under, if it is not ours."""
        if self._user is not None:
            shutil.chown(path, self._user)

    def _family(self) -> list[psutil.Process]:
        try:
            return family(psutil.Process(self.pid))
        except psutil.NoSuchProcess:
            return []

    def __enter__(self) -> Self:
        return self if self._process is not None else self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)


def _ignore_gone(action: Callable[[], None]) -> None:
    try:
        action()
    except psutil.NoSuchProcess:
        pass
