"""The operators' side of the store: look, requeue, delete, pause."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from itertools import islice

from taskharbor.drivers.base import (
    CancelVerdict,
    DeleteVerdict,
    Job,
    JobFilter,
    Page,
    QueueInfo,
    RequeueVerdict,
)
from taskharbor.drivers.flows import (
    EdgePage,
    FlowEnqueued,
    FlowInfo,
    FlowNode,
    FlowPage,
    Input,
)
from taskharbor.drivers.memory.record import Record
from taskharbor.drivers.memory.store import JobStore
from taskharbor.errors import InvalidCursor
from taskharbor.flow.plan import Part
from taskharbor.states import Reason, State


class Store(JobStore):
    """The whole contract. A list costs as much as there are jobs in the queues and states asked
    for; everything else what it touches."""

    def get(self, now: float, job_id: str) -> Job | None:
        with self._lock:
            record = self.jobs.get(job_id)
            return record.job() if record else None

    def list_jobs(self, now: float, where: JobFilter, cursor: str | None, limit: int) -> Page:
        below = _read_cursor(cursor)
        with self._lock:
            older = (
                record
                for record in self.jobs.matching(where)
                if below is None or record.order < below
            )
            found = heapq.nlargest(limit + 1, older, key=lambda record: record.order)
            page, rest = found[:limit], found[limit:]
            jobs = [record.job(brief=True) for record in page]
            return Page(jobs, str(page[-1].order) if page and rest else None)

    def queues(self, now: float) -> list[QueueInfo]:
        with self._lock:
            names = sorted(self.jobs.queues() | self._paused)
            return [self._queue_info(name) for name in names]

    def _queue_info(self, name: str) -> QueueInfo:
        ready = self.jobs.group(name, State.READY)
        return QueueInfo(
            name=name,
            paused=name in self._paused,
            counts={state: len(self.jobs.group(name, state)) for state in State},
            oldest_ready_at=next(iter(ready.values())).ready_at if ready else None,
        )

    def requeue(
        self,
        now: float,
        job_ids: Sequence[str],
        states: frozenset[State],
        queue: str | None,
        delay: float,
        eta: float | None,
        reset_attempts: bool,
    ) -> list[RequeueVerdict]:
        due_at = now + delay if eta is None else max(now, eta)
        with self._lock:
            verdicts = []
            for job_id in job_ids:
                verdict = self._may_requeue(now, job_id, states, queue)
                if verdict is RequeueVerdict.REQUEUED:
                    self._requeue(now, self.jobs[job_id], due_at, reset_attempts)
                verdicts.append(verdict)
            self.flows.advance(now)
            return verdicts

    def _may_requeue(
        self, now: float, job_id: str, states: frozenset[State], queue: str | None
    ) -> RequeueVerdict:
        record = self.jobs.get(job_id)
        if record is None:
            return RequeueVerdict.NOT_FOUND
        if not record.state.terminal or record.state not in states:
            return RequeueVerdict.WRONG_STATE
        if queue not in (None, record.message.queue):
            return RequeueVerdict.WRONG_QUEUE
        if self._keys.owner(now, record.message) not in (None, job_id):
            return RequeueVerdict.KEY_HELD
        return self.flows.may_requeue(record)

    def _requeue(self, now: float, record: Record, due_at: float, reset_attempts: bool) -> None:
        self.jobs.take(record)
        self._keys.take(record)
        record.reason = Reason.OPERATOR
        record.due_at = due_at
        record.expires_at = None
        record.start_anew(reset_attempts=reset_attempts)
        if self.flows.requeue_blocks(record):
            self.line_up(now, record, State.BLOCKED)
        else:
            self.line_up(now, record, State.READY if due_at <= now else State.SCHEDULED)
        self.flows.requeued(now, record)

    def delete(self, now: float, job_ids: Sequence[str]) -> list[DeleteVerdict]:
        with self._lock:
            return [self._delete(job_id) for job_id in job_ids]

    def _delete(self, job_id: str) -> DeleteVerdict:
        record = self.jobs.get(job_id)
        if record is None:
            return DeleteVerdict.NOT_FOUND
        if record.state is State.RUNNING:
            return DeleteVerdict.RUNNING
        if record.member is not None:
            return DeleteVerdict.IN_FLOW
        self.drop(record)
        return DeleteVerdict.DELETED

    def purge(self, now: float, where: JobFilter, limit: int) -> int:
        with self._lock:
            idle = (
                record
                for record in self.jobs.matching(where)
                if record.state is not State.RUNNING and record.member is None
            )
            doomed = list(islice(idle, limit))
            for record in doomed:
                self.drop(record)
            return len(doomed)

    # --- flows

    def enqueue_flow(self, now: float, part: Part) -> FlowEnqueued:
        with self._lock:
            return self.flows.store(now, part)

    def inputs(self, now: float, job_id: str, after: int, limit: int) -> list[Input]:
        with self._lock:
            return self.flows.look.inputs(job_id, after, limit)

    def input_results(self, now: float, job_id: str, after: int, limit: int) -> list[bytes]:
        with self._lock:
            return self.flows.look.input_results(job_id, after, limit)

    def flow(self, now: float, flow_id: str) -> FlowInfo | None:
        with self._lock:
            return self.flows.look.info(flow_id)

    def list_flows(self, now: float, cursor: str | None, limit: int) -> FlowPage:
        below = _read_cursor(cursor)
        with self._lock:
            return self.flows.look.page(below, limit)

    def flow_nodes(self, now: float, flow_id: str, after: int, limit: int) -> list[FlowNode]:
        with self._lock:
            return self.flows.look.nodes(flow_id, after, limit)

    def flow_edges(self, now: float, flow_id: str, cursor: str | None, limit: int) -> EdgePage:
        after = _read_cursor(cursor)
        with self._lock:
            return self.flows.look.edges(flow_id, after or 0, limit)

    def cancel_flow(self, now: float, flow_id: str, reason: Reason) -> CancelVerdict:
        with self._lock:
            verdict = self.flows.cancel(now, flow_id, reason)
            self.flows.advance(now)
            return verdict

    def delete_flow(self, now: float, flow_id: str) -> DeleteVerdict:
        with self._lock:
            return self.flows.delete(now, flow_id)

    # --- queues

    def pause(self, now: float, queue: str) -> None:
        with self._lock:
            self._paused.add(queue)

    def resume(self, now: float, queue: str) -> None:
        with self._lock:
            self._paused.discard(queue)
            self._waiters.touch(("queue", queue))


def _read_cursor(cursor: str | None) -> int | None:
    """The order that a page ended with. Raises InvalidCursor."""
    if cursor is None:
        return None
    if not (cursor.isascii() and cursor.isdecimal() and len(cursor) < 20):
        raise InvalidCursor(
            f"the cursor {cursor!r} was not given out by this store; begin again without one"
        )
    return int(cursor)
