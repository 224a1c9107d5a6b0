"""The connection on which a process hears notifications."""

from __future__ import annotations

import math
import select
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import psycopg
from psycopg.pq import ConnStatus

from taskharbor.drivers.postgres.connections import Connection
from taskharbor.drivers.postgres.statements import Rows
from taskharbor.drivers.postgres.store import Store


class Line:
    """A connection that listens, for one user at a time; others may interrupt one who reads."""

    def __init__(self, connection: Connection, tell: Callable[[str], None]) -> None:
        self._connection = connection
        self._encoding = connection.info.encoding
        self._tell = tell
        # Those that come with the answer to a LISTEN.
        connection.add_notify_handler(lambda notify: tell(notify.payload))
        self._end, self._other_end = socket.socketpair()
        self._end.setblocking(False)
        self._other_end.setblocking(False)
        self._poll = select.poll()
        self._poll.register(connection.pgconn.socket, select.POLLIN)
        self._poll.register(self._end, select.POLLIN)

    def listen(self, channel: str) -> None:
        """Raises psycopg's errors."""
        name = psycopg.sql.Identifier(channel)
        self._connection.execute(psycopg.sql.SQL("LISTEN {}").format(name))
        self._hear()  # what came behind the answer would not be seen from outside

    @property
    def lost(self) -> bool:
        return self._connection.pgconn.status != ConnStatus.OK

    def ask(self, store: Store, name: str, arguments: Mapping[str, Any]) -> Rows:
        """The answer to a statement of ``store``; raises what its ``rows_over`` does."""
        try:
            return store.rows_over(self._connection, name, **arguments)
        finally:
            self._hear()  # what came before the answer would not be seen from outside either

    def read(self, event: threading.Event, seconds: float) -> None:
        """Tell what comes, until ``event`` is set, ``seconds`` are over, or there is an interrupt,
        which may have been meant for one who read before. Raises psycopg's errors."""
        pgconn = self._connection.pgconn
        deadline = time.monotonic() + seconds
        while not event.is_set():
            left = deadline - time.monotonic()
            ready = [fd for fd, _ in self._poll.poll(max(0, math.ceil(left * 1000)))]
            if pgconn.socket in ready:
                pgconn.consume_input()
                self._hear()
            if self._end.fileno() in ready:
                self._end.recv(4096)
                break
            if left <= 0:
                break

    def _hear(self) -> None:
        while notify := self._connection.pgconn.notifies():
            self._tell(notify.extra.decode(self._encoding))

    def interrupt(self) -> None:
        """Whoever reads returns; or whoever does so next."""
        try:
            self._other_end.send(b"\0")
        except OSError:
            pass  # enough of them are there; or it was closed just now

    def close(self) -> None:
        self._connection.abandon()
        self._end.close()
        self._other_end.close()
