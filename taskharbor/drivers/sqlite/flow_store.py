"""Storing a flow, part by part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from taskharbor import defaults
from taskharbor.drivers.flows import FlowEnqueued
from taskharbor.drivers.sqlite import flow_heads
from taskharbor.drivers.sqlite.changes import Changes, Head
from taskharbor.drivers.sqlite.enqueue import insert_rows, queue_id
from taskharbor.drivers.sqlite.queries import load
from taskharbor.drivers.sqlite.transaction import Row, Tx, as_texts
from taskharbor.errors import InvalidJob
from taskharbor.flow.plan import Edge, EdgeKind, Flow, Node, Part
from taskharbor.message import Message, Retention
from taskharbor.states import Reason

_SQL = load("flow_store")
_FIND_IDS = load("enqueue")["find_ids"]

KINDS = (EdgeKind.SUCCESS, EdgeKind.END, EdgeKind.DEATH)
"""By their number in th_edges."""
_NUMBERS = {kind: number for number, kind in enumerate(KINDS)}
_AS_LONG_AS_THE_FLOW = Retention(float("inf"), float("inf"), float("inf"))


class _FlowRow(NamedTuple):
    num: int
    sealed: int
    doomed: int
    stored_jobs: int
    stored_edges: int


def enqueue_flow(tx: Tx, part: Part) -> FlowEnqueued:
    """``tx`` must have asked for as many new jobs as the part has nodes. Raises InvalidJob; the
    transaction has to be rolled back then."""
    flow = part.flow
    owner = None
    if flow.idempotency_key is not None:
        owner = tx.one(_SQL["key_owner"], (flow.idempotency_key,))
    if owner is not None and owner[0] != flow.id:
        return FlowEnqueued(owner[0], False, owner[1] == flow.digest)
    row = tx.one(_SQL["head"], (flow.id,))
    head = None if row is None else _FlowRow._make(row)
    if head is None or not head.sealed:
        _check(part, head)
        _store(tx, part, head)
    return FlowEnqueued(flow.id, True)


def _check(part: Part, head: _FlowRow | None) -> None:
    if head is not None and head.doomed:
        raise InvalidJob(f"flow {part.flow.id} was deleted; begin a new one")
    if part.flow.size < 1 or len({node.message.id for node in part.nodes}) < len(part.nodes):
        raise InvalidJob(f"flow {part.flow.id} needs jobs, and each of them once")
    for node in part.nodes:
        if node.message.idempotency_key is not None:
            raise InvalidJob(
                f"job {node.message.id} of a flow has an idempotency key; give it to the flow"
            )


def _store(tx: Tx, part: Part, head: _FlowRow | None) -> None:
    num = _add_flow(tx, part.flow) if head is None else head.num
    new = list(enumerate(part.nodes, part.first))
    if head is not None:
        new = _missing(tx, num, part)
    # A whole flow at once: what waits for nothing need not be blocked first.
    whole = head is None and part.seal
    _add_nodes(tx, num, new, release=whole)
    edges = _add_edges(tx, num, part.flow.id, part.edges)
    row = tx.one(_SQL["note_stored"], (len(new), edges, num))
    assert row is not None
    if part.seal:
        if row[:2] != row[2:]:
            raise InvalidJob(
                f"flow {part.flow.id} can't be sealed: it has {row[0]} jobs and {row[1]} edges of "
                f"{row[2]} and {row[3]}; send its other parts"
            )
        flow_heads.seal(tx, num, walk=not whole)


def _add_flow(tx: Tx, flow: Flow) -> int:
    row = tx.one(
        _SQL["add_flow"],
        (
            flow.id,
            flow.name,
            flow.result,
            flow.size,
            flow.edges,
            flow.idempotency_key,
            flow.digest,
            flow.expires_in,
            *flow.retention,
            tx.now,
            tx.now + defaults.UNSEALED_SECONDS,
        ),
    )
    assert row is not None
    num: int = row[0]
    return num


def _missing(tx: Tx, num: int, part: Part) -> list[tuple[int, Node]]:
    """The nodes of the part that did not come before."""
    arguments = (num, part.first, part.first + len(part.nodes))
    there: dict[int, str] = dict(tx.all(_SQL["stored_nodes"], arguments))
    missing = []
    for index, node in enumerate(part.nodes, part.first):
        if index not in there:
            missing.append((index, node))
        elif there[index] != node.message.id:
            raise InvalidJob(f"flow {part.flow.id} has another job {index}; begin a new flow")
    return missing


def _add_nodes(tx: Tx, num: int, nodes: list[tuple[int, Node]], *, release: bool) -> None:
    if not nodes:
        return
    taken = tx.one(_FIND_IDS, (as_texts(node.message.id for _, node in nodes),))
    if taken is not None:
        raise InvalidJob(f"job id {taken[0]} is taken; a job of a flow is always new")
    queues = {name: queue_id(tx, name) for name in {node.message.queue for _, node in nodes}}
    messages = [node.message._replace(retention=_AS_LONG_AS_THE_FLOW) for _, node in nodes]
    before = tx.last_seq - len(messages)
    rows = insert_rows(tx, messages, queues, before + 1)
    changes = Changes(tx)
    places = []
    for (index, node), row in zip(nodes, rows, strict=True):
        released = release and node.waits_for == 0 and not node.errback
        places.append(_node_row(row[0], num, index, node, released=released, due_at=row[6]))
        job = Head._make((*row[:3], row[4], *row[7:13]))
        if released:
            changes.to_line(job, str(Reason.UNBLOCKED), due_at=row[6])
            tx.wake()
        else:
            changes.to_blocked(job, str(Reason.ENQUEUED))
    changes.flush()
    tx.executemany(_SQL["add_nodes"], places)


def _node_row(seq: int, num: int, index: int, node: Node, *, released: bool, due_at: float) -> Row:
    """The columns of ``add_nodes``."""
    message: Message = node.message
    return (
        seq,
        num,
        index,
        node.waits_for,
        released,
        node.errback,
        node.tolerated,
        node.label,
        due_at if released else None,
        message.delay or None,
        message.eta,
        message.expires_in,
        message.expires_at,
    )


def _add_edges(tx: Tx, num: int, flow_id: str, edges: Sequence[Edge]) -> int:
    """How many of them are new."""
    if not edges:
        return 0
    names = {edge.source for edge in edges} | {edge.target for edge in edges}
    seqs: dict[str, int] = dict(tx.all(_SQL["members"], (num, as_texts(names))))
    for name in names:
        if name not in seqs:
            raise InvalidJob(f"an edge of flow {flow_id} names job {name}, not one of its")
    rows = [
        (seqs[edge.source], seqs[edge.target], edge.position, _NUMBERS[edge.kind]) for edge in edges
    ]
    added = tx.executemany(_SQL["add_edges"], rows).rowcount
    if added < len(rows):
        for edge, (source, target, position, _) in zip(edges, rows, strict=True):
            if tx.one(_SQL["edge_source"], (target, position)) != (source,):
                raise InvalidJob(f"job {edge.target} has two predecessors at {edge.position}")
    return added
