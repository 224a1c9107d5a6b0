"""A whole TaskHarbor driver in one file: jobs in a dict, behind one lock.

It shows what a driver of one's own needs, no more: every method of the contract, no speed. An
entry point in the group ``taskharbor.drivers`` makes ``shoebox://`` a URL that TaskHarbor knows.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from taskharbor import defaults
from taskharbor.clock import Clock, SystemClock
from taskharbor.drivers.base import (
    Attempt,
    CancelVerdict,
    Capabilities,
    DeleteVerdict,
    Enqueued,
    Exchange,
    Extended,
    Job,
    JobFilter,
    Outcome,
    Page,
    Promoted,
    QueueInfo,
    Renewal,
    RequeueVerdict,
    Settled,
    Term,
    Want,
)
from taskharbor.errors import ConfigurationError, InvalidCursor
from taskharbor.ids import new_id
from taskharbor.lease import Guard, Reservation, Verdict, check_lease_seconds, judge
from taskharbor.message import Message
from taskharbor.settlement import Settlement
from taskharbor.states import TERMINAL, WAITING, Move, Reason, State

STEPS = 1000
"""What one reserve throws away at most."""


def connect(url: str, *, clock: Clock | None = None) -> Shoebox:
    return Shoebox(url, clock or SystemClock())


@dataclass
class Card:
    """One job: what the contract shows of it, and what only the store needs."""

    job: Job
    message: Message
    place: int
    unknown_since: float | None = None
    settled_fence: int | None = None
    cancel_reason: Reason | None = None

    def change(self, **fields: Any) -> None:
        self.job = replace(self.job, **fields)


class Shoebox:
    capabilities = Capabilities()

    def __init__(self, url: str, clock: Clock) -> None:
        self.url = url
        self._clock = clock
        self._changed = threading.Condition(threading.RLock())
        self._cards: dict[str, Card] = {}
        self._last_place = 0
        self._last_fence = 0
        self._tombstones: dict[str, tuple[int, float]] = {}
        self._retired: set[str] = set()
        self._paused: set[str] = set()
        self._terms: dict[str, tuple[str, Term]] = {}

    @contextmanager
    def _step(self) -> Iterator[float]:
        """One atomic step at one moment; whoever waits looks again after it."""
        with self._changed:
            yield self._clock.now()
            self._changed.notify_all()

    # --- enqueue ---------------------------------------------------------------------------------

    def new_job_id(self, idempotency_key: str | None) -> str:
        return new_id()

    def enqueue(self, batch: Sequence[Message], *, connection: Any = None) -> list[Enqueued]:
        if connection is not None:
            raise ConfigurationError("a shoebox has no transactions; leave out connection=")
        messages = list(batch)  # a batch that can't be read fails before anything is stored
        with self._step() as now:
            return [self._enqueue(message, now) for message in messages]

    def _enqueue(self, message: Message, now: float) -> Enqueued:
        there = self._cards.get(message.id) or self._holder_of_key(message, now)
        if there is not None:
            return Enqueued(there.job.id, False, there.message.digest == message.digest)
        self._last_place += 1
        due_at = message.due_at(now)
        job = Job(
            id=message.id,
            task=message.task,
            queue=message.queue,
            state=_lined_up(due_at, now),
            reason=Reason.ENQUEUED,
            priority=message.priority,
            body=message.body,
            enqueued_at=now,
            due_at=due_at,
            expires_at=message.expiry(now),
            idempotency_key=message.idempotency_key,
        )
        self._cards[job.id] = Card(job, message, self._last_place)
        self._tombstones.pop(job.id, None)
        return Enqueued(job.id, True)

    def _holder_of_key(self, message: Message, now: float) -> Card | None:
        if message.idempotency_key is None:
            return None
        wanted = (message.queue, message.idempotency_key)
        for card in self._cards.values():
            if (card.job.queue, card.job.idempotency_key) == wanted and _keeps_key(card, now):
                return card
        return None

    # --- exchange --------------------------------------------------------------------------------

    def exchange(
        self, holder: str, settlements: Sequence[Settlement], want: Want | None = None
    ) -> Exchange:
        if want is not None:
            check_lease_seconds(want.lease_seconds)
        with self._step() as now:
            settled = [self._settle(settlement, now) for settlement in settlements]
            if want is None or holder in self._retired:
                return Exchange(settled, [], now, retired=want is not None)
            reserved, more = self._reserve(holder, want, now)
            return Exchange(settled, reserved, now, more)

    def _settle(self, settlement: Settlement, now: float) -> Settled:
        card = self._cards.get(settlement.job_id)
        if card is None:
            fence, until = self._tombstones.get(settlement.job_id, (0, now))
            replay = settlement.terminal and settlement.fence == fence and now < until
            return Settled(Verdict.ALREADY if replay else Verdict.NOT_FOUND, None)
        verdict = _judge(
            card, settlement.fence, now, guard=settlement.guard, terminal=settlement.terminal
        )
        if verdict is Verdict.APPLIED:
            self._end_attempt(card, settlement, now)
        there = settlement.job_id in self._cards
        return Settled(verdict, card.job.state if there else None)

    def _end_attempt(self, card: Card, settlement: Settlement, now: float) -> None:
        job = card.job
        end = settlement.lands_in(cancel_requested=job.cancel_requested)
        card.change(
            reason=settlement.reason,
            attempts=job.attempts - (not settlement.charged),
            losses=job.losses + settlement.loss,
            result=settlement.result,
            error=job.error if settlement.error is None else settlement.error,
            history=_with_attempt(job, settlement, now),
            fence=None,
            holder=None,
            reserved_at=None,
            lease_expires_at=None,
            cancel_requested=False,
        )
        if settlement.move is not Move.RELEASE:
            began = now if card.unknown_since is None else card.unknown_since
            card.unknown_since = began if settlement.unknown else None
        if not end.terminal:
            card.change(state=end, due_at=now + settlement.delay)
            return
        card.settled_fence = settlement.fence
        cancelled = None if settlement.terminal else card.cancel_reason
        self._finish(card, end, cancelled or settlement.reason, now)
        if job.id not in self._cards:
            assert job.lease_expires_at is not None
            assert job.reserved_at is not None
            length = job.lease_expires_at - job.reserved_at
            self._tombstones[job.id] = (settlement.fence, now + length)

    def _finish(self, card: Card, end: State, reason: Reason, now: float) -> None:
        card.change(state=end, reason=reason, finished_at=now)
        if _kept_until(card) <= now:
            del self._cards[card.job.id]

    def _reserve(self, holder: str, want: Want, now: float) -> tuple[list[Reservation], bool]:
        reserved: list[Reservation] = []
        thrown_away = 0
        for card in self._line(want.queues):
            if len(reserved) == want.limit or thrown_away == STEPS:
                return reserved, True
            if card.job.expires_at is not None and card.job.expires_at <= now:
                self._finish(card, State.CANCELLED, Reason.EXPIRED, now)
                thrown_away += 1
                continue
            self._last_fence += 1
            card.cancel_reason = None
            card.change(
                state=State.RUNNING,
                reason=Reason.RESERVED,
                attempts=card.job.attempts + 1,
                fence=self._last_fence,
                holder=holder,
                reserved_at=now,
                lease_expires_at=now + want.lease_seconds,
            )
            reserved.append(_reservation(card))
        return reserved, False

    def _line(self, queues: Sequence[str]) -> list[Card]:
        ready = [
            card
            for card in self._cards.values()
            if card.job.state is State.READY
            and card.job.queue in queues
            and card.job.queue not in self._paused
        ]
        return sorted(ready, key=lambda c: (queues.index(c.job.queue), -c.job.priority, c.place))

    # --- leases ----------------------------------------------------------------------------------

    def _running(self) -> list[Reservation]:
        return [_reservation(c) for c in self._cards.values() if c.job.state is State.RUNNING]

    def held(self, holder: str) -> list[Reservation]:
        with self._step():
            return [lease for lease in self._running() if lease.holder == holder]

    def retire(self, holder: str) -> list[Reservation]:
        with self._step():
            self._retired.add(holder)
            return self.held(holder)

    def extend(self, holder: str, renewals: Sequence[Renewal], seconds: float) -> list[Extended]:
        check_lease_seconds(seconds)
        with self._step() as now:
            return [self._extend(renewal, seconds, now) for renewal in renewals]

    def _extend(self, renewal: Renewal, seconds: float, now: float) -> Extended:
        card = self._cards.get(renewal.job_id)
        if card is None:
            return Extended(Verdict.NOT_FOUND)
        verdict = _judge(card, renewal.fence, now, terminal=False)
        if verdict is not Verdict.APPLIED:
            return Extended(verdict)
        job = card.job
        expires_at = max(job.lease_expires_at or now, now + seconds)
        card.change(
            lease_expires_at=expires_at,
            progress=job.progress if renewal.progress is None else renewal.progress,
            saved=job.saved if renewal.saved is None else renewal.saved,
        )
        return Extended(verdict, expires_at, job.cancel_requested)

    def expired(self, limit: int) -> list[Reservation]:
        with self._step() as now:
            over = [lease for lease in self._running() if lease.lease_expires_at <= now]
            return sorted(over, key=lambda lease: lease.lease_expires_at)[:limit]

    # --- time ------------------------------------------------------------------------------------

    def promote(self, limit: int) -> Promoted:
        with self._step() as now:
            scheduled = [c for c in self._cards.values() if c.job.state is State.SCHEDULED]
            scheduled.sort(key=_next_moment)
            due = [card for card in scheduled if _next_moment(card) <= now][:limit]
            for card in due:
                if card.job.expires_at is not None and card.job.expires_at <= now:
                    self._finish(card, State.CANCELLED, Reason.EXPIRED, now)
                else:
                    card.change(state=State.READY, reason=Reason.DUE)
            next_due = next((_next_moment(card) for card in scheduled[len(due) :]), None)
            return Promoted(len(due), next_due, next_due is not None and next_due <= now, now)

    def prune(self, limit: int) -> int:
        with self._step() as now:
            over = [job_id for job_id, card in self._cards.items() if _kept_until(card) <= now][
                :limit
            ]
            stones = [job_id for job_id, (_, until) in self._tombstones.items() if until <= now]
            stones = stones[: limit - len(over)]
            for job_id in over:
                del self._cards[job_id]
            for job_id in stones:
                del self._tombstones[job_id]
            return len(over) + len(stones)

    def lead(self, name: str, holder: str, seconds: float) -> Term | None:
        with self._step() as now:
            leader, term = self._terms.get(name, ("", Term(0, now)))
            if leader != holder and now < term.expires_at:
                return None
            number = term.number + (leader != holder or now >= term.expires_at)
            self._terms[name] = (holder, Term(number, now + seconds))
            return self._terms[name][1]

    # --- waiting ---------------------------------------------------------------------------------

    def wait(self, queues: Sequence[str], seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._line(queues), seconds)

    def results(self, job_ids: Sequence[str]) -> list[Outcome | None]:
        with self._changed:
            return [_outcome(self._cards.get(job_id)) for job_id in job_ids]

    def wait_results(self, job_ids: Sequence[str], seconds: float) -> list[Outcome | None]:
        def ended() -> bool:
            return any(one is None or one.state.terminal for one in self.results(job_ids))

        with self._changed:
            self._changed.wait_for(ended, seconds)
            return self.results(job_ids)

    def close(self) -> None:
        """There is nothing to give up: the jobs are this object's own."""

    # --- operators -------------------------------------------------------------------------------

    def cancel(
        self, job_ids: Sequence[str], reason: Reason = Reason.OPERATOR
    ) -> list[CancelVerdict]:
        with self._step() as now:
            return [self._cancel(self._cards.get(job_id), reason, now) for job_id in job_ids]

    def _cancel(self, card: Card | None, reason: Reason, now: float) -> CancelVerdict:
        if card is None:
            return CancelVerdict.NOT_FOUND
        if card.job.state in WAITING:
            self._finish(card, State.CANCELLED, reason, now)
            return CancelVerdict.CANCELLED
        if card.job.state in TERMINAL:
            return CancelVerdict.FINISHED
        card.change(cancel_requested=True)
        card.cancel_reason = card.cancel_reason or reason
        return CancelVerdict.REQUESTED

    def get(self, job_id: str) -> Job | None:
        with self._changed:
            card = self._cards.get(job_id)
            return None if card is None else card.job

    def list_jobs(self, where: JobFilter, *, cursor: str | None = None, limit: int = 100) -> Page:
        if cursor is not None and not (cursor.isascii() and cursor.isdecimal()):
            raise InvalidCursor(f"{cursor[:40]!r} is no cursor of a shoebox; begin without one")
        with self._changed:
            before = self._last_place + 1 if cursor is None else int(cursor)
            newest_first = sorted(self._matching(where), key=lambda c: c.place, reverse=True)
            found = [card for card in newest_first if card.place < before]
        jobs = [replace(c.job, body=b"", result=None, history=()) for c in found[:limit]]
        return Page(jobs, str(found[limit - 1].place) if len(found) > limit else None)

    def _matching(self, where: JobFilter) -> list[Card]:
        return [
            card
            for card in self._cards.values()
            if where.state in (None, card.job.state)
            and where.queue in (None, card.job.queue)
            and where.task in (None, card.job.task)
        ]

    def queues(self) -> list[QueueInfo]:
        with self._changed:
            jobs = [card.job for card in self._cards.values()]
            names = {job.queue for job in jobs} | self._paused
            return [
                self._queue(name, [j for j in jobs if j.queue == name]) for name in sorted(names)
            ]

    def _queue(self, name: str, jobs: Sequence[Job]) -> QueueInfo:
        counts = {state: sum(job.state is state for job in jobs) for state in State}
        ready = [job.due_at for job in jobs if job.state is State.READY]
        return QueueInfo(
            name=name,
            paused=name in self._paused,
            counts=counts,
            oldest_ready_at=min(ready, default=None),
        )

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
        def requeue(job_id: str) -> RequeueVerdict:
            card = self._cards.get(job_id)
            refusal = self._refusal(card, states, queue, now)
            if card is None or refusal is not None:
                return refusal or RequeueVerdict.NOT_FOUND
            due_at = now + delay if eta is None else max(now, eta)
            counters = {"attempts": 0, "losses": 0} if reset_attempts else {}
            card.change(
                state=_lined_up(due_at, now),
                reason=Reason.OPERATOR,
                due_at=due_at,
                result=None,
                finished_at=None,
                expires_at=None,
                **counters,
            )
            card.settled_fence = card.unknown_since = None
            return RequeueVerdict.REQUEUED

        with self._step() as now:
            return [requeue(job_id) for job_id in job_ids]

    def _refusal(
        self, card: Card | None, states: frozenset[State], queue: str | None, now: float
    ) -> RequeueVerdict | None:
        if card is None:
            return RequeueVerdict.NOT_FOUND
        if card.job.state not in states & TERMINAL:
            return RequeueVerdict.WRONG_STATE
        if queue not in (None, card.job.queue):
            return RequeueVerdict.WRONG_QUEUE
        if self._holder_of_key(card.message, now) not in (None, card):
            return RequeueVerdict.KEY_HELD
        return None

    def delete(self, job_ids: Sequence[str]) -> list[DeleteVerdict]:
        with self._step():
            return [self._delete(job_id) for job_id in job_ids]

    def _delete(self, job_id: str) -> DeleteVerdict:
        card = self._cards.get(job_id)
        if card is None:
            return DeleteVerdict.NOT_FOUND
        if card.job.state is State.RUNNING:
            return DeleteVerdict.RUNNING
        del self._cards[job_id]
        return DeleteVerdict.DELETED

    def purge(self, where: JobFilter, *, limit: int = 1000) -> int:
        with self._step():
            matching = [c.job.id for c in self._matching(where) if c.job.state is not State.RUNNING]
            return len(self.delete(matching[:limit]))

    def pause(self, queue: str) -> None:
        with self._step():
            self._paused.add(queue)

    def resume(self, queue: str) -> None:
        with self._step():
            self._paused.discard(queue)


