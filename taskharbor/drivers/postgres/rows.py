"""From rows to the values of the contract."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from taskharbor import defaults
from taskharbor.drivers.base import Attempt, Exchange, Job, Outcome, QueueInfo, Settled, Want
from taskharbor.drivers.flows import FlowInfo
from taskharbor.flow.progress import flow_state
from taskharbor.lease import Reservation, Verdict
from taskharbor.states import Reason, State

Row = tuple[Any, ...]
VERDICTS = {verdict.value: verdict for verdict in Verdict}
_STATES: dict[str | None, State | None] = {state.value: state for state in State} | {None: None}
_DONE = Settled(Verdict.APPLIED, State.SUCCEEDED)
_new_tuple = tuple.__new__


def to_exchange(rows: list[Row], settlements: int, holder: str, want: Want | None) -> Exchange:
    """The answer to ``settlements`` and ``want`` from what the statement ``exchange`` returned."""
    now, more, retired, verdicts, states = rows.pop()[13:]
    if verdicts is None:
        settled = [_DONE] * settlements
    else:
        settled = [
            Settled(VERDICTS[verdict], _STATES[state])
            for verdict, state in zip(verdicts, states, strict=True)
        ]
    lease = (now, now + want.lease_seconds) if want else ()
    # One per job on the hot path: built as a tuple, at a third of the cost of the constructor.
    reserved = [
        _new_tuple(Reservation, (*row[:9], *lease, *row[9:11], False, holder, *row[11:13]))
        for row in rows
    ]
    return Exchange(settled, reserved, now, more, retired)


def to_outcome(row: Row) -> Outcome | None:
    state, reason, result, error = row
    return None if state is None else Outcome(State(state), Reason(reason), result, error)


def to_attempt(row: Row) -> Attempt:
    fence, number, holder, started_at, ended_at, reason, error = row
    return Attempt(fence, number, holder, started_at, ended_at, Reason(reason), error)


def to_job(row: Row, history: Sequence[Attempt] = ()) -> Job:
    (id_, task, queue, state, reason, priority, body, enqueued_at, due_at, attempts, losses,
     fence, holder, reserved_at, lease_expires_at, finished_at, expires_at, key,
     cancel_requested, progress, saved, result, error, flow, awaits) = row  # fmt: skip
    return Job(
        id=id_,
        task=task,
        queue=queue,
        state=State(state),
        reason=Reason(reason),
        priority=priority,
        body=body,
        enqueued_at=enqueued_at,
        due_at=due_at,
        attempts=attempts,
        losses=losses,
        fence=fence,
        holder=holder,
        reserved_at=reserved_at,
        lease_expires_at=lease_expires_at,
        finished_at=finished_at,
        expires_at=expires_at,
        idempotency_key=key,
        cancel_requested=cancel_requested,
        progress=progress,
        saved=saved,
        result=result,
        error=error,
        history=tuple(history[-defaults.MAX_HISTORY :]),
        flow=flow,
        awaits=awaits,
    )


def the_success(job: Job, settled: Row) -> Attempt:
    """The attempt that succeeded: its entry is the end of the job."""
    fence, holder, reserved_at = settled
    assert job.finished_at is not None
    return Attempt(fence, job.attempts, holder, reserved_at, job.finished_at, Reason.SUCCEEDED)


def to_queue(row: Row) -> QueueInfo:
    name, paused, oldest_ready_at, counts = row
    return QueueInfo(
        name=name,
        paused=paused,
        counts={state: int((counts or {}).get(state.value, 0)) for state in State},
        oldest_ready_at=oldest_ready_at,
    )


def to_flow(row: Row) -> FlowInfo:
    (id_, name, sealed, size, cancelled, failed, succeeded, dead, cancelled_jobs, created_at,
     finished_at, expires_at, key, result, parent) = row  # fmt: skip
    return FlowInfo(
        id=id_,
        name=name,
        state=flow_state(
            sealed=sealed,
            open_nodes=size - succeeded - dead - cancelled_jobs,
            failed=failed,
            cancelled=cancelled is not None,
        ),
        size=size,
        finished={
            State.SUCCEEDED: succeeded,
            State.DEAD: dead,
            State.CANCELLED: cancelled_jobs,
        },
        created_at=created_at,
        finished_at=finished_at,
        expires_at=expires_at,
        idempotency_key=key,
        result=result,
        parent=parent,
    )
