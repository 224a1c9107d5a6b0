"""FLUSHALL: nothing can bring the jobs back, but nobody may overlook that they are gone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.checker import Expect, Promise
from tests.chaos.faults import TellRedis
from tests.chaos.orders import Order
from tests.chaos.storm import Plan, Storm
from tests.chaos.tasks import ENDLESS
from tests.chaos.weather import Blow


def _order(name: str, seconds: float, at: float) -> Order:
    promise = Promise(id=name, expect=Expect.SUCCEEDS, max_attempts=ENDLESS)
    return Order(at=at, promise=promise, task="work", args=(seconds,))


@pytest.mark.timeout(300)
def test_what_was_flushed_is_missed_and_what_comes_later_is_done(tmp_path: Path) -> None:
    plan = Plan(
        seconds=4.0,
        orders=[
            *(_order(f"running-{number}", 4.0, 0.0) for number in range(4)),
            *(_order(f"later-{number}", 0.1, 3.0) for number in range(20)),
        ],
        blows=[Blow(at=2.0, fault=TellRedis(command=("FLUSHALL",)))],
    )
    storm = Storm("redis", plan, tmp_path / "storm", standstill_seconds=15.0)
    broken = storm.run()
    lost = [f"running-{number}" for number in range(4)]
    assert sorted(broken) == [
        f"{name} was acknowledged as {name} and is not in the store" for name in lost
    ], storm.report(broken)
    # Whoever ran them said so: they could neither extend the lease nor hand in the outcome.
    refused = [line for line in storm.logs() if "not_found" in line or "lease lost" in line]
    assert all(any(name in line for line in refused) for name in lost)
