"""The client's end of ``memory://name``: a channel to the store in the server's process."""

from __future__ import annotations

import math
import socket
from threading import Lock
from typing import Any

from taskharbor import errors
from taskharbor.clock import Clock
from taskharbor.drivers.base import Capabilities
from taskharbor.drivers.memory import wire
from taskharbor.drivers.memory.driver import MemoryDriver
from taskharbor.drivers.memory.place import Place
from taskharbor.errors import (
    ConfigurationError,
    SchemaMismatch,
    StoreError,
    StoreUnavailable,
    TaskHarborError,
)

LINGER_SECONDS = 300.0
TIMEOUT_SECONDS = 10.0
_MOST_SECONDS = 86_400.0
_STARTS = 5
_WAITING = frozenset({"wait", "wait_results"})


def connect_to_server(name: str, query: dict[str, str], clock: Clock | None) -> MemoryDriver:
    """See ``taskharbor.drivers.memory``."""
    linger = _seconds(query.pop("linger", LINGER_SECONDS), "linger")
    timeout = _seconds(query.pop("timeout", TIMEOUT_SECONDS), "timeout")
    if query:
        raise ConfigurationError(
            f"memory://{name} has the unknown setting {', '.join(query)}; known are linger and "
            "timeout (seconds)"
        )
    channel = RemoteChannel(Place.of(name), linger_seconds=linger, timeout_seconds=timeout)
    channel.open()
    return MemoryDriver(f"memory://{name}", channel, Capabilities(shared=True, flows=True), clock)


class RemoteChannel:
    """Connections to one server, as many as there are calls at the same time.

    A connection that failed is not used again, and the call on it raises StoreUnavailable. The next
    call connects anew, and starts a server when the last one has gone: an empty one.
    """

    def __init__(self, place: Place, *, linger_seconds: float, timeout_seconds: float) -> None:
        self._place = place
        self._linger_seconds = linger_seconds
        self._timeout_seconds = timeout_seconds
        self._lock = Lock()
        self._idle: list[socket.socket] = []
        self._closed = False

    def open(self) -> None:
        """Make sure that there is a server that speaks our protocol."""
        self._idle.append(self._connect())

    def call(self, method: str, now: float | None, *arguments: Any) -> Any:
        connection = self._borrow()
        try:
            # A wait's last argument is how long the server may keep us.
            longer = arguments[-1] if method in _WAITING else 0.0
            connection.settimeout(self._timeout_seconds + longer)
            wire.send(connection, [method, now, list(arguments)])
            reply = wire.receive(connection)
        except errors.EncodeError:
            self._give_back(connection)
            raise
        except (OSError, EOFError, wire.BrokenFrame) as error:
            self._drop(connection)
            raise StoreUnavailable(
                f"lost the memory server at {self._place.socket_path}: "
                f"{type(error).__name__} {error}"
            ) from error
        except BaseException:
            # A reply that nobody read must not be taken for the next call's.
            connection.close()
            raise
        self._give_back(connection)
        return _value(reply)

    def _borrow(self) -> socket.socket:
        with self._lock:
            if self._closed:
                raise StoreUnavailable("this driver was closed; connect again")
            if self._idle:
                return self._idle.pop()
        return self._connect()

    def _give_back(self, connection: socket.socket) -> None:
        with self._lock:
            if not self._closed:
                self._idle.append(connection)
                return
        connection.close()

    def _drop(self, connection: socket.socket) -> None:
        """Close what failed, and with it the idle ones: they lead to the same server."""
        connection.close()
        with self._lock:
            idle, self._idle = self._idle, []
        for other in idle:
            other.close()

    def _connect(self) -> socket.socket:
        """A connection on which both sides have said hello, to a server that may have to be
        started first."""
        for _ in range(_STARTS):
            connection = self._place.connect(self._timeout_seconds)
            if connection is None:
                with self._place.locked():
                    connection = self._place.connect(self._timeout_seconds)
                    if connection is None:
                        self._place.start_server(self._linger_seconds)
                        continue
            try:
                return _greeted(connection)
            except (ConnectionError, EOFError):
                # The server was just ending; the lock tells when it is gone.
                connection.close()
                with self._place.locked():
                    continue
            except OSError as error:
                connection.close()
                raise StoreUnavailable(
                    f"the memory server at {self._place.socket_path} does not answer: {error}"
                ) from error
            except BaseException:
                connection.close()
                raise
        raise StoreUnavailable(
            f"no memory server stays up at {self._place.socket_path}; see {self._place.log_path}"
        )

    def close(self) -> None:
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()


def _greeted(connection: socket.socket) -> socket.socket:
    wire.send(connection, [wire.MAGIC, wire.PROTOCOL])
    try:
        _value(wire.receive(connection, most=wire.MAX_HELLO_BYTES))
    except wire.BrokenFrame as error:
        raise SchemaMismatch(f"this socket is not a memory server's: {error}") from error
    return connection


def _value(reply: Any) -> Any:
    """What the server returned; raises what it raised."""
    match reply:
        case ["ok", value]:
            return value
        case ["error", str(name), str(message)]:
            raise _error(name, message)
    raise StoreError(f"the memory server sent an impossible reply: {reply!r}")


def _error(name: str, message: str) -> TaskHarborError:
    kind = getattr(errors, name, None)
    if isinstance(kind, type) and issubclass(kind, TaskHarborError):
        return kind(message)
    return StoreError(f"the memory server failed: {message}")


def _seconds(value: str | float, setting: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= _MOST_SECONDS:
        raise ConfigurationError(
            f"{setting}={value} in the URL is impossible; use more than 0 and at most "
            f"{_MOST_SECONDS:g} seconds"
        )
    return seconds
