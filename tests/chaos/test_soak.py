"""Half load with faults for ``--minutes``, on each store: nothing grows, nothing is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

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
