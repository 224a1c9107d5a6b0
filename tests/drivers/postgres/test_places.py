"""Looks at what is due, where a look from the beginning takes longer than there is time for."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import pytest

from taskharbor.clock import ManualClock
from taskharbor.drivers.postgres import places
from taskharbor.drivers.postgres.places import Place, Turns
from taskharbor.drivers.postgres.store import Store
from taskharbor.errors import StoreUnavailable


class Slow:
    """A store, and its connection, that needs ``seconds`` for a look from the beginning."""

    now = None
    parsed: ClassVar = {"prune": "a statement"}

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.patience = 0.0
        self.asked: list[float | None] = []

    def call(self, step: Callable[[Slow], list[Any]], *, patience: float | None) -> list[Any]:
        self.patience = 10.0 if patience is None else patience
        return step(self)

    def run(self, statement: str, arguments: dict[str, Any]) -> list[Any]:
        start = arguments["from"]
        self.asked.append(start)
        if start == -inf and self.seconds > self.patience:
            raise StoreUnavailable(f"{statement}: no answer")
        return [(arguments["limit"], 7.0 * len(self.asked))]


def place(store: Slow) -> Place:
    return Place(cast(Store, store), "prune", anew_seconds=0.0)


def test_a_look_from_the_beginning_that_takes_long_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(places, "SHARE", inf)  # the next one at once
    store = Slow(5.0)
    looks = place(store)
    assert looks.look(3) == (3,)
    assert looks.look(3) == (3,)
    assert looks.look(3) == (3,)
    assert store.asked == [-inf, -inf, 7.0, -inf, 21.0]


def test_looks_from_the_beginning_take_a_share_of_the_time() -> None:
    store = Slow(0.0)
    looks = Place(cast(Store, store), "prune", anew_seconds=60.0)
    for _ in range(3):
        looks.look(3)
    assert store.asked == [-inf, 7.0, 14.0]


def test_a_process_that_can_not_look_from_the_beginning_goes_on_without() -> None:
    store = Slow(20.0)
    looks = Place(cast(Store, store), "prune", anew_seconds=60.0)
    with pytest.raises(StoreUnavailable):
        looks.look(3)
    assert looks.look(3) == (3,)
    assert looks.look(3) == (3,)
    assert store.asked == [-inf, None, 14.0]


@pytest.mark.parametrize(("seconds", "pause"), [(0.0, 0.2), (60.0, 60.0)])
def test_what_takes_long_is_done_the_less_often(
    monkeypatch: pytest.MonkeyPatch, seconds: float, pause: float
) -> None:
    clock = ManualClock(100.0)
    monkeypatch.setattr(places, "time", SimpleNamespace(monotonic=clock.now))
    turns = Turns(seconds)
    assert turns.is_due()
    with turns.take():
        clock.advance(0.01)
    assert turns.next_at >= 100.01 + pause
    assert not turns.is_due()
