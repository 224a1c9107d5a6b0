"""One stored job, and the views of it that the contract hands out."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from taskharbor import defaults
from taskharbor.drivers.base import Attempt, Job, Outcome
from taskharbor.drivers.memory.member import Member
from taskharbor.lease import Reservation
from taskharbor.message import Message
from taskharbor.states import Reason, State


@dataclass(slots=True, eq=False)
class Record:
    """A message and where it stands. ``order`` is its place in the line of all enqueues.

    ``fence`` is that of the last lease, 0 before the first one. ``ready_at`` is when the job
    last became ready. ``cancel_reason`` is set while the job runs and a cancel was requested.
    ``member``: its place in a flow. ``awaits``: the flow that it handed its work to.
    """

    message: Message
    order: int
    state: State
    reason: Reason
    enqueued_at: float
    due_at: float
    ready_at: float
    expires_at: float | None
    attempts: int = 0
    losses: int = 0
    fence: int = 0
    settled_fence: int | None = None
    holder: str = ""
    reserved_at: float | None = None
    lease_expires_at: float | None = None
    finished_at: float | None = None
    cancel_reason: Reason | None = None
    unknown_since: float | None = None
    progress: bytes | None = None
    saved: bytes | None = None
    result: bytes | None = None
    error: bytes | None = None
    member: Member | None = None
    awaits: str | None = None
    history: deque[Attempt] = field(default_factory=lambda: deque(maxlen=defaults.MAX_HISTORY))

    @property
    def id(self) -> str:
        return self.message.id

    def expired(self, now: float) -> bool:
        """Whether the job is no longer worth starting."""
        return self.expires_at is not None and now >= self.expires_at

    @property
    def cancel_requested(self) -> bool:
        return self.cancel_reason is not None

    @property
    def lease_length(self) -> float:
        """Of the running lease, from reserve to expiry."""
        if self.lease_expires_at is None or self.reserved_at is None:
            return 0.0
        return self.lease_expires_at - self.reserved_at

    def clear_lease(self) -> Reason:
        """The attempt is over; the reason of a cancel that was requested meanwhile."""
        reason = self.cancel_reason or Reason.OPERATOR
        self.holder = ""
        self.reserved_at = None
        self.lease_expires_at = None
        self.cancel_reason = None
        return reason

    def start_anew(self, *, reset_attempts: bool) -> None:
        """Forget how the job ended; what it was told and did (error, history, progress) stays."""
        self.result = None
        self.unknown_since = None
        self.settled_fence = None
        self.finished_at = None
        if reset_attempts:
            self.attempts = 0
            self.losses = 0

    def reservation(self) -> Reservation:
        """The running attempt, as its holder sees it."""
        message = self.message
        return Reservation(
            id=message.id,
            queue=message.queue,
            task=message.task,
            body=message.body,
            fence=self.fence,
            attempt=self.attempts,
            losses=self.losses,
            priority=message.priority,
            enqueued_at=self.enqueued_at,
            reserved_at=self.reserved_at or 0.0,
            lease_expires_at=self.lease_expires_at or 0.0,
            unknown_since=self.unknown_since,
            saved=self.saved,
            cancel_requested=self.cancel_requested,
            holder=self.holder,
            flow=self.member.flow_id if self.member else None,
            awaits=self.awaits,
        )

    def outcome(self) -> Outcome:
        return Outcome(self.state, self.reason, self.result, self.error)

    def job(self, *, brief: bool = False) -> Job:
        """What an operator sees; ``brief`` leaves out what may be large."""
        message = self.message
        return Job(
            id=message.id,
            task=message.task,
            queue=message.queue,
            state=self.state,
            reason=self.reason,
            priority=message.priority,
            body=b"" if brief else message.body,
            enqueued_at=self.enqueued_at,
            due_at=self.due_at,
            attempts=self.attempts,
            losses=self.losses,
            fence=self.fence if self.state is State.RUNNING else None,
            holder=self.holder or None,
            reserved_at=self.reserved_at,
            lease_expires_at=self.lease_expires_at,
            finished_at=self.finished_at,
            expires_at=self.expires_at,
            idempotency_key=message.idempotency_key,
            cancel_requested=self.cancel_requested,
            progress=self.progress,
            saved=self.saved,
            result=None if brief else self.result,
            error=self.error,
            history=() if brief else tuple(self.history),
            flow=self.member.flow_id if self.member else None,
            awaits=self.awaits,
        )
