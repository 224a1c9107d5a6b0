"""The verdict table: what a fence still entitles to."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskharbor.errors import InvalidLease
from taskharbor.lease import Guard, Verdict, check_lease_seconds, judge
from taskharbor.states import TERMINAL, WAITING, State

NOW = 1000.0
VALID, EXPIRED = NOW + 1, NOW

fences = st.integers(-2, 5)
times = st.floats(0, 2000)
questions = st.fixed_dictionaries(
    {
        "state": st.sampled_from([None, *State]),
        "fence": fences,
        "current_fence": fences,
        "settled_fence": st.none() | fences,
        "lease_expires_at": st.none() | times,
        "now": times,
        "guard": st.sampled_from(Guard),
        "terminal_outcome": st.booleans(),
    }
)


def _verdict(state: State | None, **facts: Any) -> Verdict:
    """With the current fence of a valid lease, unless ``facts`` say otherwise."""
    usual = {
        "fence": 7,
        "current_fence": 7,
        "settled_fence": 7,
        "lease_expires_at": VALID,
        "now": NOW,
    }
    return judge(state, **(usual | facts))


@pytest.mark.parametrize(
    ("state", "facts", "expected"),
    [
        (State.RUNNING, {}, Verdict.APPLIED),
        (State.RUNNING, {"fence": 6}, Verdict.MISMATCH),
        (State.RUNNING, {"fence": 8}, Verdict.MISMATCH),
        (State.RUNNING, {"lease_expires_at": EXPIRED}, Verdict.EXPIRED),
        (State.RUNNING, {"lease_expires_at": EXPIRED, "fence": 6}, Verdict.MISMATCH),
        (State.SUCCEEDED, {}, Verdict.ALREADY),
        (State.DEAD, {}, Verdict.ALREADY),
        (State.CANCELLED, {}, Verdict.ALREADY),
        (State.SUCCEEDED, {"terminal_outcome": False}, Verdict.NOT_RUNNING),
        (State.SUCCEEDED, {"fence": 6}, Verdict.MISMATCH),
        (State.SUCCEEDED, {"fence": 6, "terminal_outcome": False}, Verdict.MISMATCH),
        (State.CANCELLED, {"settled_fence": None}, Verdict.MISMATCH),
        (State.READY, {}, Verdict.NOT_RUNNING),
        (State.READY, {"fence": 6}, Verdict.NOT_RUNNING),
        (State.SCHEDULED, {}, Verdict.NOT_RUNNING),
        (None, {}, Verdict.NOT_FOUND),
        (None, {"fence": 6}, Verdict.NOT_FOUND),
    ],
    ids=str,
)
def test_the_table_row_by_row(
    state: State | None, facts: dict[str, Any], expected: Verdict
) -> None:
    assert _verdict(state, **facts) is expected


@pytest.mark.parametrize(
    ("guard", "on_valid", "on_expired"),
    [
        (Guard.VALID, Verdict.APPLIED, Verdict.EXPIRED),
        (Guard.EXPIRED, Verdict.STILL_VALID, Verdict.APPLIED),
        (Guard.ANY, Verdict.APPLIED, Verdict.APPLIED),
    ],
)
def test_the_guard_says_which_leases_may_be_ended(
    guard: Guard, on_valid: Verdict, on_expired: Verdict
) -> None:
    assert _verdict(State.RUNNING, guard=guard) is on_valid
    assert _verdict(State.RUNNING, guard=guard, lease_expires_at=EXPIRED) is on_expired
    for lease_expires_at in (VALID, EXPIRED):
        stale = _verdict(State.RUNNING, guard=guard, lease_expires_at=lease_expires_at, fence=6)
        assert stale is Verdict.MISMATCH


@given(question=questions)
def test_only_the_current_fence_changes_anything(question: dict[str, Any]) -> None:
    verdict = judge(**question)
    if verdict is Verdict.APPLIED:
        assert question["state"] is State.RUNNING
        assert question["fence"] == question["current_fence"]


@given(question=questions)
def test_already_is_only_for_who_ended_the_job(question: dict[str, Any]) -> None:
    if judge(**question) is Verdict.ALREADY:
        assert question["state"] in TERMINAL
        assert question["fence"] == question["settled_fence"]
        assert question["terminal_outcome"]


@given(question=questions)
def test_time_and_guard_matter_only_to_the_current_lease(question: dict[str, Any]) -> None:
    if question["state"] is State.RUNNING and question["fence"] == question["current_fence"]:
        return
    later = question | {"now": question["now"] + 5000, "guard": Guard.ANY}
    assert judge(**later) is judge(**question)


@given(question=questions)
def test_what_waits_or_is_gone_has_one_answer(question: dict[str, Any]) -> None:
    if question["state"] in WAITING:
        assert judge(**question) is Verdict.NOT_RUNNING
    if question["state"] is None:
        assert judge(**question) is Verdict.NOT_FOUND


@given(question=questions, later=st.floats(0, 1000))
def test_a_lease_that_expired_stays_expired(question: dict[str, Any], later: float) -> None:
    question |= {"state": State.RUNNING, "guard": Guard.VALID}
    if judge(**question) is Verdict.EXPIRED:
        assert judge(**(question | {"now": question["now"] + later})) is Verdict.EXPIRED


@pytest.mark.parametrize("seconds", [0.001, 1, 30, 86_400])
def test_a_possible_lease_passes(seconds: float) -> None:
    check_lease_seconds(seconds)


@pytest.mark.parametrize(
    "seconds", [0, -1, 86_400.1, math.nan, math.inf, -math.inf, True, False, "30", None, b"1"]
)
def test_an_impossible_lease_is_refused_with_the_range(seconds: object) -> None:
    with pytest.raises(InvalidLease, match="more than 0 and at most 86400"):
        check_lease_seconds(seconds)
