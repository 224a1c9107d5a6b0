"""Between the types of flows and what the scripts speak; see ``wire``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from taskharbor import defaults
from taskharbor.drivers.base import Outcome
from taskharbor.drivers.flows import FlowEnqueued, FlowInfo, FlowNode, Input
from taskharbor.drivers.redis import wire
from taskharbor.errors import InvalidJob
from taskharbor.flow.plan import Edge, EdgeKind, Flow, Part
from taskharbor.flow.progress import flow_state
from taskharbor.states import Reason, State

_KINDS = {EdgeKind.SUCCESS: 0, EdgeKind.END: 1, EdgeKind.DEATH: 2}
_KIND_OF = {number: kind for kind, number in _KINDS.items()}


def pack_part(part: Part) -> bytes:
    heads, which, ids, fragments = wire.packed_messages([node.message for node in part.nodes])
    members = [(node.waits_for, node.errback, node.tolerated, node.label) for node in part.nodes]
    edges = [(source, target, place, _KINDS[kind]) for source, target, place, kind in part.edges]
    flow = _flow(part.flow)
    return wire.pack((flow, part.first, heads, which, ids, fragments, members, edges, part.seal))


def _flow(flow: Flow) -> tuple[Any, ...]:
    return (
        flow.id,
        flow.size,
        flow.edges,
        flow.name,
        flow.result,
        flow.idempotency_key or False,
        flow.digest,
        False if flow.expires_in is None else wire.micros(flow.expires_in),
        [wire.micros(seconds) for seconds in flow.retention],
        wire.micros(defaults.UNSEALED_SECONDS),
    )


def enqueued(reply: bytes, flow: Flow) -> FlowEnqueued:
    """Raises InvalidJob for what the script found wrong."""
    flow_id, *rest = wire.unpack(reply)
    if flow_id is False:
        raise InvalidJob(_wrong(flow, rest[0].decode(), rest[1:]))
    return FlowEnqueued(flow_id.decode(), *rest)


def _wrong(flow: Flow, what: str, details: Sequence[Any]) -> str:
    values = [value.decode() if isinstance(value, bytes) else value for value in details]
    match what:
        case "deleted":
            return f"flow {flow.id} was deleted; begin a new one"
        case "number":
            return f"flow {flow.id} has another job {values[0]}; begin a new flow"
        case "taken":
            return f"job id {values[0]} is taken; a job of a flow is always new"
        case "stranger":
            return f"an edge of flow {flow.id} names job {values[0]}, not one of its"
        case "position":
            return f"job {values[0]} has two predecessors at {values[1]}"
    return (
        f"flow {flow.id} can't be sealed: it has {values[0]} jobs and {values[1]} edges of "
        f"{flow.size} and {flow.edges}; send its other parts"
    )


def info(row: Sequence[Any]) -> FlowInfo:
    flow_id, _, created, size, name, result, key, counts = row
    finished = {
        state: counts[letter]
        for state, letter in (
            (State.SUCCEEDED, b"s"),
            (State.DEAD, b"d"),
            (State.CANCELLED, b"c"),
        )
    }
    return FlowInfo(
        id=flow_id.decode(),
        name=name.decode(),
        state=flow_state(
            sealed=b"b" in counts,
            open_nodes=size - sum(finished.values()),
            failed=counts[b"f"],
            cancelled=b"r" in counts,
        ),
        size=size,
        finished=finished,
        created_at=created / 1e6,
        finished_at=counts[b"q"] / 1e6 if b"q" in counts else None,
        expires_at=counts[b"x"] / 1e6 if b"x" in counts else None,
        idempotency_key=key.decode() if key else None,
        result=result.decode(),
        parent=counts[b"p"].decode() if b"p" in counts else None,
    )


def node(row: Sequence[Any]) -> FlowNode:
    number, job_id, fragment, state, reason, label, errback, tolerated = row
    _, _, task, _ = wire.read_fragment(fragment)
    return FlowNode(
        number,
        job_id.decode(),
        task,
        State(state.decode()),
        Reason(reason.decode()),
        label.decode(),
        errback,
        tolerated,
    )


def edge(row: Sequence[Any]) -> Edge:
    source, target, position, kind = row
    return Edge(source.decode(), target.decode(), position, _KIND_OF[kind])


def found_input(row: Sequence[Any]) -> Input:
    position, job_id, *outcome = row
    (found,) = wire.outcomes([outcome])
    assert isinstance(found, Outcome)
    return Input(position, job_id.decode(), found)
