"""Leader, scheduler, reaper and pruner, each against a real store on a manual clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest

from taskharbor.drivers.base import SOON_SECONDS
from taskharbor.errors import StoreUnavailable
from taskharbor.lease import Guard
from taskharbor.maintenance import pruner, reaper, scheduler
from taskharbor.maintenance.leader import TERM_SECONDS, Leader
from taskharbor.maintenance.lulls import Lulls
from taskharbor.maintenance.pruner import Pruner
from taskharbor.maintenance.reaper import COURTESY_SECONDS, Reaper
from taskharbor.maintenance.scheduler import UNTOLD_SLEEP_SECONDS, Scheduler
from taskharbor.message import Retention
from taskharbor.settlement import Settlement
from taskharbor.states import Reason, State
from tests.unit.maintenance.store import LEASE_SECONDS, Shop


def a_reaper(shop: Shop) -> tuple[Reaper, Lulls]:
    lulls = Lulls(lease_seconds=LEASE_SECONDS, now=0.0, wall=0.0)
    return Reaper(shop.driver, "reaper", lulls, Random(1), lambda losses: None), lulls


# --- leader --------------------------------------------------------------------------------------


def test_one_leads_and_the_other_takes_over_at_the_end_of_its_term(shop: Shop) -> None:
    first, second = Leader(shop.driver, "a"), Leader(shop.driver, "b")
    assert first.ask(0.0)
    assert not second.ask(0.0)
    shop.clock.advance(TERM_SECONDS)
    assert second.ask(TERM_SECONDS)
    assert not first.ask(TERM_SECONDS)


def test_a_leader_asks_again_before_its_term_is_over(shop: Shop) -> None:
    leader = Leader(shop.driver, "a")
    now = 0.0
    for _ in range(20):
        assert leader.ask(now)
        assert leader.ask_at - now < TERM_SECONDS / 2
        shop.clock.advance(leader.ask_at - now)
        now = leader.ask_at
    assert not Leader(shop.driver, "b").ask(now)


def test_who_resigns_lets_the_next_one_in_at_once(shop: Shop) -> None:
    first, second = Leader(shop.driver, "a"), Leader(shop.driver, "b")
    assert first.ask(0.0)
    first.resign()
    shop.clock.advance(0.01)
    assert second.ask(0.01)


# --- scheduler -----------------------------------------------------------------------------------


def test_a_due_job_becomes_ready_at_its_time(shop: Shop) -> None:
    (job_id,) = shop.enqueue(delay=0.05)
    duty = Scheduler(shop.driver)
    duty.step(0.0)
    assert abs(duty.look_at - 0.05) < 1e-6
    shop.clock.advance(0.05)
    promoted = duty.step(0.05)
    assert promoted is not None
    assert promoted.moved == 1
    job = shop.driver.get(job_id)
    assert job is not None
    assert job.state is State.READY


def test_the_scheduler_never_sleeps_past_its_limit(shop: Shop) -> None:
    duty = Scheduler(shop.driver)
    duty.step(0.0)
    assert duty.look_at == UNTOLD_SLEEP_SECONDS
    shop.enqueue(delay=3600.0)
    duty.step(1.0)
    assert duty.look_at == 1.0 + UNTOLD_SLEEP_SECONDS


def test_while_jobs_become_due_it_looks_more_often(shop: Shop) -> None:
    """A retry after 50 ms is most often followed by another, of which the store gives no hint."""
    shop.enqueue(delay=0.05)
    duty = Scheduler(shop.driver)
    shop.clock.advance(0.05)
    duty.step(0.05)
    assert duty.look_at == 0.05 + scheduler.BUSY_SLEEP_SECONDS
    duty.step(1.0)
    assert duty.look_at == 1.0 + scheduler.BUSY_SLEEP_SECONDS
    duty.step(2.0)
    assert duty.look_at == 2.0 + UNTOLD_SLEEP_SECONDS


def test_told_of_what_is_due_soon_it_sleeps_longer(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = replace(shop.driver.capabilities, schedule_hints=True)
    monkeypatch.setattr(shop.driver, "capabilities", told)
    shop.enqueue(delay=0.05)
    duty = Scheduler(shop.driver)
    duty.step(0.0)
    assert abs(duty.look_at - 0.05) < 1e-6
    shop.clock.advance(0.05)
    duty.step(0.05)
    assert duty.look_at == 0.05 + SOON_SECONDS


def test_a_hint_makes_it_look_soon_but_not_at_every_hint(shop: Shop) -> None:
    duty = Scheduler(shop.driver)
    duty.step(1.0)
    duty.hint()
    assert duty.look_at == 1.0 + scheduler.HINT_SECONDS
    assert duty.step(1.001) is None


def test_more_due_jobs_than_a_page_are_promoted_page_by_page_at_once(shop: Shop) -> None:
    shop.enqueue(scheduler.PAGE + 5, delay=1.0)
    shop.clock.advance(1.0)
    duty = Scheduler(shop.driver)
    first = duty.step(0.0)
    second = duty.step(0.0)
    assert first is not None
    assert second is not None
    assert [first.moved, second.moved] == [scheduler.PAGE, 5]


# --- reaper --------------------------------------------------------------------------------------


def test_an_expired_lease_is_charged_and_its_job_goes_again(shop: Shop) -> None:
    (job,) = shop.running()
    duty, _ = a_reaper(shop)
    shop.clock.advance(LEASE_SECONDS + COURTESY_SECONDS)
    duty.step(0.0)
    record = shop.driver.get(job.id)
    assert record is not None
    assert (record.state, record.attempts, record.losses) == (State.READY, 1, 1)
    assert record.reason is Reason.LEASE_EXPIRED


def test_a_lease_is_left_alone_until_it_has_been_over_for_a_moment(shop: Shop) -> None:
    (job,) = shop.running()
    duty, _ = a_reaper(shop)
    shop.clock.advance(LEASE_SECONDS + COURTESY_SECONDS - 0.01)
    duty.step(0.0)
    record = shop.driver.get(job.id)
    assert record is not None
    assert record.state is State.RUNNING


def test_a_worker_that_dies_with_every_attempt_ends_dead(shop: Shop) -> None:
    (job_id,) = shop.enqueue(max_attempts=2)
    duty, _ = a_reaper(shop)
    now = 0.0
    for _ in range(2):
        shop.reserve("h")
        shop.clock.advance(LEASE_SECONDS + COURTESY_SECONDS)
        duty.step(now)
        shop.clock.advance(5.0)
        shop.driver.promote(10)
        now += 100.0
    record = shop.driver.get(job_id)
    assert record is not None
    assert (record.state, record.reason) == (State.DEAD, Reason.LEASE_EXPIRED)


def test_a_lease_that_was_settled_since_the_look_is_not_touched(shop: Shop) -> None:
    (job,) = shop.running()
    shop.driver.exchange("h", [Settlement.succeed(job.id, job.fence, None)])
    duty, _ = a_reaper(shop)
    shop.clock.advance(LEASE_SECONDS + COURTESY_SECONDS)
    # What the reaper saw before the settle came in.
    duty._settle([job], shop.clock.now())
    record = shop.driver.get(job.id)
    assert record is not None
    assert record.state is State.SUCCEEDED


def test_in_a_rest_nothing_is_reaped_and_afterwards_uncharged(shop: Shop) -> None:
    (job,) = shop.running(max_attempts=1)
    duty, lulls = a_reaper(shop)
    lulls.store_failed(0.0)
    shop.clock.advance(LEASE_SECONDS + COURTESY_SECONDS)
    now = LEASE_SECONDS + COURTESY_SECONDS
    lulls.store_answered(now)
    lulls.begin_rest(now, store=shop.clock.now())
    duty.step(now)
    record = shop.driver.get(job.id)
    assert record is not None
    assert record.state is State.RUNNING
    shop.clock.advance(LEASE_SECONDS)
    duty.step(now + LEASE_SECONDS)
    record = shop.driver.get(job.id)
    assert record is not None
    assert (record.state, record.attempts, record.losses) == (State.READY, 0, 0)


def test_many_expired_leases_are_reaped_page_by_page(shop: Shop) -> None:
    shop.running(reaper.PAGE + 5)
    duty, _ = a_reaper(shop)
    shop.clock.advance(LEASE_SECONDS + COURTESY_SECONDS)
    duty.step(0.0)
    assert len(shop.driver.expired(10_000)) == 5
    assert duty.look_at == 0.0
    duty.step(0.0)
    assert shop.driver.expired(10_000) == []
    assert duty.look_at == reaper.LOOK_SECONDS


# --- pruner --------------------------------------------------------------------------------------


def pruner_with_row_locks(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, prune: Callable[[object, int], int]
) -> Pruner:
    """On a store whose pages may grow, and that prunes like this, at no time too slowly."""
    monkeypatch.setattr(type(shop.driver), "prune", prune)
    able = replace(shop.driver.capabilities, row_locks=True)
    monkeypatch.setattr(shop.driver, "capabilities", able)
    monkeypatch.setattr(pruner, "PAGE_SECONDS", 60.0)
    return Pruner(shop.driver)


def test_where_long_calls_hold_up_nobody_pages_grow_while_there_is_more(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    left = 4 * pruner.PAGE

    def prune(driver: object, limit: int) -> int:
        nonlocal left
        asked.append(limit)
        pruned = min(limit, left)
        left -= pruned
        return pruned

    duty = pruner_with_row_locks(shop, monkeypatch, prune)
    for _ in range(3):
        duty.step(duty.look_at)
    assert asked == [pruner.PAGE, 2 * pruner.PAGE, 4 * pruner.PAGE]
    assert duty.look_at > pruner.LOOK_SECONDS  # the last page was not full
    left = 10 * pruner.PAGE
    monkeypatch.setattr(pruner, "PAGE_SECONDS", -1.0)
    for _ in range(3):
        duty.step(duty.look_at)
    assert asked[3:] == 3 * [pruner.PAGE]


def test_a_page_that_grew_too_long_for_the_server_is_followed_by_a_small_one(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def prune(driver: object, limit: int) -> int:
        asked.append(limit)
        if limit > 2 * pruner.PAGE:
            raise StoreUnavailable("canceling statement due to statement timeout")
        return limit

    duty = pruner_with_row_locks(shop, monkeypatch, prune)
    for _ in range(2):
        duty.step(duty.look_at)
    with pytest.raises(StoreUnavailable):
        duty.step(duty.look_at)
    duty.step(duty.look_at)
    assert asked == [pruner.PAGE, 2 * pruner.PAGE, 4 * pruner.PAGE, pruner.PAGE]


def test_old_records_are_pruned_page_by_page(shop: Shop) -> None:
    number = pruner.PAGE + 5
    shop.enqueue(number, retention=Retention(succeeded=10.0))
    jobs = shop.reserve("h", number)
    settlements = [Settlement.succeed(j.id, j.fence, None)._replace(guard=Guard.ANY) for j in jobs]
    shop.driver.exchange("h", settlements)
    shop.clock.advance(10.0)
    duty = Pruner(shop.driver)
    began = time.monotonic()
    duty.step(0.0)
    took = time.monotonic() - began
    left = [job for job in jobs if shop.driver.get(job.id) is not None]
    assert len(left) == 5
    least, most = pruner.REST_SECONDS
    assert least <= duty.look_at <= took + max(least, min(took, most))
    duty.step(duty.look_at)
    assert all(shop.driver.get(job.id) is None for job in jobs)
