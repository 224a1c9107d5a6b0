"""Waiting without a busy loop: for jobs, for results.

A waiter listens, looks, listens again. It listens before it looks for the first time, so nothing
can happen between the two that it never hears of.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence

from taskharbor.drivers.base import Outcome
from taskharbor.drivers.sqlite import faults, inspector, reserve
from taskharbor.drivers.sqlite.transaction import Store
from taskharbor.errors import StoreUnavailable

LOOK_SECONDS = 0.1
"""Between two looks of a waiter that hears nothing: for rings that nobody could send."""
LOOKS_AFTER_RING = (0.005, 0.02, 0.05)
"""The looks after a ring with nothing behind it: an enqueue that joined its caller's transaction
rings before the caller commits."""
QUIET_FIRST_SECONDS = 0.001
QUIET_LONGEST_SECONDS = 0.016
"""After a ring that was for others, a waiter is deaf for a moment: on a busy store there are
hundreds a second, nearly all of them for somebody else."""


def wait_for_jobs(store: Store, queues: Sequence[str], seconds: float) -> None:
    """Looks at once only if it rang since this thread's last wait: while all workers are busy,
    a backlog alone must not turn the caller's loop into a busy one. Returns when another thread
    closes the driver."""

    def is_there() -> bool:
        with store.reading() as tx:
            return reserve.any_ready(tx, queues)

    first = store.connections.slot().watch is None
    watch = store.connections.watch()
    try:
        if first:
            _changed(store)  # what came before this look is no news after it
        if not ((first or watch.wait(0)) and is_there()):
            _listen(store, time.monotonic() + seconds, is_there)
    except StoreUnavailable:
        if not store.connections.closed:
            raise


def wait_for_results(store: Store, job_ids: Sequence[str], seconds: float) -> list[Outcome | None]:
    def is_there() -> bool:
        with store.reading() as tx:
            return not inspector.all_unfinished(tx, job_ids)

    deadline = time.monotonic() + seconds
    store.connections.watch()
    if not is_there():
        _listen(store, deadline, is_there)
    with store.reading() as tx:
        return inspector.results(tx, job_ids)


def _listen(store: Store, deadline: float, is_there: Callable[[], bool]) -> None:
    """Until ``is_there`` says so after a ring or a commit, or the time is over."""
    watch = store.connections.watch()
    looks: Iterator[float] = iter(())
    quiet = QUIET_FIRST_SECONDS
    while (left := deadline - time.monotonic()) > 0 and not store.connections.closed:
        rang = watch.wait(min(left, next(looks, LOOK_SECONDS)))
        if not rang and not _changed(store):
            continue
        if is_there():
            return
        if rang:
            looks = iter(LOOKS_AFTER_RING)
            time.sleep(min(quiet, left))
            quiet = min(quiet * 2, QUIET_LONGEST_SECONDS)


def _changed(store: Store) -> bool:
    try:
        return store.connections.changed()
    except sqlite3.Error as error:
        raise faults.translate(error, store.address.path) from error
