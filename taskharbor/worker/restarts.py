"""When to start again what died: at once, unless it keeps dying young."""

from __future__ import annotations

from random import Random

FIRST_DELAY_SECONDS = 0.05
MAX_DELAY_SECONDS = 10.0
_MAX_DOUBLINGS = 16


class Restarts:
    """Counts deaths in a row that came too early; ``died`` says how long to wait.

    The first early death is forgiven (delay 0): a process that is killed from outside just after
    its start is no sign of a fault.
    """

    __slots__ = ("_early", "_max_delay", "_rng")

    def __init__(self, rng: Random, *, max_delay: float = MAX_DELAY_SECONDS) -> None:
        self._early = 0
        self._max_delay = max_delay
        self._rng = rng

    def died(self, *, early: bool) -> float:
        """Seconds to wait before the next start."""
        if not early:
            self._early = 0
            return 0.0
        self._early += 1
        if self._early == 1:
            return 0.0
        doublings = min(self._early - 2, _MAX_DOUBLINGS)
        delay = min(self._max_delay, FIRST_DELAY_SECONDS * 2.0**doublings)
        # Half of it at random: workers that were started together do not come back together.
        return delay * (0.5 + 0.5 * self._rng.random())

    def lives(self) -> None:
        """It did its work: forget the early deaths."""
        self._early = 0
