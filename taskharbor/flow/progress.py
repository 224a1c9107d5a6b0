"""What moves in a flow when a job of it ends, or is put back in line: the reference.

Every driver does this atomically with the job's own move, and the conformance suite compares what
it did with this module.

* Each edge has a *mark*: what its source has come to, as far as it was told. When a job enters or
  leaves a terminal state, its outgoing edges take the mark of where it stands now. The target's
  counters move by the difference between an edge's old mark and its new one. So whatever is
  repeated, late or taken back is counted once, and a walk over many edges may stop and go on later.
* The counters of a target are always what its edges say. Whether it moves depends also on whether
  it was *released* before: a job that has been in line is never taken out of it again. (Blocked and
  released is a job that handed its work to another flow: it waits for that one, not for its edges.)
"""

from __future__ import annotations

from enum import Enum, IntEnum, auto
from typing import NamedTuple

from taskharbor.flow.plan import EdgeKind, FlowState
from taskharbor.states import Reason, State


class Mark(IntEnum):
    """What an edge says of its source."""

    NONE = 0
    SUCCEEDED = 1
    DEAD = 2
    CANCELLED = 3


_MARKS = {
    State.SUCCEEDED: Mark.SUCCEEDED,
    State.DEAD: Mark.DEAD,
    State.CANCELLED: Mark.CANCELLED,
}


def mark_of(state: State) -> Mark:
    """The mark on the outgoing edges of a job in ``state``."""
    return _MARKS.get(state, Mark.NONE)


class Counters(NamedTuple):
    """``pending``: incoming edges without a mark. ``spoiled``: those whose mark settles by itself
    what becomes of the target: failures that it does not allow; for an error callback, deaths."""

    pending: int
    spoiled: int = 0

    def moved(self, kind: EdgeKind, old: Mark, new: Mark) -> Counters:
        """After an edge of ``kind`` had ``old`` and has ``new``."""
        return Counters(
            self.pending + (new is Mark.NONE) - (old is Mark.NONE),
            self.spoiled + spoils(kind, new) - spoils(kind, old),
        )


def spoils(kind: EdgeKind, mark: Mark) -> bool:
    match kind:
        case EdgeKind.SUCCESS:
            return mark in (Mark.DEAD, Mark.CANCELLED)
        case EdgeKind.DEATH:
            return mark is Mark.DEAD
        case EdgeKind.END:
            return False


class Stance(Enum):
    """What a job's counters say that it should do."""

    WAIT = auto()
    GO = auto()
    SKIP = auto()


def stance(counters: Counters, *, errback: bool, cancelled: bool = False) -> Stance:
    """``cancelled``: its flow is; then nothing of it is released any more."""
    if cancelled:
        return Stance.SKIP
    if counters.spoiled > 0:
        return Stance.GO if errback else Stance.SKIP
    if counters.pending > 0:
        return Stance.WAIT
    return Stance.SKIP if errback else Stance.GO


class Step(Enum):
    """What happens to a target when its counters have moved."""

    STAY = auto()
    RELEASE = auto()
    """It becomes ready, or scheduled if it has a delay, and counts as released from now on."""
    SKIP = auto()
    """It is cancelled; reason ``upstream``."""
    BLOCK = auto()
    """It becomes blocked again (reason ``upstream``), and is not released any more."""


def step(state: State, reason: Reason, wanted: Stance, *, released: bool, errback: bool) -> Step:
    """What a target in ``state`` does when its counters now say ``wanted``."""
    if released:
        # An error callback runs once for each death: when what it watches lives, it waits again.
        # (Deaths while it is in line or runs are one; a driver asks again when it has ended.)
        armed = errback and state.terminal and wanted is Stance.WAIT
        return Step.BLOCK if armed else Step.STAY
    if state is State.BLOCKED:
        match wanted:
            case Stance.GO:
                return Step.RELEASE
            case Stance.SKIP:
                return Step.SKIP
            case Stance.WAIT:
                return Step.STAY
    if state is State.CANCELLED and reason is Reason.UPSTREAM:
        match wanted:
            case Stance.GO:
                return Step.RELEASE
            case Stance.WAIT:
                return Step.BLOCK
            case Stance.SKIP:
                return Step.STAY
    return Step.STAY


def requeues_to(wanted: Stance, *, released: bool) -> Step:
    """What an operator's requeue does to a terminal job of a flow. ``SKIP``: it is refused
    (``upstream``), for what the job needs has failed and is to be requeued instead."""
    if released or wanted is Stance.GO:
        return Step.RELEASE
    return Step.BLOCK if wanted is Stance.WAIT else Step.SKIP


def flow_state(*, sealed: bool, open_nodes: int, failed: int, cancelled: bool) -> FlowState:
    """``open_nodes`` are not terminal, ``failed`` are terminal without success and not tolerated,
    ``cancelled``: the flow itself was cancelled (or expired) and nothing of it requeued since.

    A flow that can't succeed any more is failed at once, while other jobs of it still run.
    """
    if not sealed:
        return FlowState.BUILDING
    if cancelled:
        return FlowState.CANCELLED
    if failed:
        return FlowState.FAILED
    return FlowState.RUNNING if open_nodes else FlowState.SUCCEEDED
