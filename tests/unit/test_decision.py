"""The one retry and dead-letter rule, under injected time and randomness."""

from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskharbor.backoff import Delays, Exponential, Fixed
from taskharbor.decision import (
    CancelledItself,
    Failed,
    HandedBack,
    Lost,
    NotKnown,
    Outcome,
    Snoozed,
    Succeeded,
    Undecodable,
    decide,
)
from taskharbor.lease import Guard, Reservation
from taskharbor.message import Policy
from taskharbor.settlement import Settlement
from taskharbor.states import Move, Reason

NOW = 1_700_000_000.0

policies = st.builds(
    Policy,
    max_attempts=st.integers(1, 20),
    backoff=st.sampled_from([None, Fixed(3).pack(), Delays(1, 2, 3).pack()]),
    max_losses=st.integers(1, 20),
    unknown_task_seconds=st.floats(0, 7200),
)
outcomes = st.one_of(
    st.builds(Succeeded, st.none() | st.just(b"result")),
    st.builds(
        Failed,
        error=st.just(b"error"),
        reason=st.sampled_from([Reason.RAISED, Reason.TIMED_OUT, Reason.RETRY_ASKED]),
        retryable=st.booleans(),
        delay=st.none() | st.floats(0, 100),
    ),
    st.builds(Snoozed, st.floats(0, 100)),
    st.builds(CancelledItself),
    st.builds(HandedBack, st.booleans()),
    st.builds(
        Lost,
        error=st.just(b"signal 9"),
        started=st.booleans(),
        guard=st.sampled_from(Guard),
        charge=st.booleans(),
    ),
    st.builds(NotKnown, error=st.just(b"error")),
    st.builds(Undecodable, error=st.just(b"error")),
)


def _job(**fields: Any) -> Reservation:
    usual: dict[str, Any] = {
        "id": "a",
        "queue": "default",
        "task": "demo.task",
        "body": b"",
        "fence": 7,
        "attempt": 1,
        "losses": 0,
        "priority": 0,
        "enqueued_at": NOW,
        "reserved_at": NOW,
        "lease_expires_at": NOW + 30,
    }
    return Reservation(**(usual | fields))


def _decide(
    outcome: Outcome, policy: Policy | None = None, *, now: float = NOW, **job: Any
) -> Settlement:
    return decide(_job(**job), policy or Policy(), outcome, now=now, rng=Random(0))


# --- what holds for every outcome -------------------------------------------------------------


@given(
    policy=policies,
    outcome=outcomes,
    attempt=st.integers(1, 25),
    losses=st.integers(0, 25),
    unknown_for=st.none() | st.floats(0, 10_000),
    seed=st.integers(),
)
def test_every_decision_is_about_this_lease_and_repeatable(
    policy: Policy,
    outcome: Outcome,
    attempt: int,
    losses: int,
    unknown_for: float | None,
    seed: int,
) -> None:
    unknown_since = None if unknown_for is None else NOW - unknown_for
    job = _job(attempt=attempt, losses=losses, unknown_since=unknown_since)
    settlement = decide(job, policy, outcome, now=NOW, rng=Random(seed))
    assert (settlement.job_id, settlement.fence) == (job.id, job.fence)
    assert settlement.delay >= 0
    assert settlement == decide(job, policy, outcome, now=NOW, rng=Random(seed))


@given(policy=policies, outcome=outcomes, attempt=st.integers(1, 25), losses=st.integers(0, 25))
def test_no_charged_attempt_is_given_after_the_last(
    policy: Policy, outcome: Outcome, attempt: int, losses: int
) -> None:
    settlement = _decide(outcome, policy, attempt=attempt, losses=losses)
    if attempt >= policy.max_attempts:
        assert settlement.move is not Move.RETRY


@given(policy=policies, outcome=outcomes, attempt=st.integers(1, 25), losses=st.integers(0, 25))
def test_no_loss_is_given_after_the_last(
    policy: Policy, outcome: Outcome, attempt: int, losses: int
) -> None:
    settlement = _decide(outcome, policy, attempt=attempt, losses=losses)
    if settlement.loss and not settlement.terminal:
        assert losses + 1 < policy.max_losses


bad_ends = st.one_of(
    st.just(Failed(b"error")),
    st.builds(Lost, error=st.just(b"signal 9"), started=st.booleans()),
    st.just(HandedBack(started=True)),
)


