"""The tasks of the flows that are killed. Every one keeps the ledger.

A value says what it was made of, and in which order: ``folded`` of anything else is another number.
So a flow that comes to the right number had every input of every job, once and in its place.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterable
from typing import Any

from taskharbor import TaskFailed, current_job, group
from taskharbor.canvas import Canvas
from taskharbor.info import JobInfo
from tests.chaos.ledger import effect
from tests.chaos.tasks import ENDLESS, OLD_VERSION, Refused, app

MODULUS = 2**31 - 1
FAILURE = 7
"""What a failure that is allowed counts as."""


def folded(values: Iterable[int | Exception]) -> int:
    total = 1
    for value in values:
        total = (total * 31 + (value if isinstance(value, int) else FAILURE)) % MODULUS
    return total


@app.task(max_attempts=ENDLESS, max_losses=ENDLESS)
def number(value: int, seconds: float = 0.0) -> int:
    with effect():
        time.sleep(seconds)
    return value


@app.task(max_attempts=ENDLESS, max_losses=ENDLESS)
def flaky(value: int) -> int:
    """Keeps what waits for it waiting."""
    with effect():
        if current_job().attempt == 1:
            raise Refused("the first attempt fails")
    return value


@app.task(max_attempts=ENDLESS, max_losses=ENDLESS)
def shift(value: int, by: int) -> int:
    with effect():
        return folded([value, by])


@app.task(max_attempts=ENDLESS, max_losses=ENDLESS)
async def shift_async(value: int, by: int) -> int:
    with effect():
        await asyncio.sleep(0.02)
        return folded([value, by])


@app.task(max_attempts=ENDLESS, max_losses=ENDLESS)
def fold(values: list[int | Exception]) -> int:
    with effect():
        return folded(values)


@app.task(max_attempts=ENDLESS, max_losses=ENDLESS)
def fan_out(first: int, count: int) -> Canvas[int]:
    """Hands its work to a flow of ``count`` members: their numbers begin with ``first``."""
    with effect():
        return group(number.s(first + index) for index in range(count)) | fold.s()


@app.task(max_attempts=1)
def doomed() -> None:
    with effect():
        raise Refused("this one always fails")


@app.task(max_attempts=ENDLESS, max_losses=ENDLESS)
def tell_death(job: JobInfo, error: TaskFailed, traceback: str) -> str:
    """The error callback of jobs that can only die."""
    with effect():
        return f"{job.id} {error.job_id} {bool(traceback)}"


@app.task
def tell_nothing(*_: Any) -> None:
    """The error callback of jobs that can only succeed: never runs."""
    with effect():
        pass


@app.task
def never(*_: Any) -> None:
    """Comes after what can only die: never runs."""
    with effect():
        pass


if OLD_VERSION not in os.environ:

    @app.task(max_attempts=ENDLESS, max_losses=ENDLESS)
    def shift_anew(value: int, by: int) -> int:
        """Not in the app's version before: an old worker puts such jobs back."""
        with effect():
            return folded([value, by])
