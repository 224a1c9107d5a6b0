"""When the reaper rests: gaps of the store, of the clock, of this process."""

from __future__ import annotations

import pytest

from taskharbor.maintenance.lulls import Lulls

LEASE = 30.0
WALL = 1_000_000.0
"""Wall clock minus monotonic clock."""


@pytest.fixture
def lulls() -> Lulls:
    return Lulls(lease_seconds=LEASE, now=0.0, wall=WALL)


def test_without_a_gap_nothing_rests_and_nothing_is_forgiven(lulls: Lulls) -> None:
    for second in range(100):
        lulls.tick(second, WALL + second, expected_at=second)
        lulls.store_answered(second)
        assert not lulls.rest_due
        assert not lulls.resting(second)
        assert not lulls.forgives(WALL + second)


def test_an_outage_is_followed_by_a_rest_of_one_lease(lulls: Lulls) -> None:
    lulls.store_failed(100.0)
    assert lulls.resting(100.0)
    lulls.store_failed(150.0)
    lulls.store_answered(160.0)
    assert lulls.rest_due
    assert lulls.resting(160.0)
    lulls.begin_rest(160.0, store=5000.0)
    assert lulls.resting(160.0 + LEASE - 0.1)
    assert not lulls.resting(160.0 + LEASE)


def test_what_expired_in_the_outage_or_its_rest_is_forgiven_and_nothing_else(
    lulls: Lulls,
) -> None:
    lulls.store_failed(100.0)
    lulls.store_answered(160.0)
    lulls.begin_rest(160.0, store=5000.0)
    assert not lulls.forgives(5000.0 - 62.0)
    assert lulls.forgives(5000.0 - 60.0)
    assert lulls.forgives(5000.0 + LEASE)
    assert not lulls.forgives(5000.0 + LEASE + 0.1)


def test_a_blink_of_the_store_changes_nothing(lulls: Lulls) -> None:
    lulls.store_failed(100.0)
    lulls.store_answered(100.0 + LEASE / 4 - 0.1)
    assert not lulls.rest_due


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
def test_a_jump_of_the_clock_is_a_gap(lulls: Lulls, jump: float) -> None:
    lulls.tick(10.0, WALL + 10.0 + jump, expected_at=10.0)
    assert lulls.rest_due
    lulls.begin_rest(10.0, store=9000.0)
    assert lulls.resting(10.0)
    # Once: from then on the clocks go together again.
    lulls.tick(50.0, WALL + 50.0 + jump, expected_at=50.0)
    assert not lulls.resting(50.0)


def test_a_process_that_was_stopped_has_a_gap(lulls: Lulls) -> None:
    lulls.tick(70.0, WALL + 70.0, expected_at=10.0)
    assert lulls.rest_due


def test_a_wait_that_was_meant_is_no_gap(lulls: Lulls) -> None:
    lulls.tick(70.0, WALL + 70.0, expected_at=69.9)
    assert not lulls.rest_due


def test_a_gap_inside_a_rest_makes_one_long_gap_of_both(lulls: Lulls) -> None:
    lulls.store_failed(100.0)
    lulls.store_answered(110.0)
    lulls.begin_rest(110.0, store=1110.0)
    lulls.store_failed(120.0)
    lulls.store_answered(130.0)
    lulls.begin_rest(130.0, store=1130.0)
    assert lulls.resting(130.0 + LEASE - 0.1)
    assert lulls.forgives(1100.0)
    assert lulls.forgives(1130.0 + LEASE)
