"""One messenger at a time, which takes what came together, and never for long."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from math import inf

import pytest

from taskharbor.maintenance.losses import Loss
from taskharbor.states import Move, Reason
from taskharbor.worker import messenger
from taskharbor.worker.messenger import Messenger
from tests.waiting import PATIENCE_SECONDS, wait_until


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


class Gate:
    """Each messenger waits at it until it is let go."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()

    def wait(self) -> None:
        os.read(self._reader, 1)

    def let_go(self, messengers: int) -> None:
        os.write(self._writer, b"x" * messengers)

    def close(self) -> None:
        os.close(self._reader)
        os.close(self._writer)


@pytest.fixture
def gate() -> Iterator[Gate]:
    one = Gate()
    yield one
    one.close()


def test_losses_that_come_while_one_is_on_its_way_go_with_the_next(gate: Gate) -> None:
    forks = Forks(gate.wait)
    one = Messenger(forks)
    for number in (1, 2, 3):
        one.tell([loss(number)])
    gate.let_go(2)
    wait_until(lambda: one.tick() == inf)
    assert forks.given == [[1], [2, 3]]


def test_handlers_that_hang_are_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messenger, "MESSENGER_SECONDS", 0.1)
    one = Messenger(Forks(signal.pause))
    one.tell([loss(1)])
    wait_until(lambda: one.tick() == inf)


def test_the_end_of_the_worker_waits_only_for_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messenger, "MESSENGER_SECONDS", 600.0)
    monkeypatch.setattr(messenger, "LAST_WORDS_SECONDS", 0.1)
    one = Messenger(Forks(signal.pause))
    one.tell([loss(1)])
    began = time.monotonic()
    one.end()
    assert time.monotonic() - began < PATIENCE_SECONDS


def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch, gate: Gate) -> None:
    monkeypatch.setattr(messenger, "MAX_WAITING", 3)
    forks = Forks(gate.wait)
    one = Messenger(forks)
    one.tell([loss(0)])
    one.tell([loss(number) for number in range(1, 10)])
    gate.let_go(2)
    wait_until(lambda: one.tick() == inf)
    assert forks.given == [[0], [7, 8, 9]]
