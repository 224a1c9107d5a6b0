"""Which children there are, what they were told, and what their end means. No I/O."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from taskharbor.ids import new_id
from taskharbor.maintenance.lost import Cause, LostChild
from taskharbor.worker.config import ExitCode
from taskharbor.worker.lifeline import describe_code
from taskharbor.worker.table import ChildState, SlotState

YOUNG_SECONDS = 5.0
"""A child that ends by itself before this age, without having run anything, can't start."""

_AS_ASKED = (ExitCode.OK, ExitCode.RECYCLED, ExitCode.START_FAILED)

G = TypeVar("G")


@dataclass(slots=True, eq=False)
class Child(Generic[G]):
    """One child of generation ``generation``. Times are the monotonic clock.

    ``pid`` None: the generation was told to fork it and has not answered. ``kill_at``: when it is
    killed if it still runs (None: it was not told to stop). ``killed``: why it was killed.
    """

    index: int
    holder: str
    generation: G
    forked_at: float
    pid: int | None = None
    kill_at: float | None = None
    killed: Cause | None = None
    limit_fences: tuple[int, ...] = ()
    silent: bool = False

    @property
    def stopping(self) -> bool:
        return self.kill_at is not None or self.killed is not None


class Roster(Generic[G]):
    """The children by their rows of the shared table."""

    def __init__(self, rows: int) -> None:
        self._children: dict[int, Child[G]] = {}
        self._rows = rows
        self._reports = 0

    def __iter__(self) -> Iterator[Child[G]]:
        return iter(list(self._children.values()))

    def __len__(self) -> int:
        return len(self._children)

    def get(self, index: int) -> Child[G] | None:
        return self._children.get(index)

    def of(self, generation: G) -> list[Child[G]]:
        return [child for child in self if child.generation is generation]

    def serving(self, generation: G) -> int:
        """How many of the generation's children were not told to stop."""
        return sum(not child.stopping for child in self.of(generation))

    def add(self, generation: G, now: float) -> Child[G] | None:
        """A new child on a free row; None when every row is taken."""
        for index in range(self._rows):
            if index not in self._children:
                child = Child(index, new_id(), generation, now)
                self._children[index] = child
                return child
        return None

    def forget(self, child: Child[G]) -> None:
        """It never lived: free its row."""
        del self._children[child.index]

    def remove(self, child: Child[G], code: int, state: ChildState, boot_now: float) -> LostChild:
        """The child is dead: free its row; the report of what it held. ``code`` is its exit code
        (negative: a signal's number)."""
        self.forget(child)
        self._reports += 1
        cause, fences = _cause(child, code, state, boot_now)
        return LostChild(
            number=self._reports,
            holder=child.holder,
            cause=cause,
            ending=describe_code(code),
            slots=state.slots,
            limit_fences=fences,
        )


def died_young(child: Child[G], code: int, state: ChildState, now: float) -> bool:
    """Whether the next child may end the same way, so that its start should wait."""
    if child.stopping or code == ExitCode.RECYCLED:
        return False
    return code == ExitCode.START_FAILED or (
        not state.slots and now - child.forked_at < YOUNG_SECONDS
    )


def _cause(
    child: Child[G], code: int, state: ChildState, boot_now: float
) -> tuple[Cause, tuple[int, ...]]:
    if child.killed is not None:
        return child.killed, child.limit_fences
    if code == ExitCode.HARD_LIMIT:
        return "limit", _past_limit(state, boot_now)
    if code == ExitCode.FORCED and child.stopping:
        return "stop", ()
    # TERM before the child had set its own handlers: it held nothing yet.
    if child.stopping and code == -signal.SIGTERM:
        return "ended", ()
    # A child that ends by itself runs nothing any more: where something runs, it was the task's
    # code that ended the process, with os._exit(0).
    if code in _AS_ASKED and not state.started:
        return "ended", ()
    return "died", ()


def _past_limit(state: ChildState, boot_now: float) -> tuple[int, ...]:
    """The jobs for whose limit a child ended itself: those past it, or else the one nearest."""

    def deadline(slot: SlotState) -> float:
        return slot.hard_deadline or float("inf")

    overdue = state.overdue(boot_now) or sorted(state.started, key=deadline)[:1]
    return tuple(slot.fence for slot in overdue)
