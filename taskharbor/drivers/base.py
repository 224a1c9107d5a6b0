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

Here is what a driver does; the values that it is asked with and answers with are in
``drivers.records``, and can all be imported from here.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, runtime_checkable

from taskharbor.drivers.records import (
    Attempt,
    CancelVerdict,
    Capabilities,
    DeleteVerdict,
    Enqueued,
    Exchange,
    Extended,
    Job,
    JobFilter,
    Outcome,
    Page,
    Promoted,
    QueueInfo,
    Remark,
    Renewal,
    RequeueVerdict,
    Settled,
    Term,
    Want,
)
from taskharbor.lease import Reservation
from taskharbor.message import Message
from taskharbor.settlement import Settlement
from taskharbor.states import Reason, State

__all__ = [
    "CONTRACT_VERSION",
    "SCHEDULE",
    "SOON_SECONDS",
    "Attempt",
    "CancelVerdict",
    "Capabilities",
    "DeleteVerdict",
    "Driver",
    "Enqueued",
    "Examinable",
    "Exchange",
    "Extended",
    "InspectableDriver",
    "Inspector",
    "Job",
    "JobFilter",
    "Migratable",
    "Outcome",
    "Page",
    "Promoted",
    "QueueInfo",
    "Remark",
    "Renewal",
    "RequeueVerdict",
    "Scripted",
    "Settled",
    "Term",
    "Transaction",
    "Transactional",
    "Want",
]

CONTRACT_VERSION = 1

SCHEDULE = ""
"""In place of a queue, for ``wait``: see ``Capabilities.schedule_hints``."""
SOON_SECONDS = 1.0
"""Who looks this often at what is scheduled needs hints only of what is due sooner."""


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
