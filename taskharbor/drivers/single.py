"""One job at a time: thin wrappers over the bulk contract that raise instead of returning
verdicts."""

from __future__ import annotations

from taskharbor.drivers.base import Driver, Enqueued, Extended, Renewal, Settled, Want
from taskharbor.errors import JobNotFound, JobNotRunning, LeaseExpired, LeaseMismatch
from taskharbor.lease import Reservation, Verdict
from taskharbor.message import Message
from taskharbor.settlement import Settlement


def enqueue(driver: Driver, message: Message) -> Enqueued:
    return driver.enqueue([message])[0]


def reserve(driver: Driver, holder: str, queue: str, *, lease_seconds: float) -> Reservation | None:
    """The next job of ``queue``, or None. Raises InvalidLease."""
    want = Want((queue,), 1, lease_seconds)
    while True:
        got = driver.exchange(holder, (), want)
        if got.reserved or not got.more:
            return got.reserved[0] if got.reserved else None


def settle(driver: Driver, holder: str, settlement: Settlement) -> Settled:
    """Applied, or a replay of what was applied before (``already``).

    Raises LeaseMismatch, LeaseExpired, JobNotRunning or JobNotFound.
    """
    settled = driver.exchange(holder, (settlement,)).settled[0]
    raise_for(settled.verdict, settlement.job_id, settlement.fence)
    return settled


def extend(
    driver: Driver, holder: str, job_id: str, fence: int, *, lease_seconds: float
) -> Extended:
    """Raises InvalidLease, LeaseMismatch, LeaseExpired, JobNotRunning or JobNotFound."""
    extended = driver.extend(holder, (Renewal(job_id, fence),), lease_seconds)[0]
    raise_for(extended.verdict, job_id, fence)
    return extended


def raise_for(verdict: Verdict, job_id: str, fence: int) -> None:
    """Raise the error that a refused verdict means for one job; return for the others."""
    match verdict:
        case Verdict.MISMATCH:
            raise LeaseMismatch(
                f"fence {fence} is not the current lease of job {job_id}: another attempt owns it; "
                "drop this result",
                job_id=job_id,
            )
        case Verdict.EXPIRED:
            raise LeaseExpired(
                f"the lease of job {job_id} (fence {fence}) has expired; it will be reclaimed. Use "
                "a longer lease or extend it more often",
                job_id=job_id,
            )
        case Verdict.NOT_RUNNING:
            raise JobNotRunning(f"job {job_id} is not running: nothing to settle", job_id=job_id)
        case Verdict.NOT_FOUND:
            raise JobNotFound(
                f"there is no job {job_id} (never enqueued, deleted, or past its retention)",
                job_id=job_id,
            )
