"""The operators' side: cancel, requeue, delete, purge, pause."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from taskharbor.drivers.base import CancelVerdict, DeleteVerdict, JobFilter, RequeueVerdict
from taskharbor.drivers.sqlite import flow_heads
from taskharbor.drivers.sqlite.changes import Changes, Head
from taskharbor.drivers.sqlite.enqueue import free_at, queue_id
from taskharbor.drivers.sqlite.inspector import find_page
from taskharbor.drivers.sqlite.queries import load
from taskharbor.drivers.sqlite.transaction import Tx, as_numbers, as_texts
from taskharbor.message import check_name
from taskharbor.states import TERMINAL, WAITING, Reason, State

_SQL = load("operate")
_FROM_THE_NEWEST = 1 << 62
_FACTS = 4
"""Fields of a Found between the state and the head."""


class Found(NamedTuple):
    """A job as an operator's step finds it."""

    state: State
    attempts: int
    queue_name: str
    enqueued_at: float
    awaits: str | None
    head: Head


class Requeue(NamedTuple):
    """How to requeue: which jobs qualify, and when they are due."""

    states: frozenset[State]
    queue: str | None
    due_at: float
    reset_attempts: bool


def _find(tx: Tx, job_ids: Sequence[str]) -> dict[str, Found]:
    found = {}
    for state, *facts in tx.all(_SQL["heads"], (as_texts(job_ids),)):
        head = Head(*facts[_FACTS:])
        attempts, queue_name, enqueued_at, awaits = facts[:_FACTS]
        found[head.id] = Found(State(state), attempts, queue_name, enqueued_at, awaits, head)
    return found


def cancel(tx: Tx, job_ids: Sequence[str], reason: Reason) -> list[CancelVerdict]:
    found = _find(tx, job_ids)
    changes = Changes(tx)
    verdicts = {
        job_id: _cancel(changes, found.get(job_id), reason) for job_id in dict.fromkeys(job_ids)
    }
    running = [job.head.seq for job in found.values() if job.state is State.RUNNING]
    if running:
        tx.execute(_SQL["request_cancel"], (str(reason), as_numbers(running)))
    changes.flush()
    after = _after_cancel(found)
    answers = []
    for job_id in job_ids:
        answers.append(verdicts[job_id])
        # The same id again: it is as the first one left it.
        verdicts[job_id] = after.get(job_id, verdicts[job_id])
    return answers


def _cancel(changes: Changes, job: Found | None, reason: Reason) -> CancelVerdict:
    if job is None:
        return CancelVerdict.NOT_FOUND
    if job.state in TERMINAL:
        return CancelVerdict.FINISHED
    if job.state is State.RUNNING:
        return CancelVerdict.REQUESTED
    _leave(changes, job)
    changes.cancel_waiting(job.head, reason, attempts=job.attempts)
    if job.state is State.BLOCKED and job.awaits is not None:
        flow_heads.cancel(changes.tx, job.awaits, reason)
    changes.tx.wake()
    return CancelVerdict.CANCELLED


def _after_cancel(found: dict[str, Found]) -> dict[str, CancelVerdict]:
    """What a second cancel of a job that was waiting hears."""
    return {
        job_id: CancelVerdict.FINISHED if job.head.keep_cancelled > 0 else CancelVerdict.NOT_FOUND
        for job_id, job in found.items()
        if job.state in WAITING
    }


def _leave(changes: Changes, job: Found) -> None:
    """Remove the row of the state it is in; not for running jobs."""
    match job.state:
        case State.READY:
            changes.leave_ready(job.head)
        case State.SCHEDULED:
            changes.leave_scheduled(job.head)
        case State.BLOCKED:
            changes.leave_blocked(job.head)
        case state:
            changes.leave_ended(job.head, state.value)


