"""Seeded histories of children, maintenance and failures.

A broken promise says how to play its history again: the same seed takes the same steps. To look for
rarer faults than a short run finds: ``HISTORIES=20000 pytest tests/simulation``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import pytest

from taskharbor.lease import Reservation
from tests.simulation.history import Chaos, History
from tests.simulation.jobs import Broken
from tests.simulation.network import Weather

KINDS: dict[str, Chaos] = {
    "calm": Chaos(),
    "lost_replies": Chaos(weather=Weather(lost_request=0.05, lost_reply=0.1)),
    "late_requests": Chaos(weather=Weather(lost_reply=0.05, late_request=0.1)),
    "kills": Chaos(kills=3),
    "host_losses": Chaos(host_losses=2, kills=1),
    "suspensions": Chaos(suspensions=3),
    "starved_heartbeats": Chaos(starvations=3),
    "outages": Chaos(weather=Weather(lost_reply=0.1), outages=3),
    "terminations": Chaos(terminations=4),
    "cancels": Chaos(cancels=5, kills=1),
    "everything": Chaos(
        weather=Weather(lost_request=0.03, lost_reply=0.05, late_request=0.03),
        kills=2,
        host_losses=1,
        suspensions=2,
        starvations=1,
        outages=1,
        terminations=2,
        cancels=2,
    ),
}
NOTHING_EXPIRES = {"calm", "lost_replies", "late_requests", "terminations", "kills", "cancels"}
"""Where every child runs or is known to be dead, nothing may wait for a lease to run out."""
HISTORIES = int(os.environ.get("HISTORIES", "200"))
"""Per kind."""
FIRST_SEED = int(os.environ.get("FIRST_SEED", "0"))


def play(kind: str, seed: int) -> None:
    history = History(seed, KINDS[kind], slots=3 if seed % 3 == 2 else 1)
    try:
        history.run()
        if kind in NOTHING_EXPIRES and history.checker.reaped:
            raise Broken(f"{history.checker.reaped} leases ran out")
    except Broken as broken:
        again = f"FIRST_SEED={seed} HISTORIES=1 pytest tests/simulation -k {kind}"
        raise Broken(f"{broken}; to replay: {again}") from broken


def play_many(kind: str, seeds: Iterable[int]) -> None:
    for seed in seeds:
        play(kind, seed)


@pytest.mark.parametrize("kind", KINDS)
def test_no_history_breaks_a_promise(kind: str) -> None:
    play_many(kind, range(FIRST_SEED, FIRST_SEED + HISTORIES))


def test_a_seed_takes_the_same_steps_again() -> None:
    def steps() -> list[tuple[str, float]]:
        history = History(7, KINDS["everything"])
        taken = []
        real = history.checker.started

        def started(job: Reservation, now: float) -> None:
            taken.append((job.id, now))
            real(job, now)

        history.checker.started = started  # type: ignore[method-assign]
        history.run()
        return taken

    assert steps() == steps()
