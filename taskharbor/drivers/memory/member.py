"""A job's place in a flow, and the flow."""

from __future__ import annotations

from dataclasses import dataclass, field

from taskharbor.drivers.flows import FlowInfo
from taskharbor.flow.plan import EdgeKind, Flow, FlowState
from taskharbor.flow.progress import Counters, Mark, Stance, flow_state, stance
from taskharbor.states import TERMINAL, Reason, State


@dataclass(slots=True, eq=False)
class Arrow:
    """An edge, at its source."""

    target: str
    position: int
    kind: EdgeKind
    mark: Mark = Mark.NONE


@dataclass(slots=True, eq=False)
class Member:
    """``counted``: the terminal state that the flow has counted this job under."""

    flow_id: str
    index: int
    label: str
    errback: bool
    tolerated: bool
    counters: Counters
    released: bool = False
    counted: State | None = None
    incoming: dict[int, str] = field(default_factory=dict[int, str])
    outgoing: list[Arrow] = field(default_factory=list[Arrow])

    @property
    def wanted(self) -> Stance:
        return stance(self.counters, errback=self.errback)


@dataclass(slots=True, eq=False)
class FlowRecord:
    """``order``: its place among all flows. ``failed``: jobs that ended without success, and were
    not allowed to. ``cancelled``: why nothing of it is released any more. ``errands``: how much is
    left to be walked in it. ``doomed``: it is being pruned, or will be."""

    flow: Flow
    order: int
    created_at: float
    sealed: bool = False
    nodes: dict[int, str] = field(default_factory=dict[int, str])
    edges: int = 0
    finished: dict[State, int] = field(default_factory=lambda: dict.fromkeys(TERMINAL, 0))
    failed: int = 0
    finished_at: float | None = None
    expires_at: float | None = None
    cancelled: Reason | None = None
    parent: str | None = None
    errands: int = 0
    doomed: bool = False

    @property
    def can_be_awaited(self) -> bool:
        whole = len(self.nodes) == self.flow.size and self.edges == self.flow.edges
        free = not self.sealed and self.cancelled is None and not self.doomed
        return whole and free and self.flow.idempotency_key is None

    @property
    def open_nodes(self) -> int:
        return self.flow.size - sum(self.finished.values())

    @property
    def state(self) -> FlowState:
        return flow_state(
            sealed=self.sealed,
            open_nodes=self.open_nodes,
            failed=self.failed,
            cancelled=self.cancelled is not None,
        )

    def count(self, member: Member, state: State) -> bool:
        """A job of it has come to ``state``: count it where it stands now, and only there. Whether
        that changed anything."""
        now = state if state.terminal else None
        if now is member.counted:
            return False
        for which, change in ((member.counted, -1), (now, +1)):
            if which is not None:
                self.finished[which] += change
                if which is not State.SUCCEEDED and not member.tolerated:
                    self.failed += change
        member.counted = now
        return True

    def kept_until(self) -> float | None:
        """When it may be pruned; None while it has not ended."""
        if self.finished_at is None:
            return None
        return self.finished_at + self.flow.kept_seconds(self.state)

    def info(self) -> FlowInfo:
        return FlowInfo(
            id=self.flow.id,
            name=self.flow.name,
            state=self.state,
            size=self.flow.size,
            finished=dict(self.finished),
            created_at=self.created_at,
            finished_at=self.finished_at,
            expires_at=self.expires_at,
            idempotency_key=self.flow.idempotency_key,
            result=self.flow.result,
            parent=self.parent,
        )
