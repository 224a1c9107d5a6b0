"""Leases: extend, held, retire, and the expired ones."""

from __future__ import annotations

import pytest

from taskharbor.clock import ManualClock
from taskharbor.conformance.sharding import in_one_shard
from taskharbor.conformance.support import (
    HOLDER,
    LEASE,
    QUEUE,
    Suite,
    apply,
    get,
    ids,
    job,
    put,
    reap,
    settle,
    state,
    take,
    take_one,
)
from taskharbor.drivers.base import (
    Extended,
    InspectableDriver,
    Renewal,
    Settled,
    Want,
)
from taskharbor.errors import InvalidLease
from taskharbor.ids import new_id
from taskharbor.lease import Guard, Reservation, Verdict
from taskharbor.message import Policy
from taskharbor.settlement import Settlement
from taskharbor.states import Reason, State


def _by_fence(leases: list[Reservation]) -> list[Reservation]:
    return sorted(leases, key=lambda lease: lease.fence)


class ExtendRules(Suite):
    def test_a_lease_is_never_shortened(
        self, driver: InspectableDriver, clock: ManualClock
    ) -> None:
        put(driver, "a")
        lease = take_one(driver, lease=100)
        clock.advance(10)
        extended = driver.extend(HOLDER, [Renewal("a", lease.fence)], 20)
        assert extended == [Extended(Verdict.APPLIED, lease.lease_expires_at)]
        assert get(driver).lease_expires_at == lease.lease_expires_at

    def test_many_leases_at_once_each_with_its_verdict(
        self, driver: InspectableDriver, clock: ManualClock
    ) -> None:
        put(driver, *(f"a{number}" for number in range(100)))
        leases = take(driver, 100)
        clock.advance(1)
        renewals = [Renewal(lease.id, lease.fence) for lease in leases]
        renewals[50] = Renewal("nobody", 1)
        renewals[51] = Renewal(leases[51].id, leases[50].fence)
        extended = driver.extend(HOLDER, renewals, LEASE)
        verdicts = [one.verdict for one in extended]
        assert verdicts[50:52] == [Verdict.NOT_FOUND, Verdict.MISMATCH]
        assert verdicts[:50] + verdicts[52:] == [Verdict.APPLIED] * 98
        assert extended[99].lease_expires_at == clock.now() + LEASE

    def test_nothing_to_extend(self, driver: InspectableDriver) -> None:
        assert driver.extend(HOLDER, [], LEASE) == []
        with pytest.raises(InvalidLease):
            driver.extend(HOLDER, [], 0)

    def test_progress_and_saved_replace_what_is_there_when_given(
        self, driver: InspectableDriver
    ) -> None:
        put(driver, "a")
        fence = take_one(driver).fence
        seen = []
        for progress, saved in ((b"1", b"A"), (None, b"B"), (b"2", None), (None, None)):
            driver.extend(HOLDER, [Renewal("a", fence, progress, saved)], LEASE)
            seen.append((get(driver).progress, get(driver).saved))
        assert seen == [(b"1", b"A"), (b"1", b"B"), (b"2", b"B"), (b"2", b"B")]

    def test_a_refused_extend_keeps_what_was_saved(
        self, driver: InspectableDriver, clock: ManualClock
    ) -> None:
        put(driver, "a")
        lease = take_one(driver)
        driver.extend(HOLDER, [Renewal("a", lease.fence, b"1", b"A")], LEASE)
        driver.extend(HOLDER, [Renewal("a", lease.fence + 1, b"2", b"B")], LEASE)
        clock.advance(LEASE)
        driver.extend(HOLDER, [Renewal("a", lease.fence, b"3", b"C")], LEASE)
        assert (get(driver).progress, get(driver).saved) == (b"1", b"A")

    @in_one_shard
    def test_the_holder_learns_of_a_cancel(self, driver: InspectableDriver) -> None:
        put(driver, "a", "b")
        leases = take(driver, 2)
        renewals = [Renewal(lease.id, lease.fence) for lease in leases]
        assert [one.cancel_requested for one in driver.extend(HOLDER, renewals, LEASE)] == [
            False,
            False,
        ]
        driver.cancel(["b"])
        assert [one.cancel_requested for one in driver.extend(HOLDER, renewals, LEASE)] == [
            False,
            True,
        ]

    def test_any_holder_may_extend_with_the_fence(
        self, driver: InspectableDriver, clock: ManualClock
    ) -> None:
        """Maintenance extends for a child that is too busy to do it itself."""
        put(driver, "a")
        lease = take_one(driver)
        clock.advance(LEASE - 1)
        assert driver.extend("maintenance", [Renewal("a", lease.fence)], LEASE)[0].verdict is (
            Verdict.APPLIED
        )
        clock.advance(LEASE - 1)
        assert [held.id for held in driver.held(HOLDER)] == ["a"]
        apply(driver, Settlement.succeed("a", lease.fence, None))

    def test_an_extended_lease_is_not_reaped(
        self, driver: InspectableDriver, clock: ManualClock
    ) -> None:
        put(driver, "a")
        lease = take_one(driver)
        clock.advance(LEASE)
        (expired,) = driver.expired(10)
        assert expired.fence == lease.fence
        settlement = Settlement.release("a", lease.fence, loss=True, guard=Guard.EXPIRED)
        clock.advance(-1)
        driver.extend(HOLDER, [Renewal("a", lease.fence)], LEASE)
        clock.advance(1)
        assert settle(driver, settlement) == [Settled(Verdict.STILL_VALID, State.RUNNING)]


