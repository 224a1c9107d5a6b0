"""What is decoded is what was encoded: same types, same values, same fine print."""

from __future__ import annotations

import pathlib
import subprocess
import sys
from collections.abc import Hashable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskharbor.codec import decode, decode_call, encode, encode_call
from tests.unit.codec_samples import (
    Address,
    Bits,
    Box,
    Color,
    Computed,
    Item,
    Key,
    Level,
    Open,
    Order,
    Outer,
    Pair,
    Point,
    Right,
    User,
    Villa,
    Word,
    same,
)

ZONES = st.one_of(
    st.none(),
    st.just(timezone.utc),  # noqa: UP017 - the type is the subject here
    st.timedeltas(timedelta(hours=-23, minutes=-59), timedelta(hours=23, minutes=59)).map(timezone),
    st.builds(timezone, st.just(timedelta(hours=1)), st.sampled_from(["CET", "Ω", "UTC"])),
    st.sampled_from(["Europe/Berlin", "America/Argentina/Ushuaia", "Etc/GMT+5", "UTC"]).map(
        ZoneInfo
    ),
)
ANY_TEXT = st.text(st.characters(exclude_categories=()))  # lone surrogates and NUL too
NUMBERS = st.one_of(
    st.integers(),
    st.integers(min_value=2**60),
    st.integers(max_value=-(2**60)),
    st.floats(),
    st.complex_numbers(),
    st.decimals(),
    st.sampled_from([Decimal("sNaN12"), Decimal("-0E+9"), Decimal("-Infinity"), Decimal("1.10")]),
    st.fractions(),
)
MEMBERS = st.sampled_from(
    [*Color, *Level, *Word, Right(0), *Right, Right.READ | Right.WRITE, Bits(5), Bits(8)]
)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    NUMBERS,
    ANY_TEXT,
    st.binary(),
    st.binary().map(bytearray),
    st.datetimes(timezones=ZONES, allow_imaginary=True),
    st.dates(),
    st.times(timezones=ZONES),
    st.timedeltas(),
    st.uuids(),
    MEMBERS,
    ANY_TEXT.map(pathlib.Path),
    ANY_TEXT.map(pathlib.PureWindowsPath),
)


def hashable(value: object) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


KEY_LEAVES = LEAVES.filter(hashable)
KEYS: st.SearchStrategy[Hashable] = st.recursive(
    KEY_LEAVES,
    lambda keys: st.one_of(
        st.lists(keys, max_size=3).map(tuple),
        st.frozensets(keys, max_size=3),
        st.builds(Point, keys, keys),
        st.builds(Key, keys),
    ),
    max_leaves=4,
)


def containers(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.lists(values, max_size=4),
        st.lists(values, max_size=4).map(tuple),
        st.dictionaries(KEYS, values, max_size=4),
        st.dictionaries(ANY_TEXT, values, max_size=4),
        st.sets(KEYS, max_size=4),
        st.frozensets(KEYS, max_size=4),
        st.builds(Point, values, values),
        st.builds(Pair, values, values),
        st.builds(Item, ANY_TEXT, values),
        st.builds(Order, st.lists(st.builds(Item, ANY_TEXT)), values, st.frozensets(KEYS)),
        st.builds(Box, values),
        st.builds(Outer.Inner, values),
    )


VALUES = st.recursive(LEAVES, containers, max_leaves=12)


@given(VALUES)
def test_every_value_comes_back_as_itself(value: Any) -> None:
    assert same(decode(encode(value)), value)


