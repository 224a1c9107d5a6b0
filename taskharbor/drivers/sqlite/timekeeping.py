"""What becomes due by itself: scheduled jobs, and records whose retention is over."""

from __future__ import annotations

from taskharbor.drivers.base import Promoted
from taskharbor.drivers.sqlite import flow_heads, flow_moves
from taskharbor.drivers.sqlite.changes import Changes, Head
from taskharbor.drivers.sqlite.queries import load
from taskharbor.drivers.sqlite.transaction import Tx
from taskharbor.states import Reason

_SQL = load("time")

SPARE_PAGES = 2000
"""Empty pages that the file keeps in any case, for what comes next: 8 MB."""
SHRINK_PAGES = 500
"""Pages that one prune gives back to the disk at most: moving what is behind them takes time."""


def next_due(tx: Tx) -> float | None:
    row = tx.one(_SQL["next_due"])
    times = (flow_heads.next_deadline(tx), None if row is None else row[0])
    return min((time for time in times if time is not None), default=None)


def promote(tx: Tx, limit: int) -> Promoted:
    rows = tx.all(_SQL["due"], (tx.now, limit))
    changes = Changes(tx)
    for attempts, *head in rows:
        job = Head(*head)
        changes.leave_scheduled(job)
        if job.expires_at is not None and job.expires_at <= tx.now:
            changes.cancel_waiting(job, Reason.EXPIRED, attempts=attempts)
        else:
            changes.to_line(job, str(Reason.DUE), due_at=tx.now)
    changes.flush()
    if rows:
        tx.wake()
    moved = len(rows) + flow_heads.cancel_overdue(tx, limit) + flow_moves.advance(tx)
    due = next_due(tx)
    more = tx.errands > 0 or (due is not None and due <= tx.now)
    return Promoted(moved, due, more, tx.now)


def prune(tx: Tx, limit: int) -> int:
    rows = tx.all(_SQL["overdue"], (tx.now, limit))
    changes = Changes(tx)
    for state, *head in rows:
        job = Head(*head)
        changes.leave_ended(job, state)
        changes.forget(job)
    changes.flush()
    pruned = len(rows)
    pruned += flow_heads.prune(tx, limit - pruned)
    flow_moves.remember(tx)
    for statement in ("prune_tombstones", "prune_retired"):
        if pruned < limit:
            pruned += tx.execute(_SQL[statement], (tx.now, limit - pruned)).rowcount
    if rows:
        tx.wake()
    _shrink(tx)
    return pruned


def _shrink(tx: Tx) -> None:
    """Give room back to the disk when more than half of the file is empty."""
    row = tx.one(_SQL["sizes"])
    assert row is not None
    pages, empty = row
    if empty > max(SPARE_PAGES, pages // 2):
        for _ in range(SHRINK_PAGES):
            # Python's sqlite3 takes but one step of this pragma, which is one page.
            tx.execute("PRAGMA incremental_vacuum(1)")
