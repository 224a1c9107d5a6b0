"""The server of ``memory://name``: one store, a thread per connection.

Started by the first client (``place.py``), which hands it the socket that already listens. It ends
by itself when it has had no client for its linger time; its jobs end with it. SIGTERM ends it at
once.

    python -m taskharbor.drivers.memory.server NAME LISTENING_FD LINGER_SECONDS
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
import traceback
from typing import Any

from taskharbor.drivers.memory import wire
from taskharbor.drivers.memory.operators import Store
from taskharbor.drivers.memory.place import Place
from taskharbor.errors import SchemaMismatch, TaskHarborError

METHODS = frozenset(
    {
        *("enqueue", "exchange", "held", "retire", "extend", "expired", "promote", "prune"),
        *("cancel", "wait", "results", "wait_results", "lead"),
        *("get", "list_jobs", "queues", "requeue", "delete", "purge", "pause", "resume"),
        *("enqueue_flow", "inputs", "input_results", "flow", "list_flows", "flow_nodes"),
        *("flow_edges", "cancel_flow", "delete_flow"),
    }
)
HELLO_SECONDS = 5.0


class Server:
    """Serves ``store`` on ``listener`` until nobody has been there for ``linger_seconds``."""

    def __init__(
        self, place: Place, listener: socket.socket, store: Store, linger_seconds: float
    ) -> None:
        self._place = place
        self._listener = listener
        self._store = store
        self._linger_seconds = linger_seconds
        self._lock = threading.Lock()
        self._clients = 0
        self._alone_since = time.monotonic()

    def run(self) -> None:
        while True:
            left = self._left_to_linger()
            if left <= 0:
                if self._end():
                    return
                continue
            self._listener.settimeout(left)
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            self._welcome(connection)

    def _left_to_linger(self) -> float:
        """Seconds until the server may end, the full time while it has a client."""
        with self._lock:
            alone = time.monotonic() - self._alone_since if self._clients == 0 else 0.0
        return self._linger_seconds - alone

    def _welcome(self, connection: socket.socket) -> None:
        with self._lock:
            self._clients += 1
        threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _end(self) -> bool:
        """Take the socket away, unless a client is just coming in; whether it is gone."""
        if not self._place.lock_path.parent.exists():
            return True  # somebody removed the directory: no client will ever find us
        with self._place.locked():
            # Who connects from here on is refused, finds the lock taken, and then no socket.
            self._listener.settimeout(0)
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                self._place.socket_path.unlink(missing_ok=True)
                self._listener.close()
                return True
            self._welcome(connection)
            return False

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection:
                self._converse(connection)
        except (EOFError, OSError):
            pass  # the client has gone, in whatever way
        except wire.BrokenFrame as error:
            _say(f"closed a connection that sent rubbish: {error}")
        finally:
            with self._lock:
                self._clients -= 1
                self._alone_since = time.monotonic()

    def _converse(self, connection: socket.socket) -> None:
        connection.settimeout(HELLO_SECONDS)
        _greet(connection)
        connection.settimeout(None)
        while True:
            request = wire.receive(connection)
            reply = self._answer(request)
            try:
                wire.send(connection, reply)
            except TaskHarborError as error:
                wire.send(connection, _refusal(error))

    def _answer(self, request: Any) -> list[Any]:
        match request:
            case [str(method), int() | float() | None as now, [*arguments]] if method in METHODS:
                pass
            case _:
                raise wire.BrokenFrame(f"no request: {str(request)[:200]}")
        try:
            value = getattr(self._store, method)(time.time() if now is None else now, *arguments)
        except TaskHarborError as error:
            return _refusal(error)
        except Exception as error:  # noqa: BLE001 - one client's mistake must not end the store
            _say(traceback.format_exc())
            return ["error", type(error).__name__, f"{method}: {type(error).__name__}: {error}"]
        return ["ok", value]


def _greet(connection: socket.socket) -> None:
    match wire.receive(connection, most=wire.MAX_HELLO_BYTES):
        case [wire.MAGIC, wire.PROTOCOL]:
            wire.send(connection, ["ok", os.getpid()])
        case [wire.MAGIC, protocol]:
            message = (
                f"the running memory server (pid {os.getpid()}) speaks protocol {wire.PROTOCOL}, "
                f"this client {str(protocol)[:40]}: they are different versions of TaskHarbor; end "
                "the server, or use another name"
            )
            wire.send(connection, _refusal(SchemaMismatch(message)))
            raise EOFError
        case other:
            raise wire.BrokenFrame(f"no hello: {str(other)[:200]}")


def _refusal(error: TaskHarborError) -> list[Any]:
    return ["error", type(error).__name__, str(error)]


def _say(text: str) -> None:
    sys.stderr.write(f"{text.rstrip()}\n")
    sys.stderr.flush()


def main(arguments: list[str]) -> None:
    name, descriptor, linger = arguments
    if os.fork():
        # The client waits for this process only: it must not have a zombie when we end.
        os._exit(0)
    # A client that ignores it, as a worker's maintenance does, has given us that.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM,))
    os.chdir("/")
    place = Place.of(name)
    listener = socket.socket(fileno=int(descriptor))
    # Fences are used outside the store too: a later server of this name goes on above.
    store = Store(first_fence=time.time_ns() // 1000)
    Server(place, listener, store, float(linger)).run()


if __name__ == "__main__":
    main(sys.argv[1:])
