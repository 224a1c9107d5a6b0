"""What a child does while its store does not answer.

The reply to a request may be lost before or after the store applied it. Settlements are simply
sent again, the fences see to that. A reserve is different: the store may have given us jobs that we
don't know. So after a lost reserve the child first lets a moment pass, in which a request that is
still on its way arrives, and asks what it holds before it asks for more; and once more later, for
one that was very late. What arrives later still waits until its lease runs out.
"""

from __future__ import annotations

from random import Random

FIRST_DELAY_SECONDS = 0.05
MOST_DELAY_SECONDS = 1.0
"""Between two tries; so a child is at work again within about a second of the store's return."""
ON_ITS_WAY_SECONDS = 0.25
"""A request whose connection was cut is applied by then, if ever: longer than a busy store takes
to come to what it has already received."""


class Retry:
    """Capped exponential backoff with equal jitter, for one thread's requests.

    Times are seconds on the boot-time clock. Never gives up.
    """

    __slots__ = ("_rng", "at", "failures")

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self.failures = 0
        self.at = 0.0
        """Not before then."""

    def failed(self, now: float) -> None:
        longest = min(MOST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2.0 ** min(self.failures, 10))
        self.failures += 1
        self.at = now + longest * (0.5 + 0.5 * self._rng.random())

    def succeeded(self) -> None:
        self.failures = 0
        self.at = 0.0

    def blocked(self, now: float) -> bool:
        return now < self.at


class Recovery:
    """Whether the store may think that we hold jobs we don't know of. Times are boot time."""

    __slots__ = ("_recheck_seconds", "ask_at", "doubt")

    def __init__(self, recheck_seconds: float) -> None:
        self._recheck_seconds = recheck_seconds
        self.ask_at: float | None = None
        """When to ask the store what we hold; None: no need."""
        self.doubt = False
        """Nothing may be reserved before the store has said what we hold."""

    def reserve_unanswered(self, now: float) -> None:
        self.doubt = True
        self.ask_at = now + ON_ITS_WAY_SECONDS

    def due(self, now: float) -> bool:
        return self.ask_at is not None and now >= self.ask_at

    def reconciled(self, now: float) -> None:
        """The store said what we hold, and we hold that now."""
        self.ask_at = now + self._recheck_seconds if self.doubt else None
        self.doubt = False
