"""All records, and the orders in which the store looks for them.

A record stands on the shelves of its state. Whoever moves a job takes its record down, changes it
and puts it up again: the shelves can't disagree with the records.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Any

from taskharbor.drivers.base import JobFilter
from taskharbor.drivers.memory.member import Member
from taskharbor.drivers.memory.record import Record
from taskharbor.drivers.memory.timeline import Timeline
from taskharbor.states import State


class Shelves:
    """``scheduled`` by when there is something to do (due or expired), ``leases`` by expiry,
    ``finished`` by the end of their retention, and per queue the line of ready jobs."""

    def __init__(self) -> None:
        self.scheduled: Timeline[float] = Timeline()
        self.leases: Timeline[float] = Timeline()
        self.finished: Timeline[float] = Timeline()
        self._records: dict[str, Record] = {}
        self._ready: dict[str, Timeline[tuple[int, int]]] = {}
        self._held: dict[str, dict[str, Record]] = {}
        self._groups: dict[tuple[str, State], dict[int, Record]] = {}

    def get(self, job_id: str | None) -> Record | None:
        return self._records.get(job_id) if job_id is not None else None

    def __getitem__(self, job_id: str) -> Record:
        return self._records[job_id]

    def member(self, job_id: str) -> Member | None:
        """The job's place in a flow; None for no job, or one of its own."""
        record = self._records.get(job_id)
        return None if record is None else record.member

    def put(self, record: Record) -> None:
        """Put a new or changed record up where its state belongs."""
        job_id, queue, state = record.id, record.message.queue, record.state
        self._records[job_id] = record
        self._groups.setdefault((queue, state), {})[record.order] = record
        if state is State.READY:
            line = self._ready.get(queue)
            if line is None:
                line = self._ready[queue] = Timeline()
            line.set(job_id, (-record.message.priority, record.order))
        elif state is State.RUNNING:
            self._held.setdefault(record.holder, {})[job_id] = record
            self.leases.set(job_id, record.lease_expires_at or 0.0)
        elif state is State.SCHEDULED:
            expires_at = record.due_at if record.expires_at is None else record.expires_at
            self.scheduled.set(job_id, min(record.due_at, expires_at))
        elif state.terminal and record.member is None:
            keep = getattr(record.message.retention, state.value)
            self.finished.set(job_id, (record.finished_at or 0.0) + keep)

    def take(self, record: Record) -> None:
        """Take a record down, to be changed or dropped."""
        job_id, queue, state = record.id, record.message.queue, record.state
        del self._records[job_id]
        _remove(self._groups, (queue, state), record.order)
        if state is State.READY:
            line = self._ready[queue]
            line.discard(job_id)
            if not line:
                del self._ready[queue]
        elif state is State.RUNNING:
            _remove(self._held, record.holder, job_id)
            self.leases.discard(job_id)
        elif state is State.SCHEDULED:
            self.scheduled.discard(job_id)
        else:
            self.finished.discard(job_id)

    def next_ready(self, queue: str) -> Record | None:
        """The first of the queue's line, left there."""
        line = self._ready.get(queue)
        first = line.first() if line else None
        return self._records[first[1]] if first else None

    def held(self, holder: str) -> list[Record]:
        """What ``holder`` runs, in the order it was reserved."""
        return list(self._held.get(holder, {}).values())

    def group(self, queue: str, state: State) -> dict[int, Record]:
        """The queue's jobs in ``state``, in the order they came into it. Not to be changed."""
        return self._groups.get((queue, state), {})

    def queues(self) -> set[str]:
        return {queue for queue, _ in self._groups}

    def matching(self, where: JobFilter) -> Iterator[Record]:
        """Jobs that match, in no order; costs as much as there are in the queue and state."""
        for (queue, state), group in self._groups.items():
            if where.queue not in (None, queue) or where.state not in (None, state):
                continue
            for record in group.values():
                if where.task in (None, record.message.task):
                    yield record


def _remove(shelf: dict[Any, dict[Any, Record]], key: Hashable, inner: Hashable) -> None:
    group = shelf[key]
    del group[inner]
    if not group:
        del shelf[key]