@given(policy=policies, ends=st.lists(bad_ends, min_size=45, max_size=45))
def test_a_job_that_never_ends_well_is_dead_in_the_end(policy: Policy, ends: list[Outcome]) -> None:
    """Whatever happens to it: raising, killing its workers, outliving every grace period."""
    attempts, losses, runs = 0, 0, 0
    for end in ends:
        attempts, runs = attempts + 1, runs + 1
        settlement = _decide(end, policy, attempt=attempts, losses=losses)
        losses += settlement.loss
        attempts -= not settlement.charged
        if settlement.move is Move.DIE:
            break
    assert settlement.move is Move.DIE
    assert runs <= policy.max_attempts + policy.max_losses


# --- outcome by outcome -----------------------------------------------------------------------


def test_success_keeps_its_result() -> None:
    assert _decide(Succeeded(b"result")) == Settlement.succeed("a", 7, b"result")
    assert _decide(Succeeded(None), attempt=99) == Settlement.succeed("a", 7, None)


def test_a_failure_is_tried_again_after_the_policy_s_backoff() -> None:
    policy = Policy(max_attempts=4, backoff=Delays(1, 10, 100).pack())
    settlements = [
        _decide(Failed(b"error"), policy, attempt=attempt) for attempt in (1, 2, 3, 4, 5)
    ]
    assert settlements == [
        Settlement.retry("a", 7, delay=1, error=b"error"),
        Settlement.retry("a", 7, delay=10, error=b"error"),
        Settlement.retry("a", 7, delay=100, error=b"error"),
        Settlement.die("a", 7, error=b"error"),
        Settlement.die("a", 7, error=b"error"),
    ]


def test_a_failure_may_name_its_delay() -> None:
    settlement = _decide(Failed(b"error", reason=Reason.RETRY_ASKED, delay=0.0))
    assert settlement == Settlement.retry(
        "a", 7, delay=0, error=b"error", reason=Reason.RETRY_ASKED
    )


def test_a_failure_that_can_t_be_retried_is_dead_at_once() -> None:
    settlement = _decide(Failed(b"error", reason=Reason.REJECTED, retryable=False))
    assert settlement == Settlement.die("a", 7, error=b"error", reason=Reason.REJECTED)


def test_one_attempt_means_one() -> None:
    policy = Policy(max_attempts=1)
    assert _decide(Failed(b"error"), policy).move is Move.DIE
    assert _decide(Lost(b"signal 9"), policy).move is Move.DIE
    assert _decide(Lost(b"signal 9", started=False), policy).move is Move.RELEASE
    assert _decide(HandedBack(started=True), policy).move is Move.RELEASE


def test_a_snooze_never_ends_a_job() -> None:
    settlement = _decide(Snoozed(60), Policy(max_attempts=1, max_losses=1), attempt=5, losses=5)
    assert settlement == Settlement.snooze("a", 7, delay=60)


def test_a_task_that_cancels_itself_is_cancelled() -> None:
    assert _decide(CancelledItself(b"why")) == Settlement.cancel("a", 7, error=b"why")


def test_corrupted_bytes_are_dead_at_once() -> None:
    settlement = _decide(Undecodable(b"error"))
    assert settlement == Settlement.die("a", 7, error=b"error", reason=Reason.UNDECODABLE)


def test_handed_back_unstarted_costs_nothing() -> None:
    settlement = _decide(HandedBack(), Policy(max_attempts=1, max_losses=1), attempt=9, losses=9)
    assert settlement == Settlement.release("a", 7, guard=Guard.ANY)


def test_work_interrupted_by_a_shutdown_is_uncharged_but_a_loss() -> None:
    policy = Policy(max_attempts=1, max_losses=3)
    assert _decide(HandedBack(started=True), policy, losses=1) == Settlement.release(
        "a", 7, loss=True, guard=Guard.ANY
    )
    dead = _decide(HandedBack(started=True), policy, losses=2)
    assert (dead.move, dead.reason, dead.loss) == (Move.DIE, Reason.WORKER_LOST, True)


# --- losses -----------------------------------------------------------------------------------


def test_the_first_loss_goes_again_at_once_and_later_ones_back_off() -> None:
    policy = Policy(backoff=Fixed(30).pack())
    first = _decide(Lost(b"signal 9"), policy, attempt=1, losses=0)
    second = _decide(Lost(b"signal 9"), policy, attempt=2, losses=1)
    assert (first.move, first.delay, first.loss) == (Move.RETRY, 0.0, True)
    assert (second.move, second.delay, second.loss) == (Move.RETRY, 30.0, True)


