"""What the shared table says must be done about living children. Pure, but for the table."""

from __future__ import annotations

from dataclasses import dataclass

from taskharbor.worker.table import ChildState, SlotState

LONGEST_WATCH_SECONDS = 0.5
"""An expired lease of a silent child is seen before the reaper's courtesy is over."""


@dataclass(frozen=True, slots=True)
class Finding:
    """``overdue``: jobs past their hard limit, for which the child is to be killed. ``silent``: no
    heartbeat for too long; ``renewable`` are the started jobs whose leases are to be renewed from
    outside. ``next_deadline``: when the next started job is overdue."""

    overdue: tuple[SlotState, ...]
    silent: bool
    renewable: tuple[SlotState, ...]
    next_deadline: float | None


def look(state: ChildState, now: float, *, silent_after: float, watched_since: float) -> Finding:
    """Judge one row at ``now``. Silence counts from ``watched_since`` at the earliest: after the
    supervisor itself was stopped, children get time for a first heartbeat. All on boot time."""
    silent = now - max(state.last_beat, watched_since) > silent_after
    deadlines = [
        slot.hard_deadline
        for slot in state.started
        if slot.hard_deadline is not None and slot.hard_deadline > now
    ]
    return Finding(
        overdue=state.overdue(now),
        silent=silent,
        # What a torn slot says can't be renewed: its fence may be any number.
        renewable=tuple(slot for slot in state.started if not slot.torn) if silent else (),
        next_deadline=min(deadlines, default=None),
    )
