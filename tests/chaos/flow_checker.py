"""Did every flow end as it can, and every job of it run when it might, and once?

Like ``checker``: evidence in, violations out, nothing about how long anything took. Each job's own
leases and the queues' counters are judged by the rules there.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from taskharbor import codec
from taskharbor.drivers.flows import FlowInfo
from taskharbor.flow.plan import Edge, FlowState
from taskharbor.states import Reason, State
from tests.chaos import checker
from tests.chaos.checker import Evidence
from tests.chaos.ledger import What

ENDS: dict[str, State] = {
    "doomed": State.DEAD,
    "never": State.CANCELLED,
    "tell_nothing": State.CANCELLED,
}
"""How the jobs of a task end, by the last part of its name; any other job succeeds."""

_OF_EACH_JOB = (
    checker.one_run_under_one_lease,
    checker.fences_grow,
    checker.no_two_leases_overlap,
    checker.counters_equal_the_truth,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A flow that clients were told is stored, each under some id. ``state``: how it ends,
    ``value``: what it comes to if it succeeds."""

    key: str
    acknowledged: Sequence[str]
    state: FlowState
    value: int | None


@dataclass(frozen=True, kw_only=True)
class FlowEvidence:
    """``flows`` and ``edges``: all that the store has, by flow. ``evidence``: the rest of it."""

    asked: Sequence[Asked]
    flows: Mapping[str, FlowInfo]
    edges: Mapping[str, Sequence[Edge]]
    evidence: Evidence

    @property
    def sealed(self) -> list[FlowInfo]:
        return [flow for flow in self.flows.values() if flow.state is not FlowState.BUILDING]

    @property
    def left_over(self) -> set[str]:
        """The flows that were never sealed: their builder died."""
        return {flow.id for flow in self.flows.values() if flow.state is FlowState.BUILDING}

    @property
    def expired(self) -> set[str]:
        """The flows that were not over in time."""
        return {flow.id for flow in self.flows.values() if flow.state is FlowState.CANCELLED}


def violations(found: FlowEvidence) -> list[str]:
    """What was broken, in words; empty: nothing was."""
    broken = [breach for rule in RULES for breach in rule(found)]
    return [*broken, *(breach for rule in _OF_EACH_JOB for breach in rule(found.evidence))]


def each_flow_was_stored_once(found: FlowEvidence) -> Iterator[str]:
    for asked in found.asked:
        ids = [flow.id for flow in found.sealed if flow.idempotency_key == asked.key]
        if set(asked.acknowledged) != set(ids) or len(ids) != 1:
            yield f"{asked.key} was acknowledged as {asked.acknowledged}; the store has {ids}"


def each_flow_comes_to_its_value(found: FlowEvidence) -> Iterator[str]:
    """The value says that every input of every job was there, once and in its place."""
    for asked in found.asked:
        flow = found.flows.get(next(iter(asked.acknowledged), ""))
        if flow is None:
            continue
        if flow.state is not asked.state:
            yield f"{asked.key} is {flow.state}, and should be {asked.state}"
        last = found.evidence.by_id.get(flow.result)
        value = None if last is None or last.result is None else codec.decode(last.result)
        if value != asked.value:
            yield f"{asked.key} came to {value} instead of {asked.value}"


def every_flow_is_whole_and_over(found: FlowEvidence) -> Iterator[str]:
    states: dict[str | None, Counter[State]] = defaultdict(Counter)
    for job in found.evidence.jobs:
        states[job.flow][job.state] += 1
    for flow in found.sealed:
        if flow.finished_at is None:
            yield f"flow {flow.id} never ended"
        counted = {state: count for state, count in flow.finished.items() if count}
        if counted != states[flow.id]:
            yield f"flow {flow.id} counts {counted}, and has {dict(states[flow.id])}"
        if states[flow.id].total() != flow.size:
            yield f"flow {flow.id} has {states[flow.id].total()} jobs of {flow.size}"


