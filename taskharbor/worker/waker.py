"""How a child's two threads sleep and wake: the reserve loop and the heartbeat thread.

Each sleeps in the kernel on descriptors, so that a wake-up is never lost: a byte written before the
other side went to sleep keeps its descriptor readable. To save the system call, a thread publishes
that it sleeps (and until when) *before* it looks once more at what there is to do; who changes
that afterwards sees the flag and writes.
"""

from __future__ import annotations

import math
import os
import select

from taskharbor.worker.table import boot_time
from taskharbor.worker.wake import Wake

_HAS_EPOLL = hasattr(select, "epoll")


class Nudge:
    """A descriptor that any thread can make readable."""

    __slots__ = ("read_fd", "write_fd")

    def __init__(self) -> None:
        self.read_fd, self.write_fd = os.pipe()
        os.set_blocking(self.read_fd, False)
        os.set_blocking(self.write_fd, False)

    def give(self) -> None:
        try:
            os.write(self.write_fd, b"\0")
        except BlockingIOError:
            pass  # the pipe is full of nudges: the sleeper will wake

    def drain(self) -> bytes:
        """What was written since; for the signal pipe: signal numbers, and 0 for a nudge."""
        try:
            return os.read(self.read_fd, 4096)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        os.close(self.read_fd)
        os.close(self.write_fd)


class Bed:
    """Where the reserve loop sleeps: until a time, a nudge, or one of the worker's wake-ups.

    Of many idle siblings the kernel wakes one per wake-up (EPOLLEXCLUSIVE), and none that is busy:
    a registration counts only while its process sleeps on it. Without epoll all idle siblings
    wake and one gets it.
    """

    def __init__(self, wake: Wake) -> None:
        self._wake = wake
        self._nudge = Nudge()
        self._deaf = select.poll()
        self._deaf.register(self._nudge.read_fd, select.POLLIN)
        self._listening: select.epoll | select.poll
        if _HAS_EPOLL:
            self._listening = select.epoll()
            self._listening.register(self._nudge.read_fd, select.EPOLLIN)
            self._listening.register(wake.fileno(), select.EPOLLIN | select.EPOLLEXCLUSIVE)
        else:
            self._listening = select.poll()
            self._listening.register(self._nudge.read_fd, select.POLLIN)
            self._listening.register(wake.fileno(), select.POLLIN)
        self.occupied = False

    def nudge(self) -> None:
        """Wake the reserve loop, if it sleeps or is about to."""
        if self.occupied:
            self._nudge.give()

    def sleep(self, until: float | None, *, listen: bool) -> bool:
        """Until boot time ``until``, a nudge, or (``listen``) a wake-up: then True.

        ``occupied`` must have been set before the caller decided to sleep; it is cleared here.
        """
        try:
            while (left := _left(until)) > 0:
                ready = self._poll(left, listen=listen)
                if self._nudge.read_fd in ready:
                    self._nudge.drain()
                    return False
                if self._wake.fileno() in ready and self._wake.take():
                    return True
            return False
        finally:
            self.occupied = False

    def _poll(self, seconds: float, *, listen: bool) -> set[int]:
        if listen and isinstance(self._listening, select.epoll):
            timeout = -1 if seconds == math.inf else seconds
            return {fd for fd, _ in self._listening.poll(timeout)}
        poller = self._listening if listen else self._deaf
        return {fd for fd, _ in poller.poll(_milliseconds(seconds))}

    def share(self) -> None:
        """There is work for one more: wake an idle sibling."""
        self._wake.add()

    def close(self) -> None:
        if isinstance(self._listening, select.epoll):
            self._listening.close()
        self._nudge.close()


class Alarm:
    """Where the heartbeat thread sleeps: until a time, a nudge, or a signal to the process.

    ``fd`` is made for ``signal.set_wakeup_fd``: what a signal handler writes there is read by this
    thread even while the main thread is deep in C code. ``wake_at`` is when the sleeper will look
    next by itself.
    """

    def __init__(self) -> None:
        self._nudge = Nudge()
        self._poll = select.poll()
        self._poll.register(self._nudge.read_fd, select.POLLIN)
        self.wake_at = 0.0

    @property
    def fd(self) -> int:
        return self._nudge.write_fd

    def before(self, when: float) -> None:
        """Wake the sleeper if it would sleep past ``when``."""
        if when < self.wake_at:
            self._nudge.give()

    def look_again(self) -> None:
        self._nudge.give()

    def deciding(self) -> None:
        """The thread is about to look at what there is and to choose ``wake_at``: whatever changes
        from now on is worth a nudge."""
        self.wake_at = math.inf

    def sleep(self, until: float) -> bytes:
        """The numbers of signals that arrived; 0 stands for a nudge."""
        self.wake_at = until
        self._poll.poll(_milliseconds(_left(until)))
        return self._nudge.drain()

    def close(self) -> None:
        self._nudge.close()


def _left(until: float | None) -> float:
    return math.inf if until is None else until - boot_time()


def _milliseconds(seconds: float) -> int | None:
    """Rounded up: a sleep that ends early would be followed by another for nothing."""
    return None if seconds == math.inf else max(0, math.ceil(seconds * 1000))
