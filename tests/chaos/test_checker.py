"""Each rule of the checker on hand-made evidence: silent where all is well, and not where it is
not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from taskharbor import codec
from taskharbor.drivers.base import Attempt, Job, QueueInfo
from taskharbor.states import Reason, State
from tests.chaos import checker
from tests.chaos.checker import Chord, Evidence, Expect, Promise
from tests.chaos.ledger import Entry, What

LOST, WON = 7, 9
"""The fences of a job's first attempt, whose worker was killed, and of its second."""


def _promise(job_id: str, expect: Expect = Expect.SUCCEEDS, key: str | None = None) -> Promise:
    return Promise(id=job_id, expect=expect, max_attempts=3, key=key)


def _entry(what: What, fence: int, at: float, *, sent_at: float | None = None) -> Entry:
    attempt = 1 if fence == LOST else 2
    return Entry(
        what=what, job="a", fence=fence, attempt=attempt, process="1", at=at, sent_at=sent_at
    )


def _attempt(fence: int, number: int, started: float, ended: float, reason: Reason) -> Attempt:
    return Attempt(fence, number, "holder", started, ended, reason)


def _job(job_id: str = "a", state: State = State.SUCCEEDED, queue: str = "mail") -> Job:
    return Job(
        id=job_id,
        task="work",
        queue=queue,
        state=state,
        reason=Reason.SUCCEEDED,
        priority=0,
        body=b"",
        enqueued_at=0.0,
        due_at=0.0,
        attempts=2,
        result=codec.encode(WON, limit=None, what="result"),
        history=(
            _attempt(LOST, 1, 10.0, 12.0, Reason.WORKER_LOST),
            _attempt(WON, 2, 12.5, 14.0, Reason.SUCCEEDED),
        ),
    )


def _queue(**counts: int) -> QueueInfo:
    every = {state: counts.get(state.value, 0) for state in State}
    return QueueInfo(name="mail", paused=False, counts=every)


GOOD = Evidence(
    promises=[_promise("a")],
    acknowledged={"a": "a"},
    ledger=[
        _entry(What.BEGIN, LOST, 10.1),
        _entry(What.HELD, LOST, 11.0, sent_at=10.9),
        _entry(What.BEGIN, WON, 12.6),
        _entry(What.HELD, WON, 13.0, sent_at=12.9),
        _entry(What.END, WON, 13.9),
    ],
    jobs=[_job()],
    queues=[_queue(succeeded=1)],
    seen_ended={"a": State.SUCCEEDED},
    nothing_may_expire=True,
)


def test_a_job_that_lost_a_worker_and_succeeded_breaks_nothing() -> None:
    assert checker.violations(GOOD) == []


def with_job(job: Job, **counts: int) -> Evidence:
    return replace(GOOD, jobs=[job], queues=[_queue(**(counts or {"succeeded": 1}))])


def with_history(*history: Attempt) -> Evidence:
    return with_job(replace(_job(), history=history))


def with_line(entry: Entry) -> Evidence:
    return replace(GOOD, ledger=[*GOOD.ledger, entry])


