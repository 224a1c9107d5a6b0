"""Signals as something to read in a select loop, instead of code that runs anywhere."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self

_HELD = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1)


@contextmanager
def held_signals() -> Iterator[None]:
    """A process started in here gets signals only when it calls ``let_signals_in``: before it has
    its handlers, one that is sent to all processes of a worker would end it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def let_signals_in() -> None:
    """The handlers are in place: what came meanwhile comes now."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD)


class SignalInbox:
    """While entered, the given signals only fill the inbox. Main thread only."""

    def __init__(self, numbers: Iterable[signal.Signals]) -> None:
        self._numbers = tuple(numbers)
        self._reader, self._writer = socket.socketpair()
        self._handlers: dict[int, Any] = {}
        self._wakeup = -1

    def __enter__(self) -> Self:
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        # A full inbox already wakes the loop; what does not fit are repetitions.
        self._wakeup = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._handlers = {number: signal.signal(number, _noted) for number in self._numbers}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        self._reader.close()
        self._writer.close()

    def fileno(self) -> int:
        return self._reader.fileno()

    def read(self) -> list[int]:
        """The signals that came since the last call, in order."""
        numbers = bytearray()
        try:
            while data := self._reader.recv(4096):
                numbers += data
        except BlockingIOError:
            pass
        return list(numbers)


def _noted(number: int, frame: FrameType | None) -> None:
    """The wake-up descriptor has it already."""
