"""What a store should do, written to be read: one thread, dicts and lists, no speed at all.

The state machine (:mod:`taskharbor.conformance.machine`) runs the same calls against this model
and a driver and compares everything that can be seen. The model shares the pure rules with the
drivers (``lease.judge``, ``Settlement.lands_in``, ``Message.due_at``) and nothing else.

A model can't know which fences a store will give or how far a bounded call will get, so it takes
both as arguments; the machine checks them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from taskharbor import defaults
from taskharbor.clock import Clock
from taskharbor.drivers.base import (
    Attempt,
    CancelVerdict,
    DeleteVerdict,
    Enqueued,
    Extended,
    Job,
    JobFilter,
    Outcome,
    QueueInfo,
    Renewal,
    RequeueVerdict,
    Settled,
)
from taskharbor.lease import Reservation, Verdict, judge
from taskharbor.message import Message
from taskharbor.settlement import Settlement
from taskharbor.states import TERMINAL, Move, Reason, State


@dataclass
class Lease:
    """The lease of a running job; ``cancelled`` is the reason of a requested cancel."""

    fence: int
    holder: str
    reserved_at: float
    expires_at: float
    cancelled: Reason | None = None


@dataclass
class Record:
    """One job. ``line`` numbers the jobs in the order of their first enqueue."""

    message: Message
    line: int
    enqueued_at: float
    due_at: float
    expires_at: float | None
    state: State
    reason: Reason = Reason.ENQUEUED
    attempts: int = 0
    losses: int = 0
    unknown_since: float | None = None
    lease: Lease | None = None
    settled_fence: int | None = None
    finished_at: float | None = None
    progress: bytes | None = None
    saved: bytes | None = None
    result: bytes | None = None
    error: bytes | None = None
    history: list[Attempt] = field(default_factory=list)

    @property
    def turn(self) -> tuple[int, int]:
        """Sorts a queue's jobs as they are reserved."""
        return (-self.message.priority, self.line)

    def keeps_key(self, now: float) -> bool:
        """Whether an enqueue with this job's idempotency key finds this job."""
        if self.message.idempotency_key is None:
            return False
        match self.message.key_until:
            case "record":
                return True
            case "terminal":
                return not self.state.terminal
            case seconds:
                return now < self.enqueued_at + float(seconds)

    def kept_until(self) -> float | None:
        """When ``prune`` may take the record; None while the job is not terminal."""
        if self.finished_at is None:
            return None
        seconds: float = getattr(self.message.retention, self.state.value)
        return self.finished_at + seconds


@dataclass
class Tombstone:
    """What stays of a job with retention 0: its last fence hears ``already`` until then."""

    fence: int
    until: float


