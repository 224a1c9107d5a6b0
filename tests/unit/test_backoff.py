"""Backoff policies: bounded, deterministic under a given randomness, and data."""

import math
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskharbor import backoff, defaults
from taskharbor.backoff import Backoff, Delays, Exponential, Fixed, unpack
from taskharbor.errors import ConfigurationError, DecodeError

seconds = st.floats(0, defaults.MAX_DELAY_SECONDS)
policies: st.SearchStrategy[Backoff] = st.one_of(
    st.builds(Fixed, seconds),
    st.builds(
        Exponential,
        base=seconds,
        factor=st.floats(1, 1000),
        cap=seconds,
        jitter=st.sampled_from(["full", "equal", "none"]),
    ),
    st.lists(seconds, min_size=1, max_size=100).map(lambda delays: Delays(*delays)),
)
attempts = st.integers(-5, 10**9)


def _delays(policy: Backoff, count: int) -> list[float]:
    return [policy.delay(attempt, Random(0)) for attempt in range(1, count + 1)]


def test_fixed_is_always_the_same() -> None:
    assert _delays(Fixed(2.5), 4) == [2.5] * 4


def test_exponential_grows_by_its_factor_up_to_its_cap() -> None:
    policy = Exponential(base=1, factor=3, cap=50, jitter="none")
    assert _delays(policy, 6) == [1, 3, 9, 27, 50, 50]


def test_listed_delays_are_taken_one_by_one_and_the_last_repeats() -> None:
    assert _delays(Delays(1, 10, 5), 5) == [1, 10, 5, 5, 5]


def test_the_default_doubles_from_a_second_to_ten_minutes_with_full_jitter() -> None:
    assert Exponential(base=1, factor=2, cap=600, jitter="full") == backoff.DEFAULT
    assert unpack(None) == backoff.DEFAULT


@given(policy=policies, attempt=attempts, seed=st.integers())
def test_a_delay_is_never_negative_nor_endless(policy: Backoff, attempt: int, seed: int) -> None:
    assert 0 <= policy.delay(attempt, Random(seed)) <= defaults.MAX_DELAY_SECONDS


@given(policy=policies, attempt=attempts, seed=st.integers())
def test_the_same_randomness_gives_the_same_delay(policy: Backoff, attempt: int, seed: int) -> None:
    assert policy.delay(attempt, Random(seed)) == policy.delay(attempt, Random(seed))


@given(
    base=seconds,
    factor=st.floats(1, 1000),
    cap=seconds,
    attempt=st.integers(1, 10**6),
    seed=st.integers(),
)
def test_jitter_draws_below_the_delay_without_it(
    base: float, factor: float, cap: float, attempt: int, seed: int
) -> None:
    longest = Exponential(base, factor, cap, "none").delay(attempt, Random(seed))
    full = Exponential(base, factor, cap, "full").delay(attempt, Random(seed))
    equal = Exponential(base, factor, cap, "equal").delay(attempt, Random(seed))
    assert 0 <= full <= longest <= cap
    assert longest / 2 <= equal <= longest


@pytest.mark.parametrize(("jitter", "low"), [("full", 0.0), ("equal", 4.0)])
def test_jitter_uses_its_whole_range(jitter: Any, low: float) -> None:
    policy, rng = Exponential(base=8, jitter=jitter), Random(1)
    drawn = [policy.delay(1, rng) for _ in range(2000)]
    assert low <= min(drawn) < low + 0.1
    assert 7.9 < max(drawn) <= 8
    middle = (low + 8) / 2
    assert abs(sum(drawn) / len(drawn) - middle) < 0.2


@given(base=seconds, factor=st.floats(1, 1000), cap=seconds, attempt=st.integers(1, 1000))
def test_without_jitter_no_delay_is_shorter_than_the_one_before(
    base: float, factor: float, cap: float, attempt: int
) -> None:
    policy = Exponential(base, factor, cap, "none")
    assert policy.delay(attempt, Random(0)) <= policy.delay(attempt + 1, Random(0))


@given(policy=policies)
def test_a_policy_travels_as_plain_data(policy: Backoff) -> None:
    packed = policy.pack()
    assert all(isinstance(value, str | int | float) for value in packed)
    assert unpack(packed) == policy


@pytest.mark.parametrize(
    "packed",
    [
        (),
        ("cubic", 1),
        ("fixed",),
        ("fixed", -1),
        ("fixed", "soon"),
        ("fixed", 1, 2),
        ("exponential", 1, 0.5, 10, "full"),
        ("exponential", 1, 2, 10, "some"),
        ("delays",),
        (["fixed"], 1),
        5,
    ],
    ids=str,
)
def test_what_is_no_policy_is_a_decode_error(packed: Any) -> None:
    with pytest.raises(DecodeError):
        unpack(packed)


@pytest.mark.parametrize("wrong", [-1, math.nan, math.inf, True, "1", None, 1e12])
def test_impossible_seconds_are_refused_by_name(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="backoff seconds"):
        Fixed(wrong)
    with pytest.raises(ConfigurationError, match="backoff base"):
        Exponential(base=wrong)
    with pytest.raises(ConfigurationError, match="backoff cap"):
        Exponential(cap=wrong)
    with pytest.raises(ConfigurationError, match="a delay"):
        Delays(1, wrong)


def test_impossible_shapes_are_refused() -> None:
    wrong: Any
    for wrong in (0.5, 1001, math.nan, "2"):
        with pytest.raises(ConfigurationError, match="factor"):
            Exponential(factor=wrong)
    wrong = "half"
    with pytest.raises(ConfigurationError, match="jitter"):
        Exponential(jitter=wrong)
    with pytest.raises(ConfigurationError, match="1 to 100"):
        Delays()
    with pytest.raises(ConfigurationError, match="1 to 100"):
        Delays(*[1] * 101)
