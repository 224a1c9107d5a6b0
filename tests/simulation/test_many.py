"""Many histories on several processes, and compiled."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from random import Random

import pytest

from tests.scenarios.worker import ROOT
from tests.simulation.__main__ import shares
from tests.simulation.network import Network, Weather
from tests.simulation.play import KINDS, LARGE, SMALL
from tests.simulation.scheduler import Scheduler, Steps


def test_the_shares_are_all_histories_once() -> None:
    played = [
        (share.kind, share.jobs, share.first_seed + number)
        for share in shares(13_200, first_seed=500)
        for number in range(share.histories)
    ]
    assert len(set(played)) == len(played) == 13_200
    by_size = Counter((kind, jobs) for kind, jobs, _ in played)
    assert by_size == {(kind, SMALL): 1000 for kind in KINDS} | {(k, LARGE): 100 for k in KINDS}
    assert min(seed for _, _, seed in played) == 500


def test_the_report_says_how_many_and_how_fast() -> None:
    said = _simulate("--histories", "132", "--processes", "2")
    assert said.startswith("132 histories in ")
    assert "per CPU second" in said
    assert "none broke a promise" in said


@pytest.mark.long
@pytest.mark.timeout(900)
def test_compiled_histories_take_the_same_steps() -> None:
    """It says so, and plays none, if they don't."""
    said = _simulate("--histories", "132", "--compiled")
    assert "132 histories in " in said


def _simulate(*arguments: str) -> str:
    command = [sys.executable, "-m", "tests.simulation", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_request_arrives_though_its_sender_was_killed_meanwhile() -> None:
    scheduler = Scheduler(Random(1))
    Network(scheduler, Weather(slowest=1.0))
    heard: list[str] = []

    def send() -> Steps:
        yield lambda: heard.append("request")
        heard.append("reply")

    actor = scheduler.spawn(send())
    scheduler.call_at(scheduler.now + 1e-9, lambda: scheduler.kill(actor))
    scheduler.run(scheduler.now + 10.0)
    assert heard == ["request"]


def test_who_looks_is_passed_over_until_something_happens_and_then_looks() -> None:
    scheduler = Scheduler(Random(1))
    looks: list[float] = []

    def look() -> Steps:
        while True:
            actor.quiet = actor.looking = True
            yield scheduler.now + 1.0
            looks.append(scheduler.now - 1000.0)

    actor = scheduler.spawn(look())
    scheduler.call_at(1100.0, lambda: None)
    scheduler.run(1103.0)
    assert min(looks) > 95.0
    assert any(100.0 <= at <= 103.0 for at in looks)
    assert len(looks) <= 6
