"""Retries without spinning, and doubts about what we hold."""

from __future__ import annotations

from random import Random

from taskharbor.worker.recovery import (
    MOST_DELAY_SECONDS,
    ON_ITS_WAY_SECONDS,
    Recovery,
    Retry,
)


def test_delays_grow_to_a_cap_with_jitter() -> None:
    retry = Retry(Random(1))
    delays = []
    for _ in range(2000):
        retry.failed(now=100.0)
        delays.append(retry.at - 100.0)
    assert 0.025 <= delays[0] <= 0.05
    assert delays[4] > delays[0]
    assert max(delays) <= MOST_DELAY_SECONDS
    assert min(delays[5:]) >= MOST_DELAY_SECONDS / 2
    assert len({round(delay, 6) for delay in delays[10:20]}) > 5


def test_a_success_lifts_the_block() -> None:
    retry = Retry(Random(1))
    retry.failed(now=100.0)
    assert retry.blocked(100.0)
    retry.succeeded()
    assert not retry.blocked(100.0)
    retry.failed(now=100.0)
    assert retry.at <= 100.05, "the next failure starts small again"


def test_after_a_lost_reserve_the_store_is_asked_soon_and_once_more_later() -> None:
    recovery = Recovery(recheck_seconds=5.0)
    assert not recovery.due(0.0)
    recovery.reserve_unanswered(0.0)
    assert not recovery.due(0.9 * ON_ITS_WAY_SECONDS)
    assert recovery.due(ON_ITS_WAY_SECONDS)
    recovery.reconciled(1.0)
    assert not recovery.due(5.9)
    assert recovery.due(6.0)
    recovery.reconciled(6.0)
    assert not recovery.due(1e9)
