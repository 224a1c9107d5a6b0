"""Reading a whole flow from its store, page by page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from taskharbor import defaults
from taskharbor.errors import JobNotFound

if TYPE_CHECKING:
    from taskharbor.drivers.flows import FlowDriver, FlowNode
    from taskharbor.flow.plan import Edge


def nodes_of(driver: FlowDriver, flow_id: str) -> Iterator[FlowNode]:
    """All jobs of a flow by number; none if there is no such flow."""
    after = -1
    while page := driver.flow_nodes(flow_id, after=after, limit=defaults.BATCH):
        yield from page
        after = page[-1].number


def edges_of(driver: FlowDriver, flow_id: str) -> Iterator[Edge]:
    """All edges of a flow, in no order that means anything."""
    cursor: str | None = None
    while True:
        page = driver.flow_edges(flow_id, cursor=cursor, limit=defaults.BATCH)
        yield from page.edges
        cursor = page.cursor
        if cursor is None:
            return


def no_flow(flow_id: str) -> JobNotFound:
    return JobNotFound(
        f"there is no flow {flow_id}: it was never stored here, was deleted, or ended longer ago "
        "than its tasks keep records (keep_succeeded, keep_cancelled, keep_dead)",
        job_id=flow_id,
    )
