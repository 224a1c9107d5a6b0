"""Half load with faults for ``--minutes``, on each store: nothing grows, nothing is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.pace import BEHIND_SECONDS, LAG_SECONDS, Pace
from tests.chaos.soak import Record, Soak


@pytest.mark.long
@pytest.mark.timeout(0)
def test_nothing_grows(soak_site: str, pytestconfig: pytest.Config, tmp_path: Path) -> None:
    minutes = pytestconfig.getoption("minutes")
    soak = Soak(
        soak_site,
        tmp_path / "soak",
        seconds=60.0 * minutes,
        seed=pytestconfig.getoption("first_seed"),
    )
    record = soak.run()
    print(f"{soak_site}, {minutes} minutes: {record.describe()}")
    print("\n".join(soak.happened))
    assert record.growth() == [], record.describe()


def test_a_figure_that_grows_is_found() -> None:
    record = Record()
    for second in range(100):
        record.add("flat, with spikes", 500.0 if second % 10 == 0 else 50.0)
        record.add("warms up", min(second, 20))
        record.add("leaks", 100.0 + second)
    assert record.growth() == ["leaks grew from 137.0 to 187.0"]


def test_who_stays_behind_gets_half_of_what_is_done_then() -> None:
    pace, done_per_second = Pace(80.0), 12
    unfinished = int(LAG_SECONDS * pace.jobs_per_second)
    for second in range(int(BEHIND_SECONDS) + 1):
        assert pace.jobs_per_second == 40.0
        pace.note(second, finished=done_per_second * second, unfinished=unfinished)
    assert pace.jobs_per_second == 6.0
    assert pace.changes == ["at 60 s the workers could do 12.0 jobs/s"]


def test_who_catches_up_after_a_blow_keeps_the_load() -> None:
    pace = Pace(80.0)
    for second in range(10 * int(BEHIND_SECONDS)):
        in_a_blow = second % 50 < 40
        pace.note(second, finished=second, unfinished=2_000 if in_a_blow else 0)
    assert pace.jobs_per_second == 40.0
