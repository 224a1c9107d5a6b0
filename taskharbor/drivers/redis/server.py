"""One Redis server: redis-py's client of it, and a shorter way for the scripts.

redis-py connects, and reads what comes back. What it does for each command in between (packing its
words one by one, locks and statistics of its pool, telling one command from another) took twice as
long as the script of a small enqueue.
"""

from __future__ import annotations

import time
from typing import Any

import redis

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
        self._idle: list[tuple[Any, float]] = []

    def call(self, request: bytes) -> Any:
        """The reply to one packed command. Raises redis' errors: a ResponseError when the server
        answered with one; after any other, whether the command was run is unknown."""
        return self.finish(self.begin(request))[0]

    def begin(self, requests: bytes) -> Any:
        """Send packed commands. Returns the connection, for ``finish``, which must be called."""
        connection = self._take()
        try:
            connection.send_packed_command((requests,), check_health=False)
        except BaseException:
            connection.disconnect()
            raise
        return connection

    def finish(self, connection: Any, replies: int = 1) -> list[Any]:
        """The replies to the commands that were sent. Raises like ``call``, of several errors the
        first."""
        found: list[Any] = []
        failure: redis.ResponseError | None = None
        try:
            for _ in range(replies):
                try:
                    found.append(connection.read_response())
                except redis.ResponseError as error:
                    failure = failure or error
        except BaseException:
            # The reply may still come, and would be taken for that of another command.
            connection.disconnect()
            raise
        self._idle.append((connection, time.monotonic()))
        if failure is not None:
            raise failure
        return found

    def is_up(self) -> bool:
        """Whether there is a connection, or one can be made."""
        try:
            connection = self._take()
        except redis.RedisError:
            return False
        self._idle.append((connection, time.monotonic()))
        return True

    def _take(self) -> Any:
        try:
            connection, used_at = self._idle.pop()
        except IndexError:
            return self.connect()
        if time.monotonic() - used_at < FRESH_SECONDS or not _is_over(connection):
            return connection
        connection.disconnect()
        return self.connect()

    def connect(self) -> Any:
        """A connection of its own, not counted by the pool, which would hold on to it for good."""
        pool = self.client.connection_pool
        connection = pool.connection_class(**pool.connection_kwargs)
        connection.connect()
        return connection

    def forget(self) -> None:
        """Connect anew for what comes next: this name may lead elsewhere by now."""
        while self._idle:
            try:
                connection, _ = self._idle.pop()
            except IndexError:
                break
            connection.disconnect()
        self.client.connection_pool.disconnect()

    def close(self) -> None:
        self.forget()
        self.client.close()


def _is_over(connection: Any) -> bool:
    """Whether something is there to be read although nothing was asked: the end, most likely."""
    try:
        return bool(connection.can_read(0))
    except redis.RedisError:
        return True
