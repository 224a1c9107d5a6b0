"""Replies are read right, in whatever pieces they come."""

import socket
import threading
from collections.abc import Iterator

import pytest
import redis

from taskharbor.drivers.redis.connection import Connection

LARGE = b"\r\n$5\r\nabc" * 300_000
REPLIES: list[tuple[bytes, object]] = [
    (b"$3\r\nabc\r\n", b"abc"),
    (b"$0\r\n\r\n", b""),
    (b"$4\r\n\r\n\r\n\r\n", b"\r\n\r\n"),
    (b"$-1\r\n", None),
    (b":12\r\n", 12),
    (b"+OK\r\n", b"OK"),
    (b"$%d\r\n%b\r\n" % (len(LARGE), LARGE), LARGE),
    (b"$1\r\nz\r\n", b"z"),
]


class Made:
    """What redis-py would have made."""

    def __init__(self, end: socket.socket) -> None:
        self._sock = end
        self._parser = redis.connection.DefaultParser(1024)

    def disconnect(self) -> None:
        self._sock.close()

    def can_read(self, timeout: float) -> bool:
        raise NotImplementedError


@pytest.fixture
def ends() -> Iterator[tuple[Connection, socket.socket]]:
    """A connection, and the server's end of it."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(30)
        yield Connection(Made(ours)), theirs


@pytest.mark.parametrize("piece", [1, 7, 65_536, 1 << 30])
def test_replies_come_in_any_pieces(ends: tuple[Connection, socket.socket], piece: int) -> None:
    connection, server = ends
    replies = REPLIES if piece > 7 else [one for one in REPLIES if one[1] is not LARGE]
    stream = b"".join(reply for reply, _ in replies)

    def send() -> None:
        for first in range(0, len(stream), piece):
            server.sendall(stream[first : first + piece])

    sender = threading.Thread(target=send)
    sender.start()
    try:
        assert [connection.reply() for _ in replies] == [value for _, value in replies]
    finally:
        sender.join(30)


def test_an_error_is_redis_own_and_the_next_reply_still_comes(
    ends: tuple[Connection, socket.socket],
) -> None:
    connection, server = ends
    server.sendall(b"-NOSCRIPT No matching script\r\n$1\r\na\r\n-READONLY no\r\n")
    with pytest.raises(redis.exceptions.NoScriptError):
        connection.reply()
    assert connection.reply() == b"a"
    with pytest.raises(redis.ReadOnlyError):
        connection.reply()


def test_an_end_and_a_silence_are_errors_of_the_connection(
    ends: tuple[Connection, socket.socket],
) -> None:
    connection, server = ends
    connection._socket.settimeout(0.01)
    with pytest.raises(redis.TimeoutError):
        connection.reply()
    server.sendall(b"$10\r\nhalf")
    server.close()
    with pytest.raises(redis.ConnectionError):
        connection.reply()
    with pytest.raises(redis.ConnectionError):
        connection.send(b"x" * 1000)


def test_a_timeout_is_kept_while_a_reply_is_awaited_and_while_a_request_is_sent() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(0.05)
        connection = Connection(Made(ours))
        assert not connection.can_receive(0)
        with pytest.raises(redis.TimeoutError):
            connection.reply()
        with pytest.raises(redis.TimeoutError):
            connection.send(b"x" * 10_000_000)


def test_what_arrives_unasked_is_seen(ends: tuple[Connection, socket.socket]) -> None:
    connection, server = ends
    assert not connection.is_over()
    server.sendall(b"$1\r\na\r\nrest")
    assert connection.can_receive(30)
    assert connection.reply() == b"a"
    assert connection.is_over()
    assert connection.received() == b"rest"
    assert not connection.can_receive(0)
    server.close()
    assert connection.is_over()


def test_what_no_script_replies_is_refused(ends: tuple[Connection, socket.socket]) -> None:
    connection, server = ends
    server.sendall(b"*1\r\n:1\r\n")
    with pytest.raises(redis.InvalidResponse):
        connection.reply()