@pytest.mark.parametrize(
    ("attempt", "losses"), [(3, 0), (1, 9)], ids=["out of attempts", "out of losses"]
)
def test_a_job_out_of_attempts_or_losses_is_dead_with_what_was_seen(
    attempt: int, losses: int
) -> None:
    lost = Lost(b"signal 9", reason=Reason.LEASE_EXPIRED, guard=Guard.EXPIRED)
    settlement = _decide(lost, Policy(max_attempts=3), attempt=attempt, losses=losses)
    assert settlement == Settlement.die(
        "a",
        7,
        error=b"signal 9",
        reason=Reason.LEASE_EXPIRED,
        loss=True,
        guard=Guard.EXPIRED,
    )


def test_a_loss_before_the_start_is_uncharged_but_counted() -> None:
    settlement = _decide(Lost(None, started=False), Policy(max_attempts=1), attempt=1)
    assert settlement == Settlement.release("a", 7, loss=True, guard=Guard.ANY)
    assert _decide(Lost(None, started=False), losses=9).move is Move.DIE


def test_a_lapse_that_is_nobody_s_fault_costs_nothing() -> None:
    lost = Lost(None, charge=False, guard=Guard.EXPIRED)
    settlement = _decide(lost, Policy(max_attempts=1, max_losses=1), attempt=9, losses=9)
    assert settlement == Settlement.release("a", 7, guard=Guard.EXPIRED)


@given(guard=st.sampled_from(Guard), started=st.booleans(), losses=st.integers(0, 12))
def test_the_guard_of_a_loss_travels_with_the_decision(
    guard: Guard, started: bool, losses: int
) -> None:
    settlement = _decide(Lost(None, guard=guard, started=started), losses=losses)
    assert settlement.guard is guard


# --- unknown tasks ----------------------------------------------------------------------------


@given(seed=st.integers(), deadline=st.floats(0, 20_000))
def test_an_unknown_task_is_looked_for_until_its_deadline(seed: int, deadline: float) -> None:
    policy, rng = Policy(unknown_task_seconds=deadline), Random(seed)
    now, unknown_since, looks = NOW, None, 0
    while True:
        job = _job(unknown_since=unknown_since)
        settlement = decide(job, policy, NotKnown(b"error"), now=now, rng=rng)
        if settlement.move is Move.DIE:
            break
        assert (settlement.move, settlement.unknown) == (Move.SNOOZE, True)
        unknown_since = now if unknown_since is None else unknown_since
        looks += 1
        # Without a step of at least this a float's clock may stand still near the deadline.
        now += max(settlement.delay, 1e-6)
    assert settlement.reason is Reason.UNKNOWN_TASK
    waited = now - NOW
    assert deadline <= waited <= deadline + 1e-3
    assert looks <= 20 + deadline / 5, "it must not spin"


def test_a_new_task_is_found_soon_after_its_deploy() -> None:
    """The first looks are a second or two apart, later ones ten at most."""
    delays = []
    for waited in (0, 1, 8, 60, 3000):
        since = None if waited == 0 else NOW - waited
        delays.append(_decide(NotKnown(None), unknown_since=since).delay)
    assert delays[0] <= 1
    assert delays[1] <= 2
    assert all(5 <= delay <= 10 for delay in delays[2:])


def test_a_newer_wire_version_is_waited_for_like_an_unknown_task() -> None:
    outcome = NotKnown(b"error", reason=Reason.UNKNOWN_VERSION)
    settlement = _decide(outcome)
    assert (settlement.move, settlement.reason) == (Move.SNOOZE, Reason.UNKNOWN_VERSION)
    assert not settlement.charged
    dead = _decide(outcome, unknown_since=NOW - 3600)
    assert (dead.move, dead.reason) == (Move.DIE, Reason.UNKNOWN_VERSION)


@given(seed=st.integers(), attempt=st.integers(1, 100))
def test_the_delay_is_the_policy_s_with_the_given_randomness(seed: int, attempt: int) -> None:
    policy = Policy(max_attempts=1000, backoff=Exponential(base=2, cap=500).pack())
    settlement = decide(_job(attempt=attempt), policy, Failed(None), now=NOW, rng=Random(seed))
    assert settlement.delay == Exponential(base=2, cap=500).delay(attempt, Random(seed))
