"""A laboratory that can't fail proves nothing: without each guard, its storm must break a promise.

With all guards in place the same plan breaks none (``--long``).
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.checker import Expect, Promise
from tests.chaos.faults import KillProcess, Scene, StopHost
from tests.chaos.ledger import read
from tests.chaos.orders import RACERS, Order
from tests.chaos.sabotage import SABOTAGES
from tests.chaos.sites import Undo
from tests.chaos.storm import Plan, Storm
from tests.chaos.tasks import ENDLESS
from tests.chaos.weather import Blow
from tests.scenarios.worker import ROOT
from tests.waiting import wait_until


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """``verdict``: words of the violation that the missing guard must lead to."""

    guard: str
    site: str
    plan: Callable[[], Plan]
    verdict: str
    lease_seconds: float = 2.0
    nothing_may_expire: bool = False


def _order(number: int, task: str, *args: Any, at: float = 0.0, **options: Any) -> Order:
    key = options.get("idempotency_key")
    promise = Promise(id=f"{task}-{number}", expect=Expect.SUCCEEDS, max_attempts=ENDLESS, key=key)
    return Order(at=at, promise=promise, task=task, args=args, options=options)


@dataclass(frozen=True, slots=True, kw_only=True)
class StopBusyHost(StopHost):
    """Once ``running`` jobs have begun, on whichever host."""

    running: int

    def strike(self, scene: Scene) -> Undo:
        begun = scene.posts[self.post].ledger
        wait_until(lambda: len(read(begun)) >= self.running, what="the jobs to begin")
        return StopHost.strike(self, scene)


def zombies() -> Plan:
    """A host is stopped while its jobs run, the other one has them run again, and before those end
    the first one wakes up in the middle of its own attempts."""
    return Plan(
        seconds=1.0,
        orders=[_order(number, "work", 7.0) for number in range(4)],
        blows=[Blow(at=0.0, fault=StopBusyHost(post=0, running=4, seconds=8.2))],
    )


def racers() -> Plan:
    return Plan(
        seconds=1.0,
        orders=[
            _order(RACERS * key + racer, "quick", at=0.05 * key, idempotency_key=f"key-{key}")
            for key in range(10)
            for racer in range(RACERS)
        ],
        blows=[],
    )


def killed_children() -> Plan:
    """With a lease that outlasts the test: nobody else will give the jobs back."""
    kills = [KillProcess(post=post, role="child") for post in (0, 1, 0, 1)]
    return Plan(
        seconds=4.0,
        orders=[_order(number, "work", 1.0) for number in range(16)],
        blows=[Blow(at=1.0 + 0.5 * n, fault=kill) for n, kill in enumerate(kills)],
    )


def held_gil() -> Plan:
    return Plan(seconds=1.0, orders=[_order(0, "hold_gil", 12.0)], blows=[])


def chord() -> Plan:
    members = tuple(_order(number, "work", 0.3) for number in range(4))
    finalizer = replace(_order(9, "quick"), members=members)
    return Plan(seconds=1.0, orders=[], chords=(finalizer,), blows=[])


TRIALS = [
    Trial(guard="fence-memory", site="memory", plan=zombies, verdict="the result of fence"),
    Trial(guard="fence-redis", site="redis", plan=zombies, verdict="the result of fence"),
    Trial(guard="unique-key", site="memory", plan=racers, verdict="has 4 jobs"),
    Trial(guard="edges", site="memory", plan=chord, verdict="never ended: it is blocked"),
    Trial(
        guard="lost-child",
        site="sqlite",
        plan=killed_children,
        verdict="never ended: it is running",
        lease_seconds=600.0,
    ),
    Trial(
        guard="external-renewal",
        site="sqlite",
        plan=held_gil,
        verdict="ran out",
        lease_seconds=6.0,
        nothing_may_expire=True,
    ),
]


def _storm(trial: Trial, directory: Path, **settings: Any) -> Storm:
    return Storm(
        trial.site,
        trial.plan(),
        directory,
        lease_seconds=trial.lease_seconds,
        nothing_may_expire=trial.nothing_may_expire,
        **settings,
    )


@pytest.mark.parametrize("guard", SABOTAGES)
def test_the_guard_is_still_where_it_is_switched_off(guard: str) -> None:
    """In the storm's processes nobody would hear of it: the trial would go on with the guard."""
    commit = f"from tests.chaos.sabotage import commit; commit({guard!r})"
    done = subprocess.run(
        [sys.executable, "-c", commit], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.timeout(600)
@pytest.mark.parametrize("trial", TRIALS, ids=lambda trial: trial.guard)
def test_only_without_the_guard_a_promise_breaks(
    trial: Trial, tmp_path: Path, long_form: bool
) -> None:
    storm = _storm(trial, tmp_path / "without", sabotage=trial.guard, standstill_seconds=15.0)
    broken = storm.run()
    assert any(trial.verdict in breach for breach in broken), storm.report(broken)
    if long_form:  # in the short form, the storms of the seeds show that good ones pass
        storm = _storm(trial, tmp_path / "with")
        assert storm.run() == [], storm.report([])
