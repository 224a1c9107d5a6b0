"""How a task steers its own end, and how a limit ends it: exceptions to raise.

All derive from BaseException, like ``SystemExit`` and ``asyncio.CancelledError``: a task's own
``except Exception`` is for its errors and must not swallow them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from taskharbor import defaults
from taskharbor.errors import InvalidJob

if TYPE_CHECKING:
    from taskharbor.canvas import Canvas


class Steering(BaseException):
    """Root of the exceptions that end an attempt in another way than by its error."""


class Retry(Steering):
    """Run this job again later: charged as an attempt, dead when none is left.

    ``delay``: seconds, instead of the job's backoff. Raised ``from`` an error, that error is what
    the job's history shows.
    """

    def __init__(self, message: str = "retry asked by the task", *, delay: float | None = None):
        super().__init__(message)
        self.delay = None if delay is None else _checked("Retry(delay=)", delay)


class Reject(Steering):
    """This job can never succeed: dead at once, whatever attempts are left."""

    def __init__(self, message: str = "rejected by the task") -> None:
        super().__init__(message)


class Snooze(Steering):
    """Not now: run again after ``delay`` seconds. Uncharged, so it may go on for ever."""

    def __init__(self, delay: float) -> None:
        self.delay = _checked("Snooze()", delay)
        super().__init__(f"snoozed for {delay:g} seconds")


class Cancel(Steering):
    """Nobody needs this job any more: it ends ``cancelled``, neither a success nor a failure."""

    def __init__(self, message: str = "cancelled by the task") -> None:
        super().__init__(message)


class Replace(Steering):
    """The job hands its work to the flow ``canvas``, and comes to what that comes to."""

    def __init__(self, canvas: Canvas[Any]) -> None:
        super().__init__("the task handed its work to a flow")
        self.canvas = canvas


class SoftTimeLimit(BaseException):
    """The attempt has used up its ``timeout``. Clean up and leave: the process is killed
    ``defaults.HARD_TIMEOUT_AFTER_SECONDS`` later."""

    def __init__(self, message: str = "the job ran into its time limit") -> None:
        super().__init__(message)


def _checked(what: str, delay: object) -> float:
    if (
        isinstance(delay, bool)
        or not isinstance(delay, int | float)
        or not (math.isfinite(delay) and 0 <= delay <= defaults.MAX_DELAY_SECONDS)
    ):
        raise InvalidJob(
            f"{what} was given {delay!r}; use a number of seconds from 0 to "
            f"{defaults.MAX_DELAY_SECONDS:g}"
        )
    return delay
