"""The operators' side of the contract: looking at jobs and moving them by hand."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from itertools import islice
from typing import Any

from taskharbor.drivers.base import (
    DeleteVerdict,
    Job,
    JobFilter,
    Page,
    QueueInfo,
    RequeueVerdict,
)
from taskharbor.drivers.redis import wire
from taskharbor.drivers.redis.store import Store
from taskharbor.errors import InvalidCursor
from taskharbor.states import State

BUCKETS = 16
"""Of 64 orders each: looked at by one call of ``list.lua``."""
LOOKS = 16
"""Calls of ``list.lua`` for one page of one shard, at most."""
_INDEX = {State.DEAD: "D", State.CANCELLED: "C"}
_START, _END = "*", "-"


class Operators:
    """Mixed into the driver, which has ``_store``."""

    _store: Store

    def get(self, job_id: str) -> Job | None:
        row = self._store.run(self._store.shard_of(job_id), "inspect", ([job_id], True))[0]
        return wire.job(row, brief=False) if row else None

    def list_jobs(self, where: JobFilter, *, cursor: str | None = None, limit: int = 100) -> Page:
        positions = read_cursor(cursor, self._store.address.shards)
        scans = [
            ([], _END) if position == _END else self._scan(shard, where, position, limit)
            for shard, position in enumerate(positions)
        ]
        # Orders are a shard's own; between shards the time of the enqueue decides.
        newest_first = heapq.merge(
            *(
                [(shard, order, job) for order, job in found]
                for shard, (found, _) in enumerate(scans)
            ),
            key=lambda entry: entry[2].enqueued_at,
            reverse=True,
        )
        taken = list(islice(newest_first, limit))
        for shard, order, _ in taken:
            positions[shard] = str(order)
        for shard, (found, end) in enumerate(scans):
            if not found or str(found[-1][0]) == positions[shard]:
                positions[shard] = end
        whole = set(positions) == {_END}
        return Page([job for *_, job in taken], None if whole else ",".join(positions))

    def _scan(
        self, shard: int, where: JobFilter, position: str, limit: int
    ) -> tuple[list[tuple[int, Job]], str]:
        """Jobs of a shard with their orders, newest first, and where to go on. Looks at a bounded
        number of jobs."""
        below = False if position == _START else int(position)
        index = _INDEX.get(where.state, False) if where.state else False
        found: list[tuple[int, Job]] = []
        for _ in range(LOOKS):
            listed, below = self._store.run(shard, "list", (below, limit, index, BUCKETS))
            rows = self._store.run(shard, "inspect", ([job_id for _, job_id in listed], False))
            for (order, _), row in zip(listed, rows, strict=True):
                job = wire.job(row, brief=True) if row else None
                if job is not None and _matches(job, where):
                    found.append((int(order), job))
                    if len(found) == limit:
                        return found, str(int(order))
            if below is False:
                return found, _END
        return found, str(int(below))

    def queues(self) -> list[QueueInfo]:
        infos: dict[str, QueueInfo] = {}
        for rows in self._store.each_shard("queues", ()):
            for name, paused, counts, oldest in rows:
                info = _queue(name.decode(), paused, counts, oldest)
                known = infos.get(info.name)
                infos[info.name] = info if known is None else _together(known, info)
        return sorted(infos.values(), key=lambda info: info.name)

    def requeue(
        self,
        job_ids: Sequence[str],
        *,
        states: frozenset[State] = frozenset({State.DEAD}),
        queue: str | None = None,
        delay: float = 0.0,
        eta: float | None = None,
        reset_attempts: bool = True,
    ) -> list[RequeueVerdict]:
        due = False if eta is None else wire.micros(eta)
        rest = (list(states), queue or False, due, wire.micros(delay), reset_attempts)
        verdicts = self._store.by_shard("requeue", job_ids, *rest)
        return [RequeueVerdict(verdict.decode()) for verdict in verdicts]

    def delete(self, job_ids: Sequence[str]) -> list[DeleteVerdict]:
        verdicts = self._store.by_shard("delete", job_ids)
        return [DeleteVerdict(verdict.decode()) for verdict in verdicts]

    def purge(self, where: JobFilter, *, limit: int = 1000) -> int:
        purged = 0
        cursor: str | None = None
        while purged < limit:
            page = self.list_jobs(where, cursor=cursor, limit=limit - purged)
            idle = [job.id for job in page.jobs if job.state is not State.RUNNING]
            purged += self.delete(idle).count(DeleteVerdict.DELETED)
            cursor = page.cursor
            if cursor is None:
                break
        return purged

    def pause(self, queue: str) -> None:
        self._store.each_shard("pause", (queue, True))

    def resume(self, queue: str) -> None:
        self._store.each_shard("pause", (queue, False))


def _matches(job: Job, where: JobFilter) -> bool:
    return (
        where.state in (None, job.state)
        and where.queue in (None, job.queue)
        and where.task in (None, job.task)
    )


def read_cursor(cursor: str | None, shards: int) -> list[str]:
    """A position for each shard: where to begin, or that it is done."""
    if cursor is None:
        return [_START] * shards
    positions = cursor.split(",")
    if len(positions) != shards or not all(map(_is_position, positions)):
        raise InvalidCursor(
            f"the cursor {cursor!r} was not given out by this store; begin again without one"
        )
    return positions


def _is_position(text: str) -> bool:
    return text in (_START, _END) or (text.isascii() and text.isdecimal() and len(text) < 16)


def _queue(name: str, paused: bool, counts: Sequence[bytes], oldest: Any) -> QueueInfo:
    by_state = dict.fromkeys(State, 0)
    for state, number in zip(counts[::2], counts[1::2], strict=True):
        by_state[State(state.decode())] = int(number)
    return QueueInfo(
        name=name,
        paused=paused,
        counts=by_state,
        oldest_ready_at=oldest / 1e6 if oldest else None,
    )


def _together(one: QueueInfo, other: QueueInfo) -> QueueInfo:
    """The same queue in two shards."""
    oldest = [info.oldest_ready_at for info in (one, other) if info.oldest_ready_at is not None]
    return QueueInfo(
        name=one.name,
        paused=one.paused or other.paused,
        counts={state: one.counts[state] + other.counts[state] for state in State},
        oldest_ready_at=min(oldest, default=None),
    )
