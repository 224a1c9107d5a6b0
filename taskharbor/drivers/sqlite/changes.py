"""The moves of a step, collected, then written statement by statement.

Deciding row by row and writing kind by kind keeps the time under the write lock short.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from taskharbor import defaults
from taskharbor.drivers.sqlite.queries import load
from taskharbor.drivers.sqlite.transaction import Row, Tx, as_numbers
from taskharbor.states import Reason, State

_SQL = load("move")

UNTIL_TERMINAL = -1.0
"""In ``th_jobs.key_seconds``: the key is free once the job is terminal."""


class Head(NamedTuple):
    """What a move has to know of a job, whatever it is."""

    seq: int
    id: str
    queue: int
    priority: int
    expires_at: float | None
    keep_succeeded: float
    keep_cancelled: float
    keep_dead: float
    key: str | None
    key_seconds: float | None

    @property
    def in_flow(self) -> bool:
        """Whether it is a member of a flow, which keeps the record."""
        return self.keep_succeeded == math.inf

    def keep_seconds(self, state: State) -> float:
        match state:
            case State.SUCCEEDED:
                return self.keep_succeeded
            case State.DEAD:
                return self.keep_dead
            case _:
                return self.keep_cancelled


class Ending(NamedTuple):
    """How a job became terminal; the last three only if a lease settled it."""

    state: State
    reason: str
    attempts: int
    fence: int | None = None
    holder: str | None = None
    reserved_at: float | None = None


class Changes:
    """Rows to write and rows to remove. ``flush`` empties it, so it can go on."""

    __slots__ = (
        "blocked",
        "buried",
        "carried",
        "ended",
        "forgotten",
        "forgotten_ids",
        "freed_keys",
        "history",
        "left_blocked",
        "left_ended",
        "left_leases",
        "left_ready",
        "left_scheduled",
        "ready",
        "scheduled",
        "tx",
    )

    def __init__(self, tx: Tx) -> None:
        self.tx = tx
        self.ended: list[Row] = []
        self.ready: list[Row] = []
        self.scheduled: list[Row] = []
        self.blocked: list[Row] = []
        self.carried: list[Row] = []
        self.history: list[Row] = []
        self.buried: list[Row] = []
        self.freed_keys: list[Row] = []
        self.forgotten: list[int] = []
        self.forgotten_ids: list[Row] = []
        self.left_leases: list[int] = []
        self.left_ready: list[Row] = []
        self.left_scheduled: list[int] = []
        self.left_blocked: list[int] = []
        self.left_ended: list[int] = []

    # --- into a state ----------------------------------------------------------------------

    def to_line(self, job: Head, reason: str, *, due_at: float) -> State:
        """Ready if due now, else scheduled."""
        tx = self.tx
        if due_at <= tx.now:
            row = (job.queue, -job.priority, job.seq, job.expires_at, tx.now, reason)
            self.ready.append(row)
            state = State.READY
        else:
            wake_at = due_at if job.expires_at is None else min(due_at, job.expires_at)
            self.scheduled.append((job.seq, wake_at, reason))
            state = State.SCHEDULED
        tx.count(job.queue, state, 1)
        return state

    def to_blocked(self, job: Head, reason: str) -> State:
        self.blocked.append((job.seq, reason))
        self.tx.count(job.queue, State.BLOCKED, 1)
        return State.BLOCKED

    def to_end(self, job: Head, end: Ending, *, result: bytes | None = None) -> State | None:
        """Terminal; None when the job is not kept at all."""
        tx = self.tx
        keep = job.keep_seconds(end.state)
        if keep <= 0:
            self.forget(job)
            return None
        tx.count(job.queue, end.state, 1)
        if job.in_flow:
            tx.noted.append((job.seq, None, end.state))
        self.ended.append(
            (job.seq, str(end.state), end.reason, tx.now, tx.now + keep, *end[2:], result)
        )
        if job.key is not None and job.key_seconds == UNTIL_TERMINAL:
            self.freed_keys.append((job.queue, job.key, job.seq))
        return end.state

    def cancel_waiting(self, job: Head, reason: Reason, *, attempts: int) -> None:
        self.to_end(job, Ending(State.CANCELLED, str(reason), attempts))

    def forget(self, job: Head) -> None:
        """The job leaves the store. Its state's row has to be removed by its own list."""
        self.forgotten.append(job.seq)
        self.forgotten_ids.append((job.id,))
        if job.key is not None:
            self.freed_keys.append((job.queue, job.key, job.seq))

    # --- out of a state ----------------------------------------------------------------------

    def leave_lease(self, job: Head, fence: int) -> None:
        self.left_leases.append(fence)
        self.tx.count(job.queue, State.RUNNING, -1)

    def leave_ready(self, job: Head) -> None:
        self.left_ready.append((job.queue, -job.priority, job.seq))
        self.tx.count(job.queue, State.READY, -1)

    def leave_scheduled(self, job: Head) -> None:
        self.left_scheduled.append(job.seq)
        self.tx.count(job.queue, State.SCHEDULED, -1)

    def leave_blocked(self, job: Head) -> None:
        self.left_blocked.append(job.seq)
        self.tx.count(job.queue, State.BLOCKED, -1)

    def leave_ended(self, job: Head, state: str) -> None:
        self.left_ended.append(job.seq)
        self.tx.count(job.queue, State(state), -1)
        if job.in_flow:
            self.tx.noted.append((job.seq, State(state), None))

    # --- writing -------------------------------------------------------------------------------

    def flush(self) -> None:
        """Removals first: a job may come back to the table that it left. What is forgotten last:
        history and all may have been written for it just now."""
        self._write_removals()
        self._write_rows()
        if self.forgotten:
            self._forget()
        if self.buried:
            self.tx.executemany(_SQL["bury"], self.buried)
            self.buried.clear()

    def _write_removals(self) -> None:
        tx = self.tx
        for statement, keys in (
            ("leave_leases", self.left_leases),
            ("leave_scheduled", self.left_scheduled),
            ("leave_blocked", self.left_blocked),
            ("leave_ended", self.left_ended),
        ):
            if keys:
                tx.execute(_SQL[statement], (as_numbers(keys),))
                keys.clear()
        if self.left_ready:
            tx.executemany(_SQL["leave_ready"], self.left_ready)
            self.left_ready.clear()

    def _forget(self) -> None:
        tx = self.tx
        seqs = as_numbers(self.forgotten)
        for statement in ("forget_jobs", "forget_carried", "forget_attempts"):
            tx.execute(_SQL[statement], (seqs,))
        if tx.one(_SQL["any_tombstone"]) is not None:
            # Of an earlier job by the same id, which must not speak for this one.
            tx.executemany(_SQL["forget_tombstone"], self.forgotten_ids)
        self.forgotten.clear()
        self.forgotten_ids.clear()

    def _write_rows(self) -> None:
        if self.history:
            self.tx.executemany(_SQL["write_history"], self.history)
            trims = [(row[0], row[0], defaults.MAX_HISTORY) for row in self.history]
            self.tx.executemany(_SQL["trim_history"], trims)
            self.history.clear()
        for statement, rows in (
            ("end", self.ended),
            ("line_up", self.ready),
            ("schedule", self.scheduled),
            ("block", self.blocked),
            ("carry", self.carried),
            ("free_key", self.freed_keys),
        ):
            if rows:
                self.tx.executemany(_SQL[statement], rows)
                rows.clear()
