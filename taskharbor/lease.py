"""Leases: what a holder gets from a reserve, and what its fence still entitles it to.

A lease is a holder's right to run one attempt until it expires by the store's clock. Its *fence* is
strictly increasing per namespace and never reused, so "is this the current lease?" is one
comparison of integers, and anything outside the store can be fenced with the same number (the
idea and the name are from M. Kleppmann, "How to do distributed locking", 2016).
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from taskharbor import defaults
from taskharbor.errors import InvalidLease
from taskharbor.states import State


class Reservation(NamedTuple):
    """One job with the lease to run it. Times are the store's clock, seconds since the epoch.

    ``attempt`` counts from 1 and includes this one. ``losses`` are the attempts before this one
    that ended with their worker. ``unknown_since`` is when a worker first put the job back because
    it did not know the task (None: not since its last other outcome). ``saved`` is what
    an earlier or this attempt kept with ``current_job().save()``, still encoded. ``flow`` is the
    flow that the job belongs to, ``awaits`` one that an earlier attempt handed its work to and that
    has ended since.
    """

    id: str
    queue: str
    task: str
    body: bytes
    fence: int
    attempt: int
    losses: int
    priority: int
    enqueued_at: float
    reserved_at: float
    lease_expires_at: float
    unknown_since: float | None = None
    saved: bytes | None = None
    cancel_requested: bool = False
    holder: str = ""
    flow: str | None = None
    awaits: str | None = None


class Verdict(StrEnum):
    """What a store says to a settle or an extend."""

    APPLIED = "applied"
    ALREADY = "already"
    """A replay: this very lease settled the job before."""
    MISMATCH = "mismatch"
    EXPIRED = "expired"
    NOT_RUNNING = "not_running"
    NOT_FOUND = "not_found"
    STILL_VALID = "still_valid"
    """Only for a reaper's settle: the lease is not expired, nothing changes."""


class Guard(StrEnum):
    """Which leases a settle may end; the fence must be current in every case."""

    VALID = "valid"
    """The holder's own settle: not once the lease has expired."""
    EXPIRED = "expired"
    """The reaper's: only if the lease is still expired."""
    ANY = "any"
    """Whatever the time: the holder was retired, so it is known to be gone, or it hands back what
    it never started. While the fence is current nobody else has the job."""


def judge(
    state: State | None,
    *,
    fence: int,
    current_fence: int,
    settled_fence: int | None,
    lease_expires_at: float | None,
    now: float,
    guard: Guard = Guard.VALID,
    terminal_outcome: bool = True,
) -> Verdict:
    """The verdict table: what may whoever shows ``fence`` do with the job?

    ``state`` None = the job is gone. ``current_fence`` is the fence of the job's last lease,
    ``settled_fence`` the one that made it terminal (None: not by a lease). A lease is expired from
    the very moment ``lease_expires_at``. A mismatch is reported before an expiry.
    """
    if state is None:
        return Verdict.NOT_FOUND
    if state is State.RUNNING:
        if fence != current_fence or lease_expires_at is None:
            return Verdict.MISMATCH
        if guard is Guard.ANY:
            return Verdict.APPLIED
        expired = now >= lease_expires_at
        if guard is Guard.EXPIRED:
            return Verdict.APPLIED if expired else Verdict.STILL_VALID
        return Verdict.EXPIRED if expired else Verdict.APPLIED
    if not state.terminal:
        return Verdict.NOT_RUNNING
    if fence != settled_fence:
        return Verdict.MISMATCH
    return Verdict.ALREADY if terminal_outcome else Verdict.NOT_RUNNING


def check_lease_seconds(seconds: object) -> None:
    """Raises InvalidLease unless ``seconds`` is positive, finite and at most a day."""
    match seconds:
        case bool():
            possible = False
        case int() | float():
            possible = 0 < seconds <= defaults.MAX_LEASE_SECONDS  # so neither infinite nor NaN
        case _:
            possible = False
    if not possible:
        raise InvalidLease(
            f"a lease of {seconds!r} seconds is impossible; use more than 0 and at most "
            f"{defaults.MAX_LEASE_SECONDS:g}"
        )
