"""Many values decoded at once are what they are one by one, and so are their errors."""

from collections.abc import Callable
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskharbor import codec
from taskharbor.codec.wire import MAX_DEPTH
from taskharbor.errors import DecodeError, UnknownWireVersion

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
values = st.recursive(
    scalars | st.binary() | st.dates(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(scalars, inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.lists(values, max_size=6))
def test_all_at_once_are_what_each_is(them: list[Any]) -> None:
    decoded = codec.decode_all([codec.encode(value) for value in them])
    assert decoded == them
    assert [*map(type, decoded)] == [*map(type, them)]


def test_values_as_deep_as_can_be_are_read() -> None:
    deep: Any = 1
    for _ in range(MAX_DEPTH):
        deep = (deep,)
    assert codec.decode_all([codec.encode(deep), codec.encode(date(2026, 1, 2))]) == [
        deep,
        date(2026, 1, 2),
    ]


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (b"", DecodeError),
        (b"\x01", DecodeError),
        (b"\x01\x01\x01\x01", DecodeError),
        (b"\x01\x92\xc0", DecodeError),
        (b"\x02\xc0", UnknownWireVersion),
        (b"\x01\xc7\x00\x20", DecodeError),
    ],
    ids=["nothing", "no value", "two values", "half a value", "a newer one", "a mark"],
)
def test_one_that_is_wrong_is_an_error(place: int, wrong: bytes, error: Callable[..., Any]) -> None:
    encoded = [b"\x01\xc0", b"\x01\x05"]
    encoded.insert(place, wrong)
    with pytest.raises(error):  # type: ignore[call-overload]
        codec.decode_all(encoded)
