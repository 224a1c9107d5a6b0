"""A stored job, decoded for people: what ``AsyncResult.info()`` gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from taskharbor import codec
from taskharbor.drivers.base import Job
from taskharbor.errors import DecodeError
from taskharbor.message import read_body
from taskharbor.states import Reason, State


@dataclass(frozen=True, slots=True)
class AttemptInfo:
    """One ended attempt. Times in seconds since the epoch, by the store's clock."""

    fence: int
    number: int
    holder: str
    started_at: float
    ended_at: float
    reason: Reason
    error: codec.Failure | None


@dataclass(frozen=True, slots=True)
class JobInfo:
    """How a job stands. Times in seconds since the epoch, by the store's clock.

    ``attempts`` are the ended ones, oldest first; ``attempt`` is the number charged so far.
    ``progress`` is the last ``(fraction, message)``. ``flow`` is the flow that the job belongs to,
    ``awaits`` the one that it handed its work to. ``args`` and ``kwargs`` are None when they
    can't be read here (a class that is not imported, a newer wire version).
    """

    id: str
    task: str
    queue: str
    state: State
    reason: Reason
    priority: int
    attempt: int
    max_attempts: int
    losses: int
    enqueued_at: float
    due_at: float
    started_at: float | None
    finished_at: float | None
    expires_at: float | None
    cancel_requested: bool
    idempotency_key: str | None
    progress: tuple[float, str] | None
    error: codec.Failure | None
    attempts: tuple[AttemptInfo, ...]
    args: list[Any] | None
    kwargs: dict[str, Any] | None
    headers: dict[str, Any]
    flow: str | None
    awaits: str | None


def describe(job: Job) -> JobInfo:
    """``job``, decoded. Raises DecodeError when its stored bytes are corrupt."""
    call = read_body(job.body)
    args, kwargs = _arguments(call.payload)
    return JobInfo(
        id=job.id,
        task=job.task,
        queue=job.queue,
        state=job.state,
        reason=job.reason,
        priority=job.priority,
        attempt=job.attempts,
        max_attempts=call.policy.max_attempts,
        losses=job.losses,
        enqueued_at=job.enqueued_at,
        due_at=job.due_at,
        started_at=job.reserved_at,
        finished_at=job.finished_at,
        expires_at=job.expires_at,
        cancel_requested=job.cancel_requested,
        idempotency_key=job.idempotency_key,
        progress=None if job.progress is None else tuple(codec.decode(job.progress)),
        error=_failure(job.error),
        attempts=tuple(AttemptInfo(*ended[:-1], _failure(ended.error)) for ended in job.history),
        args=args,
        kwargs=kwargs,
        headers=call.headers,
        flow=job.flow,
        awaits=job.awaits,
    )


def _arguments(payload: bytes) -> tuple[list[Any] | None, dict[str, Any] | None]:
    try:
        return codec.decode_call(payload)
    except DecodeError:
        return None, None


def _failure(error: bytes | None) -> codec.Failure | None:
    return None if error is None else codec.Failure.decode(error)
