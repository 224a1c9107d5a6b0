"""Flows for rules about them: written in a few characters, stored, and brought to an end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import pytest

from taskharbor.clock import ManualClock
from taskharbor.conformance.harness import Harness
from taskharbor.conformance.support import Suite, apply, job, take
from taskharbor.drivers.flows import FlowDriver, FlowInfo
from taskharbor.flow.plan import Edge, EdgeKind, Flow, Node, Part
from taskharbor.lease import Reservation
from taskharbor.settlement import Settlement

FLOW = "flow-1"
EDGE_KINDS = {"->": EdgeKind.SUCCESS, "~>": EdgeKind.END, "!>": EdgeKind.DEATH}


def flow_of(*arrows: str, flow_id: str = FLOW, tolerated: Sequence[str] = (), **head: Any) -> Part:
    """A whole flow from ``"a -> b"``, ``"a ~> b"`` (b takes failures too) and ``"a !> b"`` (b is an
    error callback); a lone ``"a"`` is a job without edges. Jobs in the order they are named, the
    fields of their messages in ``fields``."""
    fields: dict[str, dict[str, Any]] = head.pop("fields", {})
    names: dict[str, None] = {}
    edges: list[Edge] = []
    waits: dict[str, int] = {}
    errbacks: set[str] = set()
    for arrow in arrows:
        source, *rest = arrow.split()
        names[source] = None
        if rest:
            kind, target = EDGE_KINDS[rest[0]], rest[1]
            names[target] = None
            edges.append(Edge(source, target, waits.get(target, 0), kind))
            waits[target] = waits.get(target, 0) + 1
            if kind is EdgeKind.DEATH:
                errbacks.add(target)
    nodes = tuple(
        Node(
            job(name, **fields.get(name, {})),
            waits.get(name, 0),
            name in errbacks,
            name in errbacks or name in tolerated,
        )
        for name in names
    )
    flow = Flow(flow_id, len(nodes), len(edges), **head)
    return Part(flow, nodes, 0, tuple(edges), True)


def parts_of(whole: Part, size: int) -> Iterator[Part]:
    """The same flow in parts of at most ``size`` nodes or edges."""
    for first in range(0, len(whole.nodes), size):
        yield Part(whole.flow, whole.nodes[first : first + size], first)
    for first in range(0, len(whole.edges), size):
        yield Part(whole.flow, edges=whole.edges[first : first + size])
    yield Part(whole.flow, seal=True)


def store(driver: FlowDriver, *arrows: str, **head: Any) -> None:
    part = flow_of(*arrows, **head)
    assert driver.enqueue_flow(part).created


def quiesce(driver: FlowDriver) -> None:
    """Let everything move that was left for later calls."""
    while driver.promote(1000).more:
        pass


def succeed(driver: FlowDriver, *job_ids: str) -> None:
    """Reserve these jobs (others are handed back) and let them succeed, in one batch."""
    finish(driver, *((job_id, "succeed") for job_id in job_ids))


def die(driver: FlowDriver, *job_ids: str) -> None:
    finish(driver, *((job_id, "die") for job_id in job_ids))


def finish(driver: FlowDriver, *ends: tuple[str, str]) -> None:
    leases = {lease.id: lease for lease in take(driver, 1000)}
    wanted = dict(ends)
    assert wanted.keys() <= leases.keys(), f"ready are {sorted(leases)}"
    apply(driver, *(_end(leases.pop(job_id), how) for job_id, how in ends))
    apply(driver, *(Settlement.release(lease.id, lease.fence) for lease in leases.values()))
    quiesce(driver)


def _end(lease: Reservation, how: str) -> Settlement:
    match how:
        case "die":
            return Settlement.die(lease.id, lease.fence, error=b"died " + lease.id.encode())
        case "cancel":
            return Settlement.cancel(lease.id, lease.fence)
        case _:
            return Settlement.succeed(lease.id, lease.fence, b"result of " + lease.id.encode())


def states(driver: FlowDriver, flow_id: str = FLOW) -> dict[str, str]:
    return {node.id: node.state.value for node in driver.flow_nodes(flow_id)}


def info(driver: FlowDriver, flow_id: str = FLOW) -> FlowInfo:
    found = driver.flow(flow_id)
    assert found is not None, f"flow {flow_id} is gone"
    return found


class FlowSuite(Suite):
    """Rules for stores of flows."""

    @pytest.fixture
    def driver(self, harness: Harness, clock: ManualClock) -> Iterator[FlowDriver]:
        yield cast("FlowDriver", harness.connect(clock))
        harness.close()
