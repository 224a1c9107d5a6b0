"""How many jobs to ask for, and of which queue first.

A child asks for what it will run in about 20 ms: enough that the round trip is shared by many short
jobs, too little for anyone to wait behind it. What it can't know (a new child, a sudden long job)
costs at most one hand-back: it starts at one job and doubles.
"""

from __future__ import annotations

from collections.abc import Sequence

from taskharbor import defaults

_MEMORY_JOBS = 4
"""One batch of this many jobs moves the average half of the way."""


class Prefetch:
    """``slots``: how many jobs run at once. ``most``: never ask for more."""

    __slots__ = ("_average", "_ceiling", "_most", "_seconds", "_slots")

    def __init__(
        self,
        *,
        slots: int = 1,
        most: int = defaults.PREFETCH_MAX,
        seconds: float = defaults.PREFETCH_SECONDS,
    ) -> None:
        self._slots = slots
        self._most = most
        self._seconds = seconds
        self._average: float | None = None
        self._ceiling = 1

    def ran(self, jobs: int, seconds: float) -> None:
        """``jobs`` jobs took a slot ``seconds`` in all."""
        if jobs < 1:
            return
        sample = seconds / jobs
        if self._average is None:
            self._average = sample
        else:
            self._average += (sample - self._average) * jobs / (jobs + _MEMORY_JOBS)

    def limit(self, room: int) -> int:
        """How many to ask for when ``room`` slots are free (at least that many: those start)."""
        return max(room, min(self._most, self._ceiling, self._affordable()))

    def _affordable(self) -> int:
        if self._average is None:
            return 1
        # A sample of 0 seconds is a clock too coarse to see the job.
        return int(self._slots * self._seconds / max(self._average, 1e-7))

    def got(self, asked: int, reserved: int) -> None:
        """The answer to a request for ``asked`` jobs: a full one lets the next be twice as big."""
        if reserved >= asked:
            self._ceiling = min(self._most, 2 * max(asked, self._ceiling))


class Rotation:
    """The order in which queues are asked: smooth weighted round-robin.

    A queue with weight 3 stands first three times as often as one with weight 1, evenly spread,
    and every queue stands first at some time: none starves behind another that is never empty.
    The method is the one of nginx's upstream balancer (its commit 52327e0627f4, 2012).
    """

    __slots__ = ("_credit", "_queues", "_total")

    def __init__(self, queues: Sequence[tuple[str, int]]) -> None:
        self._queues = tuple(queues)
        self._total = sum(weight for _, weight in queues)
        self._credit = dict.fromkeys((name for name, _ in queues), 0)

    def next(self) -> tuple[str, ...]:
        """All queues, the one whose turn it is first."""
        credit = self._credit
        if len(credit) == 1:
            return tuple(credit)
        for name, weight in self._queues:
            credit[name] += weight
        # Sorting is stable, also in reverse: queues with equal credit keep their order.
        order = tuple(sorted(credit, key=credit.__getitem__, reverse=True))
        credit[order[0]] -= self._total
        return order
