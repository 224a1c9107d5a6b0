"""What the reserve loop does next: the machines of this package put together.

The loop asks ``next`` whenever it has nothing to run, does what it is told, and reports back with
``answered``, ``unanswered`` or ``reconciled``. No I/O here and no clock, so the simulation drives
the same decisions through crashes, lost replies and long pauses.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import NamedTuple

from taskharbor import defaults
from taskharbor.drivers.base import Exchange, Extended, Want
from taskharbor.lease import Reservation
from taskharbor.worker.config import ExitCode
from taskharbor.worker.held import Held
from taskharbor.worker.prefetch import Prefetch, Rotation
from taskharbor.worker.recovery import Recovery, Retry
from taskharbor.worker.settler import Batch, Refused, Settler
from taskharbor.worker.shutdown import Budget, Shutdown

POLL_SECONDS = 1.0
"""An idle child looks again after this to a quarter more, whatever hints it gets or misses."""
_HOPELESS_TRIES = 2
"""A stopping child with nothing left to save asks a dead store this often, then goes."""


class Ask(NamedTuple):
    """Send ``batch`` and, with a want, reserve: one exchange."""

    batch: Batch
    want: Want | None


class Reconcile(NamedTuple):
    """Ask the store what we hold, extend what we don't know of, and report."""


class Wait(NamedTuple):
    """Until ``until`` (None: no limit) or a nudge; with ``listen`` also for a wake-up."""

    until: float | None
    listen: bool


class Leave(NamedTuple):
    code: ExitCode


Step = Ask | Reconcile | Wait | Leave


class Answered(NamedTuple):
    """``more``: there may be work for a sibling too."""

    refused: list[Refused]
    more: bool


class Planner:
    """Times are seconds on the boot-time clock."""

    def __init__(
        self,
        settler: Settler,
        shutdown: Shutdown,
        prefetch: Prefetch,
        rotation: Rotation,
        budget: Budget,
        rng: Random,
        *,
        slots: int,
        lease_seconds: float,
        heartbeat_seconds: float,
    ) -> None:
        self._settler = settler
        self._shutdown = shutdown
        self._prefetch = prefetch
        self._rotation = rotation
        self._budget = budget
        self._rng = rng
        self._slots = slots
        self._lease_seconds = lease_seconds
        self._retry = Retry(rng)
        self._recovery = Recovery(heartbeat_seconds)
        self._idle_until = 0.0

    # --- what next ----------------------------------------------------------------------------

    def next(self, now: float, memory_bytes: int | None = None) -> Step:
        """``memory_bytes``: what the process uses, where the budget watches it."""
        settler = self._settler
        if self._budget.used_up(started=settler.claims, memory_bytes=memory_bytes):
            self._shutdown.drain(ExitCode.RECYCLED)
        if self._shutdown.draining:
            settler.hand_back()
            if self._shutdown.leaving or self._nothing_left(now):
                return Leave(self._shutdown.exit_code(running=settler.running))
        if self._retry.blocked(now):
            return Wait(self._retry.at, listen=False)
        if self._recovery.due(now):
            return Reconcile()
        if self._recovery.doubt:
            return Wait(self._recovery.ask_at, listen=False)
        want = self._want(now)
        if want is not None or self._must_send():
            return Ask(settler.take(), want)
        return self._wait()

    def _nothing_left(self, now: float) -> bool:
        settler = self._settler
        if settler.running:
            return False
        if not settler.finished and not settler.sending and not self._recovery.doubt:
            return True
        hopeless = self._retry.failures >= _HOPELESS_TRIES
        return hopeless and not settler.worth_waiting_for(now)

    def _want(self, now: float) -> Want | None:
        """Reserve when a slot is free and nothing waits for it; a finished job is a reason to ask
        even while idle, since its settlement has to travel anyway."""
        settler = self._settler
        room = self._slots - settler.running
        if self._shutdown.draining or room < 1 or settler.waiting:
            return None
        if now < self._idle_until and not settler.finished:
            return None
        limit = self._budget.allows(
            min(self._prefetch.limit(room), defaults.BATCH),
            spoken_for=settler.claims + settler.waiting,
        )
        return Want(self._rotation.next(), limit, self._lease_seconds) if limit else None

    def _must_send(self) -> bool:
        """Without a want: an urgent settlement while others wait, or the last ones of a stop."""
        settler = self._settler
        if not settler.finished:
            return False
        return bool(settler.urgent) or self._shutdown.draining or settler.running < self._slots

    def _wait(self) -> Wait:
        if self._shutdown.draining or self._settler.running >= self._slots:
            return Wait(None, listen=False)
        ask_at = self._recovery.ask_at
        until = self._idle_until if ask_at is None else min(self._idle_until, ask_at)
        return Wait(until, listen=True)

    # --- what came of it ----------------------------------------------------------------------

    def answered(self, ask: Ask, reply: Exchange, *, sent_at: float, now: float) -> Answered:
        """``sent_at``: read before the request was sent; the leases are counted from there."""
        self._retry.succeeded()
        refused = self._settler.answered(ask.batch, reply.settled)
        if ask.want is None:
            return Answered(refused, more=False)
        self._settler.add(reply.reserved, sent_at + self._lease_seconds)
        self._prefetch.got(ask.want.limit, len(reply.reserved))
        if reply.retired:
            self._shutdown.drain(ExitCode.RETIRED)
        if reply.reserved or reply.more:
            self._idle_until = now
        else:
            self._idle_until = now + POLL_SECONDS * (1.0 + 0.25 * self._rng.random())
        return Answered(refused, more=reply.more or len(reply.reserved) >= ask.want.limit)

    def unanswered(self, ask: Ask, now: float) -> None:
        """The exchange failed; whether the store applied it is unknown."""
        self._settler.unanswered(ask.batch)
        self._retry.failed(now)
        if ask.want is not None:
            self._recovery.reserve_unanswered(now)

    def reconciled(
        self,
        listed: Sequence[Reservation],
        unknown: Sequence[Reservation],
        answers: Sequence[Extended],
        *,
        sent_at: float,
        now: float,
    ) -> list[Held]:
        """What the store says we hold (``listed``), what of that was news to us (``unknown``) and
        how their extension went, which was sent at ``sent_at``. Returns the leases that are lost.
        """
        self._retry.succeeded()
        self._settler.adopt(unknown, answers, sent_at + self._lease_seconds)
        self._recovery.reconciled(now)
        return self._settler.drop_unlisted(listed)

    def reconcile_failed(self, now: float) -> None:
        self._retry.failed(now)

    def woken(self) -> None:
        """A wake-up came: a job may be ready."""
        self._idle_until = 0.0
