"""What flows promise, one job after the other: the model that drivers of flows are compared with.

It has no counters, no pages and no marks: what a job's edges say is asked of their sources each
time. The rules are those of ``flow.progress`` and the docstrings of ``drivers.flows``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count

from taskharbor import defaults
from taskharbor.clock import ManualClock
from taskharbor.drivers.base import CancelVerdict, DeleteVerdict, RequeueVerdict
from taskharbor.drivers.flows import FlowInfo, FlowNode
from taskharbor.flow.plan import Edge, EdgeKind, Flow, FlowState, Node, Part
from taskharbor.flow.progress import (
    Counters,
    Mark,
    Stance,
    Step,
    flow_state,
    mark_of,
    requeues_to,
    spoils,
    stance,
    step,
)
from taskharbor.lease import Verdict, judge
from taskharbor.message import Message
from taskharbor.settlement import Settlement
from taskharbor.states import TERMINAL, Reason, State


@dataclass(slots=True, eq=False)
class ModelFlow:
    flow: Flow
    created_at: float
    nodes: list[ModelJob] = field(default_factory=list["ModelJob"])
    edges: list[Edge] = field(default_factory=list[Edge])
    sealed: bool = False
    doomed: bool = False
    cancelled: Reason | None = None
    deadline: float | None = None
    expires_at: float | None = None
    finished_at: float | None = None
    parent: str | None = None

    def count(self, state: State) -> int:
        return sum(job.state is state for job in self.nodes)

    @property
    def open_nodes(self) -> int:
        return self.flow.size - sum(map(self.count, TERMINAL))

    @property
    def state(self) -> FlowState:
        failed = (job.state in (State.DEAD, State.CANCELLED) for job in self.nodes if job.counts)
        return flow_state(
            sealed=self.sealed,
            open_nodes=self.open_nodes,
            failed=sum(failed),
            cancelled=self.cancelled is not None,
        )

    def info(self) -> FlowInfo:
        return FlowInfo(
            id=self.flow.id,
            name=self.flow.name,
            state=self.state,
            size=self.flow.size,
            finished={state: self.count(state) for state in TERMINAL},
            created_at=self.created_at,
            finished_at=self.finished_at,
            expires_at=self.expires_at,
            parent=self.parent,
        )

    def kept_until(self) -> float | None:
        if self.doomed or not self.sealed:
            return self.created_at + (0 if self.doomed else defaults.UNSEALED_SECONDS)
        if self.finished_at is None:
            return None
        return self.finished_at + self.flow.kept_seconds(self.state)


@dataclass(slots=True, eq=False)
class ModelJob:
    message: Message
    order: int
    state: State
    reason: Reason
    due_at: float
    expires_at: float | None
    flow: ModelFlow | None = None
    node: Node | None = None
    sources: list[tuple[ModelJob, EdgeKind]] = field(
        default_factory=list[tuple["ModelJob", EdgeKind]]
    )
    targets: list[ModelJob] = field(default_factory=list["ModelJob"])
    released: bool = False
    awaits: str | None = None
    fence: int = 0
    settled_fence: int | None = None
    lease_expires_at: float | None = None
    cancel_reason: Reason | None = None
    attempts: int = 0
    finished_at: float | None = None
    result: bytes | None = None
    error: bytes | None = None

    @property
    def id(self) -> str:
        return self.message.id

    @property
    def errback(self) -> bool:
        return self.node is not None and self.node.errback

    @property
    def counts(self) -> bool:
        """Whether its failure is the flow's."""
        return self.node is not None and not self.node.tolerated

    def wanted(self, *, cancelled: bool = False) -> Stance:
        marks = [(kind, mark_of(source.state)) for source, kind in self.sources]
        pending = sum(mark is Mark.NONE for _, mark in marks)
        spoiled = sum(spoils(kind, mark) for kind, mark in marks)
        return stance(Counters(pending, spoiled), errback=self.errback, cancelled=cancelled)

    def start_anew(self, *, reset_attempts: bool = True) -> None:
        self.result = self.finished_at = self.settled_fence = None
        if reset_attempts:
            self.attempts = 0


