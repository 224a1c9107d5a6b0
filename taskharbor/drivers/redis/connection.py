"""A connection for commands that are packed already, and whose replies are short of kinds.

redis-py makes it: it knows TLS, accounts and Sentinels. From then on its socket is used without it:
what it does for each command and reply took as long as the system's calls for them.
"""

from __future__ import annotations

import select
import socket
import struct
from math import ceil
from typing import Any

import redis

_LEAST_BYTES, _MOST_BYTES = 1 << 16, 1 << 20  # asked for in one call of the system
_BULK = 0x24  # "$"


class Connection:
    """Not for two threads at once. Raises redis' errors; after any but a ResponseError it has to be
    closed: a reply may still come, and would be taken for that of another command."""

    __slots__ = ("_made", "_poll", "_recv", "_rest", "_sendall", "_socket", "used_at")

    def __init__(self, made: Any) -> None:
        """``made``: redis-py's, connected, with nothing under way."""
        self._made = made
        self._socket = made._sock  # no public name has it in all releases since 5.3
        _let_the_kernel_time(self._socket)
        self._sendall = self._socket.sendall
        self._recv = self._socket.recv
        self._rest = b""
        self._poll: select.poll | None = None
        self.used_at = 0.0

    def send(self, requests: bytes) -> None:
        try:
            self._sendall(requests)
        except (TimeoutError, BlockingIOError) as error:
            raise redis.TimeoutError("Timeout writing to socket") from error
        except OSError as error:
            raise redis.ConnectionError(f"{error} while writing to socket") from error

    def reply(self) -> Any:
        """The next one: bytes, a number, or None. Raises ResponseError when it is an error."""
        data = self._rest or self._receive()
        if data[0] == _BULK:
            # Nearly every reply is one string that arrives whole.
            end = data.find(b"\r\n")
            if end > 0:
                size = int(data[1:end])
                if len(data) == end + size + 4 and size >= 0:
                    self._rest = b""
                    return data[end + 2 : -2]
        return self._assembled(data)

    def _assembled(self, data: bytes) -> Any:
        while (end := data.find(b"\r\n")) < 0:
            data += self._receive()
        kind, text, data = data[:1], data[1:end], data[end + 2 :]
        self._rest = data
        if kind == b"$":
            return self._string(int(text))
        if kind == b":":
            return int(text)
        if kind == b"+":
            return text
        if kind == b"-":
            raise self._made._parser.parse_error(text.decode(errors="replace"))
        raise redis.InvalidResponse(f"a reply that no script gives: {kind + text!r}")

    def _string(self, size: int) -> bytes | None:
        if size < 0:
            return None
        parts, missing = [self._rest], size + 2 - len(self._rest)
        while missing > 0:
            parts.append(self._receive(missing))
            missing -= len(parts[-1])
        data = b"".join(parts)
        self._rest = data[size + 2 :]
        return data[:size]

    def _receive(self, missing: int = _LEAST_BYTES) -> bytes:
        try:
            data: bytes = self._recv(min(max(missing, _LEAST_BYTES), _MOST_BYTES))
        except (TimeoutError, BlockingIOError) as error:
            raise redis.TimeoutError("Timeout reading from socket") from error
        except OSError as error:
            raise redis.ConnectionError(f"{error} while reading from socket") from error
        if not data:
            raise redis.ConnectionError("Connection closed by server.")
        return data

    def can_receive(self, seconds: float) -> bool:
        """Whether there is something to read, or an end to hear of, within ``seconds``."""
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(self._socket, select.POLLIN)
        # What TLS has decrypted already is not seen from outside.
        unread = getattr(self._socket, "pending", None)
        if self._rest or (unread is not None and unread()):
            return True
        return bool(self._poll.poll(max(0, ceil(seconds * 1000))))

    def received(self) -> bytes:
        """Whatever has come, in whatever pieces; waits for the first."""
        data, self._rest = self._rest, b""
        return data or self._receive()

    def is_over(self) -> bool:
        """Whether there is something to read although nothing was asked: most likely, the end."""
        try:
            return self.can_receive(0)
        except (OSError, ValueError):
            return True

    def close(self) -> None:
        self._made.disconnect()


def _let_the_kernel_time(sock: socket.socket) -> None:
    """Before each send and receive of a socket with a timeout, Python asks whether it may. That
    was 2 of the 25 us of CPU of a ``delay()``; the kernel keeps the same timeout without asking."""
    seconds = sock.gettimeout()
    if not seconds or hasattr(sock, "pending"):  # TLS reads when it is to write
        return
    micros = max(1, round(seconds * 1_000_000))
    limit = struct.pack("@ll", micros // 1_000_000, micros % 1_000_000)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
    sock.settimeout(None)