CASES: dict[str, tuple[Evidence, str]] = {
    "an acknowledged job is gone": (
        replace(GOOD, jobs=[], queues=[], seen_ended={}),
        "a was acknowledged as a and is not in the store",
    ),
    "a job waits for ever": (
        replace(with_job(replace(_job(), state=State.READY), ready=1), seen_ended={}),
        "a never ended: it is ready",
    ),
    "a job died that could have succeeded": (
        replace(with_job(replace(_job(), state=State.DEAD), dead=1), seen_ended={}),
        "a is dead (succeeded), and succeeds was expected",
    ),
    "a job succeeded that can't": (
        replace(GOOD, promises=[_promise("a", Expect.DIES)]),
        "a is succeeded (succeeded), and dies was expected",
    ),
    "a job that nobody asked for": (
        replace(GOOD, promises=[]),
        "a is in the store, and nobody asked for it",
    ),
    "a terminal state was left": (
        replace(GOOD, seen_ended={"a": State.DEAD}),
        "a was seen dead, and is succeeded now",
    ),
    "two jobs under one key": (
        replace(
            GOOD,
            promises=[_promise("a", key="k"), _promise("b", key="k")],
            jobs=[_job("a"), _job("b")],
            queues=[_queue(succeeded=2)],
        ),
        "the key k has 2 jobs: a, b",
    ),
    "two answers for one key": (
        replace(
            GOOD,
            promises=[_promise("a", key="k"), _promise("b", key="k")],
            acknowledged={"a": "a", "b": "b"},
        ),
        "for the key k the store named several jobs: a, b",
    ),
    "too many attempts in the store": (
        with_job(replace(_job(), attempts=4)),
        "a came to attempt 4 of at most 3",
    ),
    "too many attempts in the ledger": (
        with_line(replace(_entry(What.BEGIN, WON, 12.7), attempt=5)),
        "a came to attempt 5 of at most 3",
    ),
    "one lease ran twice": (
        with_line(_entry(What.BEGIN, WON, 12.7)),
        f"a ran 2 times under fence {WON}",
    ),
    "one fence for two jobs": (
        with_line(replace(_entry(What.BEGIN, WON, 12.7), job="b")),
        f"fence {WON} was given to a and to b",
    ),
    "a fence that went back": (
        with_history(
            _attempt(WON, 1, 10.0, 12.0, Reason.WORKER_LOST),
            _attempt(LOST, 2, 12.5, 14.0, Reason.SUCCEEDED),
        ),
        f"a had fence {LOST} after {WON}",
    ),
    "an attempt that went back": (
        with_history(
            _attempt(LOST, 2, 10.0, 12.0, Reason.WORKER_LOST),
            _attempt(WON, 1, 12.5, 14.0, Reason.SUCCEEDED),
        ),
        "a had attempt 1 after 2",
    ),
    "two leases at a time": (
        with_history(
            _attempt(LOST, 1, 10.0, 12.0, Reason.WORKER_LOST),
            _attempt(WON, 2, 11.5, 14.0, Reason.SUCCEEDED),
        ),
        f"a was leased under fence {WON} at 11.500000, before fence {LOST} ended at 12.000000",
    ),
    "an old lease that the store still confirms": (
        with_line(_entry(What.HELD, LOST, 13.1, sent_at=13.0)),
        f"a: the store confirmed fence {LOST} when fence {WON} had begun already",
    ),
    "a success of nobody": (
        replace(GOOD, ledger=GOOD.ledger[:-1]),
        f"a succeeded with the result of fence {WON}, which never ended",
    ),
    "a zombie's result": (
        with_line(replace(_entry(What.BEGIN, 11, 13.5), attempt=3)),
        f"a has the result of fence {WON}, though fence 11 had begun",
    ),
    "a success that history knows nothing of": (
        with_history(_attempt(LOST, 1, 10.0, 12.0, Reason.WORKER_LOST)),
        f"a has the result of fence {WON}, and its history says []",
    ),
    "an error from an attempt that never ran": (
        with_history(
            _attempt(8, 1, 10.0, 12.0, Reason.RAISED),
            _attempt(WON, 2, 12.5, 14.0, Reason.SUCCEEDED),
        ),
        "a raised under fence 8, which never began",
    ),
    "a finalizer that came too early": (
        replace(
            GOOD,
            promises=[_promise("a"), _promise("b")],
            chords=[Chord(finalizer="a", members=("b",))],
        ),
        "a began, and its member b had not succeeded",
    ),
    "a finalizer that ran though a member died": (
        replace(GOOD, promises=[_promise("a", Expect.IS_SKIPPED)]),
        "a is succeeded (succeeded), and is skipped was expected",
    ),
    "a counter that is wrong": (
        replace(GOOD, queues=[_queue(succeeded=1, ready=2)]),
        "the counter of ready jobs in mail is 2, there are 0",
    ),
    "a counter that is missing": (
        replace(GOOD, queues=[]),
        "the counter of succeeded jobs in mail is 0, there are 1",
    ),
    "a lease that a living process lost": (
        with_history(
            _attempt(LOST, 1, 10.0, 12.0, Reason.LEASE_EXPIRED),
            _attempt(WON, 2, 12.5, 14.0, Reason.SUCCEEDED),
        ),
        f"a: the lease with fence {LOST} ran out",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_checker_finds(case: str) -> None:
    evidence, breach = CASES[case]
    assert any(found.startswith(breach) for found in checker.violations(evidence))


def test_a_late_first_line_is_no_breach() -> None:
    """A process may be stopped between its last look at the clock and its task's first line."""
    late = replace(GOOD, ledger=[*GOOD.ledger[2:], _entry(What.BEGIN, LOST, 15.0)], seen_ended={})
    assert checker.violations(late) == []


def test_a_lease_that_ran_out_in_a_storm_that_stops_processes_is_no_breach() -> None:
    evidence, _ = CASES["a lease that a living process lost"]
    assert checker.violations(replace(evidence, nothing_may_expire=False)) == []


def test_every_rule_has_a_case() -> None:
    """Which rule finds which case; none is left without one."""
    finders = {
        rule for evidence, _ in CASES.values() for rule in checker.RULES if [*rule(evidence)]
    }
    assert finders == set(checker.RULES)
