"""The part of the contract that is about flows: a flow lies in one shard, with all its jobs."""

from __future__ import annotations

import heapq
from itertools import chain, islice
from typing import Any

from taskharbor.drivers.base import CancelVerdict, DeleteVerdict
from taskharbor.drivers.flows import EdgePage, FlowEnqueued, FlowInfo, FlowNode, FlowPage, Input
from taskharbor.drivers.redis import flow_wire, shards
from taskharbor.drivers.redis.operators import read_cursor
from taskharbor.drivers.redis.store import Store
from taskharbor.errors import ConfigurationError, InvalidCursor, InvalidJob
from taskharbor.flow.plan import Part
from taskharbor.states import Reason

_START, _END = "*", "-"


class FlowKeeping:
    """Mixed into the driver, which has ``_store``."""

    _store: Store

    def new_id_beside(self, other: str) -> str:
        if self._store.address.shards == 1:
            return shards.new_id()
        return f"{shards.new_id()}:{self._store.shard_of(other)}"

    def enqueue_flow(self, part: Part, *, connection: Any = None) -> FlowEnqueued:
        if connection is not None:
            raise ConfigurationError(
                "the Redis driver can't join a transaction; enqueue without connection="
            )
        shard = self._store.shard_of(part.flow.id)
        if part.flow.size < 1 or len({node.message.id for node in part.nodes}) < len(part.nodes):
            raise InvalidJob(f"flow {part.flow.id} needs jobs, and each of them once")
        for message in (node.message for node in part.nodes):
            if message.idempotency_key is not None:
                raise InvalidJob(
                    f"job {message.id} of a flow has an idempotency key; give it to the flow"
                )
            if self._store.shard_of(message.id) != shard:
                raise InvalidJob(
                    f"job {message.id} lies in another shard than flow {part.flow.id}; take its "
                    "id from new_id_beside(flow)"
                )
        reply = self._store.run_packed(shard, "enqueue_flow", flow_wire.pack_part(part))
        return flow_wire.enqueued(reply, part.flow)

    def inputs(self, job_id: str, *, after: int = -1, limit: int = 1000) -> list[Input]:
        rows = self._store.run(self._store.shard_of(job_id), "inputs", (job_id, after, limit))
        return [flow_wire.found_input(row) for row in rows]

    def input_results(self, job_id: str, *, after: int = -1, limit: int = 1000) -> list[bytes]:
        shard = self._store.shard_of(job_id)
        pages = self._store.run(shard, "input_results", (job_id, after, limit))
        results = list(chain.from_iterable(pages))
        return results[: results.index(False)] if False in results else results

    def flow(self, flow_id: str) -> FlowInfo | None:
        shard = self._store.shard_of(flow_id)
        rows, _ = self._store.run(shard, "flow", (flow_id, False, 1))
        return flow_wire.info(rows[0]) if rows else None

    def list_flows(self, *, cursor: str | None = None, limit: int = 100) -> FlowPage:
        positions = read_cursor(cursor, self._store.address.shards)
        found: list[list[tuple[int, str, FlowInfo]]] = []
        ends = list(positions)
        for shard, position in enumerate(positions):
            rows: list[Any] = []
            if position != _END:
                below = False if position == _START else int(position)
                rows, rest = self._store.run(shard, "flow", (False, below, limit))
                ends[shard] = str(int(rest)) if rest else _END
            found.append([(shard, str(int(row[1])), flow_wire.info(row)) for row in rows])
        # Orders are a shard's own; between shards the time of the enqueue decides.
        newest_first = heapq.merge(*found, key=lambda entry: entry[2].created_at, reverse=True)
        taken = list(islice(newest_first, limit))
        for shard, order, _ in taken:
            positions[shard] = order
        for shard, some in enumerate(found):
            if not some or some[-1][1] == positions[shard]:
                positions[shard] = ends[shard]
        whole = set(positions) == {_END}
        return FlowPage([info for *_, info in taken], None if whole else ",".join(positions))

    def flow_nodes(self, flow_id: str, *, after: int = -1, limit: int = 1000) -> list[FlowNode]:
        shard = self._store.shard_of(flow_id)
        rows = self._store.run(shard, "flow_nodes", (flow_id, after, limit))
        return [flow_wire.node(row) for row in rows]

    def flow_edges(self, flow_id: str, *, cursor: str | None = None, limit: int = 1000) -> EdgePage:
        number, page, passed = _read_place(cursor)
        shard = self._store.shard_of(flow_id)
        # A page of edges is read whole.
        rows, place = self._store.run(shard, "flow_edges", (flow_id, number, page, limit + 64))
        edges = [flow_wire.edge(row) for row in rows]
        left = edges[passed : passed + limit]
        if passed + limit < len(edges):
            return EdgePage(left, f"{number},{page},{passed + limit}")
        return EdgePage(left, f"{int(place[0])},{int(place[1])},0" if place else None)

    def cancel_flow(self, flow_id: str, reason: Reason = Reason.OPERATOR) -> CancelVerdict:
        shard = self._store.shard_of(flow_id)
        return CancelVerdict(self._store.run(shard, "cancel_flow", (flow_id, reason)).decode())

    def delete_flow(self, flow_id: str) -> DeleteVerdict:
        shard = self._store.shard_of(flow_id)
        return DeleteVerdict(self._store.run(shard, "delete_flow", (flow_id,)).decode())


def _read_place(cursor: str | None) -> tuple[int, int, int]:
    """Number, page, and how many edges from there on have been seen. Raises InvalidCursor."""
    if cursor is None:
        return 0, 0, 0
    words = cursor.split(",")
    if len(words) != 3 or not all(w.isascii() and w.isdecimal() and len(w) < 16 for w in words):
        raise InvalidCursor(
            f"the cursor {cursor!r} was not given out by this store; begin again without one"
        )
    number, page, passed = map(int, words)
    return number, page, passed
