"""What a process that a task forks (``os.fork``, multiprocessing) inherits from a child, undone.

It would inherit handlers that do nothing, so that ``Process.terminate()`` would not end it, and the
descriptor for signal numbers, so that a SIGTERM meant for it would stop the child. Signals are held
back from before the fork until the new process is an ordinary one: ``terminate()`` may come in
between. Programs started with ``subprocess`` are not concerned: exec resets handlers.
"""

from __future__ import annotations

import os
import signal
import threading

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
