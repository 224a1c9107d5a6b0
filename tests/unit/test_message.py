"""A message: what may be stored, when it is due, and its body's wire form."""

import math
import string
from typing import Any

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from taskharbor import defaults
from taskharbor.backoff import Exponential
from taskharbor.errors import DecodeError, InvalidJob, PayloadTooLarge, UnknownWireVersion
from taskharbor.message import (
    BODY_VERSION,
    Call,
    Message,
    Policy,
    Retention,
    check_name,
    read_body,
    write_body,
)
from taskharbor.wiring import Take, Wiring

NOW = 1_700_000_000.0
_START = string.ascii_letters + string.digits
names = st.builds(
    str.__add__,
    st.sampled_from(_START),
    st.text(_START + "_.:-", max_size=defaults.MAX_NAME_CHARS - 1),
)
times = st.floats(0, defaults.MAX_DELAY_SECONDS)


def _message(**fields: Any) -> Message:
    return Message(**({"id": "a", "task": "demo.task", "body": b""} | fields))


# --- what may be stored -----------------------------------------------------------------------


@given(name=names)
def test_allowed_names_pass(name: str) -> None:
    check_name("queue", name)
    assert _message(id=name, task=name, queue=name).queue == name


@given(name=st.text(max_size=200))
@example("")
@example("a\n")
@example("a\x00")
@example("ä")
@example("١")
@example(" a")
@example("-a")
@example("a" * 129)
def test_other_names_are_refused_with_the_rule(name: str) -> None:
    allowed = set(_START + "_.:-")
    if name and len(name) <= 128 and set(name) <= allowed and name[0] in _START + "_":
        return
    with pytest.raises(InvalidJob, match=r"queue .* is not a valid name; use 1 to 128"):
        check_name("queue", name)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"id": ""}, "job id"),
        ({"task": "a b"}, "task"),
        ({"queue": 5}, "queue"),
        ({"priority": 101}, "from -100"),
        ({"priority": -101}, "from -100"),
        ({"priority": 1.0}, "whole number"),
        ({"priority": True}, "whole number"),
        ({"delay": -0.001}, "delay"),
        ({"delay": math.nan}, "delay"),
        ({"delay": math.inf}, "delay"),
        ({"delay": True}, "delay"),
        ({"delay": 1e12}, "delay"),
        ({"eta": math.nan}, "eta"),
        ({"eta": "tomorrow"}, "eta"),
        ({"eta": NOW, "delay": 5.0}, "either a delay or an eta"),
        ({"expires_in": 0.0}, "expires_in"),
        ({"expires_in": -5.0}, "expires_in"),
        ({"expires_at": math.inf}, "expires_at"),
        ({"expires_in": 5.0, "expires_at": NOW}, "either expires_in or expires_at"),
        ({"idempotency_key": ""}, "idempotency_key"),
        ({"idempotency_key": "a\nb"}, "idempotency_key"),
        ({"idempotency_key": "\ud800"}, "idempotency_key"),
        ({"idempotency_key": "k" * 256}, "idempotency_key"),
        ({"key_until": "never"}, "key_until"),
        ({"key_until": -1.0}, "key_until"),
        ({"retention": Retention(succeeded=-1)}, "retention for succeeded jobs"),
        ({"retention": Retention(dead=math.nan)}, "retention for dead jobs"),
    ],
    ids=str,
)
def test_what_must_not_be_stored_is_refused_by_name(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidJob, match=says):
        _message(**fields)


def test_the_limits_themselves_are_allowed() -> None:
    _message(priority=100)
    _message(priority=-100)
    _message(delay=defaults.MAX_DELAY_SECONDS)
    _message(retention=Retention(0, 0, 0))
    _message(idempotency_key="k" * 255, key_until=0.0)
    _message(idempotency_key="naïve ☃", key_until="terminal")


# --- times ------------------------------------------------------------------------------------


@given(delay=times)
def test_a_delay_counts_from_the_store_s_now(delay: float) -> None:
    assert _message(delay=delay).due_at(NOW) == NOW + delay