def every_job_ends_as_it_must(found: FlowEvidence) -> Iterator[str]:
    for job in found.evidence.jobs:
        expected = ENDS.get(job.task.rpartition(".")[2], State.SUCCEEDED)
        if job.flow in found.left_over:
            expected = State.BLOCKED
        if job.flow in found.expired and job.state is State.CANCELLED:
            continue  # it was too late
        if job.state is not expected:
            yield f"{job.task} {job.id} is {job.state} ({job.reason}), and should be {expected}"


def what_must_not_run_does_not(found: FlowEvidence) -> Iterator[str]:
    """Jobs of a flow that was never sealed, and those that were skipped."""
    for job in found.evidence.jobs:
        skipped = job.state is State.CANCELLED
        if job.flow in found.expired and not job.task.endswith(".never"):
            continue  # it may have been cancelled while it ran, or waited to be tried again
        if (skipped or job.flow in found.left_over) and (
            job.history or found.evidence.of(job.id, What.BEGIN)
        ):
            yield f"{job.task} {job.id} ran: it is {job.state} in flow {job.flow}"


def every_job_succeeds_once(found: FlowEvidence) -> Iterator[str]:
    """In its last lease: a second release would be a second success, or a run after the first.

    An earlier run need not be in the history: who is killed with its task just begun may be
    taken for one that had not begun, and hands the job back.
    """
    for job in found.evidence.jobs:
        successes = [attempt.reason for attempt in job.history].count(Reason.SUCCEEDED)
        if successes != (job.state is State.SUCCEEDED):
            yield f"{job.task} {job.id} is {job.state} and succeeded {successes} times"
        if successes and job.history[-1].reason is not Reason.SUCCEEDED:
            yield f"{job.task} {job.id} had another attempt after it succeeded"
        begun = {entry.fence for entry in found.evidence.of(job.id, What.BEGIN)}
        if successes and max(begun, default=0) > job.history[-1].fence:
            yield f"{job.task} {job.id} ran under {max(begun)} after it had succeeded"


def nothing_starts_before_what_it_waits_for(found: FlowEvidence) -> Iterator[str]:
    """By the store's own clock."""
    by_id = found.evidence.by_id
    for edge in (edge for edges in found.edges.values() for edge in edges):
        source, target = by_id[edge.source], by_id[edge.target]
        for attempt in target.history[:1]:
            if source.finished_at is None or attempt.started_at < source.finished_at:
                yield (
                    f"{target.task} {target.id} started at {attempt.started_at:.6f}; "
                    f"{source.task} {source.id}, for which it waits, ended at {source.finished_at}"
                )


def no_flow_is_cancelled_in_time(found: FlowEvidence) -> Iterator[str]:
    """By the store's own clock."""
    for flow in found.flows.values():
        if flow.id in found.expired and (
            flow.expires_at is None
            or (flow.finished_at is not None and flow.finished_at < flow.expires_at)
        ):
            yield f"flow {flow.id} was cancelled before {flow.expires_at}"


def work_is_handed_over_once(found: FlowEvidence) -> Iterator[str]:
    """Of the flows that the attempts of one job stored, one is sealed: the one that it awaited."""
    awaited = {job.awaits: job.id for job in found.evidence.jobs if job.awaits is not None}
    stored = {flow.id: flow.parent for flow in found.sealed if flow.idempotency_key is None}
    for flow_id in awaited.keys() ^ stored.keys():
        yield f"flow {flow_id} was sealed for {stored.get(flow_id)}: {awaited.get(flow_id)} awaits"


RULES = (
    each_flow_was_stored_once,
    each_flow_comes_to_its_value,
    every_flow_is_whole_and_over,
    every_job_ends_as_it_must,
    what_must_not_run_does_not,
    every_job_succeeds_once,
    nothing_starts_before_what_it_waits_for,
    no_flow_is_cancelled_in_time,
    work_is_handed_over_once,
)
