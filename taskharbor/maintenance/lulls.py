"""When the reaper must hold back: after the store, or this process, was away for a while.

While the store is down no child can extend its lease, and a clock that jumps ahead ends leases
nobody let lapse. A reaper that went on at once would take jobs from healthy workers and charge them
for it. So after such a gap the reaper rests for one lease length, in which workers that are alive
extend what is still theirs; and what expired from the beginning of the gap to the end of the rest
is nobody's fault: released uncharged.

Pure: times come in. ``now`` is this process' monotonic clock, ``wall`` its wall clock, ``store``
the store's. A jump is seen as the wall clock moving against the monotonic one, which stands still
while the machine is suspended; a gap in the calls of ``tick`` means that this process was stopped.

Not seen: a jump of another machine's clock where that is the store's (Redis, Postgres), and an
outage that ended before this process started.
"""

from __future__ import annotations

SHORTEST_GAP_SECONDS = 1.0
"""Or a quarter of the lease: who extends it twice in its length misses nothing in a shorter gap."""


class Lulls:
    """Knows the last gap: when reaping may go on, and which expiries it forgives.

    ``lease_seconds`` is this worker's lease, taken for everybody's.
    """

    __slots__ = (
        "_down_since",
        "_forgive_from",
        "_forgive_until",
        "_gap",
        "_lease_seconds",
        "_offset",
        "_rest_until",
        "_shortest_gap",
    )

    def __init__(self, *, lease_seconds: float, now: float, wall: float) -> None:
        self._lease_seconds = lease_seconds
        self._shortest_gap = max(SHORTEST_GAP_SECONDS, lease_seconds / 4)
        self._down_since: float | None = None
        self._gap = 0.0
        self._rest_until = now
        self._forgive_from = self._forgive_until = 0.0
        self._offset = wall - now

    def tick(self, now: float, wall: float, *, expected_at: float) -> None:
        """To be called often, whether or not the store answers; ``expected_at``: when this call
        should have come."""
        jumped = abs((wall - now) - self._offset)
        self._offset = wall - now
        self._saw_gap(max(now - expected_at, jumped))

    def store_failed(self, now: float) -> None:
        if self._down_since is None:
            self._down_since = now

    def store_answered(self, now: float) -> None:
        if self._down_since is not None:
            self._saw_gap(now - self._down_since)
            self._down_since = None

    @property
    def rest_due(self) -> bool:
        """A gap is over, and the rest after it has not begun."""
        return self._gap > 0 and self._down_since is None

    def begin_rest(self, now: float, store: float) -> None:
        """``store`` is the store's clock at ``now``."""
        # A gap inside the rest after another one makes one long gap of both.
        if now >= self._rest_until:
            self._forgive_from = store - self._gap - SHORTEST_GAP_SECONDS
        self._rest_until = now + self._lease_seconds
        self._forgive_until = store + self._lease_seconds
        self._gap = 0.0

    def resting(self, now: float) -> bool:
        """Whether to leave expired leases alone."""
        return self._down_since is not None or self._gap > 0 or now < self._rest_until

    def forgives(self, lease_expires_at: float) -> bool:
        """Whether a lease that expired then (store's clock) did so in a gap or its rest."""
        return self._forgive_from <= lease_expires_at <= self._forgive_until

    def _saw_gap(self, seconds: float) -> None:
        if seconds >= self._shortest_gap:
            self._gap = max(self._gap, seconds)
