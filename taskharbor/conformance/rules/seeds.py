"""The 27 cases that this project began with, each by its first name, and what they lack.

Each runs in two forms: one job at a time (``drivers/single.py``), and in bulk, where every step
is one item of a call among others that are fine or refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import pytest

from taskharbor.clock import ManualClock
from taskharbor.conformance.support import (
    EVERYTHING,
    HOLDER,
    LEASE,
    QUEUE,
    Suite,
    get,
    job,
    reap,
    state,
)
from taskharbor.drivers import single
from taskharbor.drivers.base import (
    Enqueued,
    Extended,
    InspectableDriver,
    Renewal,
    Settled,
    Want,
)
from taskharbor.errors import (
    InvalidJob,
    InvalidLease,
    JobNotFound,
    JobNotRunning,
    LeaseExpired,
    LeaseMismatch,
)
from taskharbor.lease import Reservation, Verdict
from taskharbor.message import Message, Policy
from taskharbor.settlement import Settlement
from taskharbor.states import Reason, State


class Form(Protocol):
    """The steps of a job's life; what is refused raises."""

    def enqueue(self, message: Message) -> Enqueued: ...
    def reserve(self, *, lease_seconds: float = LEASE) -> Reservation | None: ...
    def settle(self, settlement: Settlement) -> Settled: ...
    def extend(self, job_id: str, fence: int, *, lease_seconds: float = LEASE) -> Extended: ...


class Single:
    def __init__(self, driver: InspectableDriver) -> None:
        self._driver = driver

    def enqueue(self, message: Message) -> Enqueued:
        return single.enqueue(self._driver, message)

    def reserve(self, *, lease_seconds: float = LEASE) -> Reservation | None:
        return single.reserve(self._driver, HOLDER, QUEUE, lease_seconds=lease_seconds)

    def settle(self, settlement: Settlement) -> Settled:
        return single.settle(self._driver, HOLDER, settlement)

    def extend(self, job_id: str, fence: int, *, lease_seconds: float = LEASE) -> Extended:
        return single.extend(self._driver, HOLDER, job_id, fence, lease_seconds=lease_seconds)


class Bulk:
    """Every step between a neighbour that is fine and one that is refused."""

    _UNKNOWN = Settlement.succeed("nobody", 1, None)

    def __init__(self, driver: InspectableDriver) -> None:
        self._driver = driver
        self._neighbours = 0

    def enqueue(self, message: Message) -> Enqueued:
        first = self._neighbour()
        answers = self._driver.enqueue([first, message, first])
        assert [answers[0].created, answers[2].created] == [True, False]
        return answers[1]

    def reserve(self, *, lease_seconds: float = LEASE) -> Reservation | None:
        want = Want((QUEUE,), 10, lease_seconds)
        got = self._driver.exchange(HOLDER, [self._UNKNOWN], want)
        assert got.settled == [Settled(Verdict.NOT_FOUND, None)]
        assert len(got.reserved) <= 1
        return got.reserved[0] if got.reserved else None

    def settle(self, settlement: Settlement) -> Settled:
        fine = self._running_neighbour()
        settlements = [Settlement.succeed(fine.id, fine.fence, b"fine"), settlement, self._UNKNOWN]
        before, settled, after = self._driver.exchange(HOLDER, settlements).settled
        assert before == Settled(Verdict.APPLIED, State.SUCCEEDED)
        assert after == Settled(Verdict.NOT_FOUND, None)
        single.raise_for(settled.verdict, settlement.job_id, settlement.fence)
        return settled

    def extend(self, job_id: str, fence: int, *, lease_seconds: float = LEASE) -> Extended:
        fine = self._running_neighbour()
        renewals = [
            Renewal(fine.id, fine.fence),
            Renewal(job_id, fence),
            Renewal("nobody", 1),
        ]
        before, extended, after = self._driver.extend(HOLDER, renewals, lease_seconds)
        assert (before.verdict, after.verdict) == (Verdict.APPLIED, Verdict.NOT_FOUND)
        single.raise_for(extended.verdict, job_id, fence)
        return extended

    def _neighbour(self) -> Message:
        self._neighbours += 1
        return job(f"neighbour-{self._neighbours}", queue="neighbours")

    def _running_neighbour(self) -> Reservation:
        neighbour = self._neighbour()
        self._driver.enqueue([neighbour])
        line = self._driver.exchange(HOLDER, (), Want((neighbour.queue,), 1000, LEASE)).reserved
        return next(lease for lease in line if lease.id == neighbour.id)


def _succeed(job_id: str, fence: int) -> Settlement:
    return Settlement.succeed(job_id, fence, b"result")


