"""Flows as a whole: sealed, awaited, cancelled, deleted, pruned; and what a requeue asks of them.

What follows for their jobs is left as an errand, for ``flow_moves``.
"""

from __future__ import annotations

from taskharbor.drivers.base import CancelVerdict, DeleteVerdict, RequeueVerdict
from taskharbor.drivers.sqlite.changes import Changes, Head
from taskharbor.drivers.sqlite.queries import load
from taskharbor.drivers.sqlite.transaction import Tx, as_numbers
from taskharbor.flow.progress import Counters, Stance, Step, requeues_to, stance
from taskharbor.states import Reason, State

_SQL = load("flow_heads")


def seal(tx: Tx, flow: int, *, parent: str | None = None, walk: bool = True) -> None:
    """``walk``: there are jobs that are not in line yet though they need not wait."""
    tx.execute(_SQL["seal"], (tx.now, tx.now, parent, flow))
    if walk:
        add_errand(tx, flow)


def add_errand(tx: Tx, flow: int, source: int = 0, target: int = 0, position: int = -1) -> None:
    """To walk a job's edges beyond a place; without a source, all jobs of the flow."""
    tx.execute(_SQL["add_errand"], (flow, source, target, position))
    tx.errands += 1


def can_be_awaited(tx: Tx, flow_id: str) -> bool:
    return _awaitable(tx, flow_id) is not None


def begin_awaited(tx: Tx, flow_id: str, parent: str) -> None:
    flow = _awaitable(tx, flow_id)
    assert flow is not None
    seal(tx, flow, parent=parent)


def _awaitable(tx: Tx, flow_id: str) -> int | None:
    try:
        row = tx.one(_SQL["awaitable"], (flow_id,))
    except UnicodeEncodeError:  # a lone surrogate: no stored id has one
        return None
    return None if row is None else row[0]


# --- cancel -------------------------------------------------------------------------------------


def cancel(tx: Tx, flow_id: str, reason: Reason) -> CancelVerdict:
    """Its jobs follow when the errand is run."""
    try:
        row = tx.one(_SQL["cancel"], (str(reason), flow_id))
        if row is not None:
            flow, sealed = row
            if sealed:
                add_errand(tx, flow)
            return CancelVerdict.REQUESTED
        there = tx.one(_SQL["exists"], (flow_id,)) is not None
    except UnicodeEncodeError:
        there = False
    return CancelVerdict.FINISHED if there else CancelVerdict.NOT_FOUND


def cancel_overdue(tx: Tx, limit: int) -> int:
    """Cancel up to ``limit`` flows that are past their deadline; how many."""
    rows = tx.all(_SQL["overdue"], (tx.now, limit))
    for (flow_id,) in rows:
        cancel(tx, flow_id, Reason.EXPIRED)
    return len(rows)


def next_deadline(tx: Tx) -> float | None:
    row = tx.one(_SQL["next_deadline"])
    return None if row is None else row[0]


# --- requeue of a member or of a job that awaits a flow ------------------------------------------


def may_requeue(tx: Tx, seq: int) -> RequeueVerdict:
    """For a member of a flow that could be requeued but for that."""
    if _is_doomed(tx, seq):
        return RequeueVerdict.NOT_FOUND
    if _requeues_to(tx, seq) is Step.SKIP:
        return RequeueVerdict.UPSTREAM
    return RequeueVerdict.REQUEUED


def requeue_blocks(tx: Tx, job: Head, awaits: str | None) -> bool:
    """Whether the job has to wait for others; ``awaits``: the flow that it handed its work to."""
    if awaits is not None:
        row = tx.one(_SQL["exists"], (awaits,))
        if row is None:
            tx.execute(_SQL["await_nothing"], (job.seq,))
        elif row[0] is None:
            return True
    return job.in_flow and _requeues_to(tx, job.seq) is Step.BLOCK


def requeued(tx: Tx, job: Head, *, blocked: bool) -> None:
    """A member is back: its flow goes on, and is not cancelled any more."""
    tx.execute(_SQL["reopen"], (job.seq,))
    if not blocked:
        tx.execute(_SQL["in_line"], (job.seq,))


def _is_doomed(tx: Tx, seq: int) -> bool:
    row = tx.one(_SQL["place"], (seq,))
    return row is None or bool(row[5])


def _requeues_to(tx: Tx, seq: int) -> Step:
    row = tx.one(_SQL["place"], (seq,))
    assert row is not None
    pending, spoiled, released, errback, sealed, _ = row
    wanted = stance(Counters(pending, spoiled), errback=bool(errback)) if sealed else Stance.WAIT
    return requeues_to(wanted, released=bool(released))


# --- the end ------------------------------------------------------------------------------------


def delete(tx: Tx, flow_id: str) -> DeleteVerdict:
    try:
        row = tx.one(_SQL["deletable"], (flow_id,))
    except UnicodeEncodeError:
        row = None
    if row is None:
        return DeleteVerdict.NOT_FOUND
    flow, running = row
    if running:
        return DeleteVerdict.RUNNING
    _doom(tx, flow)
    tx.execute(_SQL["delete"], (tx.now, flow))
    return DeleteVerdict.DELETED


def _doom(tx: Tx, flow: int) -> None:
    tx.execute(_SQL["doom"], (flow,))
    tx.errands -= tx.execute(_SQL["drop_errands"], (flow,)).rowcount


def prune(tx: Tx, limit: int) -> int:
    """Drop up to ``limit`` jobs of flows whose retention is over; how many."""
    pruned = 0
    while pruned < limit:
        row = tx.one(_SQL["to_prune"], (tx.now,))
        if row is None:
            break
        flow, doomed = row
        if not doomed:
            _doom(tx, flow)
        jobs = _drop_jobs(tx, flow, limit - pruned)
        pruned += jobs
        if pruned < limit:
            _doom(tx, flow)
            tx.execute(_SQL["drop_flow"], (flow,))
    return pruned


def _drop_jobs(tx: Tx, flow: int, limit: int) -> int:
    rows = tx.all(_SQL["doomed_jobs"], (flow, limit))
    changes = Changes(tx)
    for state, *fields in rows:
        job = Head(*fields)
        if state == State.BLOCKED:
            changes.leave_blocked(job)
        else:
            # Not `leave_ended`: nothing of a doomed flow moves any more.
            changes.left_ended.append(job.seq)
            tx.count(job.queue, State(state), -1)
        changes.forget(job)
    changes.flush()
    seqs = as_numbers(row[1] for row in rows)
    tx.execute(_SQL["drop_edges"], (seqs,))
    tx.execute(_SQL["drop_nodes"], (seqs,))
    return len(rows)
