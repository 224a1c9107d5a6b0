"""The soft limit in the main thread: an exception in the middle of a task's code, and only there.

The heartbeat thread names the attempt by its fence and sends the main thread a signal. Python runs
the handler in the main thread between two bytecodes, where it may find any of these:

* the attempt's own code: it raises there, once;
* the executor after that code: the attempt's ``interrupt`` is None, nothing happens;
* the executor before that code: nothing happens yet, but the executor finds ``interrupted`` set;
* the next attempt, or none: its fence is another one, nothing happens.

The handler and the code it looks at run in one thread, so what it sees can't change under it. Not
promised: code that never returns to the interpreter (one long C call) is not interrupted, and an
exception raised inside ``__del__`` is lost; both run into the hard limit.

SIGURG, because nothing happens to a process that gets one and has no handler: neither a program
started by the task nor a task that resets handlers can be killed by a late signal. (Go's runtime
chose it for its preemption on the same grounds.)
"""

from __future__ import annotations

import signal
import threading
from types import FrameType

from taskharbor.worker.attempt import Attempt

SIGNAL = signal.SIGURG


class Interrupter:
    """Make one in the main thread."""

    def __init__(self, attempts: list[Attempt | None]) -> None:
        """``attempts[0]`` is what the main thread runs."""
        self._attempts = attempts
        self._fence = -1
        self._main = threading.get_ident()
        signal.signal(SIGNAL, self._on_signal)

    def fire(self, fence: int) -> None:
        """End the attempt with this fence, if it is what the main thread runs. Any thread."""
        self._fence = fence
        signal.pthread_kill(self._main, SIGNAL)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        attempt = self._attempts[0]
        if attempt is None or attempt.fence != self._fence:
            return
        interrupt, attempt.interrupt = attempt.interrupt, None
        if interrupt is not None:
            interrupt()
