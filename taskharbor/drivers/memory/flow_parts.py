"""Parts of flows: whether one fits, and what it adds.

Called under the store's lock.
"""

from __future__ import annotations

from taskharbor.drivers.memory.member import Arrow, FlowRecord, Member
from taskharbor.drivers.memory.record import Record
from taskharbor.drivers.memory.shelves import Shelves
from taskharbor.errors import InvalidJob
from taskharbor.flow.plan import Edge, Node, Part
from taskharbor.flow.progress import Counters
from taskharbor.states import Reason, State


def check_part(jobs: Shelves, flow: FlowRecord | None, part: Part) -> None:
    """Whether ``part`` fits what is there of its flow (None: nothing). Raises InvalidJob."""
    if flow is not None and flow.doomed:
        raise InvalidJob(f"flow {part.flow.id} was deleted; begin a new one")
    if part.flow.size < 1 or len({node.message.id for node in part.nodes}) < len(part.nodes):
        raise InvalidJob(f"flow {part.flow.id} needs jobs, and each of them once")
    there = {} if flow is None else flow.nodes
    new_nodes = 0
    for index, node in enumerate(part.nodes, part.first):
        if index not in there:
            _check_new(jobs, node)
            new_nodes += 1
        elif there[index] != node.message.id:
            raise InvalidJob(f"flow {part.flow.id} has another job {index}; begin a new flow")
    members = {node.message.id for node in part.nodes}
    if len({(edge.target, edge.position) for edge in part.edges}) < len(part.edges):
        raise InvalidJob(f"two edges of flow {part.flow.id} have the same target and position")
    new_edges = sum(_is_new(jobs, part.flow.id, members, edge) for edge in part.edges)
    edges = new_edges + (0 if flow is None else flow.edges)
    if part.seal and (len(there) + new_nodes, edges) != (part.flow.size, part.flow.edges):
        raise InvalidJob(
            f"flow {part.flow.id} can't be sealed: it has {len(there) + new_nodes} jobs and "
            f"{edges} edges of {part.flow.size} and {part.flow.edges}; send its other parts"
        )


def _check_new(jobs: Shelves, node: Node) -> None:
    if jobs.get(node.message.id) is not None:
        raise InvalidJob(f"job id {node.message.id} is taken; a job of a flow is always new")
    if node.message.idempotency_key is not None:
        raise InvalidJob(
            f"job {node.message.id} of a flow has an idempotency key; give it to the flow"
        )


def _is_new(jobs: Shelves, flow_id: str, coming: set[str], edge: Edge) -> bool:
    for job_id in (edge.source, edge.target):
        member = jobs.member(job_id)
        if job_id not in coming and (member is None or member.flow_id != flow_id):
            raise InvalidJob(f"an edge of flow {flow_id} names job {job_id}, not one of its")
    target = jobs.member(edge.target)
    source = None if target is None else target.incoming.get(edge.position)
    if source not in (None, edge.source):
        raise InvalidJob(f"job {edge.target} has two predecessors at {edge.position}")
    return source is None


def add_node(flow: FlowRecord, index: int, node: Node, *, now: float, order: int) -> Record:
    """The record of a new job of ``flow``, to be put up as blocked."""
    flow.nodes[index] = node.message.id
    record = Record(
        message=node.message,
        order=order,
        state=State.BLOCKED,
        reason=Reason.ENQUEUED,
        enqueued_at=now,
        due_at=node.message.due_at(now),
        ready_at=now,
        expires_at=node.message.expiry(now),
    )
    record.member = Member(
        flow.flow.id,
        index,
        node.label,
        node.errback,
        node.tolerated,
        Counters(node.waits_for),
    )
    return record


def add_edge(jobs: Shelves, flow: FlowRecord, edge: Edge) -> None:
    """Nothing happens if it was added before."""
    source, target = jobs.member(edge.source), jobs.member(edge.target)
    assert source is not None
    assert target is not None
    if edge.position not in target.incoming:
        target.incoming[edge.position] = edge.source
        source.outgoing.append(Arrow(edge.target, edge.position, edge.kind))
        flow.edges += 1
