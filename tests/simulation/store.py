"""The memory store, watched: what happens in it that nobody asked for, and when time will tell."""

from __future__ import annotations

from math import inf
from typing import Protocol

from taskharbor.drivers.memory.operators import Store
from taskharbor.drivers.memory.record import Record
from taskharbor.states import State


class Watcher(Protocol):
    """Called in the middle of the step that did it."""

    def ready(self) -> None:
        """A job became ready."""
        ...

    def scheduled(self, due_at: float) -> None:
        """A job will be due then, by the store's clock."""
        ...

    def finished(self) -> None:
        """A job ended."""
        ...


class WatchedStore(Store):
    def __init__(self, watcher: Watcher) -> None:
        super().__init__()
        self._watcher = watcher

    def line_up(self, now: float, record: Record, state: State) -> None:
        super().line_up(now, record, state)
        if state is State.READY:
            self._watcher.ready()
        elif state is State.SCHEDULED:
            self._watcher.scheduled(record.due_at)

    def finish(
        self, now: float, record: Record, state: State, *, lease_length: float = 0.0
    ) -> None:
        super().finish(now, record, state, lease_length=lease_length)
        self._watcher.finished()

    def next_change(self, queues: tuple[str, ...]) -> float:
        """When a job will be due or a lease will run out; 0: there is something to do now."""
        for queue in queues:
            if self.jobs.next_ready(queue) is not None:
                return 0.0
        lease, due = self.jobs.leases.first(), self.jobs.scheduled.first()
        return min(inf if lease is None else lease[0], inf if due is None else due[0])
