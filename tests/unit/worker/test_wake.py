"""Wake-ups shared by processes: one waiter per token, and no pile of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from taskharbor.worker.wake import Wake


@pytest.fixture(params=["eventfd", "pipe"])
def wake(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wake]:
    if request.param == "pipe":
        monkeypatch.delattr(os, "eventfd")
    wake = Wake.create()
    assert (wake.read_fd == wake.write_fd) == (request.param == "eventfd")
    yield wake
    wake.close()


def test_there_is_nothing_to_take_before_anyone_added(wake: Wake) -> None:
    assert not wake.untaken()
    assert not wake.take()


def test_each_wake_up_is_taken_once(wake: Wake) -> None:
    wake.add(3)
    assert [wake.take() for _ in range(4)] == [True, True, True, False]


def test_hints_to_busy_waiters_do_not_pile_up(wake: Wake) -> None:
    for _ in range(1000):
        wake.add()
    assert wake.take()
    assert not wake.take()


def test_another_process_takes_it(wake: Wake) -> None:
    wake.add()
    pid = os.fork()
    if pid == 0:
        os._exit(0 if wake.take() else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert not wake.take()


def test_several_threads_may_ask_and_add_at_the_same_time(wake: Wake) -> None:
    """In maintenance the one that listens does, beside the one that promotes."""

    def ask_and_add() -> None:
        for _ in range(2_000):
            wake.add()
            wake.untaken()

    with ThreadPoolExecutor(4) as pool:
        for asked in [pool.submit(ask_and_add) for _ in range(4)]:
            asked.result(90)
    assert wake.take()
