"""The one retry and dead-letter rule.

The executor (an attempt ended here) and maintenance (an attempt ended with its worker) both call
``decide`` with the policy that travelled in the job, so they can't disagree.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from taskharbor import backoff
from taskharbor.lease import Guard, Reservation
from taskharbor.message import Policy
from taskharbor.settlement import Settlement
from taskharbor.states import Reason

UNKNOWN_BACKOFF = backoff.Exponential(base=1, factor=2, cap=10, jitter="equal")
"""Between looks for a worker that knows the task: quick at first, then every 5 to 10 s. So long a
job may still wait when the worker is there; longer steps would save next to nothing, since a look
is one reserve and one settlement in a batch."""


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The task returned; ``result`` is encoded, None when none is to be kept."""

    result: bytes | None


@dataclass(frozen=True, slots=True)
class Failed:
    """The task raised, timed out, or asked for a retry. ``delay`` overrides the policy's backoff.

    ``retryable`` False (``no_retry_on``, Reject, a result that can't be encoded): dead at once.
    """

    error: bytes | None
    reason: Reason = Reason.RAISED
    retryable: bool = True
    delay: float | None = None


@dataclass(frozen=True, slots=True)
class Snoozed:
    """The task asked to be run again later, without a charge."""

    delay: float


@dataclass(frozen=True, slots=True)
class CancelledItself:
    """The task ended the job by raising Cancel: of its own accord (``Reason.TASK``), or because it
    was asked to."""

    error: bytes | None = None
    reason: Reason = Reason.TASK


@dataclass(frozen=True, slots=True)
class HandedOver:
    """The task gave its work to a flow, which is stored and not sealed."""

    flow_id: str


@dataclass(frozen=True, slots=True)
class HandedBack:
    """Never started here (prefetched, then given up), or interrupted by a shutdown
    (``started``)."""

    started: bool = False


@dataclass(frozen=True, slots=True)
class Lost:
    """The attempt ended with its worker. ``started``: its code may have run; else only the lease
    is lost.

    ``error`` names what was seen: the signal, the exit code, the expiry. ``charge`` False: the
    store itself was away, so the lapse is nobody's fault, and the job's history shows none.
    """

    error: bytes | None
    reason: Reason = Reason.WORKER_LOST
    started: bool = True
    guard: Guard = Guard.ANY
    charge: bool = True


@dataclass(frozen=True, slots=True)
class NotKnown:
    """No such task here, or a newer wire version: another worker of a rolling deploy may know."""

    error: bytes | None
    reason: Reason = Reason.UNKNOWN_TASK


@dataclass(frozen=True, slots=True)
class Undecodable:
    """Corrupted bytes: no attempt can ever succeed."""

    error: bytes | None


Outcome = (
    Succeeded
    | Failed
    | Snoozed
    | CancelledItself
    | HandedOver
    | HandedBack
    | Lost
    | NotKnown
    | Undecodable
)


def decide(
    job: Reservation, policy: Policy, outcome: Outcome, *, now: float, rng: Random
) -> Settlement:
    """What becomes of ``job`` after ``outcome``. ``now`` is the store's clock (of the reserve or
    later)."""
    match outcome:
        case Succeeded(result):
            return Settlement.succeed(job.id, job.fence, result)
        case Failed():
            return _failed(job, policy, outcome, rng)
        case Snoozed(delay):
            return Settlement.snooze(job.id, job.fence, delay=delay)
        case CancelledItself(error, reason):
            return Settlement.cancel(job.id, job.fence, error=error, reason=reason)
        case HandedOver(flow_id):
            return Settlement.wait_for(job.id, job.fence, flow_id)
        case HandedBack(started):
            return _handed_back(job, policy, started=started)
        case Lost():
            return _lost(job, policy, outcome, rng)
        case NotKnown():
            return _not_known(job, policy, outcome, now, rng)
        case Undecodable(error):
            return Settlement.die(job.id, job.fence, error=error, reason=Reason.UNDECODABLE)


def _failed(job: Reservation, policy: Policy, failed: Failed, rng: Random) -> Settlement:
    if not failed.retryable or job.attempt >= policy.max_attempts:
        return Settlement.die(job.id, job.fence, error=failed.error, reason=failed.reason)
    delay = _next_delay(job, policy, rng) if failed.delay is None else failed.delay
    return Settlement.retry(
        job.id, job.fence, delay=delay, error=failed.error, reason=failed.reason
    )


def _handed_back(job: Reservation, policy: Policy, *, started: bool) -> Settlement:
    # Code that never ends inside the grace period must not ride deploys forever.
    if started and job.losses + 1 >= policy.max_losses:
        return Settlement.die(
            job.id, job.fence, error=None, reason=Reason.WORKER_LOST, loss=True, guard=Guard.ANY
        )
    # The fence is enough: while it is the job's own nobody else has it, however late this comes.
    return Settlement.release(job.id, job.fence, loss=started, guard=Guard.ANY)


def _lost(job: Reservation, policy: Policy, lost: Lost, rng: Random) -> Settlement:
    if not lost.charge:
        return Settlement.release(job.id, job.fence, guard=lost.guard)
    out_of_losses = job.losses + 1 >= policy.max_losses
    out_of_attempts = lost.started and job.attempt >= policy.max_attempts
    if out_of_losses or out_of_attempts:
        return Settlement.die(
            job.id, job.fence, error=lost.error, reason=lost.reason, loss=True, guard=lost.guard
        )
    if not lost.started:
        return Settlement.release(job.id, job.fence, loss=True, guard=lost.guard)
    # The first loss is most often the machine's fault: go again at once. A job that loses
    # a second worker is a suspect and backs off.
    delay = 0.0 if job.losses == 0 else _next_delay(job, policy, rng)
    return Settlement.retry(
        job.id,
        job.fence,
        delay=delay,
        error=lost.error,
        reason=lost.reason,
        loss=True,
        guard=lost.guard,
    )


def _not_known(
    job: Reservation, policy: Policy, unknown: NotKnown, now: float, rng: Random
) -> Settlement:
    waited = 0.0 if job.unknown_since is None else now - job.unknown_since
    if waited >= policy.unknown_task_seconds:
        return Settlement.die(job.id, job.fence, error=unknown.error, reason=unknown.reason)
    # No count of the snoozes is stored: the time waited tells how far the doubling has come.
    doublings = max(0, int(waited)).bit_length()
    delay = UNKNOWN_BACKOFF.delay(doublings + 1, rng)
    remaining = policy.unknown_task_seconds - waited
    return Settlement.snooze(
        job.id, job.fence, delay=min(delay, remaining), reason=unknown.reason, unknown=True
    )


def _next_delay(job: Reservation, policy: Policy, rng: Random) -> float:
    return backoff.unpack(policy.backoff).delay(job.attempt, rng)
