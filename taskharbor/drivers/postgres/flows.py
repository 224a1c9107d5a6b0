"""Flows: stored part by part, looked at page by page. What moves in them are functions of the
schema; see ``migrations/0007_flows.sql``."""

from __future__ import annotations

from itertools import chain
from typing import Any

from taskharbor import ids
from taskharbor.drivers.base import CancelVerdict, DeleteVerdict
from taskharbor.drivers.flows import (
    EdgePage,
    FlowEnqueued,
    FlowInfo,
    FlowNode,
    FlowPage,
    Input,
)
from taskharbor.drivers.postgres import columns, cursors, rows
from taskharbor.drivers.postgres.enqueue import joined
from taskharbor.drivers.postgres.store import Store
from taskharbor.errors import InvalidJob
from taskharbor.flow.plan import Edge, EdgeKind, Part
from taskharbor.states import Reason, State


class PostgresFlows:
    """The part of the driver that is ``drivers.flows.Flows``."""

    _store: Store

    def new_id_beside(self, other: str) -> str:
        return ids.new_id()

    def enqueue_flow(self, part: Part, *, connection: Any = None) -> FlowEnqueued:
        arguments = of_part(part)
        if connection is None:
            ((*answer,),) = self._store.rows("enqueue_flow", now=self._store.now, **arguments)
        else:
            with joined(self._store, connection) as theirs:
                ((*answer,),) = self._store.fetch(
                    theirs, "enqueue_flow", now=self._store.now, **arguments
                )
                if self._store.address.notify:
                    # Whoever waits now is not known, for it commits much later.
                    first = {node.message.queue for node in part.nodes if not node.waits_for}
                    topics = [f"w:{queue}" for queue in sorted(first)]
                    self._store.fetch(theirs, "notify", topics=topics)
        return FlowEnqueued(*answer)

    def inputs(self, job_id: str, *, after: int = -1, limit: int = 1000) -> list[Input]:
        found = self._store.rows("inputs", id=columns.of_id(job_id), after=after, limit=limit)
        inputs = []
        for position, source, *outcome in found:
            stands = rows.to_outcome(tuple(outcome))
            assert stands is not None
            inputs.append(Input(position, source, stands))
        return inputs

    def input_results(self, job_id: str, *, after: int = -1, limit: int = 1000) -> list[bytes]:
        found = self._store.rows(
            "input_results", id=columns.of_id(job_id), after=after, limit=limit
        )
        places = enumerate(found, after + 1)
        return [result for place, (position, result) in places if position == place]

    def flow(self, flow_id: str) -> FlowInfo | None:
        found = self._store.rows("flow", id=columns.of_id(flow_id))
        return rows.to_flow(found[0][1:]) if found else None

    def list_flows(self, *, cursor: str | None = None, limit: int = 100) -> FlowPage:
        before = None if cursor is None else cursors.read(cursor, 1)[0]
        found = self._store.rows("list_flows", before=before, limit=limit + 1)
        flows = [rows.to_flow(row[1:]) for row in found[:limit]]
        return FlowPage(flows, cursors.write(found[limit - 1][0]) if len(found) > limit else None)

    def flow_nodes(self, flow_id: str, *, after: int = -1, limit: int = 1000) -> list[FlowNode]:
        found = self._store.rows("flow_nodes", id=columns.of_id(flow_id), after=after, limit=limit)
        return [
            FlowNode(number, job_id, task, State(state), Reason(reason), *rest)
            for number, job_id, task, state, reason, *rest in found
        ]

    def flow_edges(self, flow_id: str, *, cursor: str | None = None, limit: int = 1000) -> EdgePage:
        number, position = (0, -1) if cursor is None else cursors.read(cursor, 2)
        found = self._store.rows(
            "flow_edges",
            id=columns.of_id(flow_id),
            number=number,
            position=position,
            limit=limit + 1,
        )
        edges = [
            Edge(source, job, position, EdgeKind(kind))
            for _, position, source, job, kind in found[:limit]
        ]
        if len(found) <= limit:
            return EdgePage(edges, None)
        number, position, *_ = found[limit - 1]
        return EdgePage(edges, cursors.write(number, position))

    def cancel_flow(self, flow_id: str, reason: Reason = Reason.OPERATOR) -> CancelVerdict:
        ((verdict,),) = self._store.rows(
            "cancel_flow",
            now=self._store.now,
            id=columns.of_id(flow_id),
            reason=reason.value,
        )
        return CancelVerdict(verdict)

    def delete_flow(self, flow_id: str) -> DeleteVerdict:
        ((verdict,),) = self._store.rows(
            "delete_flow", now=self._store.now, id=columns.of_id(flow_id)
        )
        return DeleteVerdict(verdict)


def of_part(part: Part) -> dict[str, Any]:
    """The arguments of the statement ``enqueue_flow``, but for ``now``. Raises InvalidJob."""
    flow = part.flow
    messages = [node.message for node in part.nodes]
    for message in messages:
        if message.idempotency_key is not None:
            raise InvalidJob(
                f"job {message.id} of a flow has an idempotency key; give it to the flow"
            )
    keeps = chain(flow.retention, *(message.retention for message in messages))
    return {
        "id": flow.id,
        "name": flow.name,
        "size": flow.size,
        "edges": flow.edges,
        "result": flow.result,
        "key": flow.idempotency_key,
        "digest": flow.digest,
        "expires_in": flow.expires_in,
        "keeps": [float(seconds) for seconds in keeps],
        "seal": part.seal,
        "first": part.first,
        "ids": [message.id for message in messages],
        "queues": [message.queue for message in messages],
        "tasks": [message.task for message in messages],
        "priorities": [message.priority for message in messages],
        "etas": _floats([message.eta for message in messages]),
        "delays": [float(message.delay) for message in messages],
        "expire_ins": _floats([message.expires_in for message in messages]),
        "expire_ats": _floats([message.expires_at for message in messages]),
        "digests": [message.digest for message in messages],
        "bodies": [message.body for message in messages],
        "waits": [node.waits_for for node in part.nodes],
        "errbacks": [node.errback for node in part.nodes],
        "tolerated": [node.tolerated for node in part.nodes],
        "labels": [node.label for node in part.nodes],
        "sources": [edge.source for edge in part.edges],
        "targets": [edge.target for edge in part.edges],
        "positions": [edge.position for edge in part.edges],
        "kinds": [edge.kind.value for edge in part.edges],
    }


def _floats(values: list[float | None]) -> list[float | None]:
    return [None if value is None else float(value) for value in values]
