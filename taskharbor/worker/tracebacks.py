"""SIGUSR1: what every thread of every process of the worker is doing, one process after another.

Each process writes its own traceback from a handler in C, which works while a task holds the GIL
but writes in pieces of a few bytes: two processes at once would make one illegible text. So the
supervisor asks one, and the next when that one is done. Linux says when that is; elsewhere each is
given a moment.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
from collections import deque
from collections.abc import Iterable
from math import inf
from pathlib import Path

LOOK_SECONDS = 0.01
LONGEST_WAIT_SECONDS = 1.0
"""For one process: one that is stopped writes when it is continued."""
MOMENT_SECONDS = 0.1
"""Where nobody says when a process is done."""

_BIT = 1 << (signal.SIGUSR1 - 1)


class Tracebacks:
    """One round at a time; asked again during a round, the others follow. Monotonic clock."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[str, int]] = deque()
        self._writing: int | None = None
        self._since = 0.0

    def ask(self, others: Iterable[tuple[str, int]]) -> None:
        """Write this process' traceback now, and let ``others``, each a name and a pid, follow."""
        _head("supervisor", os.getpid())
        faulthandler.dump_traceback(all_threads=True)
        self._waiting.extend(other for other in others if other not in self._waiting)

    def tick(self, now: float) -> float:
        """Ask the next one if it is its turn; when to be called again."""
        if self._writing is not None and not self._done(now):
            return now + LOOK_SECONDS
        self._writing = None
        while self._waiting:
            name, pid = self._waiting.popleft()
            _head(name, pid)
            if _signalled(pid):
                self._writing, self._since = pid, now
                return now + LOOK_SECONDS
        return inf

    def _done(self, now: float) -> bool:
        assert self._writing is not None
        waited = now - self._since
        if waited >= LONGEST_WAIT_SECONDS:
            return True
        if sys.platform != "linux":
            return waited >= MOMENT_SECONDS
        return waited >= LOOK_SECONDS and not _handles(self._writing)


def _head(name: str, pid: int) -> None:
    sys.stderr.write(f"--- {name}, process {pid} ---\n")
    sys.stderr.flush()


def _signalled(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGUSR1)
    except ProcessLookupError:
        return False
    return True


def _handles(pid: int) -> bool:
    """Whether SIGUSR1 still waits in the process or one of its threads runs the handler, which
    blocks the signal in that thread."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return any(_busy(task / "status") for task in tasks)
    except OSError:  # it, or one of its threads, ended while we looked: look again, or it is gone
        return os.path.exists(f"/proc/{pid}")


def _busy(status: Path) -> bool:
    fields = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
    return any(int(fields[name], 16) & _BIT for name in ("ShdPnd", "SigPnd", "SigBlk"))
