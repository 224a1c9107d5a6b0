"""What the reserve loop does next."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import pytest

from taskharbor import defaults
from taskharbor.drivers.base import Want
from taskharbor.lease import Reservation, Verdict
from taskharbor.worker.config import ExitCode
from taskharbor.worker.held import Held
from taskharbor.worker.planner import (
    POLL_SECONDS,
    Ask,
    Leave,
    Planner,
    Reconcile,
    Step,
    Wait,
)
from taskharbor.worker.prefetch import Prefetch, Rotation
from taskharbor.worker.recovery import ON_ITS_WAY_SECONDS
from taskharbor.worker.settler import Settler
from taskharbor.worker.shutdown import Budget, Shutdown
from tests.unit.worker.making import extended, reply, reservations, success

LEASE = 30.0


@dataclass
class Rig:
    settler: Settler
    shutdown: Shutdown
    planner: Planner
    now: float = 100.0

    def next(self) -> Step:
        return self.planner.next(self.now)

    def ask(self) -> Ask:
        step = self.next()
        assert isinstance(step, Ask), step
        return step

    def answer(self, ask: Ask, reserved: list[Reservation], *, sent_at: float = 0.0) -> bool:
        return self.planner.answered(
            ask,
            reply(reserved, settled=len(ask.batch)),
            sent_at=sent_at or self.now,
            now=self.now,
        ).more

    def give(self, number: int) -> list[Reservation]:
        jobs = reservations(number)
        self.answer(self.ask(), jobs)
        return jobs

    def claim(self) -> Held:
        held = self.settler.claim(self.now)
        assert held is not None
        return held

    def finish(self, held: Held, *, urgent: bool = False) -> None:
        self.settler.finish(held, success(held), urgent=urgent)


def make_rig(*, slots: int = 1, tasks: int = 0, memory_bytes: int = 0) -> Rig:
    settler, shutdown = Settler(), Shutdown()
    planner = Planner(
        settler,
        shutdown,
        Prefetch(slots=slots),
        Rotation((("default", 1),)),
        Budget(tasks=tasks, memory_bytes=memory_bytes),
        Random(7),
        slots=slots,
        lease_seconds=LEASE,
        heartbeat_seconds=LEASE / 3,
    )
    return Rig(settler, shutdown, planner)


@pytest.fixture
def rig() -> Rig:
    return make_rig()


def test_a_new_child_reserves_at_once(rig: Rig) -> None:
    assert rig.ask() == Ask([], Want(("default",), 1, LEASE))


def test_no_request_is_larger_than_a_batch_however_many_slots_there_are() -> None:
    rig = make_rig(slots=10_000)
    for _ in range(2):
        assert rig.ask().want == Want(("default",), defaults.BATCH, LEASE)
        for _ in rig.give(defaults.BATCH):
            rig.claim()
    for held in rig.settler.leases():
        rig.finish(held)
    assert len(rig.ask().batch) == defaults.BATCH


def test_finished_settlements_ride_with_the_next_reserve(rig: Rig) -> None:
    rig.give(1)
    held = rig.claim()
    rig.finish(held)
    ask = rig.ask()
    assert ask.batch == [held]
    assert ask.want is not None


def test_leases_are_counted_from_before_the_request(rig: Rig) -> None:
    rig.answer(rig.ask(), reservations(1), sent_at=99.0)
    assert rig.settler.leases()[0].deadline == 99.0 + LEASE


def test_an_empty_answer_is_followed_by_a_wait_of_a_second_or_a_little_more(rig: Rig) -> None:
    rig.give(0)
    step = rig.next()
    assert isinstance(step, Wait)
    assert step.listen
    assert step.until is not None
    assert POLL_SECONDS <= step.until - rig.now <= 1.25 * POLL_SECONDS
    rig.now = step.until
    assert isinstance(rig.next(), Ask)


def test_a_wake_up_ends_the_wait(rig: Rig) -> None:
    rig.give(0)
    rig.planner.woken()
    assert isinstance(rig.next(), Ask)


def test_an_empty_answer_that_was_cut_short_is_no_reason_to_wait(rig: Rig) -> None:
    rig.planner.answered(rig.ask(), reply([], more=True), sent_at=rig.now, now=rig.now)
    assert isinstance(rig.next(), Ask)


def test_a_full_answer_is_worth_waking_a_sibling(rig: Rig) -> None:
    assert rig.answer(rig.ask(), reservations(1))
    assert not rig.answer(Ask([], Want(("default",), 5, LEASE)), reservations(1))


def test_nothing_is_reserved_while_every_slot_is_taken() -> None:
    rig = make_rig(slots=2)
    rig.give(2)
    rig.claim()
    rig.claim()
    assert rig.next() == Wait(None, listen=False)


def test_a_free_slot_asks_also_while_the_others_run() -> None:
    rig = make_rig(slots=3)
    rig.give(2)
    first = rig.claim()
    rig.claim()
    rig.finish(first)
    ask = rig.ask()
    assert ask.batch == [first]
    assert ask.want is not None
    assert ask.want.limit >= 2


def test_an_urgent_settlement_goes_alone_while_jobs_wait(rig: Rig) -> None:
    rig.give(1)
    rig.settler.add(reservations(1), deadline=rig.now + LEASE)
    held = rig.claim()
    rig.finish(held, urgent=True)
    assert rig.settler.claim(rig.now) is None
    assert rig.ask() == Ask([held], None)


# --- the store is away ------------------------------------------------------------------------


def test_after_a_lost_reserve_it_asks_what_it_holds_before_anything_else(rig: Rig) -> None:
    rig.planner.unanswered(rig.ask(), rig.now)
    step = rig.next()
    assert isinstance(step, Wait)
    assert not step.listen
    assert step.until is not None
    assert rig.now < step.until <= rig.now + 0.05
    rig.now = step.until
    assert rig.next() == Wait(100.0 + ON_ITS_WAY_SECONDS, listen=False)
    rig.now += ON_ITS_WAY_SECONDS
    assert isinstance(rig.next(), Reconcile)


def test_it_never_spins_and_tries_again_within_a_second(rig: Rig) -> None:
    rig.planner.unanswered(rig.ask(), rig.now)
    rig.now += ON_ITS_WAY_SECONDS
    rig.planner.reconcile_failed(rig.now)
    for _ in range(50):
        step = rig.next()
        assert isinstance(step, Wait)
        assert step.until is not None
        assert 0.02 < step.until - rig.now <= 1.0
        rig.now = step.until
        assert isinstance(rig.next(), Reconcile)
        rig.planner.reconcile_failed(rig.now)


def test_jobs_of_a_lost_reply_are_taken_over(rig: Rig) -> None:
    rig.planner.unanswered(rig.ask(), rig.now)
    rig.now += 1.0
    assert isinstance(rig.next(), Reconcile)
    jobs = reservations(2)
    answers = extended(Verdict.APPLIED, Verdict.EXPIRED)
    rig.planner.reconciled(jobs, jobs, answers, sent_at=rig.now, now=rig.now)
    assert rig.claim().reservation is jobs[0]
    assert rig.settler.claim(rig.now) is None


def test_it_asks_once_more_for_a_request_that_was_still_on_its_way(rig: Rig) -> None:
    rig.planner.unanswered(rig.ask(), rig.now)
    rig.now += 1.0
    rig.planner.reconciled([], [], [], sent_at=rig.now, now=rig.now)
    rig.give(0)
    rig.now += LEASE / 3
    assert isinstance(rig.next(), Reconcile)
    rig.planner.reconciled([], [], [], sent_at=rig.now, now=rig.now)
    rig.now += LEASE
    assert isinstance(rig.next(), Ask)


def test_a_failed_settlement_without_a_want_raises_no_doubt(rig: Rig) -> None:
    rig.give(1)
    rig.settler.add(reservations(1), deadline=rig.now + LEASE)
    held = rig.claim()
    rig.finish(held, urgent=True)
    rig.planner.unanswered(rig.ask(), rig.now)
    rig.now += 1.0
    assert rig.ask() == Ask([held], None)


# --- stopping ---------------------------------------------------------------------------------


def test_a_stopping_child_hands_back_flushes_and_leaves(rig: Rig) -> None:
    rig.give(1)
    rig.settler.add(reservations(3), deadline=rig.now + LEASE)
    held = rig.claim()
    rig.finish(held)
    rig.shutdown.stop()
    ask = rig.ask()
    assert ask.want is None
    assert len(ask.batch) == 4
    rig.answer(ask, [])
    assert rig.next() == Leave(ExitCode.OK)


def test_a_stopping_child_waits_for_what_runs() -> None:
    rig = make_rig(slots=2)
    rig.give(2)
    held = rig.claim()
    rig.shutdown.stop()
    ask = rig.ask()
    assert ask.want is None
    assert len(ask.batch) == 1
    rig.answer(ask, [])
    assert rig.next() == Wait(None, listen=False)
    rig.finish(held)
    rig.answer(rig.ask(), [])
    assert rig.next() == Leave(ExitCode.OK)


def test_a_stopping_child_waits_for_a_batch_that_the_other_thread_sends(rig: Rig) -> None:
    rig.give(1)
    held = rig.claim()
    rig.finish(held)
    batch = rig.settler.take()
    rig.shutdown.stop()
    assert isinstance(rig.next(), Wait)
    rig.settler.answered(batch, reply([], settled=1).settled)
    assert rig.next() == Leave(ExitCode.OK)


def test_a_stopping_child_keeps_trying_to_settle_while_the_lease_holds(rig: Rig) -> None:
    rig.give(1)
    rig.finish(rig.claim())
    rig.shutdown.stop()
    given_up_at = rig.now + LEASE
    while not isinstance(step := rig.next(), Leave):
        if isinstance(step, Ask):
            rig.planner.unanswered(step, rig.now)
        else:
            assert isinstance(step, Wait)
            assert step.until is not None
            rig.now = step.until
    assert rig.now >= given_up_at
    assert rig.now <= given_up_at + 1.0


def test_a_stopping_child_with_nothing_to_save_leaves_a_dead_store_soon(rig: Rig) -> None:
    rig.planner.unanswered(rig.ask(), rig.now)
    rig.shutdown.stop()
    began = rig.now
    while not isinstance(step := rig.next(), Leave):
        if isinstance(step, Wait):
            assert step.until is not None
            rig.now = step.until
        else:
            rig.planner.reconcile_failed(rig.now)
    assert step.code is ExitCode.OK
    assert rig.now - began < 0.5


def test_a_retired_child_finishes_what_runs_and_leaves_with_its_own_code(rig: Rig) -> None:
    rig.planner.answered(rig.ask(), reply([], retired=True), sent_at=rig.now, now=rig.now)
    assert rig.next() == Leave(ExitCode.RETIRED)


def test_a_child_never_reserves_more_than_its_budget_of_tasks() -> None:
    rig = make_rig(tasks=3)
    started = 0
    while not isinstance(step := rig.next(), Leave):
        assert isinstance(step, Ask)
        rig.answer(step, reservations(step.want.limit if step.want else 0))
        while (held := rig.settler.claim(rig.now)) is not None:
            started += 1
            rig.finish(held)
    assert started == 3
    assert step.code is ExitCode.RECYCLED


def test_a_child_over_its_memory_hands_back_and_leaves() -> None:
    rig = make_rig(memory_bytes=1000)
    rig.give(1)
    rig.finish(rig.claim())
    ask = rig.planner.next(rig.now, memory_bytes=1001)
    assert isinstance(ask, Ask)
    assert ask.want is None
    rig.answer(ask, [])
    assert rig.next() == Leave(ExitCode.RECYCLED)


def test_leaving_at_once_interrupts_what_runs() -> None:
    rig = make_rig(slots=2)
    rig.give(2)
    rig.claim()
    rig.shutdown.leave()
    assert rig.next() == Leave(ExitCode.FORCED)
