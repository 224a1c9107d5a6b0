"""One Redis server: redis-py's client of it, and a shorter way for the scripts.

redis-py connects. What it does for each command after that (packing its words one by one, locks and
statistics of its pool, telling one command from another, buffers) took twice as long as the script
of a small enqueue.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import redis

from taskharbor.drivers.redis.connection import Connection

FRESH_SECONDS = 0.0002
"""A connection that was used a moment ago is not looked at before it is used again: whatever closes
it takes longer to do so, and a reply that never comes is heard of anyway."""
PROBE_SECONDS = 0.25
"""How long a server that was silent gets to answer whoever looks whether it is back."""
FIRST_PAUSE_SECONDS, MOST_PAUSE_SECONDS = 0.5, 1.5
"""Between two such looks; it doubles at first. What is back is worked on within two seconds."""


def packed(*words: bytes) -> bytes:
    """Words of a command as Redis reads them."""
    return b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in words])


class Server:
    """Safe to share between threads; not across a fork."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        self._pause = 0.0  # while it is silent
        self._look_at = 0.0
        self._looking = threading.Lock()
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
        except BaseException as error:
            self._give_up(connection, error)
            raise
        self._give_back(connection)
        return reply

    def begin(self, requests: bytes) -> Connection:
        """Send packed commands. Returns the connection, for ``finish``, which must be called."""
        connection = self._take()
        try:
            connection.send(requests)
        except BaseException as error:
            self._give_up(connection, error)
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
        except BaseException as error:
            self._give_up(connection, error)
            raise
        self._give_back(connection)
        if failure is not None:
            raise failure
        return found

    @property
    def is_silent(self) -> bool:
        """It took a request and did not answer in time, and has answered none since."""
        return self._pause > 0

    @property
    def is_left_alone(self) -> bool:
        """Silent, and it is not yet time to look again."""
        return self.is_silent and time.monotonic() < self._look_at

    def is_up(self) -> bool:
        """Whether there is a connection, or one can be made. Of a silent server: whether it answers
        again, which is found out by one thread in a while; for all others it does not."""
        if self.is_silent:
            return self._answers_again()
        try:
            connection = self._take()
        except redis.RedisError:
            return False
        self._give_back(connection)
        return True

    def fell_silent(self) -> None:
        """A request, or a try to connect, was not answered in time."""
        self._pause = min(2 * self._pause, MOST_PAUSE_SECONDS) or FIRST_PAUSE_SECONDS
        self._look_at = time.monotonic() + self._pause

    def _answers_again(self) -> bool:
        # A server that is frozen takes connections, and requests: only an answer says anything.
        if self.is_left_alone or not self._looking.acquire(blocking=False):
            return False
        try:
            made = self._made(socket_timeout=PROBE_SECONDS, socket_connect_timeout=PROBE_SECONDS)
            try:
                made.connect()
                made.send_command("PING")
                made.read_response()
            finally:
                made.disconnect()
        except redis.RedisError:
            self.fell_silent()
            return False
        else:
            self._pause = 0.0
            return True
        finally:
            self._looking.release()

    def _take(self) -> Connection:
        try:
            connection = self._idle.pop()
        except IndexError:
            return self._new()
        if time.monotonic() - connection.used_at < FRESH_SECONDS or not connection.is_over():
            return connection
        connection.close()
        return self._new()

    def _new(self) -> Connection:
        try:
            return Connection(self.connect())
        except redis.TimeoutError:
            self.fell_silent()
            raise

    def _give_back(self, connection: Connection) -> None:
        connection.used_at = time.monotonic()
        self._pause = 0.0
        self._idle.append(connection)

    def _give_up(self, connection: Connection, error: BaseException) -> None:
        """A reply may still come on it, or never."""
        if isinstance(error, redis.TimeoutError):
            self.fell_silent()
        connection.close()

    def connect(self) -> Any:
        """redis-py's connection, not counted by the pool, which would hold on to it for good."""
        connection = self._made()
        connection.connect()
        return connection

    def _made(self, **settings: Any) -> Any:
        pool = self.client.connection_pool
        return pool.connection_class(**{**pool.connection_kwargs, **settings})

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
