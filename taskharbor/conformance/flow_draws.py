"""What the state machine of flows draws from: small graphs of all kinds of edges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from hypothesis import strategies as st

from taskharbor.conformance.support import job
from taskharbor.flow.plan import Edge, EdgeKind, Flow, Node, Part
from taskharbor.message import DEFAULT_RETENTION, Retention

# 64ths, so that a job's expiry and a flow's deadline never fall on the same moment: which of them
# comes first would be the store's affair.
NODE_EXPIRES = 6 + 1 / 64
FLOW_EXPIRES = 7.5


class NodeDraft(NamedTuple):
    """``after``: how far before it its predecessors stand, and what kind of edge each has."""

    after: list[tuple[int, EdgeKind]]
    errback: bool
    tolerated: bool
    delay: float
    expires_in: float | None


class FlowDraft(NamedTuple):
    """``chunk``: nodes or edges in a part, 0 for all at once. ``twice``: parts are sent again.
    ``sealed`` False: it is left open, for a job to await or for nobody."""

    nodes: list[NodeDraft]
    chunk: int
    twice: bool
    sealed: bool
    expires_in: float | None
    retention: Retention

    def whole(self, flow_id: str) -> Part:
        """The flow in one part."""
        names = [f"{flow_id}-{number}" for number in range(len(self.nodes))]
        edges: list[Edge] = []
        nodes: list[Node] = []
        for number, draft in enumerate(self.nodes):
            coming = list(_edges(names, number, draft))
            errback = draft.errback and bool(coming)
            edges += coming
            message = job(names[number], delay=draft.delay, expires_in=draft.expires_in)
            tolerated = draft.tolerated or errback
            nodes.append(Node(message, len(coming), errback, tolerated, f"node {number}"))
        head = Flow(flow_id, len(nodes), len(edges), name="drawn", retention=self.retention)
        return Part(head._replace(expires_in=self.expires_in), tuple(nodes), 0, tuple(edges), True)


def _edges(names: Sequence[str], number: int, draft: NodeDraft) -> list[Edge]:
    sources = {number - back: kind for back, kind in draft.after if back <= number}
    return [
        Edge(
            names[source],
            names[number],
            position,
            EdgeKind.DEATH if draft.errback else kind,
        )
        for position, (source, kind) in enumerate(sorted(sources.items()))
    ]


_kinds = st.sampled_from([EdgeKind.SUCCESS, EdgeKind.SUCCESS, EdgeKind.END])
_nodes = st.builds(
    NodeDraft,
    after=st.lists(st.tuples(st.integers(1, 4), _kinds), max_size=3),
    errback=st.sampled_from([False, False, False, True]),
    tolerated=st.sampled_from([False, False, True]),
    delay=st.sampled_from([0.0, 0.0, 0.0, 2.0]),
    expires_in=st.sampled_from([None, None, None, None, NODE_EXPIRES]),
)
flows = st.builds(
    FlowDraft,
    nodes=st.lists(_nodes, min_size=2, max_size=8),
    chunk=st.sampled_from([0, 0, 1, 3]),
    twice=st.booleans(),
    sealed=st.sampled_from([True, True, False]),
    expires_in=st.sampled_from([None, None, None, FLOW_EXPIRES]),
    retention=st.sampled_from([DEFAULT_RETENTION, Retention(0, 0, 0), Retention(20, 40, 60)]),
)
ends: Any = st.lists(
    st.sampled_from(["succeed", "succeed", "succeed", "die", "cancel", "retry", "later", "await"]),
    min_size=1,
    max_size=6,
)
picks = st.integers(0, 40)
