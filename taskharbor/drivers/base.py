"""The contract between TaskHarbor and a store.

A driver *stores and moves; it never decides*. Every method is one atomic step (per shard, where a
store is sharded); all are bulk and synchronous; each does a bounded amount of work. Lost leases are
verdict values, an unreachable store is ``StoreUnavailable``, after which the caller does not know
whether the step was applied: every step is therefore safe to send again.

Rules that hold for every driver (``taskharbor.conformance`` proves them):

* Time is the store's clock. Given a ``clock`` when it is made, a driver uses that one instead,
  for tests.
* Inside a queue, jobs are reserved by priority (higher first), then in the order of their first
  enqueue; a job that went back in line keeps its place in that order.
* Fences grow strictly over the whole namespace and are never reused.
* A driver may be shared by threads. It must not be used after a fork: ``close()`` before, or make
  a new one in the child.
* A call with many items behaves as if they were taken one by one, in order: a job named twice is
  judged the second time by what the first did to it.
* Unknown job ids, whatever their characters, are ``not_found``, never an error; fences that were
  never given, whatever their size, are ``mismatch``.
* The fence alone is the right to settle or extend: the ``holder`` who calls is not compared with
  the one who reserved (maintenance extends and settles for others).
* A record is there, and holds its key, until its retention is over *and* ``prune`` took it; both
  ends of time are inclusive: a lease, a retention, a period or a term that ends at t is over at t.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple, Protocol, runtime_checkable

from taskharbor.lease import Reservation, Verdict
from taskharbor.message import Message
from taskharbor.settlement import Settlement
from taskharbor.states import Reason, State

CONTRACT_VERSION = 1

SCHEDULE = ""
"""In place of a queue, for ``wait``: see ``Capabilities.schedule_hints``."""
SOON_SECONDS = 1.0
"""Who looks this often at what is scheduled needs hints only of what is due sooner."""


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
    """

    shared: bool = False
    durable: bool = False
    transactional_enqueue: bool = False
    transactional_settle: bool = False
    migrates: bool = False
    flows: bool = False
    schedule_hints: bool = False
    sharded: bool = False


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


class Driver(Protocol):
    """A store of jobs. Construct through ``registry.connect(url, clock=...)``."""

    url: str
    """Without secrets: it is shown in banners and logs."""
    capabilities: Capabilities

    def new_job_id(self, idempotency_key: str | None) -> str:
        """An id for a job to be enqueued here (a sharded store puts the key's shard in it)."""
        ...

    def enqueue(self, batch: Sequence[Message], *, connection: Any = None) -> list[Enqueued]:
        """Store all of ``batch`` or, on any error, nothing of it (per shard). Answers in order.

        A message whose id or held idempotency key (scoped to its queue) is stored already changes
        nothing, also when both stand in the same batch; the id is looked at first. A period in
        ``key_until`` counts from the enqueue. A job due now is ``ready``, else ``scheduled``.
        ``connection``: a caller's open transaction to join, where the driver can;
        ConfigurationError where it can't.
        """
        ...

    def exchange(
        self, holder: str, settlements: Sequence[Settlement], want: Want | None = None
    ) -> Exchange:
        """Settle, then reserve, in one round trip and one commit; the reserve sees what the
        settle released.

        Each settlement gets its own verdict by ``lease.judge``; one that is refused changes nothing
        and does not disturb its neighbours. Applied, it moves the job to ``lands_in()``, records
        history, clears the lease, and frees or schedules as its delay says (``due_at`` = now +
        delay). A terminal job is kept for its retention; at 0 it is gone for everyone at once
        (its id may be enqueued anew), but a replay of a terminal settlement within the length of
        its lease (expiry − reserve) still hears ``already``; later, or once its id came anew and
        went again, it may. A job that lands in ``cancelled`` because cancel was requested has the
        cancel's reason. Any settlement but an ``unknown`` snooze or a release clears
        ``unknown_since``. An uncharged one takes back the attempt
        counted at reserve. An ``error`` replaces the job's last error; without one, that stays.
        Raises InvalidLease before anything is settled.

        Each reserved job gets a new fence, a lease for ``want.lease_seconds`` and one more
        attempt. Paused queues give nothing. Ready jobs past their expiry are cancelled
        (``expired``) on the way, a bounded number a call. Scheduled jobs are not looked
        at: ``promote`` makes them ready.
        """
        ...

    def held(self, holder: str) -> list[Reservation]:
        """What the store says this holder holds, expired leases included."""
        ...

    def retire(self, holder: str) -> list[Reservation]:
        """From now on this holder reserves nothing, in this life or on a delayed connection; what
        does it hold? Idempotent; it may still settle. Remembered for at least a day."""
        ...

    def extend(self, holder: str, renewals: Sequence[Renewal], seconds: float) -> list[Extended]:
        """Each current, unexpired lease now runs until ``seconds`` from now; never shortened.
        Raises InvalidLease."""
        ...

    def expired(self, limit: int) -> list[Reservation]:
        """Up to ``limit`` running jobs whose lease has expired, oldest expiry first. Read only."""
        ...

    def promote(self, limit: int) -> Promoted:
        """Due scheduled jobs become ready, scheduled ones past their expiry (due or not) are
        cancelled: up to ``limit``, those whose moment came first first. Ready jobs past their
        expiry are left to the reserve."""
        ...

    def prune(self, limit: int) -> int:
        """Delete up to ``limit`` records whose retention is over (jobs, tombstones, retired
        holders); how many there were. A key whose ``key_until`` period is over is free even
        before."""
        ...

    def cancel(
        self, job_ids: Sequence[str], reason: Reason = Reason.OPERATOR
    ) -> list[CancelVerdict]:
        """Waiting jobs: now. Running ones: recorded; the holder learns it on extend. A second
        request changes nothing, the first one's ``reason`` stays."""
        ...

    def wait(self, queues: Sequence[str], seconds: float) -> None:
        """Return when a job may have become ready in one of ``queues``, at the latest after
        ``seconds``. A hint: it may come early, late or for nothing."""
        ...

    def results(self, job_ids: Sequence[str]) -> list[Outcome | None]:
        """How each job stands now; None = no such job."""
        ...

    def wait_results(self, job_ids: Sequence[str], seconds: float) -> list[Outcome | None]:
        """Like ``results``, but returns only when at least one of them is terminal or gone, or
        ``seconds`` have passed. No wake-up is lost; no busy polling."""
        ...

    def lead(self, name: str, holder: str, seconds: float) -> Term | None:
        """Become or stay the leader under ``name`` until ``seconds`` from now; None while another
        holder's term runs. Staying keeps the number."""
        ...

    def close(self) -> None:
        """Give up connections and files. Idempotent."""
        ...


