"""What moves in flows: ``flow.progress``, done to records.

Called under the store's lock, by its steps. A record that entered or left a terminal state is
*noted*; what follows from that stands in the agenda, and ``advance`` works it off page by page.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from taskharbor import defaults
from taskharbor.drivers.base import CancelVerdict, DeleteVerdict, RequeueVerdict
from taskharbor.drivers.flows import FlowEnqueued
from taskharbor.drivers.memory.flow_look import FlowLook
from taskharbor.drivers.memory.flow_parts import add_edge, add_node, check_part
from taskharbor.drivers.memory.member import Arrow, FlowRecord, Member
from taskharbor.drivers.memory.record import Record
from taskharbor.drivers.memory.timeline import Timeline
from taskharbor.flow.plan import Part
from taskharbor.flow.progress import (
    Mark,
    Stance,
    Step,
    mark_of,
    requeues_to,
    stance,
    step,
)
from taskharbor.states import Reason, State

if TYPE_CHECKING:
    from taskharbor.drivers.memory.store import JobStore


class Errand(NamedTuple):
    """Something to be walked: the edges of the job ``source``, or (None) all jobs of a flow that
    was sealed or cancelled."""

    flow_id: str
    source: str | None = None


class FlowKeeper:
    """The flows of one store. ``expiries``: sealed flows by when they are to be cancelled;
    ``look``: what can be seen of all."""

    def __init__(self, store: JobStore, orders: Iterator[int]) -> None:
        self.expiries: Timeline[float] = Timeline()
        self._store = store
        self._orders = orders
        self._flows: dict[str, FlowRecord] = {}
        self.look = FlowLook(store.jobs, self._flows)
        self._keys: dict[str, str] = {}
        self._ends: Timeline[float] = Timeline()
        self._agenda: deque[tuple[Errand, int]] = deque()

    @property
    def busy(self) -> bool:
        """Whether ``advance`` has more to do."""
        return bool(self._agenda)

    # --- storing

    def store(self, now: float, part: Part) -> FlowEnqueued:
        """Raises InvalidJob, before anything is changed."""
        key = part.flow.idempotency_key
        owner = self._keys.get(key, part.flow.id) if key is not None else part.flow.id
        if owner != part.flow.id:
            return FlowEnqueued(owner, False, self._flows[owner].flow.digest == part.flow.digest)
        flow = self._flows.get(part.flow.id)
        if flow is not None and flow.sealed:
            return FlowEnqueued(part.flow.id, True)
        check_part(self._store.jobs, flow, part)
        if flow is None:
            flow = FlowRecord(part.flow, next(self._orders), now)
            self._flows[part.flow.id] = flow
            self._ends.set(part.flow.id, now + defaults.UNSEALED_SECONDS)
        for index, node in enumerate(part.nodes, part.first):
            if index not in flow.nodes:
                record = add_node(flow, index, node, now=now, order=next(self._orders))
                self._store.line_up(now, record, State.BLOCKED)
        for edge in part.edges:
            add_edge(self._store.jobs, flow, edge)
        if part.seal:
            self._seal(now, flow)
        return FlowEnqueued(part.flow.id, True)

    def _seal(self, now: float, flow: FlowRecord) -> None:
        flow.sealed = True
        self._ends.discard(flow.flow.id)
        if flow.flow.idempotency_key is not None:
            self._keys[flow.flow.idempotency_key] = flow.flow.id
        if flow.flow.expires_in is not None:
            flow.expires_at = now + flow.flow.expires_in
            self.expiries.set(flow.flow.id, flow.expires_at)
        self._add_errand(flow)
        self.advance(now)

    # --- waiting for a flow

    def can_be_awaited(self, flow_id: str) -> bool:
        flow = self._flows.get(flow_id)
        return flow is not None and flow.can_be_awaited

    def begin_awaited(self, now: float, flow_id: str, parent: str) -> None:
        flow = self._flows[flow_id]
        flow.parent = parent
        self._seal(now, flow)

    def _wake_parent(self, now: float, flow: FlowRecord) -> None:
        parent = self._store.jobs.get(flow.parent)
        if parent and parent.state is State.BLOCKED and parent.awaits == flow.flow.id:
            self._store.jobs.take(parent)
            parent.reason = Reason.UNBLOCKED
            parent.due_at = now
            self._store.line_up(now, parent, State.READY)

    # --- what follows from a job's end

    def note(self, now: float, record: Record) -> None:
        """The record, put up where it belongs, may have entered or left a terminal state."""
        member = record.member
        if member is None:
            return
        flow = self._flows[member.flow_id]
        if not flow.count(member, record.state):
            return
        if member.outgoing or member.errback:
            self._add_errand(flow, record.id)
        self._end_or_reopen(now, flow)

    def _end_or_reopen(self, now: float, flow: FlowRecord) -> None:
        if flow.open_nodes or flow.errands:
            if flow.finished_at is not None:
                flow.finished_at = None
                self._ends.discard(flow.flow.id)
        elif flow.sealed and flow.finished_at is None:
            flow.finished_at = now
            self.expiries.discard(flow.flow.id)
            self._wake_parent(now, flow)
        if not flow.doomed and (until := flow.kept_until()) is not None:
            self._ends.set(flow.flow.id, until)

    def _add_errand(self, flow: FlowRecord, source: str | None = None) -> None:
        if not flow.doomed:
            flow.errands += 1
            self._agenda.append((Errand(flow.flow.id, source), 0))

    def advance(self, now: float) -> int:
        """Move up to a page of edges and jobs; how many."""
        budget = left = defaults.FLOW_PAGE
        while self._agenda and left > 0:
            errand, cursor = self._agenda.popleft()
            flow = self._flows.get(errand.flow_id)
            if flow is None or flow.doomed:
                continue
            walked = self._walk(now, flow, errand, cursor, left)
            if walked == left:
                self._agenda.appendleft((errand, cursor + walked))
            else:
                flow.errands -= 1
                self._end_or_reopen(now, flow)
            left -= max(walked, 1)
        return budget - max(left, 0)

    def _walk(self, now: float, flow: FlowRecord, errand: Errand, cursor: int, most: int) -> int:
        if errand.source is None:
            indexes = range(cursor, min(cursor + most, flow.flow.size))
            for index in indexes:
                if index in flow.nodes:
                    self._visit(now, self._store.jobs[flow.nodes[index]])
            return len(indexes)
        source = self._store.jobs[errand.source]
        assert source.member is not None
        if cursor == 0 and source.member.errback and flow.sealed:
            # What it watches may have come back to life while it ran.
            self._step(now, source, source.member)
        arrows = source.member.outgoing[cursor : cursor + most]
        for arrow in arrows:
            self._move(now, arrow, mark_of(source.state))
        return len(arrows)

    def _visit(self, now: float, record: Record) -> None:
        """A job of a flow that was sealed or cancelled."""
        member = record.member
        assert member is not None
        reason = self._flows[member.flow_id].cancelled
        if reason is None or (record.state is State.BLOCKED and not member.released):
            self._step(now, record, member)
        else:
            self._store.cancel_job(now, record.id, reason)

    def _move(self, now: float, arrow: Arrow, mark: Mark) -> None:
        old, arrow.mark = arrow.mark, mark
        target = self._store.jobs[arrow.target]
        member = target.member
        assert member is not None
        member.counters = member.counters.moved(arrow.kind, old, mark)
        if self._flows[member.flow_id].sealed:
            self._step(now, target, member)

    def _step(self, now: float, record: Record, member: Member) -> None:
        cancelled = self._flows[member.flow_id].cancelled is not None
        wanted = stance(member.counters, errback=member.errback, cancelled=cancelled)
        match step(
            record.state, record.reason, wanted, released=member.released, errback=member.errback
        ):
            case Step.RELEASE:
                self._release(now, record, member)
            case Step.SKIP:
                self._store.jobs.take(record)
                record.reason = Reason.UPSTREAM
                self._store.finish(now, record, State.CANCELLED)
            case Step.BLOCK:
                self._store.jobs.take(record)
                record.reason = Reason.UPSTREAM
                record.start_anew(reset_attempts=True)
                record.awaits = None  # that flow's end, if it came again, must not free this job
                member.released = False
                self._store.line_up(now, record, State.BLOCKED)
                self.note(now, record)
            case Step.STAY:
                pass

    def _release(self, now: float, record: Record, member: Member) -> None:
        self._store.jobs.take(record)
        record.start_anew(reset_attempts=True)
        record.reason = Reason.UNBLOCKED
        record.due_at = record.message.due_at(now)
        record.expires_at = record.message.expiry(now)
        member.released = True
        self._store.line_up(now, record, State.READY if record.due_at <= now else State.SCHEDULED)
        self.note(now, record)

    # --- operators

    def cancel(self, now: float, flow_id: str, reason: Reason) -> CancelVerdict:
        flow = self._flows.get(flow_id)
        if flow is None:
            return CancelVerdict.NOT_FOUND
        if flow.finished_at is not None or flow.doomed:
            return CancelVerdict.FINISHED
        flow.cancelled = flow.cancelled or reason
        self.expiries.discard(flow_id)
        if flow.sealed:
            self._add_errand(flow)
        return CancelVerdict.REQUESTED

    def expire(self, now: float, limit: int) -> int:
        """Cancel up to ``limit`` flows that took too long; how many."""
        over = self.expiries.until(now, limit)
        for flow_id in over:
            self.cancel(now, flow_id, Reason.EXPIRED)
        return len(over)

    def may_requeue(self, record: Record) -> RequeueVerdict:
        member = record.member
        if member is not None:
            if self._flows[member.flow_id].doomed:
                return RequeueVerdict.NOT_FOUND
            if self._requeues_to(member) is Step.SKIP:
                return RequeueVerdict.UPSTREAM
        return RequeueVerdict.REQUEUED

    def _requeues_to(self, member: Member) -> Step:
        sealed = self._flows[member.flow_id].sealed
        return requeues_to(member.wanted if sealed else Stance.WAIT, released=member.released)

    def requeue_blocks(self, record: Record) -> bool:
        """Whether a requeued record, taken down, has to wait for others again."""
        if record.awaits is not None:
            awaited = self._flows.get(record.awaits)
            if awaited is None:
                record.awaits = None
            elif awaited.finished_at is None:
                return True
        member = record.member
        if member is None:
            return False
        return self._requeues_to(member) is Step.BLOCK

    def requeued(self, now: float, record: Record) -> None:
        """A requeued record is up again."""
        member = record.member
        if member is None:
            return
        flow = self._flows[member.flow_id]
        flow.cancelled = None
        member.released = member.released or record.state is not State.BLOCKED
        self.note(now, record)

    def delete(self, now: float, flow_id: str) -> DeleteVerdict:
        flow = self._flows.get(flow_id)
        if flow is None:
            return DeleteVerdict.NOT_FOUND
        if flow.sealed and flow.finished_at is None:
            return DeleteVerdict.RUNNING
        self._doom(flow)
        self._ends.set(flow_id, now)
        return DeleteVerdict.DELETED

    def prune(self, now: float, limit: int) -> int:
        """Drop up to ``limit`` jobs of flows that need not be kept; how many."""
        pruned = 0
        while pruned < limit and (over := self._ends.until(now, 1)):
            flow = self._flows[over[0]]
            self._doom(flow)
            for index in list(islice(flow.nodes, limit - pruned)):
                self._store.drop(self._store.jobs[flow.nodes.pop(index)])
                pruned += 1
            if not flow.nodes:
                self._drop(flow)
        return pruned

    def _doom(self, flow: FlowRecord) -> None:
        flow.doomed = True
        key = flow.flow.idempotency_key
        if key is not None and self._keys.get(key) == flow.flow.id:
            del self._keys[key]

    def _drop(self, flow: FlowRecord) -> None:
        self._ends.discard(flow.flow.id)
        self.expiries.discard(flow.flow.id)
        del self._flows[flow.flow.id]
