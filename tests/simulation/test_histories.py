"""Seeded histories of children, maintenance and failures: the short run.

``nox -s simulate`` plays many more, on all cores.
"""

from __future__ import annotations

import pytest

from taskharbor.lease import Reservation
from tests.simulation.history import History
from tests.simulation.play import KINDS, LARGE, SMALL, SMALL_FOR_EACH_LARGE, play_many

HISTORIES = 1000
"""Small ones of each kind, where nobody says how many."""


@pytest.mark.timeout(86_400)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("jobs", [LARGE, SMALL], ids=["large", "small"])
def test_no_history_breaks_a_promise(kind: str, jobs: int, pytestconfig: pytest.Config) -> None:
    first = pytestconfig.getoption("first_seed")
    count = pytestconfig.getoption("histories") or HISTORIES
    if jobs == LARGE:
        count = max(1, count // SMALL_FOR_EACH_LARGE)
    play_many(kind, first, count, jobs=jobs)


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
