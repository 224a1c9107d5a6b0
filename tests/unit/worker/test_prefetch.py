"""How many jobs are asked for, and of which queue first."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from taskharbor.worker.prefetch import Prefetch, Rotation


def settle(prefetch: Prefetch, job_seconds: float, rounds: int = 20) -> int:
    """The limit after many full answers with jobs of one length."""
    for _ in range(rounds):
        asked = prefetch.limit(1)
        prefetch.got(asked, asked)
        prefetch.ran(asked, asked * job_seconds)
    return prefetch.limit(1)


def test_a_new_child_asks_for_one_job() -> None:
    assert Prefetch().limit(1) == 1


def test_short_jobs_are_asked_for_in_ever_larger_numbers_up_to_the_cap() -> None:
    prefetch = Prefetch(most=128)
    asked = []
    for _ in range(9):
        asked.append(prefetch.limit(1))
        prefetch.got(asked[-1], asked[-1])
        prefetch.ran(asked[-1], asked[-1] * 20e-6)
    assert asked == [1, 2, 4, 8, 16, 32, 64, 128, 128]


def test_it_asks_for_about_20_ms_of_work() -> None:
    assert 18 <= settle(Prefetch(), 0.001) <= 20


def test_long_jobs_are_asked_for_one_by_one() -> None:
    assert settle(Prefetch(), 0.5) == 1


def test_a_sudden_long_job_cuts_the_next_request_down_at_once() -> None:
    prefetch = Prefetch()
    assert settle(prefetch, 20e-6) == 128
    prefetch.ran(1, 0.5)
    assert prefetch.limit(1) == 1


def test_free_slots_are_always_filled() -> None:
    prefetch = Prefetch(slots=50)
    assert prefetch.limit(50) == 50
    prefetch.ran(1, 10.0)
    assert prefetch.limit(7) == 7


def test_an_answer_that_was_not_full_does_not_raise_the_number() -> None:
    prefetch = Prefetch()
    prefetch.ran(1, 20e-6)
    for _ in range(5):
        prefetch.got(prefetch.limit(1), 0)
    assert prefetch.limit(1) == 1


@given(st.lists(st.tuples(st.integers(1, 200), st.floats(0, 100)), max_size=30))
def test_the_number_stays_in_bounds(runs: list[tuple[int, float]]) -> None:
    prefetch = Prefetch(most=128)
    for jobs, seconds in runs:
        prefetch.ran(jobs, seconds)
        prefetch.got(prefetch.limit(1), jobs)
        assert 1 <= prefetch.limit(1) <= 128


def test_queues_take_turns_by_weight() -> None:
    rotation = Rotation((("mail", 3), ("default", 1)))
    orders = [rotation.next() for _ in range(8)]
    assert Counter(order[0] for order in orders) == {"mail": 6, "default": 2}
    assert all(set(order) == {"mail", "default"} for order in orders)


def test_turns_are_spread_evenly() -> None:
    rotation = Rotation((("a", 5), ("b", 1), ("c", 1)))
    firsts = [rotation.next()[0] for _ in range(7)]
    assert firsts == ["a", "a", "b", "a", "c", "a", "a"], "the sequence nginx documents"


@given(st.lists(st.integers(1, 20), min_size=1, max_size=6))
def test_no_queue_waits_longer_than_the_sum_of_weights(weights: list[int]) -> None:
    rotation = Rotation(tuple((f"q{i}", weight) for i, weight in enumerate(weights)))
    total = sum(weights)
    firsts = [rotation.next()[0] for _ in range(3 * total)]
    for number in range(len(weights)):
        turns = [i for i, first in enumerate(firsts) if first == f"q{number}"]
        assert len(turns) == 3 * weights[number]
        assert all(later - earlier <= total for earlier, later in pairwise(turns))
