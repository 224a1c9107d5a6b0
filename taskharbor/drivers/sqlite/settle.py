"""Ending attempts: a verdict for every settlement, in order, and the moves of those that apply."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from taskharbor.drivers.base import Settled
from taskharbor.drivers.sqlite import flow_heads
from taskharbor.drivers.sqlite.changes import Changes, Ending, Head
from taskharbor.drivers.sqlite.queries import load
from taskharbor.drivers.sqlite.succeed import SUCCEEDED, succeed_plainly
from taskharbor.drivers.sqlite.transaction import Row, Tx, as_numbers
from taskharbor.lease import Verdict, judge
from taskharbor.settlement import Settlement
from taskharbor.states import Move, State

_SQL = load("exchange")


class Lease(NamedTuple):
    """A row of th_leases."""

    fence: int
    holder: str
    attempt: int
    reserved_at: float
    expires_at: float
    cancel_reason: str | None


_LEASE_FIELDS = len(Lease._fields)


class Standing(NamedTuple):
    """Where a job is that the shown fence has no lease on."""

    state: State
    settled_fence: int | None


def settle(tx: Tx, settlements: Sequence[Settlement]) -> list[Settled]:
    """Settlements see what those before them did. Wakes who waits for jobs or results."""
    done = succeed_plainly(tx, settlements)
    if len(done) == len(settlements):
        return [SUCCEEDED] * len(settlements)
    rest = [settlement for settlement in settlements if settlement.fence not in done]
    judged = iter(_settle_one_by_one(tx, rest))
    return [SUCCEEDED if settlement.fence in done else next(judged) for settlement in settlements]


def _settle_one_by_one(tx: Tx, settlements: Sequence[Settlement]) -> list[Settled]:
    leases = leases_by_fence(tx, [settlement.fence for settlement in settlements])
    changes = Changes(tx)
    settled = []
    for settlement in settlements:
        row = leases.get(settlement.fence)
        if row is None or row[_LEASE_FIELDS + 1] != settlement.job_id:
            # Judged by what is stored, so that has to be up to date first.
            changes.flush()
            settled.append(_without_lease(tx, settlement))
            continue
        lease, job = Lease._make(row[:_LEASE_FIELDS]), Head._make(row[_LEASE_FIELDS:])
        verdict = _judge(settlement, lease.expires_at, tx.now)
        state: State | None = State.RUNNING
        if verdict is Verdict.APPLIED and not _may_await(tx, settlement):
            verdict = Verdict.NOT_FOUND
        if verdict is Verdict.APPLIED:
            del leases[settlement.fence]
            state = _end(changes, lease, job, settlement)
            tx.wake()
        settled.append(Settled(verdict, state))
    changes.flush()
    return settled


def leases_by_fence(tx: Tx, fences: list[int]) -> dict[int, Row]:
    """The current leases among ``fences``: the fields of a Lease, then those of a Head."""
    return {row[0]: row for row in tx.all(_SQL["leases"], (as_numbers(fences),))}


def _judge(settlement: Settlement, expires_at: float, now: float) -> Verdict:
    return judge(
        State.RUNNING,
        fence=settlement.fence,
        current_fence=settlement.fence,
        settled_fence=None,
        lease_expires_at=expires_at,
        now=now,
        guard=settlement.guard,
    )


def _without_lease(tx: Tx, settlement: Settlement) -> Settled:
    standing = find_standing(tx, settlement.job_id)
    if standing is None:
        return Settled(_judge_gone(tx, settlement), None)
    verdict = judge_without_lease(standing, settlement.fence, terminal=settlement.terminal)
    return Settled(verdict, standing.state)


def find_standing(tx: Tx, job_id: str) -> Standing | None:
    """None when there is no such job."""
    try:
        row = tx.one(_SQL["standing"], (job_id,))
    except UnicodeEncodeError:  # a lone surrogate: no stored id has one
        return None
    if row is None:
        return None
    return Standing(State(row[0]), row[1])


def judge_without_lease(standing: Standing, fence: int, *, terminal: bool) -> Verdict:
    """For a fence that is not the job's current one."""
    return judge(
        standing.state,
        fence=fence,
        current_fence=-1,  # some other one, whichever it is
        settled_fence=standing.settled_fence,
        lease_expires_at=None,
        now=0.0,
        terminal_outcome=terminal,
    )


def _judge_gone(tx: Tx, settlement: Settlement) -> Verdict:
    try:
        row = tx.one(_SQL["tombstone"], (settlement.job_id,))
    except UnicodeEncodeError:
        return Verdict.NOT_FOUND
    replay = row is not None and row[0] == settlement.fence and settlement.terminal
    return Verdict.ALREADY if replay else Verdict.NOT_FOUND


def _may_await(tx: Tx, settlement: Settlement) -> bool:
    return settlement.awaits is None or flow_heads.can_be_awaited(tx, settlement.awaits)


def _end(changes: Changes, lease: Lease, job: Head, settlement: Settlement) -> State | None:
    """Apply; the state the job is in now."""
    changes.leave_lease(job, lease.fence)
    end = settlement.lands_in(cancel_requested=lease.cancel_reason is not None)
    attempts = lease.attempt if settlement.charged else lease.attempt - 1
    due_at = None if end.terminal else changes.tx.now + settlement.delay
    if settlement.move is not Move.SUCCEED:
        _write_history(changes, lease, job, settlement)
        _carry(changes, job, settlement, attempts, due_at)
    reason = str(settlement.reason)
    if settlement.awaits is not None and end is State.BLOCKED:
        flow_heads.begin_awaited(changes.tx, settlement.awaits, job.id)
        return changes.to_blocked(job, reason)
    if due_at is not None:
        return changes.to_line(job, reason, due_at=due_at)
    if not settlement.terminal and lease.cancel_reason is not None:
        reason = lease.cancel_reason
    ending = Ending(end, reason, attempts, lease.fence, lease.holder, lease.reserved_at)
    state = changes.to_end(job, ending, result=settlement.result)
    if state is None:
        keep_until = changes.tx.now + lease.expires_at - lease.reserved_at
        changes.buried.append((job.id, lease.fence, keep_until))
    return state


def _write_history(changes: Changes, lease: Lease, job: Head, settlement: Settlement) -> None:
    """A success needs no entry, its end says it all; a clean hand-back deserves none."""
    if settlement.move is Move.RELEASE and not settlement.loss:
        return
    times = (lease.reserved_at, changes.tx.now)
    changes.history.append(
        (
            job.seq,
            lease.fence,
            lease.attempt,
            lease.holder,
            *times,
            str(settlement.reason),
            settlement.error,
        )
    )


def _carry(
    changes: Changes, job: Head, settlement: Settlement, attempts: int, due_at: float | None
) -> None:
    """What the job brings along to its next attempt."""
    unknown_since = changes.tx.now if settlement.unknown else None
    keep = settlement.unknown or settlement.move is Move.RELEASE
    awaits = settlement.awaits if due_at is not None else None
    error, loss = settlement.error, int(settlement.loss)
    changes.carried.append((job.seq, attempts, loss, due_at, error, unknown_since, awaits, keep))
