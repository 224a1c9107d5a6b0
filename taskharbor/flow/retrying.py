"""Putting back in line what failed in a flow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskharbor import defaults
from taskharbor.drivers.base import RequeueVerdict
from taskharbor.flow.reading import edges_of, nodes_of
from taskharbor.states import Reason, State

if TYPE_CHECKING:
    from taskharbor.drivers.flows import FlowDriver, FlowNode

_FAILED = frozenset({State.DEAD, State.CANCELLED})


def retry_failed(driver: FlowDriver, flow_id: str) -> int:
    """See ``FlowResult.retry_failed``."""
    # A job looks at the flow that it gave its work to: that one has to be under way before.
    return sum(_retry(driver, one) for one in reversed(_with_awaited(driver, flow_id)))


def _with_awaited(driver: FlowDriver, flow_id: str) -> list[str]:
    """The flow, and those that failed jobs of it gave their work to, and so on; each after the one
    that waits for it. No recursion: a task may hand its work over any number of times."""
    found = {flow_id: None}
    todo = [flow_id]
    while todo:
        for node in nodes_of(driver, todo.pop()):
            job = driver.get(node.id) if _failed_itself(node) else None
            if job is not None and job.awaits is not None and job.awaits not in found:
                found[job.awaits] = None
                todo.append(job.awaits)
    return list(found)


def _retry(driver: FlowDriver, flow_id: str) -> int:
    """One flow by itself; how many jobs."""
    failed = [node.id for node in nodes_of(driver, flow_id) if _failed_itself(node)]
    requeued = _requeue(driver, failed)
    return requeued + _requeue(driver, _left_behind(driver, flow_id, alone=not requeued))


def _left_behind(driver: FlowDriver, flow_id: str, *, alone: bool) -> list[str]:
    """Jobs that were skipped when the flow was cancelled, and that no requeue of another brings
    back: what they wait for has succeeded meanwhile. ``alone``: no other was requeued; then the
    flow is still cancelled, and they may also wait for jobs that go on."""
    nodes = list(nodes_of(driver, flow_id))
    states = {node.id: node.state for node in nodes}
    skipped = {node.id: None for node in nodes if _skipped(node)}
    for edge in edges_of(driver, flow_id) if skipped else ():
        source = states.get(edge.source, State.CANCELLED)
        if source in _FAILED or not (source.terminal or alone):
            skipped.pop(edge.target, None)
    return list(skipped)


def _requeue(driver: FlowDriver, job_ids: list[str]) -> int:
    requeued = 0
    for first in range(0, len(job_ids), defaults.BATCH):
        verdicts = driver.requeue(job_ids[first : first + defaults.BATCH], states=_FAILED)
        requeued += verdicts.count(RequeueVerdict.REQUEUED)
    return requeued


def _failed_itself(node: FlowNode) -> bool:
    """Without success, and not because of what came before it."""
    if node.errback and node.state is not State.DEAD:
        return False
    return node.state is State.DEAD or (
        node.state is State.CANCELLED and node.reason is not Reason.UPSTREAM
    )


def _skipped(node: FlowNode) -> bool:
    skipped = node.state is State.CANCELLED and node.reason is Reason.UPSTREAM
    return skipped and not node.errback
