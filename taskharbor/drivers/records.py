"""What drivers are asked with, and what they answer: the values of the contract.

Import them from ``drivers.base``, which says what is done with them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from taskharbor.lease import Reservation, Verdict
from taskharbor.states import Reason, State


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a driver can do; selects which parts of the conformance suite apply to it.

    ``shared``: other processes see the same jobs through the same URL.
    ``durable``: an acknowledged enqueue survives kill -9 of every process, the store's included.
    ``transactional_enqueue``: ``enqueue(connection=...)`` joins the caller's transaction.
    ``transactional_settle``: it implements :class:`Transactional`, and ``transactional_enqueue``.
    ``migrates``: it implements :class:`Migratable` and must be migrated before use.
    ``flows``: it implements :class:`taskharbor.drivers.flows.Flows`.
    ``schedule_hints``: ``wait`` for :data:`SCHEDULE` returns when something was scheduled that is
    due within ``SOON_SECONDS`` and before all that was scheduled already, and when a call left work
    of flows that ``promote`` would do. Without, maintenance looks ten times a second.
    ``sharded``: its jobs lie in several shards, each job in the one that its id says. All rules
    hold inside a shard; over several, orders (of reserving, promoting, fences, listed jobs of the
    same moment) are each shard's own, a call may take less than its limit and say ``more``, and
    ``enqueue`` refuses (InvalidJob) an id that is not in its key's shard: ``new_job_id`` gives one
    that is.
    ``row_locks``: a long call holds up nobody who works on other jobs. Nothing to prove:
    maintenance prunes in larger pages then, without resting in between.
    """

    shared: bool = False
    durable: bool = False
    transactional_enqueue: bool = False
    transactional_settle: bool = False
    migrates: bool = False
    flows: bool = False
    schedule_hints: bool = False
    sharded: bool = False
    row_locks: bool = False


# --- enqueue ---------------------------------------------------------------------------------


class Enqueued(NamedTuple):
    """``created`` False: ``id`` is the job that was there before, by this id or under this key;
    nothing changed. ``same_request``: its digest equals the message's, so this was a replay, not
    a conflict.
    """

    id: str
    created: bool
    same_request: bool = True


# --- exchange --------------------------------------------------------------------------------


class Want(NamedTuple):
    """What to reserve: up to ``limit`` jobs, all of the first queue before the next one's.

    Who wants nothing passes no want: with a ``limit`` of 0 nothing is reserved, and the answer's
    ``more`` means nothing.
    """

    queues: tuple[str, ...]
    limit: int
    lease_seconds: float


class Settled(NamedTuple):
    """The answer to one settlement. ``state`` is the job's state now, None when it is gone (also
    when this very settlement ended a job with retention 0)."""

    verdict: Verdict
    state: State | None


class Exchange(NamedTuple):
    """``more``: the store stopped early (limit reached or bounded work done), so ask again rather
    than wait. ``retired``: this holder was retired; it will never be given a job again (told when
    there was a want). ``now``: store's clock.
    """

    settled: list[Settled]
    reserved: list[Reservation]
    now: float
    more: bool = False
    retired: bool = False


class Renewal(NamedTuple):
    """One lease to extend. ``progress`` and ``saved`` (encoded), when given, replace what the job
    has."""

    job_id: str
    fence: int
    progress: bytes | None = None
    saved: bytes | None = None


class Extended(NamedTuple):
    """``applied``, or why not, by ``lease.judge`` like a settlement that is not terminal.
    ``lease_expires_at`` by the store's clock when applied."""

    verdict: Verdict
    lease_expires_at: float | None = None
    cancel_requested: bool = False


class Promoted(NamedTuple):
    """``moved`` jobs changed state (due or expired). ``next_due``: when there will be more to do,
    store's clock (None: nothing is scheduled). ``more``: due work was left for the next call.
    ``now``: store's clock.
    """

    moved: int
    next_due: float | None
    more: bool
    now: float


class CancelVerdict(StrEnum):
    CANCELLED = "cancelled"
    REQUESTED = "requested"
    """It is running: recorded, the holder learns it on extend."""
    FINISHED = "finished"
    NOT_FOUND = "not_found"


class Term(NamedTuple):
    """Leadership under a name until ``expires_at`` (store's clock). ``number`` grows with every
    new leader."""

    number: int
    expires_at: float


class Outcome(NamedTuple):
    """How a job stands, for whoever waits for it. ``result`` and ``error`` are encoded."""

    state: State
    reason: Reason
    result: bytes | None = None
    error: bytes | None = None


# --- inspection ------------------------------------------------------------------------------


class Attempt(NamedTuple):
    """One entry of a job's history: an attempt that ended in anything but a clean hand-back."""

    fence: int
    number: int
    holder: str
    started_at: float
    ended_at: float
    reason: Reason
    error: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Everything a store knows of a job. ``attempts`` is the number charged (the running one
    included), ``due_at`` when it may start or might have, ``finished_at`` when it became
    terminal, ``error`` the last error of any attempt. ``history`` holds the newest
    ``defaults.MAX_HISTORY`` ended attempts, oldest first, the successful one included.
    ``fence``, ``holder``, ``reserved_at``, ``lease_expires_at`` and ``cancel_requested`` belong to
    the running lease: None and False in any other state. ``progress`` and ``saved`` outlive the
    attempt. ``flow`` is the flow that the job belongs to, ``awaits`` the one that it handed its
    work to.
    """

    id: str
    task: str
    queue: str
    state: State
    reason: Reason
    priority: int
    body: bytes
    enqueued_at: float
    due_at: float
    attempts: int = 0
    losses: int = 0
    fence: int | None = None
    holder: str | None = None
    reserved_at: float | None = None
    lease_expires_at: float | None = None
    finished_at: float | None = None
    expires_at: float | None = None
    idempotency_key: str | None = None
    cancel_requested: bool = False
    progress: bytes | None = None
    saved: bytes | None = None
    result: bytes | None = None
    error: bytes | None = None
    history: tuple[Attempt, ...] = ()
    flow: str | None = None
    awaits: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """Which jobs; None = any."""

    state: State | None = None
    queue: str | None = None
    task: str | None = None


class Page(NamedTuple):
    """Jobs, newest enqueue first, without ``body``, ``result`` and ``history`` (empty there).
    ``cursor`` None: this was the last page. Any other page may hold fewer than asked for, even
    none: a store that must look at many jobs to find few stops after a bounded number.
    """

    jobs: list[Job]
    cursor: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueInfo:
    """``counts`` has every state, also those with 0. ``oldest_ready_at``: when the job that has
    been ready longest became ready (approximately, for stores that don't keep it), None when none
    is.
    """

    name: str
    paused: bool
    counts: dict[State, int] = field(default_factory=dict[State, int])
    oldest_ready_at: float | None = None


class RequeueVerdict(StrEnum):
    REQUEUED = "requeued"
    WRONG_STATE = "wrong_state"
    WRONG_QUEUE = "wrong_queue"
    KEY_HELD = "key_held"
    NOT_FOUND = "not_found"
    UPSTREAM = "upstream"
    """What it needs in its flow has failed; requeue that, and this one comes back by itself."""


class DeleteVerdict(StrEnum):
    DELETED = "deleted"
    RUNNING = "running"
    NOT_FOUND = "not_found"
    IN_FLOW = "in_flow"
    """It goes with its flow; see ``Flows.delete_flow``."""


class Remark(NamedTuple):
    """A setting of a store that endangers jobs. ``fatal``: it can't work like this."""

    subject: str
    found: str
    remedy: str
    fatal: bool = False
