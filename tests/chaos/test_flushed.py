"""FLUSHALL: nothing can bring the jobs back, but nobody may overlook that they are gone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from threading import Event

from tests.chaos.checker import Expect, Promise
from tests.chaos.faults import Fault, Scene
from tests.chaos.ledger import read
from tests.chaos.orders import Order
from tests.chaos.sites import RedisSite
from tests.chaos.storm import Plan, Storm
from tests.chaos.tasks import ENDLESS
from tests.chaos.weather import Blow
from tests.waiting import wait_until


@dataclass(frozen=True, slots=True, kw_only=True)
class Flush(Fault):
    """Once ``running`` jobs have begun; ``done`` is set when nothing is left."""

    running: int
    ledger: Path
    done: Event

    def strike(self, scene: Scene) -> None:
        assert isinstance(scene.site, RedisSite)
        wait_until(lambda: len(read(self.ledger)) >= self.running, what="the jobs to begin")
        scene.site.say("FLUSHALL")
        self.done.set()


def _order(name: str, seconds: float, after: Event | None = None) -> Order:
    promise = Promise(id=name, expect=Expect.SUCCEEDS, max_attempts=ENDLESS)
    return Order(at=0.0, promise=promise, task="work", args=(seconds,), after=after)


def test_what_was_flushed_is_missed_and_what_comes_later_is_done(tmp_path: Path) -> None:
    flushed = Event()
    plan = Plan(
        seconds=1.0,
        orders=[
            *(_order(f"running-{number}", 10.0) for number in range(4)),
            *(_order(f"later-{number}", 0.1, flushed) for number in range(20)),
        ],
        blows=[Blow(at=0.0, fault=Flush(running=4, ledger=tmp_path / "ledger", done=flushed))],
    )
    storm = Storm("redis", plan, tmp_path, standstill_seconds=25.0)
    broken = storm.run()
    lost = [f"running-{number}" for number in range(4)]
    assert sorted(broken) == [
        f"{name} was acknowledged as {name} and is not in the store" for name in lost
    ], storm.report(broken)
    # Whoever ran them said so: they could neither extend the lease nor hand in the outcome.
    refused = [line for line in storm.logs() if "not_found" in line or "lease lost" in line]
    assert all(any(name in line for line in refused) for name in lost)
