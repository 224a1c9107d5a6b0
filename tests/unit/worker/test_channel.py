"""Messages between processes: whole, in order, never blocking."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from taskharbor.worker.channel import Channel, await_start, channel_pair


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    ours, theirs = channel_pair()
    other = Channel(theirs)
    yield ours, other
    ours.close()
    other.close()


def test_messages_arrive_whole_and_in_order(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    for number in range(100):
        ours.send("count", number=number, text="zwölf\n" * number)
    frames = theirs.receive()
    assert [frame["number"] for frame in frames] == list(range(100))
    assert frames[99]["text"] == "zwölf\n" * 99
    assert theirs.receive() == []


def test_what_the_peer_does_not_read_is_kept_and_flushed_later(
    ends: tuple[Channel, Channel],
) -> None:
    ours, theirs = ends
    for _ in range(100):
        ours.send("big", text="x" * 20_000)
    assert ours.pending
    received = 0
    while received < 100:
        ours.flush()
        received += len(theirs.receive())
    assert not ours.pending


def test_a_message_in_pieces_is_one_message(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    ours._socket.send(b'{"kind": "a')
    assert theirs.receive() == []
    ours._socket.send(b'b"}\n{"kin')
    assert theirs.receive() == [{"kind": "ab"}]


def test_the_end_of_the_peer_closes_but_its_last_words_arrive(
    ends: tuple[Channel, Channel],
) -> None:
    ours, theirs = ends
    ours.send("last")
    ours.close()
    assert theirs.receive() == [{"kind": "last"}]
    assert theirs.closed
    theirs.send("too late")
    assert not theirs.pending


def test_what_came_with_the_first_message_is_not_lost(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    ours.send("start", sys_path=sys.path, rows=3)
    ours.send("lost", number=1)
    start = await_start(theirs)
    assert start is not None
    assert start["rows"] == 3
    assert theirs.receive() == [{"kind": "lost", "number": 1}]


def test_a_starter_that_is_gone_starts_nothing(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    ours.close()
    assert await_start(theirs) is None


def test_the_import_path_is_that_of_the_starter(
    ends: tuple[Channel, Channel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", ["/here"])
    ours, theirs = ends
    ours.send("start", sys_path=["/there", "/here"])
    await_start(theirs)
    assert sys.path == ["/here", "/there"]