class HeldRules(Suite):
    def test_held_says_what_was_reserved(
        self, driver: InspectableDriver, clock: ManualClock
    ) -> None:
        put(driver, "a", "b", "c", "d")
        mine = take(driver, 2, holder="mine")
        theirs = take(driver, 1, holder="theirs")
        assert _by_fence(driver.held("mine")) == _by_fence(mine)
        assert driver.held("theirs") == theirs
        assert driver.held("nobody") == []

    def test_a_holder_may_have_any_printable_name(self, driver: InspectableDriver) -> None:
        names = ["h" * 500, "naïve ☃ 🚀", "{a}:*?[b]", "it's %s", "a", "A", "a/b c"]
        put(driver, *(f"a{number}" for number in range(len(names))))
        leases = {name: take_one(driver, holder=name) for name in names}
        assert {name: driver.held(name) for name in names} == {
            name: [lease] for name, lease in leases.items()
        }
        assert [lease.holder for lease in leases.values()] == names

    @in_one_shard
    def test_held_follows_the_lease(self, driver: InspectableDriver, clock: ManualClock) -> None:
        put(driver, "a", "b")
        first, second = take(driver, 2)
        clock.advance(5)
        driver.extend(HOLDER, [Renewal("a", first.fence, saved=b"S")], LEASE)
        driver.cancel(["b"])
        assert _by_fence(driver.held(HOLDER)) == [
            first._replace(lease_expires_at=clock.now() + LEASE, saved=b"S"),
            second._replace(cancel_requested=True),
        ]

    def test_held_includes_what_has_expired_but_was_not_reaped(
        self, driver: InspectableDriver, clock: ManualClock
    ) -> None:
        put(driver, "a")
        lease = take_one(driver)
        clock.advance(LEASE * 2)
        assert driver.held(HOLDER) == [lease]
        reap(driver)
        assert driver.held(HOLDER) == []

    @pytest.mark.parametrize("release", [True, False])
    @in_one_shard
    def test_what_is_settled_is_not_held(self, driver: InspectableDriver, release: bool) -> None:
        put(driver, "a", "b")
        first, second = take(driver, 2)
        outcome = Settlement.release if release else Settlement.cancel
        apply(driver, outcome("a", first.fence))
        assert driver.held(HOLDER) == [second]

    @in_one_shard
    def test_a_reserve_whose_reply_was_lost_is_found(self, driver: InspectableDriver) -> None:
        put(driver, "a", "b", "c")
        driver.exchange(HOLDER, (), Want((QUEUE,), 3, LEASE))  # the reply is lost
        found = _by_fence(driver.held(HOLDER))
        assert ids(found) == ["a", "b", "c"]
        apply(driver, *(Settlement.succeed(lease.id, lease.fence, None) for lease in found))


