"""The states of a job and the only moves between them.

Nothing restates this table: the conformance suite generates the illegal moves from it, drivers
and docs refer to it.
"""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """Where a job stands. ``succeeded``, ``dead`` and ``cancelled`` are terminal; ``blocked`` waits
    for its predecessors in a flow, or for a flow that it started."""

    BLOCKED = "blocked"
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
    UNBLOCKED = "unblocked"
    """All that it waited for in its flow has ended as it should."""
    UPSTREAM = "upstream"
    """What it waited for in its flow has not ended as it should."""
    AWAITING = "awaiting"
    """It handed its work to a flow, and waits for that one's end."""


class Move(StrEnum):
    """What can happen to a job. The first seven are outcomes of a settle."""

    SUCCEED = "succeed"
    RETRY = "retry"
    DIE = "die"
    CANCEL = "cancel"
    RELEASE = "release"
    SNOOZE = "snooze"
    AWAIT = "await"
    RESERVE = "reserve"
    PROMOTE = "promote"
    EXPIRE = "expire"
    OPERATOR_CANCEL = "operator_cancel"
    REQUEUE = "requeue"
    UNBLOCK = "unblock"
    SKIP = "skip"
    REVIVE = "revive"


_S = State
TERMINAL: frozenset[State] = frozenset({_S.SUCCEEDED, _S.DEAD, _S.CANCELLED})
WAITING: frozenset[State] = frozenset({_S.BLOCKED, _S.SCHEDULED, _S.READY})

# A non-terminal outcome lands in CANCELLED when cancellation was requested while it ran.
_BACK_IN_LINE = frozenset({_S.READY, _S.SCHEDULED, _S.CANCELLED})

MOVES: dict[Move, dict[State, frozenset[State]]] = {
    Move.SUCCEED: {_S.RUNNING: frozenset({_S.SUCCEEDED})},
    Move.RETRY: {_S.RUNNING: _BACK_IN_LINE},
    Move.DIE: {_S.RUNNING: frozenset({_S.DEAD})},
    Move.CANCEL: {_S.RUNNING: frozenset({_S.CANCELLED})},
    Move.RELEASE: {_S.RUNNING: frozenset({_S.READY, _S.CANCELLED})},
    Move.SNOOZE: {_S.RUNNING: _BACK_IN_LINE},
    Move.AWAIT: {_S.RUNNING: frozenset({_S.BLOCKED, _S.CANCELLED})},
    Move.RESERVE: {_S.READY: frozenset({_S.RUNNING})},
    Move.PROMOTE: {_S.SCHEDULED: frozenset({_S.READY})},
    Move.EXPIRE: {
        _S.SCHEDULED: frozenset({_S.CANCELLED}),
        _S.READY: frozenset({_S.CANCELLED}),
    },
    Move.OPERATOR_CANCEL: {
        _S.BLOCKED: frozenset({_S.CANCELLED}),
        _S.SCHEDULED: frozenset({_S.CANCELLED}),
        _S.READY: frozenset({_S.CANCELLED}),
        _S.RUNNING: frozenset({_S.RUNNING}),  # recorded; the holder learns on extend
    },
    Move.REQUEUE: {
        # Blocked: it was cancelled before its predecessors had ended.
        state: frozenset({_S.READY, _S.SCHEDULED, _S.BLOCKED})
        for state in (_S.SUCCEEDED, _S.DEAD, _S.CANCELLED)
    },
    Move.UNBLOCK: {_S.BLOCKED: frozenset({_S.READY, _S.SCHEDULED})},
    Move.SKIP: {_S.BLOCKED: frozenset({_S.CANCELLED})},
    # Of what a predecessor's end had skipped; of error callbacks, whatever they had come to.
    Move.REVIVE: {
        _S.CANCELLED: frozenset({_S.BLOCKED, _S.READY, _S.SCHEDULED}),
        _S.SUCCEEDED: frozenset({_S.BLOCKED}),
        _S.DEAD: frozenset({_S.BLOCKED}),
    },
}
"""``MOVES[move][state]`` = the states the job may be in after it; no entry = the move is illegal
there."""

STARTS: frozenset[State] = frozenset({_S.BLOCKED, _S.READY, _S.SCHEDULED})
"""The states that an enqueue may put a job in."""

FLOW_MOVES: frozenset[Move] = frozenset({Move.AWAIT, Move.UNBLOCK, Move.SKIP, Move.REVIVE})
"""The moves that only a store of flows makes."""
