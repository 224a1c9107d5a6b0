"""A flow as it is stored: jobs, and the edges that make them wait for each other.

The builder writes a plan; drivers store it and move its edges; ``flow.progress`` says how. Nothing
here knows a store, or what a chain is.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from taskharbor.message import DEFAULT_RETENTION, Message, Retention


class EdgeKind(StrEnum):
    """What an edge's target asks of its source."""

    SUCCESS = "success"
    """It must succeed."""
    END = "end"
    """It must have ended; a failure is a value like any other (``allow_failure``)."""
    DEATH = "death"
    """It must die: the target is an error callback."""


class Edge(NamedTuple):
    """``target`` waits for ``source`` (job ids of one flow).

    ``position``: the place of the source among what the target is given, from 0, unique per target.
    An edge is known by its target and position.
    """

    source: str
    target: str
    position: int
    kind: EdgeKind = EdgeKind.SUCCESS


class Node(NamedTuple):
    """One job of a flow.

    ``waits_for``: how many edges lead to it. ``errback``: these are of the kind ``DEATH``, and one
    of them is enough; the edges to any other node are of the other kinds, and it takes all.
    ``tolerated``: the flow succeeds even if this job doesn't. ``label``: a name to show.
    """

    message: Message
    waits_for: int = 0
    errback: bool = False
    tolerated: bool = False
    label: str = ""


class FlowState(StrEnum):
    """Where a flow stands; see ``flow.progress.flow_state``."""

    BUILDING = "building"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Flow(NamedTuple):
    """The head of a flow. ``size`` nodes and ``edges`` edges make it whole.

    ``result``: the job whose result is the flow's, "" for none. ``retention``: seconds that the
    whole flow is kept after it ended as succeeded, cancelled, or failed (``dead``).
    ``expires_in`` seconds after it is sealed, a flow that is not over is cancelled.
    ``digest`` tells, like a message's, a replay from another request under the same key.
    """

    id: str
    size: int
    edges: int
    name: str = ""
    result: str = ""
    idempotency_key: str | None = None
    digest: bytes = b""
    expires_in: float | None = None
    retention: Retention = DEFAULT_RETENTION

    def kept_seconds(self, state: FlowState) -> float:
        """How long the whole flow is kept after it ended in ``state``."""
        match state:
            case FlowState.SUCCEEDED:
                return self.retention.succeeded
            case FlowState.CANCELLED:
                return self.retention.cancelled
            case _:
                return self.retention.dead


class Part(NamedTuple):
    """What is sent of a flow at once: at most ``defaults.BATCH`` nodes and as many edges.

    ``first``: the index of ``nodes[0]`` in the flow. A node comes before the edges that touch it,
    in an earlier part or the same; the order of nodes is a topological one. ``seal``: this is the
    last part, everything is there, the flow may run. Any part may be sent again.
    """

    flow: Flow
    nodes: tuple[Node, ...] = ()
    first: int = 0
    edges: tuple[Edge, ...] = ()
    seal: bool = False