@given(eta=st.floats(-1e12, 1e12))
def test_an_eta_is_due_then_and_a_past_one_now(eta: float) -> None:
    assert _message(eta=eta).due_at(NOW) == max(NOW, eta)


def test_expiry_is_relative_or_a_date_or_never() -> None:
    assert _message(expires_in=5.0).expiry(NOW) == NOW + 5
    assert _message(expires_at=123.0).expiry(NOW) == 123
    assert _message().expiry(NOW) is None


# --- the body ---------------------------------------------------------------------------------

positions = st.integers(0, 1_000_000)
takes = st.builds(Take, positions, st.none() | positions)
wirings = st.builds(
    Wiring,
    args=st.lists(takes, max_size=3).map(tuple),
    kwargs=st.dictionaries(st.text(max_size=10), takes, max_size=3),
    allowed=st.lists(st.tuples(positions, positions), max_size=3).map(tuple),
    error=st.sampled_from([0, 1, 3]),
)
calls = st.builds(
    Call,
    payload=st.binary(max_size=200),
    timeout=st.none() | times,
    policy=st.builds(
        Policy,
        max_attempts=st.integers(1, 1000),
        backoff=st.sampled_from([None, Exponential(base=2).pack()]),
        max_losses=st.integers(1, 1000),
        unknown_task_seconds=times,
    ),
    headers=st.dictionaries(st.text(max_size=10), st.integers(0, 100) | st.text(max_size=10)),
    wiring=st.none() | wirings,
)


@given(call=calls)
def test_a_body_round_trips(call: Call) -> None:
    assert read_body(write_body(call)) == call


def test_only_a_job_that_takes_results_of_others_has_the_newer_version() -> None:
    plain, wired = write_body(Call(b"")), write_body(Call(b"", wiring=Wiring((Take(0),))))
    assert (plain[0], wired[0], BODY_VERSION) == (1, 2, 2)
    # What a release that knows only the first makes of the second.
    with pytest.raises(UnknownWireVersion):
        read_body(b"\x03" + wired[1:])
    for corrupt in (b"\x02" + plain[1:], wired[:-1], wired[:-1] + b"\xc0"):
        with pytest.raises(DecodeError):
            read_body(corrupt)


def test_the_default_policy_and_no_headers_take_no_room() -> None:
    assert write_body(Call(b"payload")) == b"\x01" + msgpack.packb([b"payload", 3600.0, None, None])


def test_a_body_over_the_limit_is_refused_with_the_limit() -> None:
    assert len(write_body(Call(b"x" * 1000), limit=None)) > 1000
    with pytest.raises(PayloadTooLarge, match="over the limit of 1,000"):
        write_body(Call(b"x" * 1000), limit=1000)


@pytest.mark.parametrize("version", [BODY_VERSION + 1, 0x1F])
def test_a_newer_version_is_told_from_corruption(version: int) -> None:
    with pytest.raises(UnknownWireVersion, match=f"version {version}"):
        read_body(bytes([version]) + b"whatever it means then")


@given(body=st.binary(max_size=100) | st.binary(max_size=100).map(b"\x01".__add__))
@example(b"")
@example(b"\x00")
@example(b"\x01")
@example(b"\x01" + msgpack.packb([1, None, None, None]))
@example(b"\x01" + msgpack.packb([b"", "soon", None, None]))
@example(b"\x01" + msgpack.packb([b"", None, [1, 2, 3, 4, 5], None]))
@example(b"\x01" + msgpack.packb([b"", None, ["a", None, 1, 1], None]))
@example(b"\x01" + msgpack.packb([b"", None, None, 5]))
@example(b"\x01" + msgpack.packb([b"", None, None]))
@example(b"\x01" + msgpack.packb([b"", None, None, None]) + b"more")
def test_hostile_bytes_are_a_decode_error_or_a_call(body: bytes) -> None:
    try:
        call = read_body(body)
    except DecodeError:
        return
    assert isinstance(call.payload, bytes)
    assert call.timeout is None or isinstance(call.timeout, int | float)
    assert isinstance(call.headers, dict)
    assert isinstance(call.policy.max_attempts, int | float)
