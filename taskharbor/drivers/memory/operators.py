"""The operators' side of the store: look, requeue, delete, pause."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from itertools import islice

from taskharbor.drivers.base import (
    DeleteVerdict,
    Job,
    JobFilter,
    Page,
    QueueInfo,
    RequeueVerdict,
)
from taskharbor.drivers.memory.record import Record
from taskharbor.drivers.memory.store import JobStore
from taskharbor.errors import InvalidCursor
from taskharbor.states import Reason, State


class Store(JobStore):
    """The whole contract. A list costs as much as there are jobs in the queues and states asked
    for; everything else what it touches."""

    def get(self, now: float, job_id: str) -> Job | None:
        with self._lock:
            record = self._jobs.get(job_id)
            return record.job() if record else None

    def list_jobs(self, now: float, where: JobFilter, cursor: str | None, limit: int) -> Page:
        below = _read_cursor(cursor)
        with self._lock:
            older = (
                record
                for record in self._jobs.matching(where)
                if below is None or record.order < below
            )
            found = heapq.nlargest(limit + 1, older, key=lambda record: record.order)
            page, rest = found[:limit], found[limit:]
            jobs = [record.job(brief=True) for record in page]
            return Page(jobs, str(page[-1].order) if page and rest else None)

    def queues(self, now: float) -> list[QueueInfo]:
        with self._lock:
            names = sorted(self._jobs.queues() | self._paused)
            return [self._queue_info(name) for name in names]

    def _queue_info(self, name: str) -> QueueInfo:
        ready = self._jobs.group(name, State.READY)
        return QueueInfo(
            name=name,
            paused=name in self._paused,
            counts={state: len(self._jobs.group(name, state)) for state in State},
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
                    self._requeue(now, self._jobs[job_id], due_at, reset_attempts)
                verdicts.append(verdict)
            return verdicts

    def _may_requeue(
        self, now: float, job_id: str, states: frozenset[State], queue: str | None
    ) -> RequeueVerdict:
        record = self._jobs.get(job_id)
        if record is None:
            return RequeueVerdict.NOT_FOUND
        if not record.state.terminal or record.state not in states:
            return RequeueVerdict.WRONG_STATE
        if queue not in (None, record.message.queue):
            return RequeueVerdict.WRONG_QUEUE
        if self._keys.owner(now, record.message) not in (None, job_id):
            return RequeueVerdict.KEY_HELD
        return RequeueVerdict.REQUEUED

    def _requeue(self, now: float, record: Record, due_at: float, reset_attempts: bool) -> None:
        self._jobs.take(record)
        self._keys.take(record)
        record.reason = Reason.OPERATOR
        record.due_at = due_at
        record.result = None
        record.expires_at = None
        record.unknown_since = None
        record.settled_fence = None
        record.finished_at = None
        if reset_attempts:
            record.attempts = 0
            record.losses = 0
        self._line_up(now, record, State.READY if due_at <= now else State.SCHEDULED)

    def delete(self, now: float, job_ids: Sequence[str]) -> list[DeleteVerdict]:
        with self._lock:
            return [self._delete(job_id) for job_id in job_ids]

    def _delete(self, job_id: str) -> DeleteVerdict:
        record = self._jobs.get(job_id)
        if record is None:
            return DeleteVerdict.NOT_FOUND
        if record.state is State.RUNNING:
            return DeleteVerdict.RUNNING
        self._drop(record)
        return DeleteVerdict.DELETED

    def purge(self, now: float, where: JobFilter, limit: int) -> int:
        with self._lock:
            idle = (r for r in self._jobs.matching(where) if r.state is not State.RUNNING)
            doomed = list(islice(idle, limit))
            for record in doomed:
                self._drop(record)
            return len(doomed)

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
