"""The part of the contract between TaskHarbor and a store that is about flows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

from taskharbor.drivers.base import CancelVerdict, DeleteVerdict, Driver, Inspector, Outcome
from taskharbor.flow.plan import Edge, FlowState, Part
from taskharbor.states import Reason, State


class FlowEnqueued(NamedTuple):
    """``created`` False: another flow, ``id``, has the idempotency key, and nothing of this one
    will ever run. ``same_request``: its digest is the same."""

    id: str
    created: bool
    same_request: bool = True


class Input(NamedTuple):
    """How one predecessor of a job stands. ``outcome`` as in ``Driver.results``."""

    position: int
    job_id: str
    outcome: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowInfo:
    """How a flow stands. ``finished``: how many of its jobs are in each terminal state.
    ``finished_at``: when the last of them had ended and nothing of the flow was left to be moved;
    None before, also in a flow that has failed already. ``parent``: the job that awaits it.
    ``result``: see ``flow.plan.Flow``.
    """

    id: str
    name: str
    state: FlowState
    size: int
    finished: dict[State, int]
    created_at: float
    finished_at: float | None = None
    expires_at: float | None = None
    idempotency_key: str | None = None
    result: str = ""
    parent: str | None = None


class FlowNode(NamedTuple):
    """A job of a flow, as far as its drawing needs. ``number``: its index in the flow."""

    number: int
    id: str
    task: str
    state: State
    reason: Reason
    label: str = ""
    errback: bool = False
    tolerated: bool = False


class FlowPage(NamedTuple):
    """Flows, newest first. ``cursor`` None: this was the last page; any other page may be short."""

    flows: list[FlowInfo]
    cursor: str | None


class EdgePage(NamedTuple):
    """Edges, in no order that means anything. ``cursor`` None: this was the last page; any other
    page may be short."""

    edges: list[Edge]
    cursor: str | None


@runtime_checkable
class Flows(Protocol):
    """For stores that can keep a flow: jobs that wait for each other.

    The rules are in ``flow.progress``. In the store's own words: when a job enters or leaves a
    terminal state, by whatever call, the same atomic step marks its outgoing edges, moves its
    successors' counters by the difference, and moves those successors that are to be released,
    skipped or blocked again; which moves *their* edges, and so on. An error callback that ends is
    looked at itself, too: what it watches may have come back to life meanwhile. At most
    ``defaults.FLOW_PAGE`` edges and jobs are moved in one call. What is left is remembered in
    the store, and each later ``exchange`` and ``promote`` moves another page first; ``promote``
    says ``more`` as long as there is some. Between a job's end and its mark on a far edge other
    calls may come: each sees counters that agree with the marks.

    A released job has the moment of its release as its enqueue, as far as ``delay``, ``eta``,
    ``expires_in`` and ``expires_at`` go; its place in the order is that of its enqueue. Its reason
    is ``unblocked``; ``upstream`` when it was skipped or blocked again (it then awaits no flow any
    more). Jobs of a flow keep their
    record, whatever their own retention, until that of the flow is over, counted from
    ``finished_at``; ``prune`` then takes a bounded number of them at a time, and flows that were
    never sealed ``defaults.UNSEALED_SECONDS`` after their first part. ``delete`` refuses them
    (``in_flow``), ``purge`` passes them over. Once the first job of a flow was pruned, or
    ``delete_flow`` was called, the flow is doomed: nothing of it moves any more.

    What other methods do for a job of a flow:

    * ``requeue`` of one that was never released: by ``progress.requeues_to`` (``blocked``, ready,
      or refused as ``upstream``), and ``blocked`` in a flow that is not sealed. Of any one: a
      cancelled flow is not cancelled any more. Of a doomed flow's: ``not_found``.
    * ``exchange`` with ``Settlement.wait_for``: where the flow is stored whole, not sealed, not
      cancelled, not doomed, and has no idempotency key, it is sealed and the job is ``blocked``
      until it has ended (``finished_at``), however; then it is ready, reason ``unblocked``. Else
      the verdict is ``not_found`` and nothing changes. A cancel of the job, while it waits, cancels
      the flow.
      ``requeue`` of such a job later: ``blocked`` while the awaited flow is there and has not
      ended; else it is ready, with ``awaits`` None once the flow is gone.
    """

    def new_id_beside(self, other: str) -> str:
        """An id for what has to lie in the same shard as the job or flow ``other``: the jobs of a
        flow, and a flow that a job will wait for. Any other flow's id is a ``new_job_id``, for its
        idempotency key."""
        ...

    def enqueue_flow(self, part: Part, *, connection: Any = None) -> FlowEnqueued:
        """Store ``part`` or, on any error, nothing of it. A part that was stored before changes
        nothing. Jobs are ``blocked`` until the flow is sealed; those that wait for no edge are
        then released (by a bounded number at a time), or stored in line at once by a
        part that is ``whole``. The idempotency key is taken when the flow is sealed, and held as
        long as it exists; a part that comes while another flow holds it stores nothing.

        Raises InvalidJob for a part that doesn't fit: a job id or key that is taken by another job,
        an edge to a job that is not there, a seal before all nodes and edges have come, a flow
        without jobs or that was deleted.
        ``connection``: as in ``Driver.enqueue``.
        """
        ...

    def inputs(self, job_id: str, *, after: int = -1, limit: int = 1000) -> list[Input]:
        """The predecessors of a job, by position, from the first one past ``after``; fewer than
        ``limit`` only at the end. Empty for a job without any, or that is not there."""
        ...

    def input_results(self, job_id: str, *, after: int = -1, limit: int = 1000) -> list[bytes]:
        """What the predecessors of a job at the positions after + 1, after + 2, … have returned, at
        most ``limit`` of them. Ends before the first position where nobody is, or whose job has not
        succeeded or kept no result: ``inputs`` tells more of it."""
        ...

    def flow(self, flow_id: str) -> FlowInfo | None: ...

    def list_flows(self, *, cursor: str | None = None, limit: int = 100) -> FlowPage:
        """All flows; like ``list_jobs``. Raises InvalidCursor."""
        ...

    def flow_nodes(self, flow_id: str, *, after: int = -1, limit: int = 1000) -> list[FlowNode]:
        """The jobs of a flow by number, from the first one past ``after``; fewer than ``limit``
        only at the end."""
        ...

    def flow_edges(
        self, flow_id: str, *, cursor: str | None = None, limit: int = 1000
    ) -> EdgePage: ...

    def cancel_flow(self, flow_id: str, reason: Reason = Reason.OPERATOR) -> CancelVerdict:
        """From now on nothing of the flow is released: whatever its counters say, a job of it is
        to be skipped (``progress.stance``). A bounded number at a time, its jobs are cancelled:
        those that were released with ``reason`` (running ones are asked to stop), the others as
        skipped (``upstream``: they come back when what they wait for is requeued). Nothing moves in
        a flow that is not sealed: its jobs follow when it is. ``requested`` if some had not ended,
        else ``finished``. ``promote`` does the same, with the reason ``expired``, to flows past
        their ``expires_at``."""
        ...

    def delete_flow(self, flow_id: str) -> DeleteVerdict:
        """The flow's retention is over: ``prune`` takes it and its jobs, and another flow may have
        its key at once. ``running``, and nothing changes, unless it has ended or was never
        sealed."""
        ...


class FlowDriver(Driver, Inspector, Flows, Protocol):
    """A driver that keeps flows: what all of ours are."""
