"""Looking at flows. Nothing here changes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice

from taskharbor.drivers.flows import EdgePage, FlowInfo, FlowNode, FlowPage, Input
from taskharbor.drivers.memory.member import FlowRecord
from taskharbor.drivers.memory.shelves import Shelves
from taskharbor.flow.plan import Edge
from taskharbor.states import State


class FlowLook:
    """Called under the store's lock. ``flows`` by their ids."""

    def __init__(self, jobs: Shelves, flows: Mapping[str, FlowRecord]) -> None:
        self._jobs = jobs
        self._flows = flows

    def info(self, flow_id: str) -> FlowInfo | None:
        flow = self._flows.get(flow_id)
        return flow.info() if flow else None

    def inputs(self, job_id: str, after: int, limit: int) -> list[Input]:
        member = self._jobs.member(job_id)
        if member is None:
            return []
        positions = sorted(position for position in member.incoming if position > after)
        sources = [(position, member.incoming[position]) for position in positions[:limit]]
        return [
            Input(position, source, record.outcome())
            for position, source in sources
            if (record := self._jobs.get(source))  # else it is being pruned
        ]

    def input_results(self, job_id: str, after: int, limit: int) -> list[bytes]:
        member = self._jobs.member(job_id)
        incoming = {} if member is None else member.incoming
        results: list[bytes] = []
        for position in range(after + 1, after + 1 + limit):
            record = self._jobs.get(incoming.get(position, ""))
            outcome = record and record.outcome()
            if not outcome or outcome.state is not State.SUCCEEDED or outcome.result is None:
                break
            results.append(outcome.result)
        return results

    def page(self, below: int | None, limit: int) -> FlowPage:
        newest_first = sorted(self._flows.values(), key=lambda flow: flow.order, reverse=True)
        older = [flow for flow in newest_first if below is None or flow.order < below]
        infos: list[FlowInfo] = [flow.info() for flow in older[:limit]]
        return FlowPage(infos, str(older[limit - 1].order) if len(older) > limit else None)

    def nodes(self, flow_id: str, after: int, limit: int) -> list[FlowNode]:
        flow = self._flows.get(flow_id)
        indexes = [] if flow is None else sorted(i for i in flow.nodes if i > after)[:limit]
        return [self._node(flow.nodes[index]) for index in indexes] if flow else []

    def _node(self, job_id: str) -> FlowNode:
        record = self._jobs[job_id]
        member = record.member
        assert member is not None
        return FlowNode(
            member.index,
            job_id,
            record.message.task,
            record.state,
            record.reason,
            member.label,
            member.errback,
            member.tolerated,
        )

    def edges(self, flow_id: str, after: int, limit: int) -> EdgePage:
        flow = self._flows.get(flow_id)
        found = [] if flow is None else list(islice(self._edges(flow), after, after + limit + 1))
        return EdgePage(found[:limit], str(after + limit) if len(found) > limit else None)

    def _edges(self, flow: FlowRecord) -> Iterator[Edge]:
        for _, source in sorted(flow.nodes.items()):
            member = self._jobs.member(source)
            for arrow in member.outgoing if member else ():
                yield Edge(source, arrow.target, arrow.position, arrow.kind)