def _retry(job_id: str, fence: int) -> Settlement:
    return Settlement.retry(job_id, fence, delay=0, error=b"error")


def _die(job_id: str, fence: int) -> Settlement:
    return Settlement.die(job_id, fence, error=b"error")


Outcome = Callable[[str, int], Settlement]

INVALID_FIELDS: list[dict[str, Any]] = [
    {"id": ""},
    {"task": ""},
    {"queue": ""},
    {"id": "a" * 129},
    {"queue": "a b"},
    {"task": "\x00"},
    {"priority": 101},
    {"delay": -1.0},
    {"delay": math.nan},
    {"eta": math.inf},
    {"expires_in": 0.0},
    {"idempotency_key": ""},
    {"key_until": -1.0},
]
IMPOSSIBLE_SECONDS: list[Any] = [0, -1, math.nan, math.inf, 86_401, True, "30", None]


class SeedRules(Suite):
    @pytest.fixture(params=[Single, Bulk], ids=["single", "bulk"])
    def form(self, request: pytest.FixtureRequest, driver: InspectableDriver) -> Form:
        made: Form = request.param(driver)
        return made

    @staticmethod
    def _running(form: Form, **fields: Any) -> Reservation:
        form.enqueue(job(**fields))
        lease = form.reserve()
        assert lease is not None
        return lease

    def _refused_with_another_fence(
        self, driver: InspectableDriver, form: Form, outcome: Outcome
    ) -> None:
        lease = self._running(form)
        before = get(driver)
        for wrong in (lease.fence - 1, lease.fence + 1):
            with pytest.raises(LeaseMismatch) as refused:
                form.settle(outcome("a", wrong))
            assert refused.value.job_id == "a"
        assert get(driver) == before

    def _refused_after_expiry(
        self, driver: InspectableDriver, clock: ManualClock, form: Form, outcome: Outcome
    ) -> None:
        lease = self._running(form)
        before = get(driver)
        clock.advance(LEASE)
        with pytest.raises(LeaseExpired):
            form.settle(outcome("a", lease.fence))
        assert get(driver) == before

    def _refused_when_not_running(
        self, driver: InspectableDriver, form: Form, outcome: Outcome
    ) -> None:
        form.enqueue(job())
        before = get(driver)
        with pytest.raises(JobNotRunning):
            form.settle(outcome("a", 1))
        assert get(driver) == before

    # --- enqueue -------------------------------------------------------------------------------

    def test_enqueue_rejects_invalid_record(self, driver: InspectableDriver, form: Form) -> None:
        for wrong in INVALID_FIELDS:
            with pytest.raises(InvalidJob):
                form.enqueue(job(**wrong))
        assert driver.list_jobs(EVERYTHING).jobs == []

    def test_enqueue_ready_is_reservable_immediately(
        self, driver: InspectableDriver, form: Form
    ) -> None:
        assert form.enqueue(job()) == Enqueued("a", created=True)
        assert state(driver) is State.READY
        lease = form.reserve()
        assert lease is not None
        assert (lease.id, lease.attempt, state(driver)) == ("a", 1, State.RUNNING)

    def test_schedule_blocks_before_due_then_reserves_after_due(
        self, driver: InspectableDriver, clock: ManualClock, form: Form
    ) -> None:
        form.enqueue(job(delay=10.0))
        assert state(driver) is State.SCHEDULED
        clock.advance(9.75)
        assert driver.promote(100).moved == 0
        assert form.reserve() is None
        clock.advance(0.25)
        assert driver.promote(100).moved == 1
        assert form.reserve() is not None

    def test_reserve_prefers_ready_over_future_scheduled(
        self, driver: InspectableDriver, form: Form
    ) -> None:
        form.enqueue(job("later", delay=10.0, priority=100))
        form.enqueue(job("now"))
        driver.promote(100)
        lease = form.reserve()
        assert lease is not None
        assert lease.id == "now"
        assert form.reserve() is None

    # --- reserve and reclaim -------------------------------------------------------------------

    def test_reserve_is_exclusive_during_valid_lease(
        self, driver: InspectableDriver, clock: ManualClock, form: Form
    ) -> None:
        self._running(form)
        assert form.reserve() is None
        clock.advance(LEASE - 0.25)
        assert reap(driver) == []
        assert form.reserve() is None

    def test_expired_lease_is_reclaimed_and_job_is_reservable_again(
        self, driver: InspectableDriver, clock: ManualClock, form: Form
    ) -> None:
        first = self._running(form)
        clock.advance(LEASE)
        assert form.reserve() is None, "only the reaper may take an expired lease away"
        assert reap(driver) == [Settled(Verdict.APPLIED, State.READY)]
        second = form.reserve()
        assert second is not None
        assert second.fence > first.fence
        assert (second.attempt, second.losses) == (2, 1), "the crash counts as an attempt"

    def test_reclaim_clears_run_at(
        self, driver: InspectableDriver, clock: ManualClock, form: Form
    ) -> None:
        form.enqueue(job(delay=5.0))
        clock.advance(5)
        driver.promote(100)
        assert form.reserve() is not None
        clock.advance(LEASE)
        reap(driver)
        reclaimed = get(driver)
        assert (reclaimed.state, reclaimed.due_at) == (State.READY, clock.now())
        assert (reclaimed.fence, reclaimed.holder, reclaimed.lease_expires_at) == (None,) * 3

    def test_reserve_invalid_lease_duration(self, driver: InspectableDriver, form: Form) -> None:
        form.enqueue(job())
        for seconds in IMPOSSIBLE_SECONDS:
            with pytest.raises(InvalidLease):
                form.reserve(lease_seconds=seconds)
        assert state(driver) is State.READY

    # --- extend --------------------------------------------------------------------------------

    def test_extend_correct_token_extends_expiry(
        self, driver: InspectableDriver, clock: ManualClock, form: Form
    ) -> None:
        lease = self._running(form)
        clock.advance(20)
        extended = form.extend("a", lease.fence)
        assert extended == Extended(Verdict.APPLIED, clock.now() + LEASE, cancel_requested=False)
        clock.advance(LEASE - 0.25)
        assert driver.expired(10) == []
        form.settle(_succeed("a", lease.fence))

    def test_extend_wrong_token(self, driver: InspectableDriver, form: Form) -> None:
        lease = self._running(form)
        before = get(driver)
        with pytest.raises(LeaseMismatch):
            form.extend("a", lease.fence + 1)
        assert get(driver) == before

    def test_extend_after_expiry(self, clock: ManualClock, form: Form) -> None:
        lease = self._running(form)
        clock.advance(LEASE)
        with pytest.raises(LeaseExpired):
            form.extend("a", lease.fence)

    def test_extend_not_running(self, form: Form) -> None:
        form.enqueue(job())
        with pytest.raises(JobNotRunning):
            form.extend("a", 1)

    def test_extend_invalid_lease_duration(self, driver: InspectableDriver, form: Form) -> None:
        lease = self._running(form)
        before = get(driver)
        for seconds in IMPOSSIBLE_SECONDS:
            with pytest.raises(InvalidLease):
                form.extend("a", lease.fence, lease_seconds=seconds)
        assert get(driver) == before

    # --- ack -----------------------------------------------------------------------------------

    def test_ack_correct_token_marks_done_and_is_idempotent(
        self, driver: InspectableDriver, form: Form
    ) -> None:
        lease = self._running(form)
        done = _succeed("a", lease.fence)
        assert form.settle(done) == Settled(Verdict.APPLIED, State.SUCCEEDED)
        settled = get(driver)
        assert (settled.state, settled.result) == (State.SUCCEEDED, b"result")
        assert form.settle(done) == Settled(Verdict.ALREADY, State.SUCCEEDED)
        assert get(driver) == settled
        assert form.reserve() is None

    def test_ack_wrong_token(self, driver: InspectableDriver, form: Form) -> None:
        self._refused_with_another_fence(driver, form, _succeed)

    def test_ack_after_expiry(
        self, driver: InspectableDriver, clock: ManualClock, form: Form
    ) -> None:
        self._refused_after_expiry(driver, clock, form, _succeed)

    def test_ack_not_running(self, driver: InspectableDriver, form: Form) -> None:
        self._refused_when_not_running(driver, form, _succeed)

    # --- retry ---------------------------------------------------------------------------------

    def test_retry_persists_failure_metadata_and_respects_run_at(
        self, driver: InspectableDriver, clock: ManualClock, form: Form
    ) -> None:
        lease = self._running(form)
        clock.advance(1)
        form.settle(Settlement.retry("a", lease.fence, delay=60, error=b"boom"))
        waiting = get(driver)
        assert (waiting.state, waiting.reason) == (State.SCHEDULED, Reason.RAISED)
        assert (waiting.error, waiting.attempts) == (b"boom", 1)
        assert waiting.due_at == clock.now() + 60
        (attempt,) = waiting.history
        assert (attempt.fence, attempt.number, attempt.error) == (lease.fence, 1, b"boom")
        clock.advance(59.75)
        driver.promote(100)
        assert form.reserve() is None
        clock.advance(0.25)
        driver.promote(100)
        again = form.reserve()
        assert again is not None
        assert again.attempt == 2

    def test_retry_zero_run_at_runnable_immediately(
        self, driver: InspectableDriver, form: Form
    ) -> None:
        lease = self._running(form)
        assert form.settle(_retry("a", lease.fence)).state is State.READY
        again = form.reserve()
        assert again is not None
        assert again.fence > lease.fence

    def test_retry_wrong_token(self, driver: InspectableDriver, form: Form) -> None:
        self._refused_with_another_fence(driver, form, _retry)

    def test_retry_after_expiry(
        self, driver: InspectableDriver, clock: ManualClock, form: Form
    ) -> None:
        self._refused_after_expiry(driver, clock, form, _retry)

    def test_retry_not_running(self, driver: InspectableDriver, form: Form) -> None:
        self._refused_when_not_running(driver, form, _retry)

    def test_retry_after_done(self, driver: InspectableDriver, form: Form) -> None:
        lease = self._running(form)
        form.settle(_succeed("a", lease.fence))
        settled = get(driver)
        with pytest.raises(JobNotRunning):
            form.settle(_retry("a", lease.fence))
        assert get(driver) == settled

    # --- fail ----------------------------------------------------------------------------------

    def test_fail_moves_to_dlq_not_reservable(self, driver: InspectableDriver, form: Form) -> None:
        lease = self._running(form)
        assert form.settle(_die("a", lease.fence)) == Settled(Verdict.APPLIED, State.DEAD)
        dead = get(driver)
        assert (dead.state, dead.error) == (State.DEAD, b"error")
        assert form.reserve() is None
        assert form.settle(_die("a", lease.fence)).verdict is Verdict.ALREADY

    def test_fail_wrong_token(self, driver: InspectableDriver, form: Form) -> None:
        self._refused_with_another_fence(driver, form, _die)

    def test_fail_after_expiry(
        self, driver: InspectableDriver, clock: ManualClock, form: Form
    ) -> None:
        self._refused_after_expiry(driver, clock, form, _die)

    def test_fail_not_running(self, driver: InspectableDriver, form: Form) -> None:
        self._refused_when_not_running(driver, form, _die)

    # --- what the 27 lack ----------------------------------------------------------------------

    def test_mismatch_is_reported_before_expiry(self, clock: ManualClock, form: Form) -> None:
        lease = self._running(form)
        clock.advance(LEASE)
        with pytest.raises(LeaseMismatch):
            form.settle(_succeed("a", lease.fence + 1))
        with pytest.raises(LeaseMismatch):
            form.extend("a", lease.fence + 1)

    def test_late_settle_cannot_overwrite_next_attempt(
        self, driver: InspectableDriver, clock: ManualClock, form: Form
    ) -> None:
        zombie = self._running(form)
        clock.advance(LEASE)
        reap(driver)
        current = form.reserve()
        assert current is not None
        for outcome in (_succeed, _retry, _die):
            with pytest.raises(LeaseMismatch):
                form.settle(outcome("a", zombie.fence))
        form.settle(_succeed("a", current.fence))
        with pytest.raises(LeaseMismatch):
            form.settle(_succeed("a", zombie.fence))

    def test_nothing_is_done_to_a_job_that_does_not_exist(self, form: Form) -> None:
        for outcome in (_succeed, _retry, _die):
            with pytest.raises(JobNotFound):
                form.settle(outcome("nobody", 1))
        with pytest.raises(JobNotFound):
            form.extend("nobody", 1)

    def test_crash_loop_ends_in_the_dlq(
        self, driver: InspectableDriver, clock: ManualClock, form: Form
    ) -> None:
        form.enqueue(job(policy=Policy(max_attempts=3)))
        for attempt in (1, 2, 3):
            clock.advance(3600)
            driver.promote(100)
            lease = form.reserve()
            assert lease is not None
            assert (lease.attempt, lease.losses) == (attempt, attempt - 1)
            clock.advance(LEASE)
            reap(driver)
        dead = get(driver)
        assert (dead.state, dead.reason) == (State.DEAD, Reason.LEASE_EXPIRED)
        assert (dead.attempts, dead.losses, len(dead.history)) == (3, 3, 3)
        assert form.reserve() is None

    def test_reclaim_is_bounded(
        self, driver: InspectableDriver, clock: ManualClock, form: Form
    ) -> None:
        for number in range(7):
            form.enqueue(job(f"a{number}"))
            assert form.reserve() is not None
        clock.advance(LEASE)
        counts = []
        while reclaimed := reap(driver, 3):
            counts.append(len(reclaimed))
        assert counts == [3, 3, 1]
