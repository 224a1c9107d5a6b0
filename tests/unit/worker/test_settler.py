"""Who owns which lease inside a child."""

from __future__ import annotations

from threading import Barrier, Thread

import pytest

from taskharbor.drivers.base import Settled
from taskharbor.lease import Reservation, Verdict
from taskharbor.states import Move, State
from taskharbor.worker.held import Held
from taskharbor.worker.settler import Batch, Settler
from tests.unit.worker.making import APPLIED, extended, reservation, reservations, success


def fences(batch: Batch) -> list[int]:
    return [held.reservation.fence for held in batch]


def claim(settler: Settler, now: float = 0.0) -> Held:
    held = settler.claim(now)
    assert held is not None
    return held


@pytest.fixture
def settler() -> Settler:
    return Settler()


def test_jobs_are_claimed_in_the_order_of_their_reservation(settler: Settler) -> None:
    jobs = reservations(3)
    settler.add(jobs, deadline=30.0)
    assert [claim(settler).reservation for _ in range(3)] == jobs
    assert settler.claim(0.0) is None


def test_a_job_whose_lease_ran_out_is_not_started_but_handed_back(settler: Settler) -> None:
    late, good = reservations(2)
    settler.add([late], deadline=10.0)
    settler.add([good], deadline=30.0)
    assert claim(settler, now=10.0).reservation is good
    (given_back,) = settler.take()
    assert given_back.reservation is late
    assert given_back.settlement is not None
    assert given_back.settlement.move is Move.RELEASE


def test_hand_back_releases_what_waits_and_nothing_that_runs(settler: Settler) -> None:
    settler.add(reservations(3), deadline=30.0)
    running = claim(settler)
    assert settler.hand_back() == 2
    assert settler.claim(0.0) is None
    batch = settler.take()
    assert running not in batch
    assert {held.settlement and held.settlement.move for held in batch} == {Move.RELEASE}


def test_an_unanswered_batch_is_sent_again_before_what_finished_since(settler: Settler) -> None:
    settler.add(reservations(2), deadline=30.0)
    first, second = claim(settler), claim(settler)
    settler.finish(first, success(first))
    batch = settler.take()
    settler.finish(second, success(second))
    settler.unanswered(batch)
    assert settler.take() == [first, second]
    assert first.sent_before
    assert not second.sent_before


def test_a_settlement_is_in_one_request_at_a_time(settler: Settler) -> None:
    settler.add(reservations(1), deadline=30.0)
    held = claim(settler)
    settler.finish(held, success(held))
    assert settler.take() == [held]
    assert settler.take() == []
    assert settler.sending == 1


def test_refusals_are_returned_and_replays_are_not(settler: Settler) -> None:
    settler.add(reservations(3), deadline=30.0)
    for _ in range(3):
        held = claim(settler)
        settler.finish(held, success(held))
    batch = settler.take()
    zombie = Settled(Verdict.MISMATCH, State.RUNNING)
    answers = [APPLIED, Settled(Verdict.ALREADY, State.SUCCEEDED), zombie]
    (refused,) = settler.answered(batch, answers)
    assert refused == (batch[2], zombie)
    assert settler.leases() == []


def test_nothing_is_claimed_before_an_urgent_settlement_is_answered(settler: Settler) -> None:
    settler.add(reservations(2), deadline=30.0)
    held = claim(settler)
    settler.finish(held, success(held), urgent=True)
    assert settler.claim(0.0) is None
    assert settler.take_unless_urgent() == []
    batch = settler.take()
    assert settler.claim(0.0) is None
    settler.unanswered(batch)
    assert settler.claim(0.0) is None
    settler.answered(settler.take(), [APPLIED])
    assert settler.claim(0.0) is not None


def test_leases_are_kept_for_all_but_releases(settler: Settler) -> None:
    settler.add(reservations(4), deadline=30.0)
    finished, running = claim(settler), claim(settler)
    settler.finish(finished, success(finished))
    settler.take()
    assert len(settler.leases()) == 4
    settler.hand_back()
    assert set(settler.leases()) == {running, finished}


def test_an_extension_moves_the_deadline_and_never_back(settler: Settler) -> None:
    settler.add(reservations(1), deadline=30.0)
    leases = settler.leases()
    settler.renewed(leases, extended(Verdict.APPLIED), deadline=60.0)
    settler.renewed(leases, extended(Verdict.APPLIED), deadline=50.0)
    assert leases[0].deadline == 60.0


