"""Looking: jobs, pages of jobs, queues, results. Nothing here writes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from taskharbor import defaults
from taskharbor.drivers.base import Attempt, Job, JobFilter, Outcome, Page, QueueInfo
from taskharbor.drivers.sqlite.queries import load
from taskharbor.drivers.sqlite.transaction import Row, Tx, as_numbers, as_texts
from taskharbor.errors import InvalidCursor
from taskharbor.states import Reason, State

_SQL = load("inspect")
_QUEUE_ID = load("enqueue")["queue_id"]

_CURSOR = re.compile(r"before-([1-9][0-9]{0,17})\Z")
_FROM_THE_NEWEST = 1 << 62
MAX_PAGE = 1000


def get(tx: Tx, job_id: str) -> Job | None:
    seq = _find(tx, job_id)
    if seq is None:
        return None
    row = tx.one(_SQL["blobs"], (seq,))
    assert row is not None
    body, result = row
    return _describe(tx, [seq], body=body, result=result, history=_history(tx, seq))[0]


def _find(tx: Tx, job_id: str) -> int | None:
    for found, seq in tx.all(_SQL["find"], (as_texts([job_id]),)):
        if found == job_id:
            number: int = seq
            return number
    return None


def _history(tx: Tx, seq: int) -> tuple[Attempt, ...]:
    rows = tx.all(_SQL["history"], (seq, defaults.MAX_HISTORY))[::-1]
    rows += tx.all(_SQL["success"], (seq,))
    entries = [Attempt._make((*row[:5], Reason(row[5]), row[6])) for row in rows]
    return tuple(entries[-defaults.MAX_HISTORY :])


class _Described(NamedTuple):
    """A row of the query ``describe``."""

    seq: int
    id: str
    task: str
    queue: str
    priority: int
    enqueued_at: float
    due_at: float
    expires_at: float | None
    idempotency_key: str | None
    attempts: int
    losses: int
    progress: bytes | None
    saved: bytes | None
    error: bytes | None
    state: str
    reason: str
    finished_at: float | None
    flow: str | None
    awaits: str | None


def _describe(tx: Tx, seqs: list[int], *, body: bytes = b"", **whole: Any) -> list[Job]:
    """The jobs, newest first."""
    numbers = as_numbers(seqs)
    leases = {row[0]: row[1:] for row in tx.all(_SQL["leases"], (numbers,))}
    jobs = []
    for row in map(_Described._make, tx.all(_SQL["describe"], (numbers,))):
        fields: dict[str, Any] = {**row._asdict(), "body": body, **whole}
        del fields["seq"]
        fields["state"], fields["reason"] = State(row.state), Reason(row.reason)
        if row.seq in leases:
            fields.update(_lease_fields(leases[row.seq]))
        jobs.append(Job(**fields))
    return jobs


def _lease_fields(lease: Row) -> dict[str, Any]:
    attempt, fence, holder, reserved_at, expires_at, cancel_requested = lease
    return {
        "attempts": attempt,
        "fence": fence,
        "holder": holder,
        "reserved_at": reserved_at,
        "lease_expires_at": expires_at,
        "cancel_requested": bool(cancel_requested),
    }


def list_jobs(tx: Tx, where: JobFilter, cursor: str | None, limit: int) -> Page:
    before = _FROM_THE_NEWEST if cursor is None else _read_cursor(cursor)
    limit = max(1, min(limit, MAX_PAGE))
    seqs = find_page(tx, where, before, limit + 1)
    more = len(seqs) > limit
    seqs = seqs[:limit]
    return Page(_describe(tx, seqs), f"before-{seqs[-1]}" if more else None)


def _read_cursor(cursor: str) -> int:
    match = _CURSOR.match(cursor)
    if match is None:
        raise InvalidCursor(
            f"{cursor!r} is no cursor of this store; pass the cursor of the page before, or None"
        )
    return int(match[1])


def find_page(tx: Tx, where: JobFilter, before: int, limit: int) -> list[int]:
    """Numbers of jobs that match and are older than ``before``, newest first."""
    try:
        queue = None if where.queue is None else tx.one(_QUEUE_ID, (where.queue,))
        if where.queue is not None and queue is None:
            return []
        statement = _SQL["page_any" if where.state is None else f"page_{where.state}"]
        arguments = (before, queue and queue[0], where.task, limit)
        return [row[0] for row in tx.all(statement, arguments)]
    except UnicodeEncodeError:  # a lone surrogate: no stored name has one
        return []


def queues(tx: Tx) -> list[QueueInfo]:
    counts: dict[int, dict[State, int]] = {}
    for queue, state, jobs in tx.all(_SQL["counts"]):
        counts.setdefault(queue, dict.fromkeys(State, 0))[State(state)] = jobs
    return [
        QueueInfo(
            name=name,
            paused=bool(paused),
            counts=counts.get(queue, dict.fromkeys(State, 0)),
            oldest_ready_at=_oldest_ready_at(tx, queue),
        )
        for queue, name, paused in tx.all(_SQL["queues"])
        if paused or queue in counts
    ]


def _oldest_ready_at(tx: Tx, queue: int) -> float | None:
    row = tx.one(_SQL["oldest_ready"], (queue,))
    return None if row is None else row[0]


def results(tx: Tx, job_ids: Sequence[str]) -> list[Outcome | None]:
    found = {
        row[0]: Outcome(State(row[1]), Reason(row[2]), row[3], row[4])
        for row in tx.all(_SQL["outcomes"], (as_texts(job_ids),))
    }
    return [found.get(job_id) for job_id in job_ids]


def all_unfinished(tx: Tx, job_ids: Sequence[str]) -> bool:
    """Whether each of them exists and is not terminal."""
    row = tx.one(_SQL["unfinished"], (as_texts(job_ids),))
    return row is not None and row[0] == len(set(job_ids))
