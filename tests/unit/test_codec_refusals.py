"""What can't travel is refused when it is encoded, with the path to it and what to do."""

from __future__ import annotations

import socket
from collections import Counter, OrderedDict, defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from enum import Enum
from typing import Any

import pytest

from taskharbor.codec import MAX_DEPTH, decode, encode, encode_call
from taskharbor.errors import EncodeError, PayloadTooLarge
from tests.unit.codec_samples import Bits, Color, Item, Key, NeedsInitVar, OwnInit, Point


class Name(str):
    __slots__ = ()


class Count(int):
    pass


class Moment(datetime):
    pass


class OddZone(tzinfo):
    def utcoffset(self, _: datetime | None) -> timedelta:
        return timedelta(0)

    dst = utcoffset

    def tzname(self, _: datetime | None) -> str:
        return "odd"


@dataclass
class ListAndMore(list[int]):
    more: int = 0


@dataclass
class Avatar:
    layers: list[Any]


def refusal(value: object, what: str = "argument") -> str:
    with pytest.raises(EncodeError) as caught:
        encode(value, what=what)
    return str(caught.value)


@pytest.mark.parametrize(
    ("args", "kwargs", "place"),
    [
        ((object(),), {}, "args[0] is a <class 'object'>"),
        ((1, [2, (3, object())]), {}, "args[1][1][1] is a"),
        ((), {"user": {"a b": [object()]}}, "kwargs['user']['a b'][0] is a"),
        ((Avatar([1, object()]),), {}, "args[0].layers[1] is a"),
        (({(1, 2): object()},), {}, "args[0][<tuple>] is a"),
        (({(1, object()): 2},), {}, "args[0] key [<tuple>][1] is a"),
        (({object()},), {}, "args[0]{…} is a"),
        ((Point(1, object()),), {}, "args[0].y is a"),  # type: ignore[arg-type]
        (({Key(object()): 1},), {}, "args[0] key [<Key>].part is a"),
        ((), {"at": datetime(2024, 1, 1, tzinfo=OddZone())}, "kwargs['at'] has a time zone"),
    ],
)
def test_the_error_has_the_path_to_the_value(
    args: tuple[Any, ...], kwargs: dict[str, Any], place: str
) -> None:
    with pytest.raises(EncodeError) as caught:
        encode_call(args, kwargs)
    assert str(caught.value).startswith(f"can't encode argument: {place}")


def test_the_error_names_a_socket_in_an_object_and_what_to_do() -> None:
    with socket.socket() as connection, pytest.raises(EncodeError) as caught:
        encode_call((), {"user": Avatar([0, 1, 2, connection])})
    assert str(caught.value) == (
        "can't encode argument: kwargs['user'].layers[3] is a <class 'socket.socket'>; pass plain "
        "data, a dataclass or an identifier, and open what can't travel inside the task"
    )


def test_a_result_is_called_a_result() -> None:
    assert refusal({"rows": [object()]}, "result").startswith(
        "can't encode result: result['rows'][0] is a <class 'object'>"
    )
    assert refusal(object(), "result").startswith("can't encode result: it is a <class 'object'>")


@pytest.mark.parametrize(
    ("value", "remedy"),
    [
        (Name("a"), "a plain str, so make it one"),
        (Count(1), "a plain int, so make it one"),
        (OrderedDict(a=1), "a plain dict, so make it one"),
        (defaultdict(list), "a plain dict, so make it one"),
        (Counter("ab"), "a plain dict, so make it one"),
        (Moment(2024, 1, 1), "plain datetime"),
        (memoryview(b"ab"), "bytes(value)"),
        ((n for n in [1]), "list(value)"),
        (range(3), "list(value)"),
        (ValueError("x"), "str(error)"),
        (refusal, "pass its name"),
        (Point, "pass its name"),
        (ListAndMore(), "hold the builtin value in a field"),
        (OwnInit("abc"), "leave __init__ to @dataclass"),
        (NeedsInitVar("abc"), "give an InitVar a default"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_type_that_would_change_is_refused_with_a_remedy(value: object, remedy: str) -> None:
    assert remedy in refusal(value)
    assert remedy in refusal([value])
    assert remedy in refusal({"k": (value,)})


def test_subclasses_are_refused_as_keys_too() -> None:
    assert "a plain str, so make it one" in refusal({Name("a"): 1})
    with pytest.raises(EncodeError, match=r"kwargs\[<Name>\]"):
        encode_call((), {Name("a"): 1})


def test_a_class_that_no_worker_could_find_is_refused() -> None:
    @dataclass
    class Local:
        x: int

    class Mood(Enum):
        GOOD = 1

    assert "made inside a function" in refusal(Local(1))
    assert "made inside a function" in refusal(Mood.GOOD)


def test_a_class_that_another_one_hides_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    value = Item("a")
    monkeypatch.setattr("tests.unit.codec_samples.Item", Point)
    from taskharbor.codec import classes, records

    def forget() -> None:
        classes.class_name.cache_clear()
        records.shape_of.cache_clear()

    forget()
    try:
        assert "is something else" in refusal(value)
    finally:
        forget()


def test_a_member_that_its_class_does_not_list_is_refused() -> None:
    stray = object.__new__(Color)
    stray._name_, stray._value_ = "STRAY", 7
    assert "pass its value" in refusal(stray)
    assert "pass its value" in refusal(Bits(1 << 8000))


def test_a_value_that_contains_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append({"again": loop})
    message = refusal(loop)
    assert "contains itself" in message
    assert len(message) < 1000


def test_depth_is_bounded_and_the_deepest_value_comes_back() -> None:
    value: Any = 1
    for _ in range(MAX_DEPTH):
        value = (value,)
    assert decode(encode(value)) == value
    assert "nested more than" in refusal((value,))
    args = (value,)
    assert encode_call(args, {"a": value})


def test_an_object_that_never_got_its_field_is_refused() -> None:
    assert "without a value for a field" in refusal(Item.__new__(Item))


def test_the_limit_is_exact_and_its_error_names_limit_and_setting() -> None:
    data = encode("x" * 100)
    assert encode("x" * 100, limit=len(data)) == data
    with pytest.raises(
        PayloadTooLarge, match=r"the result takes 103 bytes .* of 102; .*max_result_"
    ):
        encode("x" * 100, limit=102, what="result")
    with pytest.raises(
        PayloadTooLarge, match=r"arguments take \d+ bytes .*raise max_payload_bytes"
    ):
        encode_call(("x" * 100,), {}, limit=102)
    with pytest.raises(PayloadTooLarge, match=r"pass a reference$"):
        encode("x" * 100, limit=102, what="progress")
    with pytest.raises(PayloadTooLarge):
        encode_call((), {"a": ("x" * 100,)}, limit=102)