def test_a_lost_lease_flags_what_runs_and_drops_what_waits(settler: Settler) -> None:
    settler.add(reservations(2), deadline=30.0)
    running = claim(settler)
    leases = settler.leases()
    answers = extended(Verdict.EXPIRED, Verdict.MISMATCH)
    assert settler.renewed(leases, answers, deadline=60.0) == [running]
    assert running.lost
    assert settler.waiting == 0
    assert settler.renewed([running], extended(Verdict.EXPIRED), 60.0) == [], "told once"


def test_a_cancel_flags_what_runs_and_hands_back_what_waits(settler: Settler) -> None:
    settler.add(reservations(2), deadline=30.0)
    running = claim(settler)
    answers = extended(Verdict.APPLIED, Verdict.APPLIED, cancel_requested=True)
    assert settler.renewed(settler.leases(), answers, deadline=60.0) == []
    assert running.cancelled
    assert settler.waiting == 0
    assert [held.settlement and held.settlement.move for held in settler.take()] == [Move.RELEASE]


def test_an_answer_about_a_job_that_finished_meanwhile_is_ignored(settler: Settler) -> None:
    settler.add(reservations(1), deadline=30.0)
    held = claim(settler)
    leases = settler.leases()
    settler.finish(held, success(held))
    assert settler.renewed(leases, extended(Verdict.NOT_RUNNING), deadline=60.0) == []
    assert not held.lost


def test_a_reservation_that_is_cancelled_already_is_not_started(settler: Settler) -> None:
    settler.add([reservation(cancel_requested=True)], deadline=30.0)
    assert settler.claim(0.0) is None
    assert settler.finished == 1


def test_unknown_are_the_listed_jobs_in_no_place_here(settler: Settler) -> None:
    waiting, running, finished, sent, news = reservations(5)
    settler.add([sent, finished, running, waiting], deadline=30.0)
    for _ in range(2):
        held = claim(settler)
        settler.finish(held, success(held))
        if held.reservation is sent:
            settler.take()
    claim(settler)
    assert settler.unknown([waiting, running, finished, sent, news]) == [news]


def test_only_jobs_whose_extension_was_applied_are_adopted(settler: Settler) -> None:
    ours, expired = reservations(2)
    answers = extended(Verdict.APPLIED, Verdict.EXPIRED)
    assert settler.adopt([ours, expired], answers, deadline=40.0) == 1
    held = claim(settler)
    assert held.reservation is ours
    assert held.deadline == 40.0


def test_what_the_store_does_not_list_is_dropped_or_flagged(settler: Settler) -> None:
    settler.add(reservations(3), deadline=30.0)
    running = claim(settler)
    kept, gone = settler.leases()[1:]
    assert settler.drop_unlisted([kept.reservation]) == [gone, running]
    assert running.lost
    assert claim(settler) is kept
    assert settler.claim(0.0) is None
    assert settler.finished == 0, "there is nothing to hand back of a lease that is not ours"


def test_what_is_worth_waiting_for_ends_with_its_lease(settler: Settler) -> None:
    settler.add(reservations(2), deadline=30.0)
    held = claim(settler)
    settler.finish(held, success(held))
    settler.hand_back()
    assert settler.worth_waiting_for(29.0)
    assert not settler.worth_waiting_for(30.0)


def test_claiming_and_handing_back_at_once_give_each_job_to_one_of_them() -> None:
    settler = Settler()
    number = 4000
    settler.add(reservations(number), deadline=30.0)
    claimed: list[Reservation] = []
    start = Barrier(2)

    def work() -> None:
        start.wait()
        while (held := settler.claim(0.0)) is not None:
            claimed.append(held.reservation)
            settler.finish(held, success(held))

    worker = Thread(target=work)
    worker.start()
    start.wait()
    while settler.waiting > number // 2:
        pass
    settler.hand_back()
    worker.join()
    batch = settler.take()
    while more := settler.take():
        batch += more
    assert len(fences(batch)) == len(set(fences(batch))) == number
    released = [held for held in batch if held.settlement and held.settlement.move is Move.RELEASE]
    assert len(released) + len(claimed) == number
