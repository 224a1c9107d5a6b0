"""The store: every step of a job, each under one lock, on plain dictionaries.

This is the contract of ``drivers/base.py`` in its shortest form. Each method takes ``now``, the
store's clock, as its first argument, so that the same store serves an injected clock, the machine's
own, and clients that bring a clock with each request.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from threading import Lock

from taskharbor import defaults
from taskharbor.drivers.base import (
    Attempt,
    CancelVerdict,
    Enqueued,
    Exchange,
    Extended,
    Outcome,
    Promoted,
    Renewal,
    Settled,
    Term,
    Want,
)
from taskharbor.drivers.memory.flows import FlowKeeper
from taskharbor.drivers.memory.keys import Keys
from taskharbor.drivers.memory.record import Record
from taskharbor.drivers.memory.shelves import Shelves
from taskharbor.drivers.memory.timeline import Timeline
from taskharbor.drivers.memory.tombstones import Tombstones
from taskharbor.drivers.memory.waiters import Waiters
from taskharbor.lease import Reservation, Verdict, check_lease_seconds, judge
from taskharbor.message import Message
from taskharbor.settlement import Settlement
from taskharbor.states import Move, Reason, State

RETIRED_SECONDS = 2 * 86_400.0
"""How long a retired holder is remembered: twice what the contract asks."""


class JobStore:
    """Jobs, leases and terms. ``first_fence``: where the fences of this namespace begin."""

    def __init__(self, first_fence: int = 1) -> None:
        self._lock = Lock()
        self.jobs = Shelves()
        self._waiters = Waiters()
        self._orders = count(1)
        self._fences = count(first_fence)
        self._keys = Keys()
        self._tombstones = Tombstones()
        self._retired: Timeline[float] = Timeline()
        self._terms: dict[str, tuple[str, Term]] = {}
        self._paused: set[str] = set()
        self.flows = FlowKeeper(self, self._orders)

    # --- enqueue

    def enqueue(self, now: float, batch: Sequence[Message]) -> list[Enqueued]:
        with self._lock:
            return [self._enqueue(now, message) for message in batch]

    def _enqueue(self, now: float, message: Message) -> Enqueued:
        there = self.jobs.get(message.id) or self.jobs.get(self._keys.owner(now, message))
        if there is not None:
            return Enqueued(there.id, False, there.message.digest == message.digest)
        due_at = message.due_at(now)
        record = Record(
            message=message,
            order=next(self._orders),
            state=State.READY,
            reason=Reason.ENQUEUED,
            enqueued_at=now,
            due_at=due_at,
            ready_at=now,
            expires_at=message.expiry(now),
        )
        self._keys.take(record)
        self._tombstones.take(message.id)
        self.line_up(now, record, State.READY if due_at <= now else State.SCHEDULED)
        return Enqueued(message.id, True)

    def line_up(self, now: float, record: Record, state: State) -> None:
        """Put a record that is down up as ready, scheduled or blocked."""
        record.state = state
        if state is State.READY:
            record.ready_at = now
            self._waiters.touch(("queue", record.message.queue))
        self.jobs.put(record)

    # --- settle

    def exchange(
        self, now: float, holder: str, settlements: Sequence[Settlement], want: Want | None
    ) -> Exchange:
        if want is not None:
            check_lease_seconds(want.lease_seconds)
        with self._lock:
            settled = [self._settle(now, settlement) for settlement in settlements]
            self.flows.advance(now)
            if want is None:
                return Exchange(settled, [], now)
            if holder in self._retired:
                return Exchange(settled, [], now, retired=True)
            reserved, more = self._reserve(now, holder, want)
            return Exchange(settled, reserved, now, more or self.flows.busy)

    def _settle(self, now: float, settlement: Settlement) -> Settled:
        record = self.jobs.get(settlement.job_id)
        if record is None:
            ended = self._tombstones.ended_by(settlement.job_id, settlement.fence)
            replay = settlement.terminal and ended
            return Settled(Verdict.ALREADY if replay else Verdict.NOT_FOUND, None)
        verdict = judge(
            record.state,
            fence=settlement.fence,
            current_fence=record.fence,
            settled_fence=record.settled_fence,
            lease_expires_at=record.lease_expires_at,
            now=now,
            guard=settlement.guard,
            terminal_outcome=settlement.terminal,
        )
        if verdict is Verdict.APPLIED:
            if settlement.awaits and not self.flows.can_be_awaited(settlement.awaits):
                return Settled(Verdict.NOT_FOUND, record.state)
            self._apply(now, record, settlement)
        return Settled(verdict, record.state if self.jobs.get(record.id) else None)

    def _apply(self, now: float, record: Record, settlement: Settlement) -> None:
        self.jobs.take(record)
        _remember_attempt(now, record, settlement)
        record.losses += settlement.loss
        if not settlement.charged:
            record.attempts -= 1
        if settlement.error is not None:
            record.error = settlement.error
        if settlement.unknown:
            record.unknown_since = now if record.unknown_since is None else record.unknown_since
        elif settlement.move is not Move.RELEASE:
            record.unknown_since = None
        landing = settlement.lands_in(cancel_requested=record.cancel_requested)
        lease_length = record.lease_length
        cancel_reason = record.clear_lease()
        if not landing.terminal:
            record.reason = settlement.reason
            record.due_at = now + settlement.delay
            record.awaits = settlement.awaits or record.awaits
            self.line_up(now, record, landing)
            if settlement.awaits:
                self.flows.begin_awaited(now, settlement.awaits, record.id)
            return
        record.reason = settlement.reason if settlement.terminal else cancel_reason
        record.result = settlement.result
        record.settled_fence = record.fence
        self.finish(now, record, landing, lease_length=lease_length)

    def finish(
        self, now: float, record: Record, state: State, *, lease_length: float = 0.0
    ) -> None:
        """Put a record that is down up as terminal, or drop it when nothing is to be kept.

        ``lease_length``: for how long a dropped job's last settlement may be sent again.
        """
        record.state = state
        record.finished_at = now
        message = record.message
        if message.key_until == "terminal":
            self._keys.drop(record)
        if record.member is not None or getattr(message.retention, state.value) > 0:
            self.jobs.put(record)
            self.flows.note(now, record)
        else:
            self._keys.drop(record)
            if record.settled_fence is not None:
                self._tombstones.put(record.id, record.settled_fence, now + lease_length)
        self._waiters.touch(("job", record.id))

    def _expire(self, now: float, record: Record) -> None:
        """A waiting job is past its expiry."""
        self.jobs.take(record)
        record.reason = Reason.EXPIRED
        self.finish(now, record, State.CANCELLED)

    # --- reserve and leases

    def _reserve(self, now: float, holder: str, want: Want) -> tuple[list[Reservation], bool]:
        """What was reserved, and whether there is more to be had at once."""
        reserved: list[Reservation] = []
        skips = defaults.BATCH
        for queue in want.queues:
            while queue not in self._paused and (record := self.jobs.next_ready(queue)):
                if len(reserved) >= want.limit or skips == 0:
                    return reserved, True
                if record.expired(now):
                    self._expire(now, record)
                    skips -= 1
                else:
                    reserved.append(self._lease(now, record, holder, want.lease_seconds))
        return reserved, False

    def _lease(self, now: float, record: Record, holder: str, seconds: float) -> Reservation:
        self.jobs.take(record)
        record.state = State.RUNNING
        record.reason = Reason.RESERVED
        record.attempts += 1
        record.fence = next(self._fences)
        record.holder = holder
        record.reserved_at = now
        record.lease_expires_at = now + seconds
        self.jobs.put(record)
        return record.reservation()

    def held(self, now: float, holder: str) -> list[Reservation]:
        with self._lock:
            return [record.reservation() for record in self.jobs.held(holder)]

    def retire(self, now: float, holder: str) -> list[Reservation]:
        with self._lock:
            self._retired.set(holder, now + RETIRED_SECONDS)
            return [record.reservation() for record in self.jobs.held(holder)]

    def extend(
        self, now: float, holder: str, renewals: Sequence[Renewal], seconds: float
    ) -> list[Extended]:
        check_lease_seconds(seconds)
        with self._lock:
            return [self._extend(now, renewal, seconds) for renewal in renewals]

    def _extend(self, now: float, renewal: Renewal, seconds: float) -> Extended:
        record = self.jobs.get(renewal.job_id)
        if record is None:
            return Extended(Verdict.NOT_FOUND)
        verdict = judge(
            record.state,
            fence=renewal.fence,
            current_fence=record.fence,
            settled_fence=record.settled_fence,
            lease_expires_at=record.lease_expires_at,
            now=now,
            terminal_outcome=False,
        )
        if verdict is not Verdict.APPLIED:
            return Extended(verdict)
        expires_at = max(record.lease_expires_at or now, now + seconds)
        record.lease_expires_at = expires_at
        self.jobs.leases.set(record.id, expires_at)
        if renewal.progress is not None:
            record.progress = renewal.progress
        if renewal.saved is not None:
            record.saved = renewal.saved
        return Extended(verdict, expires_at, record.cancel_requested)

    def expired(self, now: float, limit: int) -> list[Reservation]:
        with self._lock:
            names = self.jobs.leases.until(now, limit)
            return [self.jobs[name].reservation() for name in names]

    # --- time

    def promote(self, now: float, limit: int) -> Promoted:
        with self._lock:
            due = self.jobs.scheduled.until(now, limit)
            for name in due:
                self._promote(now, self.jobs[name])
            moved = len(due) + self.flows.expire(now, limit) + self.flows.advance(now)
            firsts = (self.jobs.scheduled.first(), self.flows.expiries.first())
            next_due = min((first[0] for first in firsts if first), default=None)
            more = next_due is not None and next_due <= now
            return Promoted(moved, next_due, more or self.flows.busy, now)

    def _promote(self, now: float, record: Record) -> None:
        if record.expired(now):
            self._expire(now, record)
            return
        self.jobs.take(record)
        record.reason = Reason.DUE
        self.line_up(now, record, State.READY)

    def prune(self, now: float, limit: int) -> int:
        with self._lock:
            over = self.jobs.finished.until(now, limit)
            for name in over:
                self.drop(self.jobs[name])
            pruned = len(over)
            pruned += self.flows.prune(now, limit - pruned)
            pruned += self._tombstones.prune(now, limit - pruned)
            for holder in self._retired.until(now, limit - pruned):
                self._retired.discard(holder)
                pruned += 1
            return pruned

    def drop(self, record: Record) -> None:
        """Remove a record for good."""
        self.jobs.take(record)
        self._keys.drop(record)
        self._waiters.touch(("job", record.id))

    def lead(self, now: float, name: str, holder: str, seconds: float) -> Term | None:
        with self._lock:
            leader, term = self._terms.get(name, ("", Term(0, now)))
            if leader != holder:
                if now < term.expires_at:
                    return None
                term = Term(term.number + 1, now)
            term = Term(term.number, now + seconds)
            self._terms[name] = (holder, term)
            return term

    # --- those who wait

    def cancel(self, now: float, job_ids: Sequence[str], reason: Reason) -> list[CancelVerdict]:
        with self._lock:
            verdicts = [self.cancel_job(now, job_id, reason) for job_id in job_ids]
            self.flows.advance(now)
            return verdicts

    def cancel_job(self, now: float, job_id: str, reason: Reason) -> CancelVerdict:
        record = self.jobs.get(job_id)
        if record is None:
            return CancelVerdict.NOT_FOUND
        if record.state.terminal:
            return CancelVerdict.FINISHED
        if record.state is State.RUNNING:
            record.cancel_reason = record.cancel_reason or reason
            return CancelVerdict.REQUESTED
        self.jobs.take(record)
        awaited = record.awaits if record.state is State.BLOCKED else None
        record.reason = reason
        self.finish(now, record, State.CANCELLED)
        if awaited is not None:
            self.flows.cancel(now, awaited, reason)
        return CancelVerdict.CANCELLED

    def wait(self, now: float, queues: Sequence[str], seconds: float) -> bool:
        """Whether a job may have become ready; False when the time was over first."""
        topics = [("queue", queue) for queue in queues]
        with self._lock:
            if any(q not in self._paused and self.jobs.next_ready(q) for q in queues):
                return True
            event = self._waiters.add(topics)
        try:
            return event.wait(seconds)
        finally:
            with self._lock:
                self._waiters.remove(topics, event)

    def results(self, now: float, job_ids: Sequence[str]) -> list[Outcome | None]:
        with self._lock:
            return self._results(job_ids)

    def wait_results(
        self, now: float, job_ids: Sequence[str], seconds: float
    ) -> list[Outcome | None]:
        topics = [("job", job_id) for job_id in job_ids]
        with self._lock:
            results = self._results(job_ids)
            if not results or any(result is None or result.state.terminal for result in results):
                return results
            event = self._waiters.add(topics)
        try:
            event.wait(seconds)
        finally:
            with self._lock:
                self._waiters.remove(topics, event)
                results = self._results(job_ids)
        return results

    def _results(self, job_ids: Sequence[str]) -> list[Outcome | None]:
        records = (self.jobs.get(job_id) for job_id in job_ids)
        return [record.outcome() if record else None for record in records]


def _remember_attempt(now: float, record: Record, settlement: Settlement) -> None:
    if settlement.move is Move.RELEASE and not settlement.loss:
        return
    started_at = now if record.reserved_at is None else record.reserved_at
    record.history.append(
        Attempt(
            record.fence,
            record.attempts,
            record.holder,
            started_at,
            now,
            settlement.reason,
            settlement.error,
        )
    )