@runtime_checkable
class Inspector(Protocol):
    """What operators, the CLI and the dashboard need. Every first-party driver has it."""

    def get(self, job_id: str) -> Job | None: ...

    def list_jobs(self, where: JobFilter, *, cursor: str | None = None, limit: int = 100) -> Page:
        """A page that stays right while jobs come and go: a job that exists throughout is seen
        exactly once over all pages. Raises InvalidCursor."""
        ...

    def queues(self) -> list[QueueInfo]:
        """All queues with jobs or a pause, by name."""
        ...

    def requeue(
        self,
        job_ids: Sequence[str],
        *,
        states: frozenset[State] = frozenset({State.DEAD}),
        queue: str | None = None,
        delay: float = 0.0,
        eta: float | None = None,
        reset_attempts: bool = True,
    ) -> list[RequeueVerdict]:
        """Terminal jobs in one of ``states`` (and in ``queue``, when given) go back in line.

        Clears result, expiry, ``unknown_since`` and settled fence, keeps last error, history and
        place in the order; takes the idempotency key back, or answers ``key_held`` if another job
        holds it now. The reason becomes ``operator``. ``reset_attempts`` also clears attempts and
        losses; without it, a job at its last attempt gets one more. A wrong state is reported
        before a wrong queue.
        """
        ...

    def delete(self, job_ids: Sequence[str]) -> list[DeleteVerdict]:
        """Remove jobs that are not running, with their keys, for good."""
        ...

    def purge(self, where: JobFilter, *, limit: int = 1000) -> int:
        """Delete up to ``limit`` jobs that match and are not running; how many. Call until 0."""
        ...

    def pause(self, queue: str) -> None:
        """No more reservations from ``queue``, also by workers to come. Enqueue goes on."""
        ...

    def resume(self, queue: str) -> None: ...


@runtime_checkable
class Migratable(Protocol):
    """For stores with a schema of their own."""

    def version(self) -> int:
        """The schema version found in the store; 0 = empty."""
        ...

    def migrate(self) -> list[str]:
        """Bring the schema to this code's version; the names of the steps taken. Safe to run from
        many processes at once. Raises SchemaMismatch for a store newer than the code."""
        ...


class Transaction(Protocol):
    """A transaction of the store, in which one attempt runs."""

    @property
    def connection(self) -> Any:
        """What the task writes through: whatever the store's users know as an open transaction."""
        ...

    def succeed(self, result: bytes | None) -> None:
        """Settle the job as succeeded in this transaction; leaving the context then commits both.

        Nothing may be done in it afterwards. Raises what ``verify`` raises, and when this lease no
        longer has the right to: LeaseMismatch, LeaseExpired, JobNotRunning or JobNotFound.
        """
        ...

    def verify(self) -> None:
        """Raises TransactionEnded when the task ended the transaction, so that what it did may
        stay; StoreUnavailable when the connection broke, so that all is undone."""
        ...


@runtime_checkable
class Transactional(Protocol):
    """For stores in which a task's own writes and the settle of its job can commit together."""

    def begin(self, job: Reservation) -> AbstractContextManager[Transaction]:
        """A transaction for this attempt, of this thread's own. Leaving it rolls back whatever
        ``succeed`` did not settle.

        No lock is held for the job before ``succeed``: its lease can be extended meanwhile, and
        lost. Entering raises LeaseError and the like when it is lost already, and StoreErrors.
        Leaving raises StoreUnavailable when the reply to the commit was lost: whether the job
        succeeded is then for the store to say, whose answer to any other settlement of this lease
        is right in both cases.
        """
        ...


class Remark(NamedTuple):
    """A setting of a store that endangers jobs. ``fatal``: it can't work like this."""

    subject: str
    found: str
    remedy: str
    fatal: bool = False


@runtime_checkable
class Examinable(Protocol):
    """For stores whose settings can be wrong: looked at by ``doctor`` and when a worker starts."""

    def examine(self) -> list[Remark]:
        """What is not as it should be; read only."""
        ...


@runtime_checkable
class Scripted(Migratable, Protocol):
    """For stores whose migrations an administrator may want to read, or to run by hand."""

    def pending(self) -> list[str]:
        """The names of the steps that ``migrate`` would take now; it changes nothing. Raises
        SchemaMismatch like it."""
        ...

    def script(self) -> str:
        """Those steps in the store's own language, to be run in one transaction; "" for none."""
        ...


class InspectableDriver(Driver, Inspector, Protocol):
    """A driver with the operators' side: what all of ours are."""
