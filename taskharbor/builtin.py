"""Tasks for trying things without code: what ``taskharbor worker`` runs when it is given no app."""

from __future__ import annotations

import time
from typing import Any

from taskharbor.app import TaskHarbor
from taskharbor.context import current_job

app = TaskHarbor(name="builtin")

_SLICE_SECONDS = 0.1


@app.task(name="taskharbor.echo")
def echo(value: Any = None) -> Any:
    """Returns what it is given."""
    return value


@app.task(name="taskharbor.fail")
def fail(message: str = "this task always fails") -> None:
    """Raises RuntimeError, on every attempt."""
    raise RuntimeError(message)


@app.task(name="taskharbor.sleep")
def sleep(seconds: float = 1.0) -> float:
    """Does nothing for so many seconds, unless it is cancelled; returns how many it were."""
    job, began = current_job(), time.monotonic()
    while (left := began + seconds - time.monotonic()) > 0 and not job.cancelled:
        job.progress(1 - left / seconds if seconds else 1.0, f"{left:.1f} s left")
        time.sleep(min(left, _SLICE_SECONDS))
    return time.monotonic() - began
