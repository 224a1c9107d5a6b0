"""Messages made from a template are those that the long way makes."""

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskharbor.errors import InvalidJob, PayloadTooLarge
from taskharbor.message import Call, Message, Policy, Template, read_body, write_body

PATTERN = Message(id="pattern", task="shop.add", body=b"", queue="mail", priority=3, delay=5.0)


@given(
    payload=st.binary(max_size=70_000),
    timeout=st.none() | st.floats(0, 1e6),
    attempts=st.integers(1, 10_000),
    headers=st.dictionaries(st.text(max_size=5), st.integers(0, 9), max_size=3),
)
def test_a_template_writes_the_body_that_write_body_writes(
    payload: bytes, timeout: float | None, attempts: int, headers: dict[str, int]
) -> None:
    call = Call(payload, timeout, Policy(max_attempts=attempts), headers)
    message = Template(PATTERN, call._replace(payload=b"any"), limit=None).message("j", payload)
    assert message.body == write_body(call, limit=None)
    assert read_body(message.body) == call


def test_a_template_keeps_the_head() -> None:
    message = Template(PATTERN, Call(b""), limit=None).message("j1", b"x", b"digest")
    assert message == PATTERN._replace(id="j1", body=message.body, digest=b"digest")
    assert type(message) is Message


def test_a_template_holds_the_payload_to_its_limit() -> None:
    template = Template(PATTERN, Call(b""), limit=100)
    template.message("j", b"x" * 80)
    with pytest.raises(PayloadTooLarge, match="max_payload_bytes"):
        template.message("j", b"x" * 100)


def test_a_message_pickles_and_copies() -> None:
    for again in (pickle.loads(pickle.dumps(PATTERN)), copy.deepcopy(PATTERN)):
        assert again == PATTERN
        assert type(again) is Message


def test_a_message_is_checked_by_its_constructor() -> None:
    with pytest.raises(InvalidJob, match="queue 'no spaces'"):
        Message(id="j", task="t", body=b"", queue="no spaces")