def requeue(tx: Tx, job_ids: Sequence[str], how: Requeue) -> list[RequeueVerdict]:
    found = _find(tx, job_ids)
    verdicts = []
    for job_id in job_ids:
        job = found.get(job_id)
        verdict = _judge_requeue(tx, job, how)
        if job is not None and verdict is RequeueVerdict.REQUEUED:
            _requeue(tx, job, how)
            found[job_id] = job._replace(state=State.READY)
        verdicts.append(verdict)
    return verdicts


def _judge_requeue(tx: Tx, job: Found | None, how: Requeue) -> RequeueVerdict:
    if job is None:
        return RequeueVerdict.NOT_FOUND
    if job.state not in how.states & TERMINAL:
        return RequeueVerdict.WRONG_STATE
    if how.queue is not None and how.queue != job.queue_name:
        return RequeueVerdict.WRONG_QUEUE
    if job.head.key is not None:
        holder = tx.one(_SQL["key_holder"], (job.head.queue, job.head.key, tx.now))
        if holder is not None and holder[0] != job.head.seq:
            return RequeueVerdict.KEY_HELD
    return flow_heads.may_requeue(tx, job.head.seq) if job.head.in_flow else RequeueVerdict.REQUEUED


def _requeue(tx: Tx, job: Found, how: Requeue) -> None:
    head = job.head._replace(expires_at=None)
    tx.execute(_SQL["keep_success"], (head.seq,))
    changes = Changes(tx)
    _leave(changes, job)
    due_at = max(tx.now, how.due_at)
    blocked = flow_heads.requeue_blocks(tx, head, job.awaits)
    if blocked:
        changes.to_blocked(head, str(Reason.OPERATOR))
    else:
        changes.to_line(head, str(Reason.OPERATOR), due_at=due_at)
    changes.flush()
    attempts = 0 if how.reset_attempts else job.attempts
    tx.execute(_SQL["carry_requeued"], (head.seq, attempts, due_at, how.reset_attempts))
    if job.head.expires_at is not None:
        tx.execute(_SQL["never_expires"], (head.seq,))
    if head.key is not None:
        until = free_at(job.enqueued_at, head.key_seconds)
        if until is None or until > tx.now:
            tx.execute(_SQL["take_key"], (head.queue, head.key, head.seq, until))
    if head.in_flow:
        flow_heads.requeued(tx, head, blocked=blocked)
    tx.wake()


def delete(tx: Tx, job_ids: Sequence[str]) -> list[DeleteVerdict]:
    found = _find(tx, job_ids)
    changes = Changes(tx)
    verdicts = []
    for job_id in job_ids:
        job = found.get(job_id)
        if job is None:
            verdicts.append(DeleteVerdict.NOT_FOUND)
        elif job.state is State.RUNNING:
            verdicts.append(DeleteVerdict.RUNNING)
        elif job.head.in_flow:
            verdicts.append(DeleteVerdict.IN_FLOW)
        else:
            _leave(changes, job)
            changes.forget(job.head)
            del found[job_id]
            verdicts.append(DeleteVerdict.DELETED)
    changes.flush()
    tx.wake()
    return verdicts


def purge(tx: Tx, where: JobFilter, limit: int) -> int:
    """Running jobs and those of flows are passed over, so it looks further than ``limit``."""
    purged, before = 0, _FROM_THE_NEWEST
    while purged < limit:
        seqs = find_page(tx, where, before, limit - purged)
        if not seqs:
            break
        before = seqs[-1]
        ids = [row[0] for row in tx.all(_SQL["ids"], (as_numbers(seqs),))]
        purged += sum(verdict is DeleteVerdict.DELETED for verdict in delete(tx, ids))
    return purged


def pause(tx: Tx, queue: str) -> None:
    """Raises InvalidJob for a name that no queue can have: nothing else would remove it again."""
    check_name("queue", queue)
    tx.execute(_SQL["pause"], (queue_id(tx, queue),))


def resume(tx: Tx, queue: str) -> None:
    check_name("queue", queue)
    tx.execute(_SQL["resume"], (queue,))
    tx.wake()
