"""One counter of wake-ups, shared by all processes of a worker.

Maintenance adds one per hint that a job may be ready; an idle child waits for the descriptor to be
readable and takes one. A wake-up taken by a child that then dies is lost: polling covers it.
"""

from __future__ import annotations

import os
import select
from typing import Self


class Wake:
    """A semaphore with a descriptor: an eventfd on Linux, a pipe elsewhere. Never blocks, and
    threads may share it.

    Both descriptors are the same for an eventfd. They survive fork; for exec pass ``fds``.
    """

    __slots__ = ("read_fd", "write_fd")

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self.read_fd = read_fd
        self.write_fd = write_fd

    @classmethod
    def create(cls) -> Self:
        if hasattr(os, "eventfd"):
            fd = os.eventfd(0, os.EFD_SEMAPHORE | os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            return cls(fd, fd)
        read_fd, write_fd = os.pipe()
        os.set_blocking(read_fd, False)
        os.set_blocking(write_fd, False)
        return cls(read_fd, write_fd)

    @property
    def fds(self) -> tuple[int, int]:
        return self.read_fd, self.write_fd

    def fileno(self) -> int:
        """What to wait on (readable = at least one wake-up is there)."""
        return self.read_fd

    def add(self, count: int = 1) -> None:
        """Wake up to ``count`` waiters, unless a wake-up is there that nobody has taken yet.

        Hints to busy children must not pile up: each one left over would cost an idle child an
        empty exchange later.
        """
        if self.untaken():
            return
        try:
            if self.read_fd == self.write_fd:
                os.eventfd_write(self.write_fd, count)
            else:
                os.write(self.write_fd, b"\0" * min(count, 512))
        except BlockingIOError:
            pass  # as many are there already as anyone could use

    def untaken(self) -> bool:
        """Whether a wake-up is there."""
        # An object of this call's own: one that is shared refuses two threads at the same time.
        poll = select.poll()
        poll.register(self.read_fd, select.POLLIN)
        return bool(poll.poll(0))

    def take(self) -> bool:
        """Take one wake-up; False when another waiter was quicker."""
        try:
            if self.read_fd == self.write_fd:
                os.eventfd_read(self.read_fd)
                return True
            return bool(os.read(self.read_fd, 1))
        except BlockingIOError:
            return False

    def close(self) -> None:
        for fd in set(self.fds):
            os.close(fd)
