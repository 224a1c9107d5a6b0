"""Calls the app's signal handlers for losses, in a process of its own.

Handlers are user code: in the generation they could block the forks, in the supervisor everything.
One messenger runs at a time and takes all that has come together by then. What it has not told
when its time is over, or when the worker ends, is not told: signals are a convenience, the job's
history in the store is the record.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from math import inf

from taskharbor.maintenance.losses import Loss
from taskharbor.worker.logs import get_logger

MAX_WAITING = 10_000
MESSENGER_SECONDS = 30.0
LAST_WORDS_SECONDS = 1.0

_log = get_logger("taskharbor.worker")


class Messenger:
    """``fork(losses)`` starts the process that tells them, and returns its pid."""

    def __init__(self, fork: Callable[[list[Loss]], int]) -> None:
        self._fork = fork
        self._waiting: list[Loss] = []
        self._pid: int | None = None
        self._until = inf

    def tell(self, losses: list[Loss]) -> None:
        """Have these told, after those that are being told."""
        self._waiting += losses
        if len(self._waiting) > MAX_WAITING:
            _log.warning("too many losses to tell", dropped=len(self._waiting) - MAX_WAITING)
            del self._waiting[:-MAX_WAITING]
        self._send()

    def tick(self) -> float:
        """Notice the messenger's end, end one that takes too long; seconds until the next look."""
        if self._pid is None:
            return inf
        pid, _ = os.waitpid(self._pid, os.WNOHANG)
        if pid:
            self._pid = None
            self._send()
        elif time.monotonic() >= self._until:
            _log.warning("handlers of losses take too long; ending them", pid=self._pid)
            os.kill(self._pid, signal.SIGKILL)
        return max(0.1, self._until - time.monotonic())

    def end(self) -> None:
        """Give it a moment to finish, then kill it."""
        deadline = time.monotonic() + LAST_WORDS_SECONDS
        while self._pid is not None and time.monotonic() < deadline:
            self.tick()
            time.sleep(0.01)
        if self._pid is not None:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)

    def _send(self) -> None:
        if self._pid is None and self._waiting:
            losses, self._waiting = self._waiting, []
            try:
                self._pid = self._fork(losses)
            except OSError as error:
                _log.warning("losses could not be told", error=str(error), losses=len(losses))
                return
            self._until = time.monotonic() + MESSENGER_SECONDS
