"""Postgres at full rate for ``--minutes``, a third of them under a held snapshot: tables stay as
small as they were, and calls as quick."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.full_rate import AFTER, CALM, HELD, Figures, FullRate


@pytest.mark.long
@pytest.mark.timeout(0)
def test_nothing_grows_at_full_rate(pytestconfig: pytest.Config, tmp_path: Path) -> None:
    minutes = pytestconfig.getoption("minutes")
    figures = FullRate(tmp_path, seconds=60.0 * minutes).run()
    print(f"{minutes} minutes: {figures.describe()}")
    assert figures.record.growth() == [], figures.describe()
    assert figures.too_slow(HELD) == []
    assert figures.too_slow(AFTER) == []


def test_calls_that_become_ever_slower_are_found() -> None:
    figures = Figures()
    for turn in range(100):
        for call, seconds in (("claim", 0.002), ("expired", 0.001 * turn)):
            figures.add(CALM, call, 0.002)
            figures.add(HELD, call, seconds if call == "claim" else 0.1 + seconds)
    assert figures.too_slow(HELD) == ["expired: 0.1495 s, 0.0020 s before"]
