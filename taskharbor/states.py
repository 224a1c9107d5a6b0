"""The states of a job and the only moves between them.

Nothing restates this table: the conformance suite generates the illegal moves from it, drivers
and docs refer to it.
"""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """Where a job stands. ``succeeded``, ``dead`` and ``cancelled`` are terminal."""

    SCHEDULED = "scheduled"
    READY = "ready"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    DEAD = "dead"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        return self in TERMINAL


class Reason(StrEnum):
    """Why a job made its last move."""

    ENQUEUED = "enqueued"
    DUE = "due"
    RESERVED = "reserved"
    SUCCEEDED = "succeeded"
    RAISED = "raised"
    RETRY_ASKED = "retry_asked"
    TIMED_OUT = "timed_out"
    WORKER_LOST = "worker_lost"
    LEASE_EXPIRED = "lease_expired"
    REJECTED = "rejected"
    UNKNOWN_TASK = "unknown_task"
    UNKNOWN_VERSION = "unknown_version"
    UNDECODABLE = "undecodable"
    UNENCODABLE_RESULT = "unencodable_result"
    RELEASED = "released"
    SNOOZED = "snoozed"
    EXPIRED = "expired"
    TASK = "task"
    OPERATOR = "operator"


class Move(StrEnum):
    """What can happen to a job. The first six are outcomes of a settle."""

    SUCCEED = "succeed"
    RETRY = "retry"
    DIE = "die"
    CANCEL = "cancel"
    RELEASE = "release"
    SNOOZE = "snooze"
    RESERVE = "reserve"
    PROMOTE = "promote"
    EXPIRE = "expire"
    OPERATOR_CANCEL = "operator_cancel"
    REQUEUE = "requeue"


_S = State
TERMINAL: frozenset[State] = frozenset({_S.SUCCEEDED, _S.DEAD, _S.CANCELLED})
WAITING: frozenset[State] = frozenset({_S.SCHEDULED, _S.READY})

# A non-terminal outcome lands in CANCELLED when cancellation was requested while it ran.
_BACK_IN_LINE = frozenset({_S.READY, _S.SCHEDULED, _S.CANCELLED})

MOVES: dict[Move, dict[State, frozenset[State]]] = {
    Move.SUCCEED: {_S.RUNNING: frozenset({_S.SUCCEEDED})},
    Move.RETRY: {_S.RUNNING: _BACK_IN_LINE},
    Move.DIE: {_S.RUNNING: frozenset({_S.DEAD})},
    Move.CANCEL: {_S.RUNNING: frozenset({_S.CANCELLED})},
    Move.RELEASE: {_S.RUNNING: frozenset({_S.READY, _S.CANCELLED})},
    Move.SNOOZE: {_S.RUNNING: _BACK_IN_LINE},
    Move.RESERVE: {_S.READY: frozenset({_S.RUNNING})},
    Move.PROMOTE: {_S.SCHEDULED: frozenset({_S.READY})},
    Move.EXPIRE: {
        _S.SCHEDULED: frozenset({_S.CANCELLED}),
        _S.READY: frozenset({_S.CANCELLED}),
    },
    Move.OPERATOR_CANCEL: {
        _S.SCHEDULED: frozenset({_S.CANCELLED}),
        _S.READY: frozenset({_S.CANCELLED}),
        _S.RUNNING: frozenset({_S.RUNNING}),  # recorded; the holder learns on extend
    },
    Move.REQUEUE: {
        state: frozenset({_S.READY, _S.SCHEDULED})
        for state in (_S.SUCCEEDED, _S.DEAD, _S.CANCELLED)
    },
}
"""``MOVES[move][state]`` = the states the job may be in after it; no entry = the move is illegal
there."""

STARTS: frozenset[State] = frozenset({_S.READY, _S.SCHEDULED})
"""The states that an enqueue may put a job in."""
