"""How many jobs a second are half of what the workers can do, on a machine that others use, too."""

from __future__ import annotations

from dataclasses import dataclass, field

LAG_SECONDS = 10.0
"""So much unfinished work is a blow's; if it stays, the workers can't keep up."""
BEHIND_SECONDS = 60.0
"""How long it has to stay, which is also how long is measured what they can do."""
LEAST = 1.0


@dataclass(slots=True)
class Pace:
    """``jobs_per_second`` starts as half of ``can``, jobs a second that the workers did when they
    had enough of them. It only falls: what is measured later is measured among blows.

    ``changes``: for a report.
    """

    can: float
    changes: list[str] = field(default_factory=list)
    _behind_since: float | None = None
    _finished_then: int = 0

    @property
    def jobs_per_second(self) -> float:
        return max(LEAST, 0.5 * self.can)

    def note(self, now: float, *, finished: int, unfinished: int) -> None:
        """What the store says at ``now`` (seconds, of any clock): jobs ever finished, and not."""
        if unfinished < LAG_SECONDS * self.jobs_per_second:
            self._behind_since = None
        elif self._behind_since is None:
            self._behind_since, self._finished_then = now, finished
        elif now - self._behind_since >= BEHIND_SECONDS:
            can = (finished - self._finished_then) / (now - self._behind_since)
            self.can = min(self.can, can)
            self.changes.append(f"at {now:.0f} s the workers could do {can:.1f} jobs/s")
            self._behind_since, self._finished_then = now, finished
