"""Who owns which job inside a child: prefetched, running, finished, on its way to the store.

    add ──> waiting ──claim──> running ──finish──> finished ──take──> sending ──answered──> gone
               └────────────hand_back──────────────────^                 └──unanswered──> finished

The thread that runs jobs claims from the left, the heartbeat thread hands back from the right;
either may send what is finished. One lock guards every move, so a job is in one place at a time:
it is started or handed back, never both, and a settlement is in one request at a time.

Nothing here does I/O or reads a clock. What does not work: calling it from a signal handler (the
interrupted code may hold the lock).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from threading import Lock
from typing import NamedTuple

from taskharbor import defaults
from taskharbor.drivers.base import Extended, Settled
from taskharbor.lease import Guard, Reservation, Verdict
from taskharbor.settlement import Settlement
from taskharbor.states import Move
from taskharbor.worker.held import Held

Batch = list[Held]
"""Finished jobs whose settlements travel in one request."""


class Refused(NamedTuple):
    """A settlement that changed nothing: a zombie's, or a late replay."""

    held: Held
    settled: Settled


class Settler:
    """All leases of one child. Times are seconds on the boot-time clock."""

    __slots__ = (
        "_finished",
        "_lock",
        "_running",
        "_sending",
        "_waiting",
        "claims",
        "last_claim",
        "urgent",
    )

    def __init__(self) -> None:
        self._lock = Lock()
        self._waiting: deque[Held] = deque()
        self._running: dict[int, Held] = {}
        self._finished: Batch = []
        self._sending: list[Batch] = []
        self.urgent = 0
        """How many settlements must be answered before anything else is started."""
        self.claims = 0
        """How many jobs were started here so far."""
        self.last_claim = 0.0

    # --- the way of a job ---------------------------------------------------------------------

    def add(self, reservations: Iterable[Reservation], deadline: float) -> None:
        """What the store gave in answer to a request; its leases run at least until
        ``deadline``."""
        with self._lock:
            self._waiting.extend([Held(reservation, deadline) for reservation in reservations])

    def claim(self, now: float) -> Held | None:
        """The next job to start. None: nothing waits, or a settlement must be answered first.

        A job whose lease may have run out (a suspended machine, a stopped process) is not started
        but handed back: were it still ours by the store's clock, this frees it at once.
        """
        with self._lock:
            if self.urgent:
                return None
            waiting = self._waiting
            while waiting:
                held = waiting.popleft()
                if held.deadline > now and not held.unwanted:
                    self._running[held.reservation.fence] = held
                    self.claims += 1
                    self.last_claim = now
                    return held
                self._give_back(held)
            return None

    def finish(
        self, held: Held, settlement: Settlement, *, urgent: bool = False, settled: bool = False
    ) -> None:
        """``settled``: the store has the settlement already, in the attempt's own transaction."""
        with self._lock:
            del self._running[held.reservation.fence]
            held.settlement = settlement
            if settled:
                return
            if urgent:
                held.urgent = True
                self.urgent += 1
            self._finished.append(held)

    def hand_back(self) -> int:
        """Give up all jobs that wait; how many there were. Their releases are to be sent."""
        with self._lock:
            count = len(self._waiting)
            while self._waiting:
                self._give_back(self._waiting.pop())
            return count

    def _give_back(self, held: Held) -> None:
        held.settlement = unstarted(held)
        self._finished.append(held)

    # --- settlements to the store -------------------------------------------------------------

    def take(self) -> Batch:
        """What is finished, at most ``defaults.BATCH``, to be sent now. Ends in ``answered`` or
        ``unanswered``."""
        with self._lock:
            return self._take()

    def take_unless_urgent(self) -> Batch:
        """For the heartbeat thread: an urgent settlement is the reserve loop's to send, which waits
        for its answer."""
        with self._lock:
            return [] if self.urgent else self._take()

    def _take(self) -> Batch:
        # A child with thousands of slots must not hold up a store, or run into its timeout.
        finished = self._finished
        if not finished:
            return []
        batch, self._finished = finished[: defaults.BATCH], finished[defaults.BATCH :]
        self._sending.append(batch)
        return batch

    def answered(self, batch: Batch, answers: Sequence[Settled]) -> list[Refused]:
        """The store's verdicts on ``batch``; those that say nothing was changed are returned."""
        if not batch:
            return []
        with self._lock:
            self._forget(batch)
            for held in batch:
                if held.urgent:
                    self.urgent -= 1
        return [
            Refused(held, answer)
            for held, answer in zip(batch, answers, strict=True)
            if answer.verdict is not Verdict.APPLIED and answer.verdict is not Verdict.ALREADY
        ]

    def unanswered(self, batch: Batch) -> None:
        """No reply came: whether ``batch`` was applied is unknown. It will be sent again, before
        all that finished since; the fences make that harmless."""
        with self._lock:
            self._forget(batch)
            for held in batch:
                held.sent_before = True
            self._finished[:0] = batch

    def _forget(self, batch: Batch) -> None:
        # By identity: equal batches of equal jobs are still two requests.
        self._sending = [sent for sent in self._sending if sent is not batch]

    # --- leases -------------------------------------------------------------------------------

    def leases(self) -> list[Held]:
        """All whose lease matters: to run, or to have a settlement accepted. Releases don't."""
        with self._lock:
            unsettled = [held for held in self._finished if not _is_release(held)]
            for batch in self._sending:
                unsettled.extend(held for held in batch if not _is_release(held))
            return [*self._running.values(), *self._waiting, *unsettled]

    def renewed(
        self, leases: Sequence[Held], answers: Sequence[Extended], deadline: float
    ) -> list[Held]:
        """The store's answer about ``leases``, which when extended run at least until
        ``deadline``. Returns those running whose loss is news.

        Waiting jobs that are lost or cancelled are handed back here: the store ends a cancelled
        one when it is.
        """
        lost = []
        with self._lock:
            for held, answer in zip(leases, answers, strict=True):
                if answer.verdict is Verdict.APPLIED:
                    held.deadline = max(held.deadline, deadline)
                    held.cancelled = held.cancelled or answer.cancel_requested
                elif held.settlement is None and not held.lost:
                    held.lost = True
                    lost.append(held)
            self._give_back_unwanted()
            return [held for held in lost if held.reservation.fence in self._running]

    def _give_back_unwanted(self) -> None:
        if any(held.unwanted for held in self._waiting):
            everything, self._waiting = self._waiting, deque()
            for held in everything:
                if held.unwanted:
                    self._give_back(held)
                else:
                    self._waiting.append(held)

    # --- after a lost reply -------------------------------------------------------------------

    def unknown(self, listed: Iterable[Reservation]) -> list[Reservation]:
        """Of what the store says we hold, the jobs that never reached us."""
        with self._lock:
            known = {held.reservation.fence for held in self._all()}
        return [reservation for reservation in listed if reservation.fence not in known]

    def adopt(
        self, unknown: Sequence[Reservation], answers: Sequence[Extended], deadline: float
    ) -> int:
        """Take over jobs of a lost reply whose leases the store just extended; how many.

        The extension is the proof: one that expired meanwhile, or that another thread settled
        after the store made its list, is refused.
        """
        ours = []
        for reservation, answer in zip(unknown, answers, strict=True):
            if answer.verdict is Verdict.APPLIED:
                held = Held(reservation, deadline)
                held.cancelled = held.cancelled or answer.cancel_requested
                ours.append(held)
        with self._lock:
            self._waiting.extend(ours)
        return len(ours)

    def drop_unlisted(self, listed: Iterable[Reservation]) -> list[Held]:
        """Of what we hold unsettled, forget or flag the jobs that the store does not list as ours.

        Only for a list that was asked for by the thread that reserves, so that nothing can have
        been added since. Settlements are kept: the store has the word on them.
        """
        with self._lock:
            fences = {reservation.fence for reservation in listed}
            gone = [
                held
                for held in (*self._waiting, *self._running.values())
                if held.reservation.fence not in fences
            ]
            for held in gone:
                held.lost = True
            self._waiting = deque(held for held in self._waiting if not held.lost)
            return gone

    def _all(self) -> Iterable[Held]:
        yield from self._waiting
        yield from self._running.values()
        yield from self._finished
        for batch in self._sending:
            yield from batch

    def worth_waiting_for(self, now: float) -> bool:
        """Whether a settlement that counts is unanswered and its lease may still hold."""
        with self._lock:
            unsettled = [*self._finished, *(held for batch in self._sending for held in batch)]
        return any(held.deadline > now and not _is_release(held) for held in unsettled)

    # --- how much there is; exact only for the thread that would change it ----------------------

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def finished(self) -> int:
        """Settlements to be sent; those on their way are not counted."""
        return len(self._finished)

    @property
    def sending(self) -> int:
        return sum(len(batch) for batch in self._sending)


def unstarted(held: Held) -> Settlement:
    """The hand-back of a job that never started here and never will.

    It may come late, from a child that was suspended or cut off: as long as the fence is the job's
    own nobody else has the job, so a lease that ran out meanwhile does not matter. The job is free
    at once, uncharged, instead of being reaped as lost.
    """
    job = held.reservation
    return Settlement.release(job.id, job.fence, guard=Guard.ANY)


def _is_release(held: Held) -> bool:
    return held.settlement is not None and held.settlement.move is Move.RELEASE
