"""One Redis server: redis-py's client of it, and a shorter way for the scripts.

redis-py connects. What it does for each command after that (packing its words one by one, locks and
statistics of its pool, telling one command from another, buffers) took twice as long as the script
of a small enqueue.
"""

from __future__ import annotations

import time
from typing import Any

import redis

from taskharbor.drivers.redis.connection import Connection

FRESH_SECONDS = 0.0002
"""A connection that was used a moment ago is not looked at before it is used again: whatever closes
it takes longer to do so, and a reply that never comes is heard of anyway."""


def packed(*words: bytes) -> bytes:
    """Words of a command as Redis reads them."""
    return b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in words])


class Server:
    """Safe to share between threads; not across a fork."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        # Appending and popping are atomic. The last that was used is the next: the others may be
        # closed by the server for being idle.
        self._idle: list[Connection] = []

    def call(self, request: bytes) -> Any:
        """The reply to one packed command. Raises redis' errors: a ResponseError when the server
        answered with one; after any other, whether the command was run is unknown."""
        connection = self._take()
        try:
            connection.send(request)
            reply = connection.reply()
        except redis.ResponseError:
            self._give_back(connection)
            raise
        except BaseException:
            connection.close()
            raise
        self._give_back(connection)
        return reply

    def begin(self, requests: bytes) -> Connection:
        """Send packed commands. Returns the connection, for ``finish``, which must be called."""
        connection = self._take()
        try:
            connection.send(requests)
        except BaseException:
            connection.close()
            raise
        return connection

    def finish(self, connection: Connection, replies: int = 1) -> list[Any]:
        """The replies to the commands that were sent. Raises like ``call``, of several errors the
        first."""
        found: list[Any] = []
        failure: redis.ResponseError | None = None
        try:
            for _ in range(replies):
                try:
                    found.append(connection.reply())
                except redis.ResponseError as error:
                    failure = failure or error
        except BaseException:
            connection.close()
            raise
        self._give_back(connection)
        if failure is not None:
            raise failure
        return found

    def is_up(self) -> bool:
        """Whether there is a connection, or one can be made."""
        try:
            connection = self._take()
        except redis.RedisError:
            return False
        self._give_back(connection)
        return True

    def _take(self) -> Connection:
        try:
            connection = self._idle.pop()
        except IndexError:
            return Connection(self.connect())
        if time.monotonic() - connection.used_at < FRESH_SECONDS or not connection.is_over():
            return connection
        connection.close()
        return Connection(self.connect())

    def _give_back(self, connection: Connection) -> None:
        connection.used_at = time.monotonic()
        self._idle.append(connection)

    def connect(self) -> Any:
        """redis-py's connection, not counted by the pool, which would hold on to it for good."""
        pool = self.client.connection_pool
        connection = pool.connection_class(**pool.connection_kwargs)
        connection.connect()
        return connection

    def forget(self) -> None:
        """Connect anew for what comes next: this name may lead elsewhere by now."""
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:
                break
            connection.close()
        self.client.connection_pool.disconnect()

    def close(self) -> None:
        self.forget()
        self.client.close()
