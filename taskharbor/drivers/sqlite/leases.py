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
from taskharbor.drivers.sqlite.transaction import Row, Tx
from taskharbor.lease import Reservation, Verdict, judge
from taskharbor.states import State

_SQL = load("leases")

REMEMBER_RETIRED_SECONDS = 2 * 86_400.0
"""The contract asks for a day at least."""


def held(tx: Tx, holder: str) -> list[Reservation]:
    return _reservations(tx.all(_SQL["of_holder"], (holder,)))


def expired(tx: Tx, limit: int) -> list[Reservation]:
    return _reservations(tx.all(_SQL["expired"], (tx.now, limit)))


def _reservations(rows: list[Row]) -> list[Reservation]:
    return [Reservation._make((*row[:-4], bool(row[-4]), *row[-3:])) for row in rows]


def retire(tx: Tx, holder: str) -> list[Reservation]:
    tx.execute(_SQL["retire"], (holder, tx.now + REMEMBER_RETIRED_SECONDS))
    return held(tx, holder)


def extend(tx: Tx, renewals: Sequence[Renewal], seconds: float) -> list[Extended]:
    found = leases_by_fence(tx, [renewal.fence for renewal in renewals])
    return [_extend(tx, renewal, found.get(renewal.fence), seconds) for renewal in renewals]


def _extend(tx: Tx, renewal: Renewal, row: Row | None, seconds: float) -> Extended:
    count = len(Lease._fields)
    if row is None or row[count + 1] != renewal.job_id:
        return Extended(_refusal(tx, renewal))
    lease, seq = Lease(*row[:count]), row[count]
    verdict = judge(
        State.RUNNING,
        fence=renewal.fence,
        current_fence=lease.fence,
        settled_fence=None,
        lease_expires_at=lease.expires_at,
        now=tx.now,
    )
    if verdict is not Verdict.APPLIED:
        return Extended(verdict)
    expires_at = max(lease.expires_at, tx.now + seconds)
    tx.execute(_SQL["extend"], (expires_at, lease.fence))
    if renewal.progress is not None or renewal.saved is not None:
        tx.execute(_SQL["note"], (seq, renewal.progress, renewal.saved))
    return Extended(verdict, expires_at, lease.cancel_reason is not None)


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
