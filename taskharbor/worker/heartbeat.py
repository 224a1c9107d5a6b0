"""What the heartbeat thread does next.

Beside extending leases it looks after what a long job would hold up: unstarted jobs are handed
back, finished settlements sent, time limits enforced. The rest of the time it sleeps: a child with
nothing to watch wakes once a second.
"""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import NamedTuple, Protocol, TypeVar

from taskharbor.worker.recovery import Retry
from taskharbor.worker.settler import Settler
from taskharbor.worker.shutdown import Shutdown

PATIENCE_SECONDS = 0.03
"""How long unstarted jobs and unsent settlements wait behind a running job."""
BEAT_SECONDS = 1.0
HARD_LIMIT_MARGIN_SECONDS = 1.0
"""The supervisor kills at the hard limit; the child ends itself when that did not happen."""
_SHORTEST_SLEEP_SECONDS = 0.001


class Timed(Protocol):
    """A running attempt's limits, seconds on the boot-time clock; None: no limit."""

    @property
    def soft_deadline(self) -> float | None: ...
    @property
    def hard_deadline(self) -> float | None: ...
    @property
    def interrupted(self) -> bool:
        """The soft limit was signalled; it is signalled once."""
        ...


T = TypeVar("T", bound=Timed)


class Duties(NamedTuple):
    """What is due, to be done in this order."""

    beat: bool
    renew: bool
    hand_back: bool
    flush: bool


class Heartbeat:
    """Times are seconds on the boot-time clock."""

    __slots__ = (
        "_beat_at",
        "_beat_seconds",
        "_heartbeat_seconds",
        "_renew_at",
        "_retry",
        "_settler",
        "_shutdown",
        "_slots",
    )

    def __init__(
        self,
        settler: Settler,
        shutdown: Shutdown,
        rng: Random,
        *,
        slots: int,
        heartbeat_seconds: float,
        now: float,
    ) -> None:
        self._settler = settler
        self._shutdown = shutdown
        self._slots = slots
        self._heartbeat_seconds = heartbeat_seconds
        self._beat_seconds = min(BEAT_SECONDS, heartbeat_seconds / 2)
        self._retry = Retry(rng)
        self._beat_at = now
        self._renew_at = now + heartbeat_seconds

    def duties(self, now: float) -> Duties:
        """What is due at ``now``. A due beat counts as done; the requests to the store are
        reported back with ``renewed``, ``flushed`` or ``failed``."""
        settler = self._settler
        may_call = not self._retry.blocked(now)
        held_up = self._shutdown.draining or self._slots_are_stuck(now)
        hand_back = held_up and settler.waiting > 0
        unsent = hand_back or (settler.finished > 0 and not settler.urgent)
        beat = now >= self._beat_at
        if beat:
            self._beat_at = now + self._beat_seconds
        return Duties(
            beat=beat,
            renew=may_call and now >= self._renew_at,
            hand_back=hand_back,
            flush=may_call and held_up and unsent,
        )

    def _slots_are_stuck(self, now: float) -> bool:
        settler = self._settler
        return settler.running >= self._slots and now - settler.last_claim >= PATIENCE_SECONDS

    def renewed(self, now: float) -> None:
        self._retry.succeeded()
        self._renew_at = now + self._heartbeat_seconds

    def flushed(self) -> None:
        self._retry.succeeded()

    def failed(self, now: float) -> None:
        """The store did not answer; both kinds of request wait now."""
        self._retry.failed(now)

    # --- time limits --------------------------------------------------------------------------

    @staticmethod
    def to_interrupt(now: float, attempts: Iterable[T]) -> list[T]:
        """Attempts whose soft limit has passed and was not signalled yet."""
        return [
            attempt
            for attempt in attempts
            if attempt.soft_deadline is not None
            and attempt.soft_deadline <= now
            and not attempt.interrupted
        ]

    @staticmethod
    def overdue(now: float, attempts: Iterable[Timed]) -> bool:
        """Whether a hard limit has passed that the supervisor did not enforce."""
        return any(
            attempt.hard_deadline is not None
            and attempt.hard_deadline + HARD_LIMIT_MARGIN_SECONDS <= now
            for attempt in attempts
        )

    # --- sleep --------------------------------------------------------------------------------

    def wake_at(self, now: float, attempts: Iterable[Timed]) -> float:
        """When something will be due, as far as can be known now. Whoever brings that forward
        (jobs that wait, a closer limit) must wake the thread."""
        times = [self._beat_at, max(self._renew_at, self._retry.at)]
        settler = self._settler
        if settler.running >= self._slots:
            if settler.waiting or (settler.finished and not settler.urgent):
                times.append(max(settler.last_claim + PATIENCE_SECONDS, self._retry.at))
        elif settler.waiting:
            times.append(now + PATIENCE_SECONDS)
        for attempt in attempts:
            if attempt.soft_deadline is not None and not attempt.interrupted:
                times.append(attempt.soft_deadline)
            elif attempt.hard_deadline is not None:
                times.append(attempt.hard_deadline + HARD_LIMIT_MARGIN_SECONDS)
        return max(min(times), now + _SHORTEST_SLEEP_SECONDS)
