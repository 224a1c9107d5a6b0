"""A storm of kills over a worker that drains a queue, and the ledger that judges it."""

from __future__ import annotations

import os
import random
import signal
import time
from dataclasses import dataclass

from taskharbor import State, TaskHarbor
from taskharbor.drivers.base import QueueInfo
from tests.scenarios import shop
from tests.scenarios.worker import Worker

BATCH = 10_000


@dataclass(frozen=True, slots=True)
class Ledger:
    """``kills``: children killed. ``started_again``: jobs with more than one attempt, because they
    were running when their child was killed. ``handed_out_again``: jobs that were only held, or had
    finished and were not settled yet. Both are allowed, and reported."""

    jobs: int
    succeeded: int
    left: int
    kills: int
    started_again: int
    handed_out_again: int
    seconds: float


def ride_out(
    worker: Worker, app: TaskHarbor, *, jobs: int, every_seconds: float, deadline_seconds: float
) -> Ledger:
    """Enqueue ``jobs`` no-ops and kill a random child every ``every_seconds``, if anything was done
    since the last one, until none is left waiting or running, or the deadline is over."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    # Nobody begins before all are there: the storm is to meet a long queue.
    app.driver.pause("default")
    call = shop.noop.using(max_attempts=1000)
    ids = [
        result.id
        for first in range(0, jobs, BATCH)
        for result in app.enqueue_many([call.s(n) for n in range(first, min(first + BATCH, jobs))])
    ]
    app.driver.resume("default")
    began = time.monotonic()
    kills, left = 0, jobs + 1
    while (now_left := _unfinished(app)) and time.monotonic() - began < deadline_seconds:
        children = worker.children()
        # On a slow machine every child would die before it has done anything, for ever.
        if children and now_left < left:
            left = now_left
            kills += _kill(rng.choice(children).pid)
        time.sleep(every_seconds)
    seconds = time.monotonic() - began
    records = [app.driver.get(job_id) for job_id in ids]
    return Ledger(
        jobs=jobs,
        succeeded=sum(r is not None and r.state is State.SUCCEEDED for r in records),
        left=_unfinished(app),
        kills=kills,
        started_again=sum(r is not None and r.attempts > 1 for r in records),
        handed_out_again=sum(r is not None and r.losses >= r.attempts for r in records),
        seconds=seconds,
    )


def _unfinished(app: TaskHarbor) -> int:
    queues: list[QueueInfo] = app.driver.queues()
    waiting = (State.READY, State.SCHEDULED, State.RUNNING)
    return sum(queue.counts[state] for queue in queues for state in waiting)


def _kill(pid: int) -> int:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return 0
    return 1
