from random import Random

from taskharbor.worker.restarts import MAX_DELAY_SECONDS, Restarts


def test_what_dies_late_is_started_again_at_once() -> None:
    restarts = Restarts(Random(1))
    assert [restarts.died(early=False) for _ in range(3)] == [0.0, 0.0, 0.0]


def test_the_first_early_death_is_forgiven_then_delays_double_up_to_the_cap() -> None:
    restarts = Restarts(Random(1))
    delays = [restarts.died(early=True) for _ in range(20)]
    assert delays[0] == 0.0
    for number, delay in enumerate(delays[1:]):
        longest = min(MAX_DELAY_SECONDS, 0.05 * 2**number)
        assert longest / 2 <= delay <= longest
    assert delays[-1] >= MAX_DELAY_SECONDS / 2


def test_a_life_or_a_late_death_forgets_the_early_ones() -> None:
    restarts = Restarts(Random(1))
    for forget in (restarts.lives, lambda: restarts.died(early=False)):
        restarts.died(early=True)
        assert restarts.died(early=True) > 0
        forget()
        assert restarts.died(early=True) == 0.0


def test_a_crash_loop_of_years_does_not_overflow() -> None:
    restarts = Restarts(Random(1))
    assert all(restarts.died(early=True) <= MAX_DELAY_SECONDS for _ in range(5000))
