"""Each rule about flows on hand-made evidence: silent where all is well, and where not, not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from taskharbor import codec
from taskharbor.drivers.base import Attempt, Job, QueueInfo
from taskharbor.drivers.flows import FlowInfo
from taskharbor.flow.plan import Edge, FlowState
from taskharbor.states import Reason, State
from tests.chaos import flow_checker
from tests.chaos.checker import Evidence
from tests.chaos.flow_checker import Asked, FlowEvidence
from tests.chaos.ledger import Entry, What

VALUE = 42


def _job(job_id: str, fence: int, started: float, **other: Any) -> Job:
    fields: dict[str, Any] = {
        "id": job_id,
        "task": "work",
        "queue": "mail",
        "state": State.SUCCEEDED,
        "reason": Reason.SUCCEEDED,
        "priority": 0,
        "body": b"",
        "enqueued_at": 0.0,
        "due_at": 0.0,
        "finished_at": started + 1,
        "result": codec.encode(VALUE, limit=None, what="result"),
        "history": (Attempt(fence, 1, "holder", started, started + 1, Reason.SUCCEEDED),),
        "flow": "flow",
    }
    return Job(**{**fields, **other})


def _flow(flow_id: str, state: FlowState, size: int, **other: Any) -> FlowInfo:
    return FlowInfo(id=flow_id, name="", state=state, size=size, created_at=0.0, **other)


def _begin(job_id: str, fence: int) -> Entry:
    return Entry(what=What.BEGIN, job=job_id, fence=fence, attempt=1, process="1", at=10.0)


FIRST = _job("first", 1, 10.0)
LAST = _job("last", 2, 12.0)
LEFT = _job(
    "left", 3, 0.0, state=State.BLOCKED, finished_at=None, result=None, history=(), flow="torso"
)
FLOW = _flow(
    "flow",
    FlowState.SUCCEEDED,
    2,
    finished={State.SUCCEEDED: 2},
    finished_at=13.0,
    idempotency_key="key",
    result="last",
)
TORSO = _flow("torso", FlowState.BUILDING, 5, finished={}, idempotency_key="key")


def _counts(**counts: int) -> list[QueueInfo]:
    every = {state: counts.get(state.value, 0) for state in State}
    return [QueueInfo(name="mail", paused=False, counts=every)]


GOOD = FlowEvidence(
    asked=[Asked(key="key", acknowledged=["flow", "flow"], state=FlowState.SUCCEEDED, value=VALUE)],
    flows={"flow": FLOW, "torso": TORSO},
    edges={"flow": [Edge("first", "last", 0)]},
    evidence=Evidence(
        promises=(),
        acknowledged={},
        ledger=[_begin("first", 1), _begin("last", 2)],
        jobs=[FIRST, LAST, LEFT],
        queues=_counts(succeeded=2, blocked=1),
    ),
)


def _with_jobs(*jobs: Job) -> FlowEvidence:
    by_id = {job.id: job for job in (FIRST, LAST, LEFT, *jobs)}
    return replace(GOOD, evidence=replace(GOOD.evidence, jobs=list(by_id.values())))


def _with_flows(**changed: FlowInfo) -> FlowEvidence:
    return replace(GOOD, flows={**GOOD.flows, **changed})


def _with_run(job_id: str, fence: int) -> FlowEvidence:
    ledger = [*GOOD.evidence.ledger, _begin(job_id, fence)]
    return replace(GOOD, evidence=replace(GOOD.evidence, ledger=ledger))


def _asked(**changed: Any) -> FlowEvidence:
    return replace(GOOD, asked=[replace(GOOD.asked[0], **changed)])


def test_nothing_is_said_of_flows_that_are_well() -> None:
    assert flow_checker.violations(GOOD) == []


LATE = replace(FLOW, state=FlowState.CANCELLED, expires_at=9.0, finished_at=13.0)


def test_jobs_of_a_flow_that_was_late_may_have_been_cancelled_whenever_that_was() -> None:
    tried = (LAST.history[0]._replace(reason=Reason.WORKER_LOST),)
    last = replace(LAST, state=State.CANCELLED, reason=Reason.EXPIRED, history=tried)
    found = replace(_with_jobs(last), flows={"flow": LATE, "torso": TORSO})
    assert list(flow_checker.every_job_ends_as_it_must(found)) == []
    assert list(flow_checker.what_must_not_run_does_not(found)) == []
    assert list(flow_checker.no_flow_is_cancelled_in_time(found)) == []


TWICE = (*LAST.history, Attempt(4, 2, "holder", 14.0, 15.0, Reason.SUCCEEDED))
LOST_LATER = (*LAST.history, Attempt(4, 2, "holder", 14.0, 15.0, Reason.WORKER_LOST))
EARLY = (Attempt(2, 1, "holder", 10.5, 13.0, Reason.SUCCEEDED),)
BROKEN: list[tuple[Callable[[FlowEvidence], Iterator[str]], FlowEvidence]] = [
    (flow_checker.each_flow_was_stored_once, _asked(acknowledged=[])),
    (flow_checker.each_flow_was_stored_once, _asked(acknowledged=["flow", "twin"])),
    (
        flow_checker.each_flow_was_stored_once,
        _with_flows(torso=replace(TORSO, state=FlowState.RUNNING)),
    ),
    (flow_checker.each_flow_comes_to_its_value, _asked(value=VALUE + 1)),
    (flow_checker.each_flow_comes_to_its_value, _asked(value=None)),
    (flow_checker.each_flow_comes_to_its_value, _asked(state=FlowState.CANCELLED)),
    (
        flow_checker.what_must_not_run_does_not,
        replace(
            _with_jobs(replace(LAST, task="app.never", state=State.CANCELLED)),
            flows={"flow": LATE, "torso": TORSO},
        ),
    ),
    (flow_checker.no_flow_is_cancelled_in_time, _with_flows(flow=replace(LATE, finished_at=1.0))),
    (flow_checker.no_flow_is_cancelled_in_time, _with_flows(flow=replace(LATE, expires_at=None))),
    (flow_checker.every_flow_is_whole_and_over, _with_flows(flow=replace(FLOW, finished_at=None))),
    (flow_checker.every_flow_is_whole_and_over, _with_flows(flow=replace(FLOW, size=3))),
    (
        flow_checker.every_flow_is_whole_and_over,
        _with_flows(flow=replace(FLOW, finished={State.SUCCEEDED: 3})),
    ),
    (flow_checker.every_job_ends_as_it_must, _with_jobs(replace(LAST, state=State.BLOCKED))),
    (flow_checker.every_job_ends_as_it_must, _with_jobs(replace(LAST, task="app.never"))),
    (flow_checker.every_job_ends_as_it_must, _with_jobs(replace(LEFT, state=State.READY))),
    (flow_checker.what_must_not_run_does_not, _with_run("left", 3)),
    (flow_checker.what_must_not_run_does_not, _with_jobs(replace(LEFT, history=LAST.history))),
    (flow_checker.what_must_not_run_does_not, _with_jobs(replace(LAST, state=State.CANCELLED))),
    (flow_checker.every_job_succeeds_once, _with_jobs(replace(LAST, history=TWICE))),
    (flow_checker.every_job_succeeds_once, _with_jobs(replace(LAST, history=LOST_LATER))),
    (flow_checker.every_job_succeeds_once, _with_jobs(replace(LAST, history=()))),
    (flow_checker.every_job_succeeds_once, _with_run("last", 9)),
    (
        flow_checker.nothing_starts_before_what_it_waits_for,
        _with_jobs(replace(LAST, history=EARLY)),
    ),
    (
        flow_checker.nothing_starts_before_what_it_waits_for,
        _with_jobs(replace(FIRST, finished_at=None)),
    ),
    (flow_checker.work_is_handed_over_once, _with_jobs(replace(LAST, awaits="torso"))),
    (
        flow_checker.work_is_handed_over_once,
        _with_flows(twin=replace(FLOW, id="twin", idempotency_key=None, parent="last")),
    ),
]


@pytest.mark.parametrize(("rule", "found"), BROKEN)
def test_each_rule_sees_what_it_is_for(
    rule: Callable[[FlowEvidence], Iterator[str]], found: FlowEvidence
) -> None:
    assert list(rule(found))
    assert rule in flow_checker.RULES


def test_the_queues_counters_are_judged_too() -> None:
    found = replace(GOOD, evidence=replace(GOOD.evidence, queues=_counts(succeeded=3)))
    assert flow_checker.violations(found)