class Model:
    """A store, as the contract in ``drivers/base.py`` describes it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._enqueued = 0
        self.records: dict[str, Record] = {}
        self.tombstones: dict[str, Tombstone] = {}
        self.retired: set[str] = set()
        self.paused: set[str] = set()

    @property
    def now(self) -> float:
        return self._clock.now()

    # --- enqueue -----------------------------------------------------------------------------

    def enqueue(self, batch: Iterable[Message]) -> list[Enqueued]:
        return [self._enqueue(message) for message in batch]

    def _enqueue(self, message: Message) -> Enqueued:
        there = self.records.get(message.id) or self._key_holder(message)
        if there is not None:
            return Enqueued(there.message.id, False, there.message.digest == message.digest)
        self._enqueued += 1
        due_at = message.due_at(self.now)
        self.records[message.id] = Record(
            message=message,
            line=self._enqueued,
            enqueued_at=self.now,
            due_at=due_at,
            expires_at=message.expiry(self.now),
            state=self._line_up(due_at),
        )
        # From here on a store may forget the one that had this id before, or still know it.
        if stone := self.tombstones.get(message.id):
            stone.until = min(stone.until, self.now)
        return Enqueued(message.id, True)

    def _key_holder(self, message: Message) -> Record | None:
        for record in self.records.values():
            same_key = record.message.idempotency_key == message.idempotency_key
            same_queue = record.message.queue == message.queue
            if same_key and same_queue and record.keeps_key(self.now):
                return record
        return None

    def _line_up(self, due_at: float) -> State:
        return State.READY if due_at <= self.now else State.SCHEDULED

    # --- settle and reserve ------------------------------------------------------------------

    def settle(self, settlement: Settlement) -> Settled:
        record = self.records.get(settlement.job_id)
        if record is None:
            return Settled(self._judge_gone(settlement), None)
        verdict = self._judge(record, settlement)
        if verdict is Verdict.APPLIED:
            self._end_attempt(record, settlement)
        return Settled(verdict, record.state if settlement.job_id in self.records else None)

    def foresees(self, settlement: Settlement) -> bool:
        """Whether the contract fixes the verdict: a tombstone may stand longer than it must."""
        stone = self.tombstones.get(settlement.job_id)
        return stone is None or settlement.job_id in self.records or self.now < stone.until

    def _judge(self, record: Record, settlement: Settlement) -> Verdict:
        lease = record.lease
        return judge(
            record.state,
            fence=settlement.fence,
            current_fence=lease.fence if lease else 0,
            settled_fence=record.settled_fence,
            lease_expires_at=lease.expires_at if lease else None,
            now=self.now,
            guard=settlement.guard,
            terminal_outcome=settlement.terminal,
        )

    def _judge_gone(self, settlement: Settlement) -> Verdict:
        stone = self.tombstones.get(settlement.job_id)
        if stone and settlement.terminal and settlement.fence == stone.fence:
            return Verdict.ALREADY
        return Verdict.NOT_FOUND

    def _end_attempt(self, record: Record, settlement: Settlement) -> None:
        lease = record.lease
        assert lease is not None
        released = settlement.move is Move.RELEASE
        if not released or settlement.loss:
            self._write_history(record, lease, settlement)
        if not released:
            record.unknown_since = self._unknown_since(record, settlement)
        if not settlement.charged:
            record.attempts -= 1
        record.losses += settlement.loss
        record.result = settlement.result
        record.error = record.error if settlement.error is None else settlement.error
        record.lease = None
        end = settlement.lands_in(cancel_requested=lease.cancelled is not None)
        if not end.terminal:
            record.state, record.reason = end, settlement.reason
            record.due_at = self.now + settlement.delay
            return
        cancelled = not settlement.terminal and lease.cancelled
        record.settled_fence = lease.fence
        length = lease.expires_at - lease.reserved_at
        self._finish(record, end, cancelled or settlement.reason)
        if settlement.job_id not in self.records:
            self.tombstones[settlement.job_id] = Tombstone(lease.fence, self.now + length)

    def _write_history(self, record: Record, lease: Lease, settlement: Settlement) -> None:
        record.history.append(
            Attempt(
                fence=lease.fence,
                number=record.attempts,
                holder=lease.holder,
                started_at=lease.reserved_at,
                ended_at=self.now,
                reason=settlement.reason,
                error=settlement.error,
            )
        )
        del record.history[: -defaults.MAX_HISTORY]

    def _unknown_since(self, record: Record, settlement: Settlement) -> float | None:
        if not settlement.unknown:
            return None
        return self.now if record.unknown_since is None else record.unknown_since

    def _finish(self, record: Record, end: State, reason: Reason) -> None:
        record.state, record.reason, record.finished_at = end, reason, self.now
        if record.kept_until() == self.now:
            del self.records[record.message.id]

    def line(self, queues: Iterable[str]) -> list[Record]:
        """The ready jobs of ``queues`` in the order in which they are looked at, also those that
        have expired."""
        line: list[Record] = []
        for queue in dict.fromkeys(queues):
            if queue not in self.paused:
                line += sorted(
                    (
                        record
                        for record in self.records.values()
                        if record.state is State.READY and record.message.queue == queue
                    ),
                    key=lambda record: record.turn,
                )
        return line

    def worth_starting(self, record: Record) -> bool:
        return record.expires_at is None or self.now < record.expires_at

    def expire(self, record: Record) -> None:
        self._finish(record, State.CANCELLED, Reason.EXPIRED)

    def reserve(self, record: Record, holder: str, fence: int, seconds: float) -> Reservation:
        record.state, record.reason = State.RUNNING, Reason.RESERVED
        record.attempts += 1
        record.lease = Lease(fence, holder, self.now, self.now + seconds)
        return self._reservation(record)

    def _reservation(self, record: Record) -> Reservation:
        lease, message = record.lease, record.message
        assert lease is not None
        return Reservation(
            id=message.id,
            queue=message.queue,
            task=message.task,
            body=message.body,
            fence=lease.fence,
            attempt=record.attempts,
            losses=record.losses,
            priority=message.priority,
            enqueued_at=record.enqueued_at,
            reserved_at=lease.reserved_at,
            lease_expires_at=lease.expires_at,
            unknown_since=record.unknown_since,
            saved=record.saved,
            cancel_requested=lease.cancelled is not None,
            holder=lease.holder,
        )

    # --- leases ------------------------------------------------------------------------------

    def running(self) -> list[Reservation]:
        """All leases, the one that expires first first."""
        leases = [self._reservation(record) for record in self.records.values() if record.lease]
        return sorted(leases, key=lambda lease: (lease.lease_expires_at, lease.fence))

    def held(self, holder: str) -> list[Reservation]:
        return [lease for lease in self.running() if lease.holder == holder]

    def retire(self, holder: str) -> list[Reservation]:
        self.retired.add(holder)
        return self.held(holder)

    def extend(self, renewal: Renewal, seconds: float) -> Extended:
        record = self.records.get(renewal.job_id)
        if record is None:
            return Extended(Verdict.NOT_FOUND)
        lease = record.lease
        verdict = judge(
            record.state,
            fence=renewal.fence,
            current_fence=lease.fence if lease else 0,
            settled_fence=record.settled_fence,
            lease_expires_at=lease.expires_at if lease else None,
            now=self.now,
            terminal_outcome=False,
        )
        if verdict is not Verdict.APPLIED or lease is None:
            return Extended(verdict)
        lease.expires_at = max(lease.expires_at, self.now + seconds)
        record.progress = record.progress if renewal.progress is None else renewal.progress
        record.saved = record.saved if renewal.saved is None else renewal.saved
        return Extended(verdict, lease.expires_at, lease.cancelled is not None)

    def expired(self) -> list[Reservation]:
        return [lease for lease in self.running() if lease.lease_expires_at <= self.now]

    # --- time ----------------------------------------------------------------------------------

    def promote(self) -> list[str]:
        """Promote all there is; which jobs changed."""
        due = [
            record
            for record in self.records.values()
            if record.state is State.SCHEDULED and self._next_moment(record) <= self.now
        ]
        for record in due:
            if self.worth_starting(record):
                record.state, record.reason = State.READY, Reason.DUE
            else:
                self.expire(record)
        return [record.message.id for record in due]

    def next_due(self) -> float | None:
        scheduled = [r for r in self.records.values() if r.state is State.SCHEDULED]
        return min(map(self._next_moment, scheduled), default=None)

    def _next_moment(self, record: Record) -> float:
        if record.expires_at is None:
            return record.due_at
        return min(record.due_at, record.expires_at)

    def prune(self) -> int:
        """Prune all there is; how many jobs."""
        over = [
            job_id
            for job_id, record in self.records.items()
            if (until := record.kept_until()) is not None and until <= self.now
        ]
        for job_id in over:
            del self.records[job_id]
        return len(over)

    # --- operators ---------------------------------------------------------------------------

    def cancel(self, job_ids: Iterable[str], reason: Reason) -> list[CancelVerdict]:
        return [self._cancel(job_id, reason) for job_id in job_ids]

    def _cancel(self, job_id: str, reason: Reason) -> CancelVerdict:
        record = self.records.get(job_id)
        if record is None:
            return CancelVerdict.NOT_FOUND
        if record.state in TERMINAL:
            return CancelVerdict.FINISHED
        if record.lease is not None:
            record.lease.cancelled = record.lease.cancelled or reason
            return CancelVerdict.REQUESTED
        self._finish(record, State.CANCELLED, reason)
        return CancelVerdict.CANCELLED

    def requeue(
        self,
        job_ids: Iterable[str],
        *,
        states: frozenset[State],
        queue: str | None,
        delay: float,
        reset_attempts: bool,
    ) -> list[RequeueVerdict]:
        verdicts = []
        for job_id in job_ids:
            verdict = self._judge_requeue(job_id, states, queue)
            if verdict is RequeueVerdict.REQUEUED:
                self._requeue(self.records[job_id], delay, reset_attempts=reset_attempts)
            verdicts.append(verdict)
        return verdicts

    def _judge_requeue(
        self, job_id: str, states: frozenset[State], queue: str | None
    ) -> RequeueVerdict:
        record = self.records.get(job_id)
        if record is None:
            return RequeueVerdict.NOT_FOUND
        if record.state not in states & TERMINAL:
            return RequeueVerdict.WRONG_STATE
        if queue is not None and queue != record.message.queue:
            return RequeueVerdict.WRONG_QUEUE
        if record.message.idempotency_key is not None:
            holder = self._key_holder(record.message)
            if holder is not None and holder is not record:
                return RequeueVerdict.KEY_HELD
        return RequeueVerdict.REQUEUED

    def _requeue(self, record: Record, delay: float, *, reset_attempts: bool) -> None:
        record.due_at = self.now + delay
        record.state, record.reason = self._line_up(record.due_at), Reason.OPERATOR
        record.result = record.settled_fence = record.finished_at = None
        record.expires_at = record.unknown_since = None
        if reset_attempts:
            record.attempts = record.losses = 0

    def delete(self, job_ids: Iterable[str]) -> list[DeleteVerdict]:
        return [self._delete(job_id) for job_id in job_ids]

    def _delete(self, job_id: str) -> DeleteVerdict:
        record = self.records.get(job_id)
        if record is None:
            return DeleteVerdict.NOT_FOUND
        if record.lease is not None:
            return DeleteVerdict.RUNNING
        del self.records[job_id]
        return DeleteVerdict.DELETED

    def purge(self, where: JobFilter) -> int:
        """Purge all there is; how many."""
        matching = [r for r in self.records.values() if _matches(r, where) and not r.lease]
        for record in matching:
            del self.records[record.message.id]
        return len(matching)

    # --- what can be seen --------------------------------------------------------------------

    def results(self, job_ids: Sequence[str]) -> list[Outcome | None]:
        records = map(self.records.get, job_ids)
        return [
            None if r is None else Outcome(r.state, r.reason, r.result, r.error) for r in records
        ]

    def get(self, job_id: str) -> Job | None:
        record = self.records.get(job_id)
        return None if record is None else _as_job(record, whole=True)

    def jobs(self, where: JobFilter) -> list[Job]:
        """All pages of a list."""
        newest_first = sorted(self.records.values(), key=lambda r: r.line, reverse=True)
        return [_as_job(record, whole=False) for record in newest_first if _matches(record, where)]

    def queues(self) -> list[QueueInfo]:
        """Without ``oldest_ready_at``, which is only an estimate."""
        counts: dict[str, dict[State, int]] = {queue: _no_jobs() for queue in self.paused}
        for record in self.records.values():
            counts.setdefault(record.message.queue, _no_jobs())[record.state] += 1
        return [
            QueueInfo(name=name, paused=name in self.paused, counts=counts[name])
            for name in sorted(counts)
        ]


def _no_jobs() -> dict[State, int]:
    return dict.fromkeys(State, 0)


def _matches(record: Record, where: JobFilter) -> bool:
    return (
        where.state in (None, record.state)
        and where.queue in (None, record.message.queue)
        and where.task in (None, record.message.task)
    )


def _as_job(record: Record, *, whole: bool) -> Job:
    message = record.message
    job = Job(
        id=message.id,
        task=message.task,
        queue=message.queue,
        state=record.state,
        reason=record.reason,
        priority=message.priority,
        body=message.body if whole else b"",
        enqueued_at=record.enqueued_at,
        due_at=record.due_at,
        attempts=record.attempts,
        losses=record.losses,
        finished_at=record.finished_at,
        expires_at=record.expires_at,
        idempotency_key=message.idempotency_key,
        progress=record.progress,
        saved=record.saved,
        result=record.result if whole else None,
        error=record.error,
        history=tuple(record.history) if whole else (),
    )
    return job if record.lease is None else _with_lease(job, record.lease)


def _with_lease(job: Job, lease: Lease) -> Job:
    return replace(
        job,
        fence=lease.fence,
        holder=lease.holder,
        reserved_at=lease.reserved_at,
        lease_expires_at=lease.expires_at,
        cancel_requested=lease.cancelled is not None,
    )