class FlowModel:
    """Every method leaves it quiet: nothing is left to be moved."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.flows: dict[str, ModelFlow] = {}
        self.jobs: dict[str, ModelJob] = {}
        self._orders = count()
        self._moved: deque[ModelJob] = deque()

    # --- storing -------------------------------------------------------------------------------

    def enqueue(self, message: Message) -> None:
        job = self._new(message, State.READY)
        self.jobs[job.id] = job

    def store(self, part: Part) -> None:
        """All of a flow but its seal."""
        flow = self.flows[part.flow.id] = ModelFlow(part.flow, self.clock.now())
        for node in part.nodes:
            job = self._new(node.message, State.BLOCKED)
            job.flow, job.node = flow, node
            self.jobs[job.id] = job
            flow.nodes.append(job)
        for edge in part.edges:
            source, target = self.jobs[edge.source], self.jobs[edge.target]
            source.targets.append(target)
            target.sources.append((source, edge.kind))
            flow.edges.append(edge)

    def _new(self, message: Message, state: State) -> ModelJob:
        now = self.clock.now()
        times = message.due_at(now), message.expiry(now)
        return ModelJob(message, next(self._orders), state, Reason.ENQUEUED, *times)

    def seal(self, flow_id: str, *, parent: str | None = None) -> None:
        flow = self.flows[flow_id]
        flow.sealed, flow.parent = True, parent
        if flow.flow.expires_in is not None:
            flow.expires_at = flow.deadline = self.clock.now() + flow.flow.expires_in
        self._walk(flow)
        self._settle_down()

    # --- what a worker does --------------------------------------------------------------------

    def ready(self) -> list[ModelJob]:
        ready = (job for job in self.jobs.values() if job.state is State.READY)
        return sorted(ready, key=lambda job: job.order)

    def is_stale(self, job: ModelJob) -> bool:
        return job.expires_at is not None and job.expires_at <= self.clock.now()

    def reserve(self, job: ModelJob, fence: int, seconds: float) -> None:
        job.state, job.reason = State.RUNNING, Reason.RESERVED
        job.attempts += 1
        job.fence = fence
        job.lease_expires_at = self.clock.now() + seconds

    def expire(self, job: ModelJob) -> None:
        self._finish(job, State.CANCELLED, Reason.EXPIRED)
        self._settle_down()

    def settle(self, settlement: Settlement) -> Verdict:
        job = self.jobs.get(settlement.job_id)
        if job is None:
            return Verdict.NOT_FOUND
        verdict = judge(
            job.state,
            fence=settlement.fence,
            current_fence=job.fence,
            settled_fence=job.settled_fence,
            lease_expires_at=job.lease_expires_at,
            now=self.clock.now(),
            guard=settlement.guard,
            terminal_outcome=settlement.terminal,
        )
        if verdict is Verdict.APPLIED:
            if settlement.awaits is not None and not self._awaitable(settlement.awaits):
                return Verdict.NOT_FOUND
            self._apply(job, settlement)
            self._settle_down()
        return verdict

    def _awaitable(self, flow_id: str) -> bool:
        flow = self.flows.get(flow_id)
        return flow is not None and not (flow.sealed or flow.doomed or flow.cancelled)

    def _apply(self, job: ModelJob, settlement: Settlement) -> None:
        landing = settlement.lands_in(cancel_requested=job.cancel_reason is not None)
        reason = settlement.reason
        if landing.terminal and not settlement.terminal:
            reason = job.cancel_reason or Reason.OPERATOR
        job.cancel_reason = job.lease_expires_at = None
        job.attempts -= not settlement.charged
        job.error = settlement.error or job.error
        if landing.terminal:
            job.result, job.settled_fence = settlement.result, job.fence
            self._finish(job, landing, reason)
            return
        job.state, job.reason = landing, reason
        job.due_at = self.clock.now() + settlement.delay
        if settlement.awaits is not None:
            job.awaits = settlement.awaits
            self.seal(settlement.awaits, parent=job.id)

    # --- time ----------------------------------------------------------------------------------

    def next_due(self) -> float | None:
        times = [flow.deadline for flow in self.flows.values() if flow.deadline is not None]
        times += (
            min(job.due_at, job.expires_at or job.due_at)
            for job in self.jobs.values()
            if job.state is State.SCHEDULED
        )
        return min(times, default=None)

    def promote(self) -> None:
        now = self.clock.now()
        for job in self.jobs.values():
            if job.state is State.SCHEDULED and self.is_stale(job):
                self._finish(job, State.CANCELLED, Reason.EXPIRED)
            elif job.state is State.SCHEDULED and job.due_at <= now:
                job.state, job.reason = State.READY, Reason.DUE
        for flow in self.flows.values():
            if flow.deadline is not None and flow.deadline <= now:
                self._cancel_flow(flow, Reason.EXPIRED)
        self._settle_down()

    def prune(self) -> None:
        now = self.clock.now()
        for flow in list(self.flows.values()):
            until = flow.kept_until()
            if until is not None and until <= now:
                for job in flow.nodes:
                    del self.jobs[job.id]
                del self.flows[flow.flow.id]
        for job in list(self.jobs.values()):
            if job.flow is None and job.finished_at is not None:
                keep: float = getattr(job.message.retention, job.state.value)
                if job.finished_at + keep <= now:
                    del self.jobs[job.id]

    # --- operators -----------------------------------------------------------------------------

    def cancel(self, job_id: str, reason: Reason) -> CancelVerdict:
        job = self.jobs.get(job_id)
        if job is None:
            return CancelVerdict.NOT_FOUND
        if job.state.terminal:
            return CancelVerdict.FINISHED
        self._cancel_job(job, reason)
        self._settle_down()
        return CancelVerdict.REQUESTED if job.state is State.RUNNING else CancelVerdict.CANCELLED

    def _cancel_job(self, job: ModelJob, reason: Reason) -> None:
        if job.state is State.RUNNING:
            job.cancel_reason = job.cancel_reason or reason
            return
        awaited = self.flows.get(job.awaits or "") if job.state is State.BLOCKED else None
        self._finish(job, State.CANCELLED, reason)
        if awaited is not None:
            self._cancel_flow(awaited, reason)

    def requeue(
        self, job_id: str, states: frozenset[State], *, reset_attempts: bool
    ) -> RequeueVerdict:
        job = self.jobs.get(job_id)
        if job is None:
            return RequeueVerdict.NOT_FOUND
        if not job.state.terminal or job.state not in states:
            return RequeueVerdict.WRONG_STATE
        if job.flow is not None and job.flow.doomed:
            return RequeueVerdict.NOT_FOUND
        if self._requeues_to(job) is Step.SKIP:
            return RequeueVerdict.UPSTREAM
        self._requeue(job, reset_attempts=reset_attempts)
        self._settle_down()
        return RequeueVerdict.REQUEUED

    def _requeues_to(self, job: ModelJob) -> Step:
        if job.flow is None:
            return Step.RELEASE
        wanted = job.wanted() if job.flow.sealed else Stance.WAIT
        return requeues_to(wanted, released=job.released)

    def _requeue(self, job: ModelJob, *, reset_attempts: bool) -> None:
        job.start_anew(reset_attempts=reset_attempts)
        job.reason, job.due_at, job.expires_at = Reason.OPERATOR, self.clock.now(), None
        awaited = self.flows.get(job.awaits or "")
        if awaited is None:
            job.awaits = None
        waits = awaited is not None and awaited.finished_at is None
        blocked = waits or self._requeues_to(job) is Step.BLOCK
        job.state = State.BLOCKED if blocked else State.READY
        if job.flow is not None:
            job.flow.cancelled = None
            job.released = job.released or not blocked
            self._moved.append(job)

    def cancel_flow(self, flow_id: str, reason: Reason) -> CancelVerdict:
        flow = self.flows.get(flow_id)
        if flow is None:
            return CancelVerdict.NOT_FOUND
        verdict = self._cancel_flow(flow, reason)
        self._settle_down()
        return verdict

    def _cancel_flow(self, flow: ModelFlow, reason: Reason) -> CancelVerdict:
        if flow.finished_at is not None or flow.doomed:
            return CancelVerdict.FINISHED
        flow.cancelled = flow.cancelled or reason
        flow.deadline = None
        if flow.sealed:
            self._walk(flow)
        return CancelVerdict.REQUESTED

    def delete_flow(self, flow_id: str) -> DeleteVerdict:
        flow = self.flows.get(flow_id)
        if flow is None:
            return DeleteVerdict.NOT_FOUND
        if flow.sealed and flow.finished_at is None:
            return DeleteVerdict.RUNNING
        flow.doomed = True
        return DeleteVerdict.DELETED

    # --- what follows ----------------------------------------------------------------------------

    def _finish(self, job: ModelJob, state: State, reason: Reason) -> None:
        job.state, job.reason, job.finished_at = state, reason, self.clock.now()
        if job.flow is not None:
            self._moved.append(job)

    def _walk(self, flow: ModelFlow) -> None:
        """The flow was sealed or cancelled."""
        for job in flow.nodes:
            if flow.cancelled is None or (job.state is State.BLOCKED and not job.released):
                self._step(job)
            elif not job.state.terminal:
                self._cancel_job(job, flow.cancelled)

    def _settle_down(self) -> None:
        while self._moved:
            job = self._moved.popleft()
            if job.flow is None or not job.flow.sealed or job.flow.doomed:
                continue
            if job.errback and job.state.terminal:
                self._step(job)
            for target in job.targets:
                self._step(target)
        for flow in self.flows.values():
            self._end_or_reopen(flow)

    def _end_or_reopen(self, flow: ModelFlow) -> None:
        if flow.open_nodes:
            flow.finished_at = None
        elif flow.sealed and flow.finished_at is None:
            flow.finished_at = self.clock.now()
            flow.deadline = None
            parent = self.jobs.get(flow.parent or "")
            if parent and parent.state is State.BLOCKED and parent.awaits == flow.flow.id:
                parent.state, parent.reason = State.READY, Reason.UNBLOCKED
                parent.due_at = self.clock.now()

    def _step(self, job: ModelJob) -> None:
        assert job.flow is not None
        wanted = job.wanted(cancelled=job.flow.cancelled is not None)
        match step(job.state, job.reason, wanted, released=job.released, errback=job.errback):
            case Step.RELEASE:
                self._release(job)
            case Step.SKIP:
                self._finish(job, State.CANCELLED, Reason.UPSTREAM)
            case Step.BLOCK:
                job.start_anew()
                job.state, job.reason = State.BLOCKED, Reason.UPSTREAM
                job.released, job.awaits = False, None
                self._moved.append(job)
            case Step.STAY:
                pass

    def _release(self, job: ModelJob) -> None:
        now = self.clock.now()
        job.start_anew()
        job.released, job.reason = True, Reason.UNBLOCKED
        job.due_at, job.expires_at = job.message.due_at(now), job.message.expiry(now)
        job.state = State.READY if job.due_at <= now else State.SCHEDULED
        self._moved.append(job)

    # --- what can be seen ------------------------------------------------------------------------

    def nodes(self, flow_id: str) -> Iterator[FlowNode]:
        for number, job in enumerate(self.flows[flow_id].nodes):
            assert job.node is not None
            about = (job.node.label, job.errback, job.node.tolerated)
            yield FlowNode(number, job.id, job.message.task, job.state, job.reason, *about)
