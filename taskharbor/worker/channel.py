"""Messages between the processes of one worker: JSON lines over a socket pair.

A stream and not datagrams, because macOS has no sequenced packets between processes; JSON, because
a line can be read in strace and in a log. Nothing here blocks: what the peer does not read yet is
kept, and the owner's select loop flushes it. What is queued stays small: the supervisor sends a
bounded number of reports, one per child, until they are acknowledged.
"""

from __future__ import annotations

import json
import select
import socket
import sys
from typing import Any

_READ_BYTES = 65_536

Frame = dict[str, Any]


class Channel:
    """One end. ``closed`` turns true when the peer is gone; sending is then a no-op."""

    __slots__ = ("_incoming", "_outgoing", "_socket", "closed")

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._incoming = bytearray()
        self._outgoing = bytearray()
        self.closed = False

    @classmethod
    def from_fd(cls, fd: int) -> Channel:
        """The end whose descriptor was inherited over an exec."""
        return cls(socket.socket(fileno=fd))

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def pending(self) -> bool:
        """Whether there is something to flush when the peer reads again."""
        return bool(self._outgoing) and not self.closed

    def send(self, kind: str, **fields: Any) -> None:
        """Queue one message and send what goes out at once."""
        if self.closed:
            return
        self._outgoing += json.dumps({"kind": kind, **fields}).encode() + b"\n"
        self.flush()

    def flush(self) -> None:
        while self.pending:
            try:
                sent = self._socket.send(self._outgoing)
            except BlockingIOError:
                return
            except OSError:  # the peer is gone: its exit is seen and handled by the owner
                self._gone()
                return
            del self._outgoing[:sent]

    def receive(self) -> list[Frame]:
        """All complete messages that have arrived; sets ``closed`` at the end of the stream."""
        self._read()
        *lines, rest = self._incoming.split(b"\n")
        self._incoming = bytearray(rest)
        return [json.loads(line) for line in lines]

    def receive_first(self) -> Frame | None:
        """The first complete message that has arrived; later ones stay for ``receive``."""
        self._read()
        line, newline, rest = self._incoming.partition(b"\n")
        if not newline:
            return None
        self._incoming = bytearray(rest)
        frame: Frame = json.loads(line)
        return frame

    def _read(self) -> None:
        while not self.closed:
            try:
                data = self._socket.recv(_READ_BYTES)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            if not data:
                self._gone()
                break
            self._incoming += data

    def close(self) -> None:
        self._gone()
        self._socket.close()

    def _gone(self) -> None:
        self.closed = True
        self._outgoing.clear()


def channel_pair() -> tuple[Channel, socket.socket]:
    """This process' end, and the other one to hand to a process that is to be started."""
    ours, theirs = socket.socketpair()
    return Channel(ours), theirs


def await_start(channel: Channel) -> Frame | None:
    """The first message of the process that started this one, None if it is gone already. More may
    have arrived with it: call ``receive`` before waiting for the channel again.

    Makes importable here what was importable there: an exec'd process knows the environment only.
    """
    while not channel.closed:
        select.select([channel], [], [])
        frame = channel.receive_first()
        if frame is not None:
            sys.path[:] = dict.fromkeys([*sys.path, *frame["sys_path"]])
            return frame
    return None
