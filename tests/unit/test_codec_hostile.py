"""Whatever the bytes: a DecodeError or a value; no code, no import, no hang, no flood."""

from __future__ import annotations

import resource
import sys
import time
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskharbor.codec import Failure, decode, decode_call, encode, encode_call
from taskharbor.errors import DecodeError, UnknownWireVersion
from tests.unit.codec_samples import Color, Computed, Item, Order, Point, Right, User, Villa
from tests.unit.test_codec_roundtrip import VALUES


def survives(data: bytes) -> None:
    for read in (decode, decode_call, Failure.decode):
        try:
            read(data)
        except DecodeError:
            pass


@given(st.binary())
def test_any_bytes_decode_or_raise_decode_error(data: bytes) -> None:
    survives(data)
    survives(b"\x01" + data)


CODES = st.integers(-128, 127)
PACKABLE: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**64 - 1),
        st.floats(),
        st.text(),
        st.binary(),
        st.builds(msgpack.ExtType, st.integers(0, 50), st.binary(max_size=40)),
        st.builds(msgpack.ExtType, st.integers(32, 40), st.just(b"")),
        st.sampled_from(["Order", "Point", "User"]).map("tests.unit.codec_samples:{}".format),
    ),
    lambda values: st.one_of(
        st.lists(values),
        st.dictionaries(st.one_of(st.text(), st.integers(-9, 9), st.binary()), values),
    ),
)


@given(PACKABLE)
def test_any_extensions_in_any_place_decode_or_raise_decode_error(value: Any) -> None:
    survives(b"\x01" + msgpack.packb(value))


SAMPLES = [
    encode(value)
    for value in (
        [Order([Item("a", 2**70)], Color.RED, frozenset({(1, 2)})), Point(1.5)],
        {"u": [Computed(3), Right.READ], (1, None): {b"x", "y"}},
        User(userName="ann", address=Villa(street="s")),
        Failure("E", "m", "t", "tb", Failure("C", "m", "t")).encode(),
    )
]


@given(st.one_of(st.sampled_from(SAMPLES), VALUES.map(encode)), st.data())
@settings(max_examples=300)
def test_damaged_bytes_decode_or_raise_decode_error(data: bytes, draw: st.DataObject) -> None:
    at = draw.draw(st.integers(0, len(data)))
    junk = draw.draw(st.binary(max_size=6))
    survives(data[:at])
    survives(data[:at] + junk + data[at:])
    survives(data[:at] + junk + data[at + len(junk) :])


@given(VALUES, st.binary(min_size=1))
def test_trailing_bytes_are_an_error(value: Any, junk: bytes) -> None:
    with pytest.raises(DecodeError):
        decode(encode(value) + junk)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00\xc0",
        b"\x01",
        b"\x01\xc1",
        b"\x01\x91",
        b"\x01\xd9\x05ab",
        b"\x01\x81\x90\x01",
        b"\x01\xd7\xff" + b"\xff" * 8,
        b"\x01" + b"\x91" * 100_000 + b"\xc0",
        b"\x01" + b"\xdd\xff\xff\xff\xff",
        b"\x01" + msgpack.packb([msgpack.ExtType(32, b"")] * 2),
        b"\x01" + msgpack.packb({msgpack.ExtType(32, b""): 1}),
        b"\x01" + msgpack.packb(msgpack.ExtType(99, b"")),
        b"\x01" + msgpack.packb([msgpack.ExtType(33, b""), []]),
        b"\x01" + msgpack.packb([msgpack.ExtType(35, b""), 1]),
    ],
)
def test_corrupt_bytes_are_named_so(data: bytes) -> None:
    with pytest.raises(DecodeError) as caught:
        decode(data)
    assert str(caught.value)
    assert not isinstance(caught.value, UnknownWireVersion)


def test_a_newer_wire_version_is_told_apart_from_corruption() -> None:
    with pytest.raises(UnknownWireVersion, match=r"wire version 2.* reads up to 1: upgrade"):
        decode(b"\x02whatever")
    with pytest.raises(UnknownWireVersion):
        decode_call(b"\x02whatever")


