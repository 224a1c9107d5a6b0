"""Where the server of ``memory://name`` is found, and how the first client starts it.

Each name has three files in a directory that only its user can enter: ``name.sock``, the socket;
``name.lock``, held while a server is started or ends, so that two clients never start two and no
client meets one that is about to end; ``name.log``, what the last server had to say.
"""

from __future__ import annotations

import fcntl
import os
import re
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from taskharbor.errors import ConfigurationError, StoreUnavailable

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,39}\Z")
_MAX_PATH_BYTES = 103  # sun_path less its NUL: 104 on macOS, 108 on Linux
_BACKLOG = 128


@dataclass(frozen=True, slots=True)
class Place:
    """The files of one name."""

    socket_path: Path
    lock_path: Path
    log_path: Path

    @classmethod
    def of(cls, name: str) -> Place:
        """Makes the directory. Raises ConfigurationError for an impossible name or place."""
        if not _NAME.match(name):
            raise ConfigurationError(
                f"{name!r} can't name a memory store; use 1 to 40 letters, digits, '_', '.' or "
                "'-', beginning with a letter or digit, as in memory://shop"
            )
        directory = _directory()
        place = cls(*(directory / f"{name}.{suffix}" for suffix in ("sock", "lock", "log")))
        if len(os.fsencode(place.socket_path)) > _MAX_PATH_BYTES:
            raise ConfigurationError(
                f"the socket path {place.socket_path} is over the {_MAX_PATH_BYTES} bytes that a "
                "Unix socket may have; use a shorter name, or a shorter XDG_RUNTIME_DIR"
            )
        return place

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Alone with this name's socket, among all processes."""
        descriptor = os.open(self.lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def connect(self, timeout: float) -> socket.socket | None:
        """A connection to the server, None when none is listening."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(timeout)
        try:
            connection.connect(os.fspath(self.socket_path))
        except (FileNotFoundError, ConnectionRefusedError):
            connection.close()
            return None
        except OSError as error:
            connection.close()
            raise StoreUnavailable(
                f"the memory server's socket {self.socket_path} can't be reached: {error}"
            ) from error
        return connection

    def start_server(self, linger_seconds: float) -> None:
        """Start a server. The caller holds the lock and has found nobody listening.

        The socket listens before the server's process exists: a client that connects meanwhile
        waits in its queue instead of failing.
        """
        self.socket_path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(os.fspath(self.socket_path))
            # Before listen(): until then nobody can connect, whatever the umask was.
            os.chmod(self.socket_path, 0o600)
            listener.listen(_BACKLOG)
            self._spawn(listener, linger_seconds)

    def _spawn(self, listener: socket.socket, linger_seconds: float) -> None:
        descriptor = listener.fileno()
        command = [
            *(sys.executable, "-P", "-m", "taskharbor.drivers.memory.server"),
            *(self.socket_path.stem, str(descriptor), str(linger_seconds)),
        ]
        with self.log_path.open("wb") as log:
            started = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(descriptor,),
                start_new_session=True,
                env=_environment(),
                check=False,
            )
        if started.returncode != 0:
            self.socket_path.unlink(missing_ok=True)
            raise StoreUnavailable(
                f"the memory server did not start (exit code {started.returncode}); "
                f"its last words are in {self.log_path}"
            )


def _environment() -> dict[str, str]:
    """Ours, and a path on which the server finds the package that this process runs."""
    package_parent = str(Path(__file__).resolve().parents[3])
    paths = [package_parent, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def _directory() -> Path:
    """``$XDG_RUNTIME_DIR/taskharbor`` or a directory of this user's in the temporary one, 0700."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and os.access(runtime, os.W_OK | os.X_OK):
        directory = Path(runtime) / "taskharbor"
    else:
        directory = Path(tempfile.gettempdir()) / f"taskharbor-{os.getuid()}"
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
        found = directory.lstat()
    except OSError as error:
        raise ConfigurationError(
            f"no directory for the memory server's socket: {error}; set XDG_RUNTIME_DIR to one "
            "that you can write to"
        ) from error
    # In a shared /tmp anybody may have made it first.
    if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode) or found.st_mode & 0o077:
        raise ConfigurationError(
            f"{directory} is not a directory that only you can enter; remove it, or set "
            "XDG_RUNTIME_DIR to one that is yours"
        )
    return directory
