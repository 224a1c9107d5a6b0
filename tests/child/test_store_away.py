"""A real child whose store does not answer: for one reply, or for a while."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any, cast

import pytest

from taskharbor.clock import Clock
from taskharbor.drivers import registry
from taskharbor.drivers.base import Exchange, InspectableDriver, Want
from taskharbor.errors import StoreUnavailable
from taskharbor.settlement import Settlement
from taskharbor.states import State
from taskharbor.worker.config import ExitCode
from tests.child.harness import Yard
from tests.waiting import best_of, wait_until


class BadWay:
    """Everything but ``exchange`` goes straight through. Subclasses say what goes wrong."""

    def __init__(self, driver: InspectableDriver) -> None:
        self._driver = driver

    def __getattr__(self, name: str) -> Any:
        return getattr(self._driver, name)


class LosesReplies(BadWay):
    """A third of the exchanges are applied and not answered, a third do not arrive."""

    def __init__(self, driver: InspectableDriver) -> None:
        super().__init__(driver)
        self._rng = Random(5)

    def exchange(
        self, holder: str, settlements: Sequence[Settlement], want: Want | None = None
    ) -> Exchange:
        fate = self._rng.random()
        if fate < 1 / 3:
            raise StoreUnavailable("the request was lost")
        reply = self._driver.exchange(holder, settlements, want)
        if fate < 2 / 3:
            raise StoreUnavailable("the reply was lost")
        return reply


class Down(BadWay):
    """Nothing gets through while the file ``down`` is there; each try adds a line to ``tries``."""

    def __init__(self, driver: InspectableDriver, directory: Path) -> None:
        super().__init__(driver)
        self._directory = directory

    def __getattr__(self, name: str) -> Any:
        method = super().__getattr__(name)

        def call(*args: Any) -> Any:
            if (self._directory / "down").exists():
                with (self._directory / "tries").open("a") as tries:
                    tries.write(f"{time.monotonic()} {name}\n")
                raise StoreUnavailable("connection refused")
            return method(*args)

        return call


def through(way: Callable[..., BadWay], *args: Any) -> Callable[[InspectableDriver], Any]:
    return lambda driver: cast(Any, way(driver, *args))


def tries(yard: Yard) -> int:
    path = yard.directory / "tries"
    return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.mark.parametrize("pool", ["process", "thread", "async"])
def test_nothing_waits_for_the_lease_when_replies_are_lost(yard: Yard, pool: str) -> None:
    ledger = yard.ledger

    @yard.app.task
    def note(number: int) -> None:
        ledger.write(str(number))

    results = yard.app.enqueue_many([note.s(number) for number in range(300)])
    child = yard.child(through(LosesReplies), pool=pool, lease_seconds=60.0)
    yard.wait_for_count(State.SUCCEEDED, 300)
    assert child.stop() == ExitCode.OK
    assert sorted(map(int, ledger.lines())) == list(range(300)), "each ran once"
    assert {yard.job(result.id).attempts for result in results} == {1}


def test_a_child_outlives_an_outage_without_spinning_and_goes_on_soon_after(yard: Yard) -> None:
    ledger = yard.ledger

    @yard.app.task
    def last_long() -> None:
        ledger.write("in")
        time.sleep(1.0)
        ledger.write("out")

    @yard.app.task
    def noop() -> None: ...

    long = last_long.delay()
    # So long that whoever waits for it fails the test.
    child = yard.child(through(Down, yard.directory), lease_seconds=600.0)
    ledger.wait_for("in")
    after = noop.delay()
    (yard.directory / "down").touch()
    ledger.wait_for("out")
    wait_until(lambda: tries(yard) >= 6, what="some tries")
    before = tries(yard)
    began = time.monotonic()
    wait_until(lambda: time.monotonic() - began > 3.0, what="three more seconds")
    most = 2 * (time.monotonic() - began) / 0.5 + 2
    assert tries(yard) - before <= most, "two threads, each at most twice a second"
    (yard.directory / "down").unlink()
    yard.wait_for_state(long.id, State.SUCCEEDED)
    yard.wait_for_state(after.id, State.SUCCEEDED)
    assert yard.job(long.id).attempts == 1
    assert child.stop() == ExitCode.OK
    assert child.log.count("trying on") <= 2, "one line for each thread, not for each try"


def forbid_connecting(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the file ``down`` is there."""
    real = registry.connect

    def connect(url: str, *, clock: Clock | None = None) -> InspectableDriver:
        if (yard.directory / "down").exists():
            with (yard.directory / "tries").open("a") as file:
                file.write("connect\n")
            raise StoreUnavailable("connection refused")
        return real(url, clock=clock)

    monkeypatch.setattr(registry, "connect", connect)
    (yard.directory / "down").touch()


def test_a_child_that_starts_before_its_store_waits_for_it(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    @yard.app.task
    def noop() -> None: ...

    result = noop.delay()
    forbid_connecting(yard, monkeypatch)
    child = yard.child()
    wait_until(lambda: tries(yard) >= 3, what="some tries")
    (yard.directory / "down").unlink()
    yard.wait_for_state(result.id, State.SUCCEEDED)
    assert child.stop() == ExitCode.OK


def test_a_child_that_waits_for_its_store_can_be_stopped(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid_connecting(yard, monkeypatch)
    child = yard.child()
    wait_until(lambda: tries(yard) >= 2, what="some tries")
    assert child.stop() == ExitCode.OK


def test_a_child_told_to_stop_while_its_store_is_away_leaves_soon(yard: Yard) -> None:
    (yard.directory / "down").touch()

    def stop() -> float:
        """How long it took."""
        child, before = yard.child(through(Down, yard.directory)), tries(yard)
        wait_until(lambda: tries(yard) >= before + 2, what="some tries")
        began = time.monotonic()
        assert child.stop() == ExitCode.OK
        return time.monotonic() - began

    assert best_of(stop, below=2.5, tries=5) < 2.5