@pytest.mark.parametrize("data", [encode(1), encode([1, 2]), encode([[], {}, 1]), encode([{}, []])])
def test_a_value_that_is_no_call_is_an_error(data: bytes) -> None:
    with pytest.raises(DecodeError, match="not the arguments of a call"):
        decode_call(data)


def test_keyword_names_that_are_no_strings_are_an_error() -> None:
    with pytest.raises(DecodeError, match="not a str"):
        decode_call(encode([[], {1: 2}]))


def record(code: int, name: str, *items: Any) -> bytes:
    packed: bytes = msgpack.packb([msgpack.ExtType(code, b""), name, *items])
    return b"\x01" + packed


@pytest.mark.parametrize("code", [36, 37, 38])
def test_naming_a_class_imports_nothing_and_says_what_to_do(code: int) -> None:
    assert "antigravity" not in sys.modules
    with pytest.raises(DecodeError, match=r"import antigravity in the worker's app, or annotate"):
        decode(record(code, "antigravity:Thing", "a", 1))
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize("code", [36, 37, 38])
@pytest.mark.parametrize(
    "name",
    [
        "os:system", "builtins:eval", "subprocess:Popen", "builtins:dict", "os:environ.copy",
        "tests.unit.codec_samples:Order.__init__", "tests.unit.codec_samples:Color", ":", "os:",
        "tests.unit.codec_samples:Outer.Inner.__class__", "builtins:type", "typing:NamedTuple",
    ],
)  # fmt: skip
def test_only_records_of_the_right_kind_are_made(code: int, name: str) -> None:
    with pytest.raises(DecodeError):
        decode(record(code, name, "command", "exit 1"))


@pytest.mark.parametrize("code", [16, 17])
@pytest.mark.parametrize("name", ["os:system\nx", "builtins:int\n1", "enum:Enum\nx", "no\n1", ""])
def test_only_members_of_real_enums_are_made(code: int, name: str) -> None:
    with pytest.raises(DecodeError):
        decode(b"\x01" + msgpack.packb(msgpack.ExtType(code, name.encode())))


def test_a_lazy_attribute_of_a_module_is_not_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    import tests.unit.codec_samples as samples

    def explode(name: str) -> Any:
        raise AssertionError(f"looked up {name}")

    monkeypatch.setattr(samples, "__getattr__", explode, raising=False)
    with pytest.raises(DecodeError, match="not known here"):
        decode(record(36, "tests.unit.codec_samples:Missing"))


@pytest.mark.parametrize(
    "key", ["../../../etc/passwd", "/etc/localtime", "Mars/Base", "a.b/c", "Europe", ""]
)
def test_a_zone_key_opens_no_other_file(key: str) -> None:
    fields = b"\x07\xe8\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00"
    data = b"\x01" + msgpack.packb(msgpack.ExtType(6, fields + b"z" + key.encode()))
    with pytest.raises(DecodeError, match=r"time zone"):
        decode(data)


def test_declared_lengths_do_not_take_memory_or_time() -> None:
    # Arrays that each promise a million items, a thousand deep: 8 GB of pointers if believed.
    size = 1 << 20
    bomb = (b"\xdd" + size.to_bytes(4)) * 1000
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(DecodeError):
        decode(b"\x01" + bomb.ljust(size, b"\xc0"))
    assert time.process_time() - start < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # KiB


def test_huge_fractions_do_not_hang() -> None:
    half = b"\x7f" * 500_000
    data = msgpack.packb(msgpack.ExtType(4, len(half).to_bytes(4) + half + half))
    with pytest.raises(DecodeError):
        decode(b"\x01" + data)


def test_bytes_from_another_language_may_use_msgpacks_own_timestamp() -> None:
    data = b"\x01" + msgpack.packb([[msgpack.Timestamp(1_700_000_000, 5000)], {}])
    args, _ = decode_call(data)
    assert args[0].isoformat() == "2023-11-14T22:13:20.000005+00:00"


def test_encoded_calls_are_read_by_plain_msgpack() -> None:
    data = encode_call((1, "a"), {"b": None})
    assert data[0] == 1
    assert msgpack.unpackb(data[1:]) == [[1, "a"], {"b": None}]
