"""Threads without which a child must not go on."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextvars import copy_context
from threading import Thread

from taskharbor.worker.config import ExitCode
from taskharbor.worker.logs import get_logger

_log = get_logger("taskharbor.worker.child")


def vital_thread(target: Callable[[], None], name: str) -> Thread:
    """A thread whose failure ends the process, with the traceback in the log: the supervisor
    replaces a child, but would not miss a thread.

    A daemon: it may be inside a driver call, or a task that never ends, when the child has to go.
    """

    # A new thread has an empty context; this one's says for the log which process it is.
    context = copy_context()

    def run() -> None:
        try:
            context.run(target)
        except BaseException:  # noqa: BLE001 - logged, and nothing goes on after it
            _log.exception("a thread of the child failed; the child ends", thread=name)
            os._exit(ExitCode.INTERNAL)

    return Thread(target=run, name=name, daemon=True)
