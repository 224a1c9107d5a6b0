"""What a process that a task forks (``os.fork``, multiprocessing) inherits from a child, undone.

It would inherit handlers that do nothing, so that ``Process.terminate()`` would not end it, and the
descriptor for signal numbers, so that a SIGTERM meant for it would stop the child. Signals are held
back from before the fork until the new process is an ordinary one: ``terminate()`` may come in
between. Programs started with ``subprocess`` are not concerned: exec resets handlers.

What such a process must never do is to go on where the child would: it has a copy of the child's
leases, and would run the same jobs again.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from contextlib import suppress
from typing import NoReturn

_OURS = (signal.SIGTERM, signal.SIGQUIT, signal.SIGINT)
_here = threading.local()


def make_forks_ordinary() -> None:
    """For the rest of this process' life."""
    os.register_at_fork(
        before=_hold_signals,
        after_in_parent=_let_signals_through,
        after_in_child=_be_ordinary,
    )


def _hold_signals() -> None:
    _here.mask = signal.pthread_sigmask(signal.SIG_BLOCK, _OURS)


def _let_signals_through() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _here.mask)


def _be_ordinary() -> None:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _let_signals_through()


def end_copy(error: BaseException | None) -> NoReturn:
    """End a forked process that has come back from the task's code, as Python ends a script:
    ``error`` is what the code raised in it, None if it returned. Without ``atexit`` and finalizers:
    they are the child's."""
    code = 0
    if isinstance(error, SystemExit) and isinstance(error.code, int | None):
        code = error.code or 0
    elif error is not None:
        code = 1
        with suppress(Exception):  # the task may have closed standard error
            traceback.print_exception(error)
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(code & 0xFF)