@given(st.lists(VALUES, max_size=4).map(tuple), st.dictionaries(ANY_TEXT, VALUES, max_size=4))
def test_every_call_comes_back_as_itself(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    decoded_args, decoded_kwargs = decode_call(encode_call(args, kwargs))
    assert same(tuple(decoded_args), args)
    assert same(decoded_kwargs, kwargs)


@given(VALUES)
def test_encoding_twice_gives_the_same_bytes_and_leaves_the_value_alone(value: Any) -> None:
    before = repr(value)
    assert encode(value) == encode(value)
    assert repr(value) == before


@pytest.mark.parametrize(
    "value",
    [
        2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**5000, -(10**5000),
        {2**70: -(2**70)}, [2**64], "\ud800", {"\udcff": "\0"}, b"", [], {}, (), set(), frozenset(),
        ((),), [()], {(): {(): ()}}, {None: 1, True: 2, 1.5: 3, b"": 4, "": 5},
        Decimal("1E+999999"), Decimal("NaN123"), Fraction(-(2**70), 3), complex("nan-infj"),
        datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin")),
        datetime(1, 1, 1), datetime.max, date.min, date.max, time.max,  # noqa: DTZ001, DTZ901
        time(1, 2, 3, 4, fold=1, tzinfo=timezone(timedelta(microseconds=-1))),
        timedelta.min, timedelta.max, UUID(int=0), UUID(int=2**128 - 1),
        pathlib.PurePosixPath("/a/\udc80"), pathlib.Path(), Color.CRIMSON, Color.GREEN,
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_the_edges_come_back_as_themselves(value: Any) -> None:
    assert same(decode(encode(value)), value)


def test_every_time_zone_of_this_machine_travels() -> None:
    moments = [datetime(2024, 7, 1, tzinfo=ZoneInfo(key)) for key in available_timezones()]
    assert same(decode(encode(moments)), moments)


def test_dicts_keep_their_order() -> None:
    value = {"z": 1, (1, 2): 2, "a": 3}
    assert list(decode(encode(value))) == ["z", (1, 2), "a"]
    assert list(decode_call(encode_call((), {"z": 1, "a": 2}))[1]) == ["z", "a"]


def test_equal_sets_give_equal_bytes_in_every_process() -> None:
    # A digest of the bytes tells a replayed request from another one.
    code = (
        "from taskharbor.codec import encode;"
        "print(encode({'a', 'b', 'c', 'd', 'e', (1, 'x'), None, 2.5, frozenset('xyz')}).hex())"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            check=True,
            capture_output=True,
            timeout=30,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(outputs) == 1


def test_a_dataclass_keeps_fields_that_its_post_init_changes_or_makes() -> None:
    value = Computed(3)
    value.doubled = 7
    back = decode(encode(value))
    assert (back.cents, back.doubled) == (300, 7)
    assert back.lock.acquire(blocking=False)  # what is no field is made anew


def test_a_pydantic_model_comes_back_with_the_classes_inside_it() -> None:
    value = User(userName="ann", address=Villa(street="s", pools=2), tags={"a"}, home=(1, 2))
    back = decode(encode([value]))[0]
    assert type(back) is User
    assert type(back.address) is Villa
    assert back == value
    assert back.model_fields_set == value.model_fields_set == {"name", "address", "tags", "home"}


def test_a_pydantic_model_remembers_which_fields_were_set() -> None:
    patch = Address(street="s")
    assert decode(encode(patch)).model_dump(exclude_unset=True) == {"street": "s"}


def test_a_pydantic_model_keeps_extra_fields_where_it_allows_them() -> None:
    value = Open(known=1, more=(1, 2))  # type: ignore[call-arg]
    back = decode(encode(value))
    assert back == value
    assert back.more == (1, 2)


def test_the_empty_call_is_five_bytes_at_most() -> None:
    assert encode_call((), {}) == b"\x01\x92\x90\x80"
    assert decode_call(b"\x01\x92\x90\x80") == ([], {})


def test_decoded_empty_calls_do_not_share_their_containers() -> None:
    args, kwargs = decode_call(encode_call((), {}))
    args.append(1)
    kwargs["a"] = 1
    assert decode_call(encode_call((), {})) == ([], {})


SCRIPT = """
import sys
from dataclasses import dataclass
from enum import Enum
from taskharbor.codec import decode, encode

class Mood(Enum):
    GOOD = 1

@dataclass
class Parcel:
    mood: Mood

if __name__ == "__main__":
    data = encode(Parcel(Mood.GOOD))
    assert decode(data) == Parcel(Mood.GOOD)
    import parcels  # as a module that a script imports may do
    assert sys.modules["__main__"].Parcel is not parcels.Parcel
    assert encode(parcels.Parcel(parcels.Mood.GOOD)) == data
    print(data.hex())
"""


@pytest.mark.parametrize("command", [["parcels.py"], ["-m", "parcels"]])
def test_a_scripts_classes_are_found_by_a_worker_that_imports_it(
    tmp_path: pathlib.Path, command: list[str]
) -> None:
    (tmp_path / "parcels.py").write_text(SCRIPT)
    environment = {"PYTHONPATH": ":".join([str(tmp_path), *sys.path])}
    worker = (
        "import parcels, sys; from taskharbor.codec import decode;"
        "print(decode(bytes.fromhex(sys.argv[1])))"
    )

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            env=environment,
            cwd=tmp_path,
            check=True,
            capture_output=True,
            text=True,
            timeout=30,
        )
        return done.stdout.strip()

    assert run("-c", worker, run(*command)) == "Parcel(mood=<Mood.GOOD: 1>)"
