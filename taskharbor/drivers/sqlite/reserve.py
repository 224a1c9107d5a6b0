"""Giving out leases: the head of the line, queue by queue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from taskharbor.drivers.base import Want
from taskharbor.drivers.sqlite.changes import Changes, Head
from taskharbor.drivers.sqlite.queries import load
from taskharbor.drivers.sqlite.transaction import Row, Tx
from taskharbor.lease import Reservation
from taskharbor.states import Reason, State

_SQL = load("exchange")

EXPIRED_PER_CALL = 256
"""Jobs past their expiry that one call cancels on its way, before it says ``more``."""

_build = Reservation._make
_HEAD_FIELDS = len(Head._fields)


class Reserved(NamedTuple):
    jobs: list[Reservation]
    more: bool


def is_retired(tx: Tx, holder: str) -> bool:
    return tx.one(_SQL["is_retired"], (holder,)) is not None


def any_ready(tx: Tx, queues: Sequence[str]) -> bool:
    """Whether a job is in line in one of ``queues``: lets an idle worker's call do without a
    write."""
    for name in queues:
        queue = _open_queue(tx, name)
        if queue is not None and tx.one(_SQL["any_ready"], (queue,)) is not None:
            return True
    return False


def reserve(tx: Tx, holder: str, want: Want) -> Reserved:
    """``more`` is whether the call stopped before it saw the end of the line."""
    jobs: list[Reservation] = []
    patience = EXPIRED_PER_CALL
    for name in dict.fromkeys(want.queues):
        left = want.limit - len(jobs)
        if left <= 0:
            return Reserved(jobs, True)
        queue = _open_queue(tx, name)
        if queue is None:
            continue
        patience -= _cancel_expired(tx, queue, left, patience)
        if patience <= 0:
            return Reserved(jobs, True)
        jobs += _lease_head(tx, queue, name, left, holder, want.lease_seconds)
    return Reserved(jobs, len(jobs) >= want.limit)


def _open_queue(tx: Tx, name: str) -> int | None:
    """The queue's number; None when it is paused or nobody ever used it."""
    try:
        row = tx.one(_SQL["open_queue"], (name,))
    except UnicodeEncodeError:  # a lone surrogate: no queue's name has one
        return None
    return None if row is None else row[0]


def _cancel_expired(tx: Tx, queue: int, look: int, most: int) -> int:
    """Cancel what has expired at the head of the line, until the first ``look`` jobs are worth
    starting or ``most`` are cancelled; how many were."""
    cancelled = 0
    while cancelled < most:
        rows = tx.all(_SQL["expired_in_line"], (queue, min(look, most), tx.now))
        if not rows:
            break
        _cancel(tx, rows)
        cancelled += len(rows)
    return cancelled


def _cancel(tx: Tx, rows: list[Row]) -> None:
    changes = Changes(tx)
    for row in rows:
        job = Head(*row[:_HEAD_FIELDS])
        changes.leave_ready(job)
        changes.cancel_waiting(job, Reason.EXPIRED, attempts=row[_HEAD_FIELDS])
    changes.flush()
    tx.wake()


def _lease_head(
    tx: Tx, queue: int, name: str, limit: int, holder: str, seconds: float
) -> list[Reservation]:
    arguments = (holder, tx.now, tx.now + seconds, queue, limit)
    cursor = tx.execute(_SQL["lease_line"], arguments)
    leased = cursor.rowcount
    if leased == 0:
        return []
    newest = cursor.lastrowid
    assert newest is not None
    rows = tx.execute(_SQL["leased"], (name, newest - leased))
    jobs = [_build((*row[:-2], False, holder, *row[-2:])) for row in rows]
    _leave_line(tx, queue, newest, one_rank=jobs[0].priority == jobs[-1].priority)
    tx.count(queue, State.READY, -leased)
    tx.count(queue, State.RUNNING, leased)
    return jobs


def _leave_line(tx: Tx, queue: int, newest: int, *, one_rank: bool) -> None:
    """Remove from the line all up to the job that got fence ``newest``."""
    place = tx.one(_SQL["place"], (newest,))
    assert place is not None
    if not one_rank:
        tx.execute(_SQL["leave_ranks"], (queue, place[0]))
    tx.execute(_SQL["leave_rank"], (queue, *place))
