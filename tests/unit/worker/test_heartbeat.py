"""What the heartbeat thread does, and how long it sleeps."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import pytest

from taskharbor.worker.heartbeat import (
    BEAT_SECONDS,
    HARD_LIMIT_MARGIN_SECONDS,
    PATIENCE_SECONDS,
    Duties,
    Heartbeat,
)
from taskharbor.worker.held import Held
from taskharbor.worker.settler import Settler
from taskharbor.worker.shutdown import Shutdown
from tests.unit.worker.making import reservations, success

BEGIN = 100.0
NOTHING = Duties(beat=False, renew=False, hand_back=False, flush=False)


@dataclass
class Limits:
    soft_deadline: float | None = None
    hard_deadline: float | None = None
    interrupted: bool = False


class Rig:
    def __init__(self, *, slots: int = 1) -> None:
        self.settler = Settler()
        self.shutdown = Shutdown()
        self.heartbeat = Heartbeat(
            self.settler, self.shutdown, Random(3), slots=slots, heartbeat_seconds=10.0, now=BEGIN
        )

    def give(self, number: int) -> None:
        self.settler.add(reservations(number), deadline=BEGIN + 30.0)

    def claim(self, now: float) -> Held:
        held = self.settler.claim(now)
        assert held is not None
        return held

    def wake_at(self, now: float, *attempts: Limits) -> float:
        return self.heartbeat.wake_at(now, attempts)


@pytest.fixture
def rig() -> Rig:
    rig = Rig()
    rig.heartbeat.duties(BEGIN)  # the first beat
    return rig


def test_it_beats_every_second_even_with_nothing_to_do(rig: Rig) -> None:
    assert rig.wake_at(BEGIN) == BEGIN + BEAT_SECONDS
    assert not rig.heartbeat.duties(BEGIN + 0.9).beat
    assert rig.heartbeat.duties(BEGIN + 1.0).beat
    assert not rig.heartbeat.duties(BEGIN + 1.1).beat


def test_leases_are_extended_once_per_heartbeat(rig: Rig) -> None:
    assert not rig.heartbeat.duties(BEGIN + 9.9).renew
    assert rig.heartbeat.duties(BEGIN + 10.0).renew
    rig.heartbeat.renewed(BEGIN + 10.0)
    assert not rig.heartbeat.duties(BEGIN + 19.9).renew
    assert rig.heartbeat.duties(BEGIN + 20.0).renew


def test_a_failed_extension_is_tried_again_soon_but_not_at_once(rig: Rig) -> None:
    now = BEGIN + 10.0
    for _ in range(20):
        assert rig.heartbeat.duties(now).renew
        rig.heartbeat.failed(now)
        assert not rig.heartbeat.duties(now).renew
        later = rig.wake_at(now)
        assert 0.02 < later - now <= 1.0
        now = later if rig.heartbeat.duties(later).renew else later + 1.0


def test_short_jobs_are_left_alone(rig: Rig) -> None:
    rig.give(5)
    rig.claim(BEGIN)
    assert rig.heartbeat.duties(BEGIN + PATIENCE_SECONDS / 2) == NOTHING
    assert rig.wake_at(BEGIN) == pytest.approx(BEGIN + PATIENCE_SECONDS)


def test_nothing_waits_behind_a_long_job(rig: Rig) -> None:
    rig.give(5)
    done = rig.claim(BEGIN)
    rig.settler.finish(done, success(done))
    rig.claim(BEGIN)
    duties = rig.heartbeat.duties(BEGIN + PATIENCE_SECONDS)
    assert duties.hand_back
    assert duties.flush


def test_settlements_go_out_also_when_nothing_waits(rig: Rig) -> None:
    rig.give(2)
    done = rig.claim(BEGIN)
    rig.settler.finish(done, success(done))
    rig.claim(BEGIN)
    assert rig.heartbeat.duties(BEGIN + PATIENCE_SECONDS) == NOTHING._replace(flush=True)


def test_while_a_slot_is_free_it_is_the_reserve_loops_turn() -> None:
    rig = Rig(slots=2)
    rig.heartbeat.duties(BEGIN)
    rig.give(3)
    rig.claim(BEGIN)
    assert rig.heartbeat.duties(BEGIN + 0.5) == NOTHING
    rig.claim(BEGIN + 0.5)
    assert rig.heartbeat.duties(BEGIN + 0.6).hand_back


def test_an_urgent_settlement_is_the_reserve_loops_to_send() -> None:
    rig = Rig(slots=2)
    rig.heartbeat.duties(BEGIN)
    rig.give(3)
    done = rig.claim(BEGIN)
    rig.claim(BEGIN)
    rig.claim(BEGIN)
    rig.settler.finish(done, success(done), urgent=True)
    assert rig.heartbeat.duties(BEGIN + 0.5) == NOTHING
    assert rig.wake_at(BEGIN + 0.5) == BEGIN + BEAT_SECONDS, "no busy waiting for it either"


def test_a_stop_hands_back_and_flushes_at_once(rig: Rig) -> None:
    rig.give(3)
    rig.claim(BEGIN)
    rig.shutdown.stop()
    assert rig.heartbeat.duties(BEGIN) == NOTHING._replace(hand_back=True, flush=True)


def test_while_the_store_is_away_it_hands_back_but_does_not_call(rig: Rig) -> None:
    rig.give(3)
    rig.claim(BEGIN)
    rig.heartbeat.failed(BEGIN + PATIENCE_SECONDS)
    duties = rig.heartbeat.duties(BEGIN + PATIENCE_SECONDS)
    assert duties.hand_back
    assert not duties.flush
    rig.settler.hand_back()
    assert rig.wake_at(BEGIN + PATIENCE_SECONDS) >= BEGIN + PATIENCE_SECONDS + 0.02


def test_a_soft_limit_is_signalled_once(rig: Rig) -> None:
    attempt = Limits(soft_deadline=BEGIN + 0.5, hard_deadline=BEGIN + 5.5)
    assert rig.wake_at(BEGIN, attempt) == BEGIN + 0.5
    assert rig.heartbeat.to_interrupt(BEGIN + 0.4, [attempt, Limits()]) == []
    assert rig.heartbeat.to_interrupt(BEGIN + 0.5, [attempt]) == [attempt]
    attempt.interrupted = True
    assert rig.heartbeat.to_interrupt(BEGIN + 0.6, [attempt]) == []


def test_a_hard_limit_is_the_childs_own_only_after_a_margin(rig: Rig) -> None:
    attempt = Limits(BEGIN + 0.1, BEGIN + 0.2, interrupted=True)
    assert not rig.heartbeat.overdue(BEGIN + 0.2, [attempt])
    assert rig.heartbeat.overdue(BEGIN + 0.2 + HARD_LIMIT_MARGIN_SECONDS, [attempt])
    assert rig.wake_at(BEGIN + 0.15, attempt) == BEGIN + BEAT_SECONDS


def test_it_never_sleeps_for_no_time_at_all(rig: Rig) -> None:
    rig.give(3)
    rig.claim(BEGIN - 50.0)
    assert rig.wake_at(BEGIN) > BEGIN
