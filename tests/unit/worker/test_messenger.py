"""One messenger at a time, which takes what came together, and never for long."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from math import inf

import pytest

from taskharbor.maintenance.losses import Loss
from taskharbor.states import Move, Reason
from taskharbor.worker import messenger
from taskharbor.worker.messenger import Messenger
from tests.waiting import wait_until


def loss(number: int) -> Loss:
    return Loss(
        f"job-{number}", "t", "default", 1, number, Move.RETRY, Reason.WORKER_LOST, 0.0, None
    )


class Forks:
    """Forks messengers that do ``run`` and remembers what each was given."""

    def __init__(self, run: Callable[[], object]) -> None:
        self.run = run
        self.given: list[list[int]] = []

    def __call__(self, losses: list[Loss]) -> int:
        self.given.append([each.fence for each in losses])
        pid = os.fork()
        if pid == 0:
            self.run()
            os._exit(0)
        return pid


def test_losses_that_come_while_one_is_on_its_way_go_with_the_next() -> None:
    forks = Forks(lambda: time.sleep(0.2))
    one = Messenger(forks)
    for number in (1, 2, 3):
        one.tell([loss(number)])
    wait_until(lambda: one.tick() == inf, seconds=5)
    assert forks.given == [[1], [2, 3]]


def test_handlers_that_hang_are_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messenger, "MESSENGER_SECONDS", 0.1)
    one = Messenger(Forks(signal.pause))
    one.tell([loss(1)])
    wait_until(lambda: one.tick() == inf, seconds=5)


def test_the_end_of_the_worker_waits_only_for_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messenger, "LAST_WORDS_SECONDS", 0.1)
    one = Messenger(Forks(signal.pause))
    one.tell([loss(1)])
    began = time.monotonic()
    one.end()
    assert time.monotonic() - began < 2.0


def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messenger, "MAX_WAITING", 3)
    forks = Forks(lambda: time.sleep(0.1))
    one = Messenger(forks)
    one.tell([loss(0)])
    one.tell([loss(number) for number in range(1, 10)])
    wait_until(lambda: one.tick() == inf, seconds=5)
    assert forks.given == [[0], [7, 8, 9]]
