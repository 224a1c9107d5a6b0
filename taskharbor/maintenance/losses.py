"""What maintenance did to jobs whose worker was lost, for those who want to be told.

Maintenance runs no user code, so it can't call the handlers of ``app.signals.lost`` itself: each
loss travels over the supervisor to the generation, which forks a process that calls them.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Self

from taskharbor.drivers.base import Settled
from taskharbor.lease import Reservation, Verdict
from taskharbor.settlement import Settlement
from taskharbor.signals import Signals
from taskharbor.states import Move, Reason


class Loss(NamedTuple):
    """One attempt that ended with its process, and what became of the job. ``lost`` False: the
    process was killed for this job's time limit, which is no loss but the job's own failure."""

    job_id: str
    task: str
    queue: str
    attempt: int
    fence: int
    move: Move
    reason: Reason
    delay: float
    error: bytes | None
    lost: bool = True

    @classmethod
    def of(cls, job: Reservation, settlement: Settlement) -> Self:
        return cls(
            job.id,
            job.task,
            job.queue,
            job.attempt,
            job.fence,
            settlement.move,
            settlement.reason,
            settlement.delay,
            settlement.error,
            settlement.loss,
        )

    def to_fields(self) -> list[Any]:
        """Plain values for a channel."""
        *others, error, lost = self
        return [*others, None if error is None else b64encode(error).decode(), lost]

    @classmethod
    def from_fields(cls, fields: Sequence[Any]) -> Self:
        job_id, task, queue, attempt, fence, move, reason, delay, error, lost = fields
        decoded = None if error is None else b64decode(error)
        how = (Move(move), Reason(reason), delay, decoded, lost)
        return cls(job_id, task, queue, attempt, fence, *how)

    def send(self, signals: Signals) -> None:
        """Call the handlers: of ``lost``, if it is one, and of what became of the job."""
        job = Reservation(
            id=self.job_id,
            queue=self.queue,
            task=self.task,
            body=b"",
            fence=self.fence,
            attempt=self.attempt,
            losses=0,
            priority=0,
            enqueued_at=0.0,
            reserved_at=0.0,
            lease_expires_at=0.0,
        )
        settlement = Settlement(
            self.job_id,
            self.fence,
            self.move,
            self.reason,
            delay=self.delay,
            error=self.error,
            loss=self.lost,
        )
        signals.attempt_ended(job, settlement)


def losses_among(
    jobs: Iterable[Reservation], settlements: Iterable[Settlement], answers: Iterable[Settled]
) -> list[Loss]:
    """What the store applied of the settlements that ended an attempt (and are no mere hand-back);
    the three go together one by one."""
    return [
        Loss.of(job, settlement)
        for job, settlement, answer in zip(jobs, settlements, answers, strict=True)
        if (settlement.loss or settlement.charged) and answer.verdict is Verdict.APPLIED
    ]
