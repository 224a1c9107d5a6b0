"""Seeded histories of children, maintenance and failures.

A broken promise says how to play its history again: the same seed takes the same steps. Most
histories are small: few jobs, all failures that fit in; what breaks a promise at all most often
breaks it with three jobs, and is five times as soon over. To look for rarer faults than a short run
finds: ``pytest tests/simulation -n 2 --histories 20000``.
"""

from __future__ import annotations

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
    "flows": Chaos(weather=Weather(lost_reply=0.05), chords=4, kills=2, terminations=1),
    "everything": Chaos(
        weather=Weather(lost_request=0.03, lost_reply=0.05, late_request=0.03),
        kills=2,
        host_losses=1,
        suspensions=2,
        starvations=1,
        outages=1,
        terminations=2,
        cancels=2,
        chords=1,
    ),
}
NOTHING_EXPIRES = {"calm", "lost_replies", "late_requests", "terminations", "kills", "cancels"}
"""Where every child runs or is known to be dead, nothing may wait for a lease to run out."""
LARGE, SMALL = 30, 3
"""Jobs in a history."""
HISTORIES = 1000
"""Small ones of each kind, where nobody says how many."""
SMALL_FOR_EACH_LARGE = 10


def play(kind: str, seed: int, *, jobs: int = LARGE) -> None:
    chaos = KINDS[kind]
    history = History(seed, chaos, jobs=jobs, slots=3 if seed % 3 == 2 else 1)
    try:
        history.run()
        if kind in NOTHING_EXPIRES and history.checker.reaped:
            raise Broken(f"{history.checker.reaped} leases ran out")
    except Broken as broken:
        size = "small" if jobs == SMALL else "large"
        again = (
            f"pytest tests/simulation --first-seed {seed} --histories 1 -k 'history and "
            f"{size} and {kind}'"
        )
        raise Broken(f"{broken}; to replay: {again}") from broken


def play_many(kind: str, seeds: Iterable[int], *, jobs: int = LARGE) -> None:
    for seed in seeds:
        play(kind, seed, jobs=jobs)


@pytest.mark.timeout(86_400)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("jobs", [LARGE, SMALL], ids=["large", "small"])
def test_no_history_breaks_a_promise(kind: str, jobs: int, pytestconfig: pytest.Config) -> None:
    first = pytestconfig.getoption("first_seed")
    count = pytestconfig.getoption("histories") or HISTORIES
    if jobs == LARGE:
        count = max(1, count // SMALL_FOR_EACH_LARGE)
    play_many(kind, range(first, first + count), jobs=jobs)


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
