"""What happens to leases between a reserve and a settle, and terms of leadership."""

from __future__ import annotations

from collections.abc import Sequence

from taskharbor.drivers.base import Extended, Renewal, Term
from taskharbor.drivers.sqlite.queries import load
from taskharbor.drivers.sqlite.settle import (
    Lease,
    find_standing,
    judge_without_lease,
    leases_by_fence,
)
from taskharbor.drivers.sqlite.transaction import Row, Store, Tx, as_numbers
from taskharbor.lease import Reservation, Verdict, judge
from taskharbor.states import State

_SQL = load("leases")

REMEMBER_RETIRED_SECONDS = 2 * 86_400.0
"""The contract asks for a day at least."""

_JOB_ID = len(Lease._fields) + 1
"""Where a row of ``leases_by_fence`` has it."""


def held(tx: Tx, holder: str) -> list[Reservation]:
    return _reservations(tx.all(_SQL["of_holder"], (holder,)))


def expired(tx: Tx, limit: int) -> list[Reservation]:
    return _reservations(tx.all(_SQL["expired"], (tx.now, limit)))


def _reservations(rows: list[Row]) -> list[Reservation]:
    return [Reservation._make((*row[:-4], bool(row[-4]), *row[-3:])) for row in rows]


def retire(tx: Tx, holder: str) -> list[Reservation]:
    tx.execute(_SQL["retire"], (holder, tx.now + REMEMBER_RETIRED_SECONDS))
    return held(tx, holder)


def extend(store: Store, renewals: Sequence[Renewal], seconds: float) -> list[Extended]:
    """The write is one statement of its own, and so is a note: a thread that waits for the GIL
    inside a transaction keeps the whole store waiting with it, and it is the heartbeat thread,
    beside a task that may hold the GIL for minutes, which calls this most.

    What may change between the steps does no harm. A fence is one job's for ever, so the leases
    found at first are still the right ones; they may end meanwhile, which the last look tells.
    """
    with store.reading() as tx:
        found = leases_by_fence(tx, [renewal.fence for renewal in renewals])
    ours = [renewal for renewal in renewals if _is_of(found.get(renewal.fence), renewal)]
    asked_at = store.wall()
    if ours:
        fences = as_numbers(renewal.fence for renewal in ours)
        store.write_alone(_SQL["extend"], (seconds, asked_at, fences))
    for renewal in ours:
        if renewal.progress is not None or renewal.saved is not None:
            note = (renewal.progress, renewal.saved, renewal.fence, asked_at)
            store.write_alone(_SQL["note"], note)
    with store.reading() as tx:
        now = max(tx.now, asked_at)
        left = leases_by_fence(tx, [renewal.fence for renewal in renewals])
        return [_answer(tx, renewal, left.get(renewal.fence), now) for renewal in renewals]


def _is_of(row: Row | None, renewal: Renewal) -> bool:
    return row is not None and row[_JOB_ID] == renewal.job_id


def _answer(tx: Tx, renewal: Renewal, row: Row | None, now: float) -> Extended:
    """A lease that is valid now was so before, and got its time."""
    if row is None or not _is_of(row, renewal):
        return Extended(_refusal(tx, renewal))
    lease = Lease(*row[: len(Lease._fields)])
    verdict = judge(
        State.RUNNING,
        fence=renewal.fence,
        current_fence=lease.fence,
        settled_fence=None,
        lease_expires_at=lease.expires_at,
        now=now,
    )
    if verdict is not Verdict.APPLIED:
        return Extended(verdict)
    return Extended(verdict, lease.expires_at, lease.cancel_reason is not None)


def _refusal(tx: Tx, renewal: Renewal) -> Verdict:
    standing = find_standing(tx, renewal.job_id)
    if standing is None:
        return Verdict.NOT_FOUND
    return judge_without_lease(standing, renewal.fence, terminal=False)


def lead(tx: Tx, name: str, holder: str, seconds: float) -> Term | None:
    row = tx.one(_SQL["leader"], (name,))
    leader, number, expires_at = row if row is not None else (None, 0, tx.now)
    if leader != holder:
        if tx.now < expires_at:
            return None
        number += 1
    term = Term(number, tx.now + seconds)
    tx.execute(_SQL["lead"], (name, holder, *term))
    return term
