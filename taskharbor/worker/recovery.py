"""What a child does while its store does not answer.

The reply to a request may be lost before or after the store applied it. Settlements are simply
sent again, the fences see to that. A reserve is different: the store may have given us jobs that we
don't know. So after a lost reserve the child asks what it holds before it asks for more, and once
more a little later, for a request that was still on its way when the first answer was made.
"""

from __future__ import annotations

from random import Random

FIRST_DELAY_SECONDS = 0.05
MOST_DELAY_SECONDS = 1.0
"""Between two tries; so a child is at work again within about a second of the store's return."""


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
    """Whether the store may think that we hold jobs we don't know of."""

    __slots__ = ("_recheck_at", "_recheck_seconds", "doubt")

    def __init__(self, recheck_seconds: float) -> None:
        self._recheck_seconds = recheck_seconds
        self._recheck_at: float | None = None
        self.doubt = False
        """Nothing may be reserved before the store said what we hold."""

    def reserve_unanswered(self) -> None:
        self.doubt = True

    def due(self, now: float) -> bool:
        """Whether to ask the store now what we hold."""
        return self.doubt or (self._recheck_at is not None and now >= self._recheck_at)

    def reconciled(self, now: float) -> None:
        """The store said what we hold, and we hold that now."""
        self._recheck_at = now + self._recheck_seconds if self.doubt else None
        self.doubt = False

    @property
    def recheck_at(self) -> float | None:
        return self._recheck_at
