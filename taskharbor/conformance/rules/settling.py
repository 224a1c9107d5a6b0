"""Settle: what each outcome does to the job."""

from __future__ import annotations

import pytest

from taskharbor import defaults
from taskharbor.clock import ManualClock
from taskharbor.conformance.rules.verdicts import OUTCOMES, TERMINAL_OUTCOMES
from taskharbor.conformance.sharding import in_one_shard
from taskharbor.conformance.support import (
    HOLDER,
    Suite,
    apply,
    get,
    put,
    settle,
    state,
    take,
    take_one,
)
from taskharbor.drivers.base import Attempt, InspectableDriver, Outcome, Renewal, Settled
from taskharbor.lease import Guard, Reservation, Verdict
from taskharbor.settlement import Settlement
from taskharbor.states import Reason, State


def _running(driver: InspectableDriver) -> Reservation:
    put(driver, "a")
    return take_one(driver)


def _again(driver: InspectableDriver, clock: ManualClock) -> Reservation:
    """The next attempt of the only job, however long it has to wait."""
    clock.advance(1000)
    driver.promote(10)
    return take_one(driver)


class SettleRules(Suite):
    def test_succeed(self, driver: InspectableDriver, clock: ManualClock) -> None:
        lease = _running(driver)
        clock.advance(2)
        settled = apply(driver, Settlement.succeed("a", lease.fence, b"result"))
        assert settled == [Settled(Verdict.APPLIED, State.SUCCEEDED)]
        done = get(driver)
        assert (done.state, done.reason) == (State.SUCCEEDED, Reason.SUCCEEDED)
        assert (done.result, done.error, done.attempts) == (b"result", None, 1)
        assert done.finished_at == clock.now()
        assert (done.fence, done.holder, done.reserved_at) == (None, None, None)
        assert done.lease_expires_at is None
        assert done.history == (
            Attempt(
                fence=lease.fence,
                number=1,
                holder=HOLDER,
                started_at=clock.now() - 2,
                ended_at=clock.now(),
                reason=Reason.SUCCEEDED,
            ),
        )

    def test_succeed_without_a_result_keeps_none(self, driver: InspectableDriver) -> None:
        lease = _running(driver)
        apply(driver, Settlement.succeed("a", lease.fence, None))
        assert driver.results(["a"]) == [Outcome(State.SUCCEEDED, Reason.SUCCEEDED)]

    def test_results_and_errors_of_any_bytes_come_back(self, driver: InspectableDriver) -> None:
        value = bytes(range(256)) + b"\x00\xff" * 40_000
        lease = _running(driver)
        apply(driver, Settlement.retry("a", lease.fence, delay=0, error=value))
        again = take_one(driver)
        apply(driver, Settlement.succeed("a", again.fence, value))
        done = get(driver)
        assert (done.result, done.error, done.history[0].error) == (value, value, value)

    def test_retry_now(self, driver: InspectableDriver, clock: ManualClock) -> None:
        lease = _running(driver)
        clock.advance(2)
        outcome = Settlement.retry(
            "a", lease.fence, delay=0, error=b"boom", reason=Reason.TIMED_OUT
        )
        assert apply(driver, outcome)[0].state is State.READY
        waiting = get(driver)
        assert (waiting.state, waiting.reason) == (State.READY, Reason.TIMED_OUT)
        assert (waiting.due_at, waiting.error) == (clock.now(), b"boom")
        assert (waiting.attempts, waiting.losses) == (1, 0)
        assert (waiting.fence, waiting.holder, waiting.finished_at) == (None, None, None)

    def test_retry_later(self, driver: InspectableDriver, clock: ManualClock) -> None:
        lease = _running(driver)
        clock.advance(2)
        outcome = Settlement.retry("a", lease.fence, delay=7.5, error=None)
        assert apply(driver, outcome)[0].state is State.SCHEDULED
        assert get(driver).due_at == clock.now() + 7.5
        assert driver.promote(10).next_due == clock.now() + 7.5

    def test_die(self, driver: InspectableDriver, clock: ManualClock) -> None:
        lease = _running(driver)
        apply(driver, Settlement.die("a", lease.fence, error=b"no", reason=Reason.REJECTED))
        dead = get(driver)
        assert (dead.state, dead.reason, dead.error) == (State.DEAD, Reason.REJECTED, b"no")
        assert (dead.attempts, dead.finished_at) == (1, clock.now())
        assert driver.results(["a"]) == [
            Outcome(State.DEAD, Reason.REJECTED, result=None, error=b"no")
        ]

    @pytest.mark.parametrize("reason", [Reason.TASK, Reason.OPERATOR])
    def test_cancel(self, driver: InspectableDriver, reason: Reason) -> None:
        lease = _running(driver)
        apply(driver, Settlement.cancel("a", lease.fence, error=b"why", reason=reason))
        cancelled = get(driver)
        assert (cancelled.state, cancelled.reason) == (State.CANCELLED, reason)
        assert (cancelled.error, cancelled.attempts) == (b"why", 1)

    def test_release_is_as_if_nothing_had_been(
        self, driver: InspectableDriver, clock: ManualClock
    ) -> None:
        lease = _running(driver)
        clock.advance(2)
        assert apply(driver, Settlement.release("a", lease.fence))[0].state is State.READY
        back = get(driver)
        assert (back.reason, back.attempts, back.losses) == (Reason.RELEASED, 0, 0)
        assert (back.history, back.due_at) == ((), clock.now())
        assert take_one(driver).attempt == 1

    def test_interrupted_is_uncharged_but_a_loss(self, driver: InspectableDriver) -> None:
        lease = _running(driver)
        apply(driver, Settlement.release("a", lease.fence, loss=True))
        back = get(driver)
        assert (back.reason, back.attempts, back.losses) == (Reason.WORKER_LOST, 0, 1)
        (attempt,) = back.history
        assert (attempt.number, attempt.reason) == (1, Reason.WORKER_LOST)
        again = take_one(driver)
        assert (again.attempt, again.losses) == (1, 1)

    def test_snooze_is_uncharged(self, driver: InspectableDriver, clock: ManualClock) -> None:
        lease = _running(driver)
        apply(driver, Settlement.snooze("a", lease.fence, delay=5))
        asleep = get(driver)
        assert (asleep.state, asleep.reason) == (State.SCHEDULED, Reason.SNOOZED)
        assert (asleep.attempts, asleep.due_at) == (0, clock.now() + 5)
        assert [attempt.reason for attempt in asleep.history] == [Reason.SNOOZED]
        assert _again(driver, clock).attempt == 1

    def test_attempts_and_losses_are_counted(
        self, driver: InspectableDriver, clock: ManualClock
    ) -> None:
        put(driver, "a")
        counted = []
        for outcome in ("retry", "lost", "release", "interrupted", "snooze", "unknown", "lost"):
            lease = _again(driver, clock)
            counted.append((lease.attempt, lease.losses))
            apply(driver, OUTCOMES[outcome]("a", lease.fence))
        assert counted == [(1, 0), (2, 0), (3, 1), (3, 1), (3, 2), (3, 2), (3, 2)]
        assert (get(driver).attempts, get(driver).losses) == (3, 3)

    def test_the_last_error_stays_until_the_next(
        self, driver: InspectableDriver, clock: ManualClock
    ) -> None:
        put(driver, "a")
        errors = []
        for error in (b"first", None, b"second", None):
            lease = _again(driver, clock)
            apply(driver, Settlement.retry("a", lease.fence, delay=0, error=error))
            errors.append(get(driver).error)
        assert errors == [b"first", b"first", b"second", b"second"]
        apply(driver, Settlement.succeed("a", _again(driver, clock).fence, b"ok"))
        assert driver.results(["a"]) == [
            Outcome(State.SUCCEEDED, Reason.SUCCEEDED, b"ok", b"second")
        ]

    def test_saved_and_progress_outlive_the_attempt(
        self, driver: InspectableDriver, clock: ManualClock
    ) -> None:
        lease = _running(driver)
        driver.extend(HOLDER, [Renewal("a", lease.fence, progress=b"half", saved=b"state")], 30)
        assert driver.held(HOLDER)[0].saved == b"state"
        apply(driver, Settlement.retry("a", lease.fence, delay=0, error=None))
        again = take_one(driver)
        assert again.saved == b"state"
        driver.extend(HOLDER, [Renewal("a", again.fence, saved=b"more")], 30)
        apply(driver, Settlement.succeed("a", again.fence, None))
        done = get(driver)
        assert (done.progress, done.saved) == (b"half", b"more")

    # --- unknown tasks ---------------------------------------------------------------------------

    def test_unknown_since_is_when_it_began(
        self, driver: InspectableDriver, clock: ManualClock
    ) -> None:
        lease = _running(driver)
        assert lease.unknown_since is None
        began = clock.now()
        for _ in range(3):
            apply(driver, OUTCOMES["unknown"]("a", lease.fence))
            lease = _again(driver, clock)
            assert lease.unknown_since == began

    def test_a_release_keeps_unknown_since(
        self, driver: InspectableDriver, clock: ManualClock
    ) -> None:
        lease = _running(driver)
        began = clock.now()
        for outcome in ("unknown", "release", "interrupted"):
            apply(driver, OUTCOMES[outcome]("a", lease.fence))
            lease = _again(driver, clock)
            assert lease.unknown_since == began

    @pytest.mark.parametrize("outcome", ["retry", "lost", "snooze", "retry later"])
    def test_any_other_outcome_clears_unknown_since(
        self, driver: InspectableDriver, clock: ManualClock, outcome: str
    ) -> None:
        apply(driver, OUTCOMES["unknown"]("a", _running(driver).fence))
        apply(driver, OUTCOMES[outcome]("a", _again(driver, clock).fence))
        lease = _again(driver, clock)
        assert lease.unknown_since is None
        apply(driver, OUTCOMES["unknown"]("a", lease.fence))
        assert _again(driver, clock).unknown_since == lease.reserved_at

    def test_a_requeue_forgets_that_the_task_was_unknown(
        self, driver: InspectableDriver, clock: ManualClock
    ) -> None:
        apply(driver, OUTCOMES["unknown"]("a", _running(driver).fence))
        driver.cancel(["a"])
        driver.requeue(["a"], states=frozenset({State.CANCELLED}))
        assert _again(driver, clock).unknown_since is None

    # --- cancel requested ------------------------------------------------------------------------

    @pytest.mark.parametrize("outcome", OUTCOMES)
    def test_a_requested_cancel_wins_over_going_back_in_line(
        self, driver: InspectableDriver, outcome: str
    ) -> None:
        lease = _running(driver)
        driver.cancel(["a"])
        settlement = OUTCOMES[outcome]("a", lease.fence)
        (settled,) = apply(driver, settlement)
        ended = get(driver)
        assert ended.state is settled.state
        assert not ended.cancel_requested, "the request was for the attempt that ended"
        if outcome in TERMINAL_OUTCOMES:
            assert ended.state is settlement.lands_in(cancel_requested=False)
            assert ended.reason is settlement.reason
            return
        assert (ended.state, ended.reason) == (State.CANCELLED, Reason.OPERATOR)
        assert ended.finished_at is not None
        assert (ended.attempts, ended.losses) == (int(settlement.charged), int(settlement.loss))
        recorded = [] if outcome == "release" else [settlement.reason]
        assert [attempt.reason for attempt in ended.history] == recorded
        assert take(driver) == []

    # --- history ---------------------------------------------------------------------------------

    def test_history_keeps_the_newest_attempts_oldest_first(
        self, driver: InspectableDriver, clock: ManualClock
    ) -> None:
        put(driver, "a")
        fences = []
        for number in range(defaults.MAX_HISTORY + 5):
            lease = take_one(driver, holder=f"h{number}")
            fences.append(lease.fence)
            clock.advance(1)
            apply(driver, Settlement.retry("a", lease.fence, delay=0, error=b"error %d" % number))
        history = get(driver).history
        assert [attempt.fence for attempt in history] == fences[5:]
        assert [attempt.number for attempt in history] == list(range(6, len(fences) + 1))
        assert [attempt.error for attempt in history] == [
            b"error %d" % number for number in range(5, len(fences))
        ]
        assert history[-1].holder == f"h{len(fences) - 1}"
        assert (history[-1].started_at, history[-1].ended_at) == (clock.now() - 1, clock.now())

    def test_a_replay_adds_nothing_to_the_history(self, driver: InspectableDriver) -> None:
        lease = _running(driver)
        done = Settlement.succeed("a", lease.fence, None)
        for _ in range(3):
            settle(driver, done)
        assert len(get(driver).history) == 1

    # --- many ------------------------------------------------------------------------------------

    @in_one_shard
    def test_each_settlement_has_its_own_verdict(
        self, driver: InspectableDriver, clock: ManualClock
    ) -> None:
        put(driver, "old")
        old = take_one(driver, lease=1)
        clock.advance(1)
        put(driver, "a", "b", "c", "d")
        fences = {lease.id: lease.fence for lease in take(driver, 3)}
        assert settle(
            driver,
            Settlement.succeed("nobody", 1, None),
            Settlement.succeed("a", fences["a"], b"result"),
            Settlement.succeed("old", old.fence, None),
            Settlement.die("b", fences["a"], error=None),
            Settlement.retry("c", fences["c"], delay=9, error=None),
            Settlement.release("d", 1),
            Settlement.retry("b", fences["b"], delay=0, error=None, guard=Guard.EXPIRED),
        ) == [
            Settled(Verdict.NOT_FOUND, None),
            Settled(Verdict.APPLIED, State.SUCCEEDED),
            Settled(Verdict.EXPIRED, State.RUNNING),
            Settled(Verdict.MISMATCH, State.RUNNING),
            Settled(Verdict.APPLIED, State.SCHEDULED),
            Settled(Verdict.NOT_RUNNING, State.READY),
            Settled(Verdict.STILL_VALID, State.RUNNING),
        ]

    def test_a_big_batch_is_settled_in_one_call(self, driver: InspectableDriver) -> None:
        put(driver, *(f"a{number}" for number in range(1000)))
        leases = take(driver, 1000)
        settled = apply(
            driver, *(Settlement.succeed(lease.id, lease.fence, b"r") for lease in leases)
        )
        assert settled == [Settled(Verdict.APPLIED, State.SUCCEEDED)] * 1000
        assert driver.queues()[0].counts[State.SUCCEEDED] == 1000

    def test_any_holder_may_show_the_fence(self, driver: InspectableDriver) -> None:
        lease = _running(driver)
        apply(driver, Settlement.succeed("a", lease.fence, None), holder="maintenance")
        assert state(driver) is State.SUCCEEDED
        assert get(driver).history[0].holder == HOLDER