# --- what can be said of one card --------------------------------------------------------------


def _lined_up(due_at: float, now: float) -> State:
    return State.READY if due_at <= now else State.SCHEDULED


def _next_moment(card: Card) -> float:
    expires_at = card.job.expires_at
    return card.job.due_at if expires_at is None else min(card.job.due_at, expires_at)


def _kept_until(card: Card) -> float:
    if card.job.finished_at is None:
        return float("inf")
    seconds: float = getattr(card.message.retention, card.job.state.value)
    return card.job.finished_at + seconds


def _keeps_key(card: Card, now: float) -> bool:
    match card.message.key_until:
        case "record":
            return True
        case "terminal":
            return not card.job.state.terminal
        case seconds:
            return now < card.job.enqueued_at + seconds


def _judge(
    card: Card, fence: int, now: float, *, guard: Guard = Guard.VALID, terminal: bool
) -> Verdict:
    return judge(
        card.job.state,
        fence=fence,
        current_fence=card.job.fence or 0,
        settled_fence=card.settled_fence,
        lease_expires_at=card.job.lease_expires_at,
        now=now,
        guard=guard,
        terminal_outcome=terminal,
    )


def _with_attempt(job: Job, settlement: Settlement, now: float) -> tuple[Attempt, ...]:
    if settlement.move is Move.RELEASE and not settlement.loss:
        return job.history
    ended = Attempt(
        fence=settlement.fence,
        number=job.attempts,
        holder=job.holder or "",
        started_at=job.reserved_at or now,
        ended_at=now,
        reason=settlement.reason,
        error=settlement.error,
    )
    return (*job.history, ended)[-defaults.MAX_HISTORY :]


def _reservation(card: Card) -> Reservation:
    job = card.job
    return Reservation(
        id=job.id,
        queue=job.queue,
        task=job.task,
        body=job.body,
        fence=job.fence or 0,
        attempt=job.attempts,
        losses=job.losses,
        priority=job.priority,
        enqueued_at=job.enqueued_at,
        reserved_at=job.reserved_at or 0.0,
        lease_expires_at=job.lease_expires_at or 0.0,
        unknown_since=card.unknown_since,
        saved=job.saved,
        cancel_requested=job.cancel_requested,
        holder=job.holder or "",
    )


def _outcome(card: Card | None) -> Outcome | None:
    if card is None:
        return None
    return Outcome(card.job.state, card.job.reason, card.job.result, card.job.error)