class RetireRules(Suite):
    # Stores remember the retired over tests; each test has holders of its own.

    @pytest.fixture
    def holder(self) -> str:
        return new_id()

    def test_retire_returns_what_is_held(self, driver: InspectableDriver, holder: str) -> None:
        put(driver, "a", "b", "c")
        leases = take(driver, 2, holder=holder)
        take(driver, 1, holder="another")
        assert _by_fence(driver.retire(holder)) == _by_fence(leases)

    def test_the_retired_reserve_nothing(self, driver: InspectableDriver, holder: str) -> None:
        put(driver, "a")
        driver.retire(holder)
        exchange = driver.exchange(holder, (), Want((QUEUE,), 1, LEASE))
        assert (exchange.reserved, exchange.retired) == ([], True)
        assert state(driver) is State.READY
        other = driver.exchange(new_id(), (), Want((QUEUE,), 1, LEASE))
        assert (ids(other.reserved), other.retired) == (["a"], False)

    @in_one_shard
    def test_the_retired_may_settle(self, driver: InspectableDriver, holder: str) -> None:
        put(driver, "a", "b")
        first, second = take(driver, 2, holder=holder)
        driver.retire(holder)
        exchange = driver.exchange(
            holder,
            [
                Settlement.succeed("a", first.fence, None),
                Settlement.release("b", second.fence),
            ],
            Want((QUEUE,), 1, LEASE),
        )
        assert [one.verdict for one in exchange.settled] == [Verdict.APPLIED] * 2
        assert exchange.reserved == []
        assert driver.retire(holder) == []

    def test_retire_is_idempotent(self, driver: InspectableDriver, holder: str) -> None:
        put(driver, "a")
        lease = take_one(driver, holder=holder)
        assert driver.retire(holder) == driver.retire(holder) == [lease]

    def test_retire_works_before_the_first_reserve(
        self, driver: InspectableDriver, holder: str
    ) -> None:
        """The reserve of a killed child may still be on its way."""
        assert driver.retire(holder) == []
        put(driver, "a")
        assert take(driver, holder=holder) == []

    def test_the_retired_are_remembered_for_a_day(
        self, driver: InspectableDriver, clock: ManualClock, holder: str
    ) -> None:
        put(driver, "a")
        driver.retire(holder)
        clock.advance(86_399)
        driver.prune(1000)
        assert take(driver, holder=holder) == []

    def test_what_a_retired_holder_held_goes_to_others(
        self, driver: InspectableDriver, holder: str
    ) -> None:
        put(driver, "started", "unstarted", policy=Policy(max_attempts=1))
        take(driver, 2, holder=holder)
        fences = {lease.id: lease.fence for lease in driver.retire(holder)}
        apply(
            driver,
            Settlement.die(
                "started",
                fences["started"],
                error=b"signal 9",
                reason=Reason.WORKER_LOST,
                loss=True,
                guard=Guard.ANY,
            ),
            Settlement.release("unstarted", fences["unstarted"], loss=True, guard=Guard.ANY),
        )
        (again,) = take(driver, 2, holder="another")
        assert (again.id, again.attempt, again.losses) == ("unstarted", 1, 1)


class ExpiredRules(Suite):
    def test_oldest_expiry_first_and_no_more_than_asked(
        self, driver: InspectableDriver, clock: ManualClock
    ) -> None:
        for number, seconds in enumerate((40, 20, 30, 10, 50)):
            put(driver, f"a{number}")
            take_one(driver, lease=seconds, holder=f"h{number}")
        clock.advance(40)
        assert ids(driver.expired(10)) == ["a3", "a1", "a2", "a0"]
        assert ids(driver.expired(2)) == ["a3", "a1"]

    def test_a_lease_is_expired_from_its_very_end(
        self, driver: InspectableDriver, clock: ManualClock
    ) -> None:
        put(driver, "a")
        lease = take_one(driver)
        clock.advance(LEASE - 0.25)
        assert driver.expired(10) == []
        clock.advance(0.25)
        assert driver.expired(10) == [lease]

    def test_looking_changes_nothing(self, driver: InspectableDriver, clock: ManualClock) -> None:
        put(driver, "a")
        take_one(driver)
        clock.advance(LEASE)
        before = get(driver)
        assert driver.expired(10) == driver.expired(10)
        assert get(driver) == before

    def test_it_says_all_that_a_decision_needs(
        self, driver: InspectableDriver, clock: ManualClock
    ) -> None:
        message = job(policy=Policy(max_attempts=2))
        driver.enqueue([message])
        lease = take_one(driver)
        driver.cancel(["a"])
        clock.advance(LEASE)
        assert driver.expired(10) == [lease._replace(cancel_requested=True)]
        assert driver.expired(10)[0].body == message.body

    def test_a_cancelled_job_whose_worker_was_lost_is_not_run_again(
        self, driver: InspectableDriver, clock: ManualClock
    ) -> None:
        put(driver, "a")
        take_one(driver)
        driver.cancel(["a"])
        clock.advance(LEASE)
        assert reap(driver) == [Settled(Verdict.APPLIED, State.CANCELLED)]
        assert get(driver).reason is Reason.OPERATOR

    def test_losses_without_a_charge_end_too(
        self, driver: InspectableDriver, clock: ManualClock
    ) -> None:
        """A job that no worker survives long enough to start is given up as well."""
        put(driver, "a", policy=Policy(max_attempts=50, max_losses=4))
        for _ in range(4):
            clock.advance(3600)
            driver.promote(10)
            take_one(driver)
            clock.advance(LEASE)
            reap(driver)
        assert (state(driver), get(driver).losses) == (State.DEAD, 4)
