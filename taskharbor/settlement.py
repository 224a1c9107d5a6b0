"""How an attempt ends: one value that any driver can apply.

A settlement is decided (``decision.decide``) before a driver sees it; the driver only checks the
fence and moves the job. Delays are relative: the store adds them to its own clock.
"""

from __future__ import annotations

from typing import NamedTuple, Self

from taskharbor.lease import Guard
from taskharbor.states import Move, Reason, State


class Settlement(NamedTuple):
    """Build one with the constructor that names the case, not field by field.

    A NamedTuple and not a frozen dataclass: one is made per job on the hot path, at a third of the
    cost.

    ``loss``: the attempt ended with its worker; counted in the job's ``losses``.
    ``unknown``: put back because nobody here knows the task; starts or keeps ``unknown_since``.
    ``awaits``: the flow, stored and not sealed yet, whose end the job waits for from now on.
    ``result`` and ``error`` are encoded; ``error`` is kept in the history and as the job's last
    error.
    """

    job_id: str
    fence: int
    move: Move
    reason: Reason
    delay: float = 0.0
    result: bytes | None = None
    error: bytes | None = None
    loss: bool = False
    unknown: bool = False
    guard: Guard = Guard.VALID
    awaits: str | None = None

    @classmethod
    def succeed(cls, job_id: str, fence: int, result: bytes | None) -> Self:
        """``result`` None: the job keeps none."""
        return cls(job_id, fence, Move.SUCCEED, Reason.SUCCEEDED, 0.0, result)

    @classmethod
    def retry(
        cls,
        job_id: str,
        fence: int,
        *,
        delay: float,
        error: bytes | None,
        reason: Reason = Reason.RAISED,
        loss: bool = False,
        guard: Guard = Guard.VALID,
    ) -> Self:
        """Charged; ready again after ``delay`` seconds (0: now)."""
        return cls(job_id, fence, Move.RETRY, reason, delay, None, error, loss, False, guard)

    @classmethod
    def die(
        cls,
        job_id: str,
        fence: int,
        *,
        error: bytes | None,
        reason: Reason = Reason.RAISED,
        loss: bool = False,
        guard: Guard = Guard.VALID,
    ) -> Self:
        """Charged; the job goes to the dead-letter queue."""
        return cls(job_id, fence, Move.DIE, reason, 0.0, None, error, loss, False, guard)

    @classmethod
    def cancel(
        cls, job_id: str, fence: int, *, error: bytes | None = None, reason: Reason = Reason.TASK
    ) -> Self:
        """The task itself ended the job without success or failure."""
        return cls(job_id, fence, Move.CANCEL, reason, 0.0, None, error)

    @classmethod
    def release(
        cls, job_id: str, fence: int, *, loss: bool = False, guard: Guard = Guard.VALID
    ) -> Self:
        """Handed back unstarted (or unfinished at a shutdown: ``loss``). Uncharged; ready now."""
        reason = Reason.WORKER_LOST if loss else Reason.RELEASED
        return cls(job_id, fence, Move.RELEASE, reason, 0.0, None, None, loss, False, guard)

    @classmethod
    def snooze(
        cls,
        job_id: str,
        fence: int,
        *,
        delay: float,
        reason: Reason = Reason.SNOOZED,
        unknown: bool = False,
    ) -> Self:
        """Uncharged; ready again after ``delay`` seconds."""
        return cls(job_id, fence, Move.SNOOZE, reason, delay, None, None, False, unknown)

    @classmethod
    def wait_for(cls, job_id: str, fence: int, flow_id: str) -> Self:
        """The task gave its work to the flow ``flow_id``: that one is sealed by this, and the job
        goes on when it has ended. Uncharged."""
        return cls(job_id, fence, Move.AWAIT, Reason.AWAITING, awaits=flow_id)

    @property
    def terminal(self) -> bool:
        return self.move in _TERMINAL_STATE

    @property
    def charged(self) -> bool:
        """Whether the attempt counted at reserve stays counted."""
        return self.move not in _UNCHARGED

    def lands_in(self, *, cancel_requested: bool) -> State:
        """The job's state once this is applied. A requested cancel wins over going back in line."""
        final = _TERMINAL_STATE.get(self.move)
        if final is not None:
            return final
        if cancel_requested:
            return State.CANCELLED
        if self.move is Move.AWAIT:
            return State.BLOCKED
        return State.SCHEDULED if self.delay > 0 else State.READY


_TERMINAL_STATE = {
    Move.SUCCEED: State.SUCCEEDED,
    Move.DIE: State.DEAD,
    Move.CANCEL: State.CANCELLED,
}
_UNCHARGED = frozenset({Move.RELEASE, Move.SNOOZE, Move.AWAIT})
